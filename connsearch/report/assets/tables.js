// Tables that sort themselves by a column: numbers by value, words by letters.
function sortable(table) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = html("button", { type: "button", onclick: () => sort(table, heads, column) }, ...head.childNodes);
    head.replaceChildren(button);
  });
  return table;
}

function sort(table, heads, column) {
  const down = heads[column].getAttribute("aria-sort") === "ascending";
  const value = (row) => {
    const cell = row.cells[column];
    const text = cell.dataset.value ?? cell.textContent.trim();
    return text === "" ? null : Number.isNaN(Number(text)) ? text : Number(text);
  };
  const compare = (a, b) => {
    if (a === null || b === null) return (a === null) - (b === null); // what is missing comes last
    const order = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en");
    return down ? -order : order;
  };
  const body = table.tBodies[0];
  body.append(...[...body.rows].sort((a, b) => compare(value(a), value(b))));
  heads.forEach((head) => head.removeAttribute("aria-sort"));
  heads[column].setAttribute("aria-sort", down ? "descending" : "ascending");
}

// Columns are [name, to the left, cell of a row, value to sort by].
function tableOf(rows, columns, { caption, kind, by }) {
  const found = html("table", {}, html("caption", {}, caption),
    html("thead", {}, html("tr", {}, ...columns.map(([name, left]) => html("th", { scope: "col", class: left && "left" }, name)))),
    html("tbody", {}, ...rows.map((row) => linked(html("tr", { [`data-${kind}`]: row.index },
      ...columns.map(([, left, text, value]) => html("td", { class: left && "left", "data-value": value?.(row) }, text(row)))), kind, row.index))));
  sortable(found);
  const heads = [...found.tHead.rows[0].cells];
  if (columns.length > by) { heads[by].setAttribute("aria-sort", "ascending"); sort(found, heads, by); }
  return found;
}

const share = (part) => percent(part, part > 0 && part < 0.01 ? 2 : 1);
const SHORT = { chain: "previous", skip: "earlier", resolution: "resolution", output: "output" };

function edgeTable(detail, layout) {
  const all = detail.nodes.reduce((sum, node) => sum + node[0], 0);
  const rows = layout.edges.map(([source, target, kind], index) => ({ index, kind: SHORT[kind],
    source: layout.nodes[source][0], target: layout.nodes[target][0], cost: detail.edges[index] }));
  return tableOf(rows, [
    ["from", true, (row) => row.source],
    ["to", true, (row) => row.target],
    ["kind", true, (row) => row.kind],
    ["MACs", false, (row) => si(row.cost[0]), (row) => row.cost[0]],
    ["of all", false, (row) => share(row.cost[0] / (all || 1)), (row) => row.cost[0]],
    ["parameters", false, (row) => si(row.cost[1]), (row) => row.cost[1]],
    ["bytes read", false, (row) => bytes(row.cost[2]), (row) => row.cost[2]],
  ], { caption: `Cost by connection (${rows.length})`, kind: "edge", by: detail.edges.some((edge) => edge[0]) ? 3 : 6 });
}

function nodeTable(detail, layout) {
  const all = detail.nodes.reduce((sum, node) => sum + node[0], 0);
  const rows = layout.nodes.map(([name, kind], index) => ({ index, name, kind, cost: detail.nodes[index] }));
  return tableOf(rows, [
    ["node", true, (row) => row.name],
    ["kind", true, (row) => row.kind],
    ["gives out", false, (row) => row.cost[2]],
    ["MACs", false, (row) => si(row.cost[0]), (row) => row.cost[0]],
    ["of all", false, (row) => share(row.cost[0] / (all || 1)), (row) => row.cost[0]],
    ["parameters", false, (row) => si(row.cost[1]), (row) => row.cost[1]],
  ], { caption: `Cost by node (${rows.length})`, kind: "node", by: 3 });
}
