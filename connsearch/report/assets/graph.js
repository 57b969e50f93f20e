// A network: nodes in order, edges as arcs, as thick and as dark as they cost.
const MEASURES = [
  { name: "MACs", of: (edge) => edge[0], words: macs },
  { name: "parameters", of: (edge) => edge[1], words: (value) => si(value) },
  { name: "bytes read", of: (edge) => edge[2], words: bytes },
];
const KINDS = { chain: "previous layer", skip: "earlier layer", resolution: "change of resolution", output: "read by the head" };
const SHADES = 5;

// The first measure that says something of this network.
const telling = (edges) => MEASURES.find((one) => edges.some((edge) => one.of(edge) > 0)) ?? MEASURES[2];

function drawGraph(holder, detail, layout, measure) {
  const lines = layout.lines.length || layout.nodes.some((node) => node[3] !== 0);
  const units = layout.right - layout.left;
  const width = Math.max(holder.clientWidth || 640, units * 13 + 40);
  const margin = layout.lines.length ? 16 + Math.max(...layout.lines.map((one) => words(one[1]))) : 0;
  const step = Math.min((width - margin) / units, 120);
  const x = (value) => margin + (value - layout.left) * step;
  const { y, height } = lines ? rows(layout) : heights(layout, width, step);
  const root = svg("svg", { viewBox: `0 0 ${round(width)} ${round(height)}`, width: round(width), height: round(height), class: "graph", role: "img",
    "aria-label": `${layout.nodes.length} nodes, ${layout.edges.length} connections; their costs are in the tables below` });
  for (const [left, right, at, text] of layout.grounds) root.append(...ground(layout, lines, x, y, height, left, right, at, text));
  for (const [at, text] of layout.lines)
    root.append(svg("text", { class: "size", x: 4, y: round(y(at)) + 4 }, text));
  const most = Math.max(...detail.edges.map(measure.of), 0);
  const thickest = Math.min(5, Math.max(1.8, 40 / Math.sqrt(layout.edges.length)));
  const order = layout.edges.map((_, i) => i).sort((a, b) => measure.of(detail.edges[a]) - measure.of(detail.edges[b]));
  for (const i of order) root.append(edge(layout, detail, i, x, y, measure, most, thickest));
  const heaviest = Math.max(...detail.nodes.map((node) => node[0]), 1);
  layout.nodes.forEach((_, i) => root.append(node(layout, detail, i, x, y, step, heaviest)));
  root.append(...names(layout, x, y, step));
  holder.replaceChildren(root);
  return most;
}

// Heights of arcs in pixels over and under a line.
function heights(layout, width, step) {
  const tops = layout.edges.map((edge) => edge[3]);
  const [above, below] = [Math.max(0.5, ...tops), Math.max(0, ...tops.map((top) => -top))];
  const stretch = Math.min(Math.max(0.3 * width, 110), 270, 1.6 * step * (above + below)) / (above + below);
  const base = 30 + above * stretch;
  return { y: (value) => base - value * stretch, height: base + Math.max(below * stretch + 12, 34) };
}

// Lines of scales or paths.
function rows(layout) {
  const gap = layout.lines.length ? 76 : 54;
  const least = Math.min(...layout.nodes.map((node) => node[3]));
  const top = layout.lines.length ? 62 : 58;
  return { y: (value) => top - value * gap, height: top - least * gap + 36 };
}

function ground(layout, lines, x, y, height, left, right, at, text) {
  const boxed = lines && layout.lines.length;
  const [from, to] = [x(left), x(right)];
  const [top, bottom] = boxed ? [y(at) - 54, y(at) + 20] : [0, height];
  const fits = words(text) + 8 < to - from;
  const short = text.split(" · ")[0];
  const said = fits ? text : words(short) + 4 < to - from ? short : short.replace("block ", "");
  return [svg("rect", { class: "ground", x: round(from), y: round(top), width: round(to - from), height: round(bottom - top) }),
    svg("text", { class: "size", x: round((from + to) / 2), y: round(top + 14), "text-anchor": "middle" }, said)];
}

function path(layout, i, x, y) {
  const [source, target, , shape] = layout.edges[i];
  if (Array.isArray(shape)) {
    const points = shape.map(([a, b]) => `${round(x(a))} ${round(y(b))}`);
    return points.length === 2 ? `M${points.join("L")}` : `M${points[0]}C${points.slice(1).join(" ")}`;
  }
  const [from, to] = [layout.nodes[source][2], layout.nodes[target][2]].map((value) => round(x(value)));
  const top = round(y((4 / 3) * shape));
  return shape === 0 ? `M${from} ${round(y(0))}H${to}` : `M${from} ${round(y(0))}C${from} ${top} ${to} ${top} ${to} ${round(y(0))}`;
}

const shade = (value, most) => (value > 0 ? Math.min(SHADES, Math.ceil((SHADES * value) / most)) : 0);

function edge(layout, detail, i, x, y, measure, most, thickest) {
  const [source, target, kind] = layout.edges[i];
  const value = measure.of(detail.edges[i]);
  const line = svg("path", { class: `edge shade-${shade(value, most)}`, d: path(layout, i, x, y), "data-edge": i,
    "stroke-width": value > 0 ? round(0.7 + ((thickest - 0.7) * value) / most) : 0.8 });
  const [cost, params, read] = detail.edges[i];
  return tells(linked(line, "edge", i), () => [`${layout.nodes[source][0]} → ${layout.nodes[target][0]}`, KINDS[kind],
    `${macs(cost)}, ${si(params)} parameters`, `${bytes(read)} read per image`]);
}

function node(layout, detail, i, x, y, step, heaviest) {
  const [name, kind, at, high] = layout.nodes[i];
  const [cost, params, shape] = detail.nodes[i];
  const most = Math.max(4, Math.min(10, 0.42 * step));
  const r = round(Math.max(2.6, most * Math.sqrt(cost / heaviest)));
  const [cx, cy] = [round(x(at)), round(y(high))];
  const drawn = kind === "stem" || kind === "head" ? svg("rect", { x: cx - r, y: cy - r, width: 2 * r, height: 2 * r })
    : kind === "transition" ? svg("path", { d: `M${cx} ${round(cy - 1.2 * r)}l${1.2 * r} ${1.2 * r}l${-1.2 * r} ${1.2 * r}l${-1.2 * r} ${-1.2 * r}Z` })
    : svg("circle", { cx, cy, r });
  drawn.setAttribute("class", `node ${kind}`);
  drawn.setAttribute("data-node", i);
  return tells(linked(drawn, "node", i), () => [name, kind, `${macs(cost)}, ${si(params)} parameters`, `gives out ${shape}`]);
}

// Names under nodes, all or every second, fifth, ...: as many as fit side by side.
function names(layout, x, y, step) {
  const shown = layout.nodes.map((node, i) => [i, node]).filter(([, node]) => node[1] !== "carry");
  const short = (name) => name.split(".").pop().replace(/^layer(?=\d)/, "");
  const room = Math.max(...shown.map(([, node]) => words(short(node[0]), 10.5))) + 4;
  const every = [1, 2, 5, 10, 20, 50].find((n) => n * step >= (n === 1 ? room : 22)) ?? 100;
  return shown.filter(([, node]) => every === 1 || Number(short(node[0])) % every === 0)
    .map(([, node]) => svg("text", { class: "name", x: round(x(node[2])), y: round(y(node[3])) + 22, "text-anchor": "middle" }, short(node[0])));
}

// A mark and its row in a table light up together.
function linked(mark, kind, i) {
  const light = (is) => () => {
    for (const other of document.querySelectorAll(`[data-${kind}="${i}"]`)) other.classList.toggle("hot", is);
  };
  mark.addEventListener("pointerenter", light(true));
  mark.addEventListener("pointerleave", light(false));
  mark.addEventListener("focusin", light(true));
  mark.addEventListener("focusout", light(false));
  return mark;
}
