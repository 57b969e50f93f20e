// Charts: axes in drawn units, as wide as the place that they are drawn in.
const widthOf = (holder) => Math.max(280, holder.clientWidth || 640);

// A position for each value between two ends.
function scale(axis, from, to) {
  const at = axis.log ? Math.log10 : (value) => value;
  const [low, high] = [at(axis.low), at(axis.high)];
  return (value) => from + ((at(value) - low) / (high - low || 1)) * (to - from);
}

// An axis from the least to the greatest of some values, for what is drawn here alone.
function axisOf(label, values, { zero = false, whole = false } = {}) {
  let [low, high] = [Math.min(...values), Math.max(...values)];
  if (zero) low = Math.min(0, low);
  if (low === high) high = low + (Math.abs(low) || 1) * 0.1;
  const pad = whole ? 0 : 0.05 * (high - low);
  const ends = { low: zero && low === 0 ? 0 : low - pad, high: high + pad };
  const power = 10 ** Math.floor(Math.log10((ends.high - ends.low) / 6));
  let step = power * [1, 2, 2.5, 5, 10].find((factor) => (ends.high - ends.low) / (factor * power) <= 6);
  if (whole) step = Math.max(1, Math.ceil(step));
  const ticks = [];
  for (let n = Math.ceil(ends.low / step); n * step <= ends.high + step * 1e-9; n++)
    ticks.push(Number((n * step).toPrecision(12)));
  return { label, ...ends, log: false, ticks, words: ticks.map((tick) => si(tick, 4)) };
}

const pen = document.createElement("canvas").getContext("2d");
const family = getComputedStyle(document.body).fontFamily;

// Pixels that a label takes.
function words(text, size = 12) {
  pen.font = `${size}px ${family}`;
  return pen.measureText(text).width;
}

// A chart's ground with axes and grid. `x` and `y` give positions; what is drawn goes into `plot`.
function chart(holder, xAxis, yAxis, { height, label, right = 12, top = 10 }) {
  const width = widthOf(holder);
  const left = 30 + Math.max(0, ...yAxis.words.map((word) => words(word)));
  const bottom = height - 44;
  const x = scale(xAxis, left, width - right);
  const y = scale(yAxis, bottom, top);
  const grid = [], texts = [];
  const every = Math.max(1, Math.ceil((Math.max(0, ...xAxis.words.map((w) => words(w))) + 12) * xAxis.ticks.length / (width - right - left)));
  xAxis.ticks.forEach((tick, i) => {
    if (i % every) return;
    grid.push(svg("line", { x1: round(x(tick)), x2: round(x(tick)), y1: top, y2: bottom }));
    texts.push(svg("text", { x: round(x(tick)), y: bottom + 16, "text-anchor": "middle" }, xAxis.words[i]));
  });
  yAxis.ticks.forEach((tick, i) => {
    grid.push(svg("line", { x1: left, x2: width - right, y1: round(y(tick)), y2: round(y(tick)) }));
    texts.push(svg("text", { x: left - 6, y: round(y(tick)) + 4, "text-anchor": "end" }, yAxis.words[i]));
  });
  const middle = (top + bottom) / 2;
  const plot = svg("g");
  const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, class: "chart", role: "group", "aria-label": label },
    svg("g", { class: "grid" }, ...grid),
    svg("path", { class: "frame", d: `M${left} ${top}V${bottom}H${width - right}` }),
    svg("g", { class: "ticks" }, ...texts),
    svg("text", { class: "axis", x: (left + width - right) / 2, y: height - 8, "text-anchor": "middle" }, xAxis.label),
    svg("text", { class: "axis", transform: `translate(12 ${middle}) rotate(-90)`, "text-anchor": "middle" }, yAxis.label),
    plot);
  holder.replaceChildren(root);
  return { root, plot, x, y, left, right: width - right, top, bottom, width, height };
}

const line = (points) => points.map(([x, y], i) => `${i ? "L" : "M"}${round(x)} ${round(y)}`).join("");

// A staircase: along x first, then along y to the next point.
const stairs = (points) =>
  points.map(([x, y], i) => (i ? `H${round(x)}V${round(y)}` : `M${round(x)} ${round(y)}`)).join("");

// Lines of several series over epochs, with a key; each has a name, a class and values.
function curves(holder, label, series, unit) {
  const n = series[0].values.length;
  const axis = axisOf(unit, series.flatMap((one) => one.values), { zero: true });
  const epochs = axisOf("epoch", n > 1 ? [1, n] : [0, 2], { whole: true });
  const c = chart(holder, epochs, axis, { height: 220, label, top: 26 });
  for (const one of series) {
    const points = one.values.map((value, i) => [c.x(i + 1), c.y(value)]);
    c.plot.append(svg("path", { class: `curve ${one.kind}`, d: line(points) }));
    if (n <= 40) for (const [cx, cy] of points) c.plot.append(svg("circle", { class: `dot ${one.kind}`, cx: round(cx), cy: round(cy), r: 2.4 }));
  }
  const key = svg("g", { class: "ticks" });
  let at = c.right;
  for (const one of [...series].reverse()) {
    key.append(svg("text", { x: at, y: 14, "text-anchor": "end" }, one.name));
    at -= words(one.name) + 6;
    key.append(svg("path", { class: `curve ${one.kind}`, d: `M${round(at - 16)} 10h14` }));
    at -= 28;
  }
  c.plot.append(key);
}

// Means with intervals, one row each: what a name reached, from where to where, and single values.
function intervals(holder, rows, axis, label) {
  const room = Math.min(0.42 * widthOf(holder), 18 + Math.max(...rows.map((row) => words(row.name))));
  const height = 22 * rows.length + 60;
  const c = chart(holder, axis, { low: 0, high: 1, ticks: [], words: [], label: "" }, { height, label });
  const x = scale(axis, room, c.right);
  const all = svg("g");
  c.plot.parentNode.querySelectorAll(".grid, .frame, .ticks, .axis").forEach((part) => part.remove());
  const bottom = height - 44;
  axis.ticks.forEach((tick, i) => all.append(
    svg("line", { class: "rule", x1: round(x(tick)), x2: round(x(tick)), y1: 6, y2: bottom }),
    svg("text", { class: "tick", x: round(x(tick)), y: bottom + 16, "text-anchor": "middle" }, axis.words[i])));
  all.append(svg("text", { class: "axis", x: (room + c.right) / 2, y: height - 8, "text-anchor": "middle" }, axis.label));
  rows.forEach((row, i) => {
    const y = 18 + 22 * i;
    let name = row.name;
    while (words(name) > room - 12 && name.length > 2) name = `${name.slice(0, -2)}…`;
    const mark = svg("g", {}, svg("rect", { class: "hit", x: 0, y: y - 11, width: c.width, height: 22 }),
      svg("text", { class: "tick", x: room - 10, y: y + 4, "text-anchor": "end" }, name));
    for (const value of row.values ?? []) mark.append(svg("circle", { class: "single", cx: round(x(value)), cy: y, r: 2.2 }));
    if (row.low !== null && row.high !== null)
      mark.append(svg("path", { class: "whisker", d: `M${round(x(row.low))} ${y}H${round(x(row.high))}` }));
    if (row.chance !== undefined && row.chance !== null)
      mark.append(svg("path", { class: "chance", d: `M${round(x(row.chance))} ${y - 8}v16` }));
    if (row.mean !== null) mark.append(svg("circle", { class: row.strong ? "mean strong" : "mean", cx: round(x(row.mean)), cy: y, r: 4.5 }));
    all.append(tells(mark, () => [row.name, ...row.lines]));
  });
  c.plot.append(all);
}
