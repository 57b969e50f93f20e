// One trial: what it is, its network, its curve, the commands that go on from it.
let measure = null;

function showTrial(number) {
  const detail = data.details[number];
  const where = data.front.includes(number) ? (number === data.knee ? "on the front, its knee" : "on the front") : "not on the front";
  byId("trial-title").textContent = `Trial ${number}`;
  byId("trial-where").textContent = where;
  byId("trial-facts").replaceChildren(...pairs(detail.facts));
  byId("trial-knobs").replaceChildren(...pairs(detail.knobs));
  byId("trial-knobs-of").hidden = !detail.knobs.length;
  byId("trial-notes").replaceChildren(...detail.notes.map((note) => html("p", {}, note)));
  if (!byId("trial")) return; // a page of a front alone
  byId("trial-heading").textContent = `Trial ${number}: training and network`;
  byId("trial-commands").replaceChildren(...(detail.commands ?? []).map(command));
  showCurve(detail.curve);
  showNetwork(detail);
}

const pairs = (rows) => rows.map(([name, value]) => html("div", {}, html("dt", {}, name), html("dd", {}, value)));

function command([what, text]) {
  const code = html("code", { tabindex: 0 }, text);
  const copy = html("button", { type: "button", class: "small", onclick: async () => {
    getSelection().selectAllChildren(code);
    try {
      await navigator.clipboard.writeText(text);
      copy.textContent = "copied";
    } catch { // not allowed here: it is selected, to be copied by hand
      copy.textContent = "selected";
    }
    setTimeout(() => (copy.textContent = "copy"), 1500);
  } }, "copy");
  return html("div", { class: "command" }, html("span", {}, what), html("pre", {}, code), copy);
}

function showCurve(curve) {
  const holder = byId("trial-curve");
  holder.hidden = !curve;
  byId("trial-no-curve").hidden = Boolean(curve);
  if (!curve) return;
  const [errors, losses] = [byId("curve-error"), byId("curve-loss")];
  const series = (names, factor) => names.filter(([name]) => curve[name])
    .map(([name, said, kind]) => ({ name: said, kind, values: curve[name].map((value) => factor * value) }));
  const both = [[errors, "_error", 100, "error (%)"], [losses, "_loss", 1, "loss (nats)"]];
  for (const [holder, suffix, factor, unit] of both) {
    const found = series([[`train${suffix}`, "training", "train"], [`val${suffix}`, "validation", "val"]], factor);
    if (found.length) curves(holder, `${unit} by epoch`, found, unit);
    holder.hidden = !found.length;
  }
}

function showNetwork(detail) {
  const layout = data.layouts[detail.layout];
  byId("trial-network").hidden = !layout;
  byId("trial-no-network").hidden = Boolean(layout);
  byId("trial-no-network").textContent = detail.left_out
    ? "No network to draw: it was left out, as the page would have got too heavy."
    : "No network to draw: the trial did not get so far.";
  if (!layout) return;
  const current = measure ?? telling(detail.edges);
  const most = drawGraph(byId("graph"), detail, layout, current);
  byId("measures").replaceChildren(...MEASURES.map((one) => html("button", { type: "button", "aria-pressed": one === current, onclick: () => {
    measure = one;
    showNetwork(detail);
    byId("measures").querySelector("[aria-pressed=true]").focus();
  } }, one.name)));
  byId("graph-key").replaceChildren(...graphKey(layout, current, most));
  byId("by-edge").replaceChildren(edgeTable(detail, layout));
  byId("by-node").replaceChildren(nodeTable(detail, layout));
}

// What shades and shapes mean.
function graphKey(layout, current, most) {
  const items = [];
  if (most > 0) {
    const swatches = svg("svg", { width: 22 * SHADES, height: 12, "aria-hidden": "true" });
    for (let i = 1; i <= SHADES; i++)
      swatches.append(svg("path", { class: `edge shade-${i}`, d: `M${22 * (i - 1)} 6h22`, "stroke-width": 1 + (4 * i) / SHADES }));
    items.push(html("li", {}, `${current.name} of a connection: 0`, swatches, current.words(most)));
  }
  if (layout.edges.length && most === 0) items.push(html("li", {}, `no connection has ${current.name} of its own`));
  const used = [...new Set(layout.nodes.map((node) => node[1]))];
  const shapes = { stem: "M-5-5H5V5H-5Z", head: "M-5-5H5V5H-5Z", transition: "M0-6L6 0L0 6L-6 0Z" };
  for (const kind of used)
    items.push(html("li", {}, svg("svg", { viewBox: "-7 -7 14 14", width: 14, height: 14, "aria-hidden": "true" },
      svg("path", { class: `node ${kind}`, d: shapes[kind] ?? "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0 -10 0" })), kind));
  items.push(html("li", {}, "areas of nodes are their MACs"));
  return items;
}
