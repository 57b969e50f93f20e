// The front: every ranked trial is a mark, those that no other beats are joined by a staircase.
const SIZES = { front: 11, other: 7 };

function mark(number, size) {
  const [aggregation, topology] = data.keys.of[number];
  return svg("path", { class: "mark", d: data.keys.marks[topology], transform: `scale(${size})`, fill: data.keys.colors[aggregation] });
}

function about(number) {
  const facts = data.details[number].facts;
  return [`trial ${number}`, ...facts.slice(0, 6).map(([name, value]) => `${name}: ${value}`)];
}

function drawFront(holder, panel, chosen) {
  const c = chart(holder, panel.x, panel.y, { height: Math.max(300, Math.min(430, 0.62 * widthOf(holder))), label: `${panel.y.label} against ${panel.x.label}` });
  const at = new Map(panel.points.map(([number, x, y]) => [number, [c.x(x), c.y(y)]]));
  c.plot.append(...staircase(c, panel));
  const onFront = new Set(data.front);
  const others = svg("g", { class: "others" });
  for (const [number, [x, y]] of at)
    if (!onFront.has(number)) others.append(point(number, x, y, "other"));
  c.plot.append(others);
  const front = svg("g", { class: "front", role: "group", "aria-label": "Trials on the front; arrow keys move, Enter shows one" });
  const members = data.front.filter((number) => at.has(number));
  members.forEach((number) => front.append(point(number, ...at.get(number), "front")));
  c.plot.append(front);
  label(c, at, members);
  arrows(front);
  pointing(c.root, at, [...members, ...[...at.keys()].filter((number) => !onFront.has(number))]);
  choose(holder, chosen);
}

// The pointer means the nearest mark, however many lie under it.
function pointing(root, at, numbers) {
  const nearest = (event) => {
    const box = root.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    let [found, least] = [null, 14];
    for (const number of numbers) {
      const far = Math.hypot(at.get(number)[0] - x, at.get(number)[1] - y);
      if (far < least - 0.01) [found, least] = [number, far];
    }
    return found;
  };
  const light = (number) => {
    root.classList.toggle("pointing", number !== null);
    for (const mark of root.querySelectorAll(".point")) mark.classList.toggle("near", Number(mark.dataset.trial) === number);
  };
  root.addEventListener("pointermove", (event) => {
    const number = nearest(event);
    light(number);
    if (number === null) hideTip();
    else showTip(event, about(number));
  });
  root.addEventListener("pointerleave", () => { light(null); hideTip(); });
  root.addEventListener("click", (event) => {
    const number = nearest(event) ?? event.target.closest(".point")?.dataset.trial; // a screen reader has no pointer
    if (number !== undefined) select(Number(number));
  });
}

function staircase(c, panel) {
  const points = panel.steps.map(([x, y]) => [c.x(x), c.y(y)]);
  const [first, last] = [points[0], points[points.length - 1]];
  const before = [first[0], panel.ways[1] === "minimize" ? c.top : c.bottom];
  const after = [panel.ways[0] === "minimize" ? c.right : c.left, last[1]];
  return [svg("path", { class: "beyond", d: line([before, first]) + line([last, after]) }),
    svg("path", { class: "stairs", d: stairs(points) })];
}

function point(number, x, y, kind) {
  const r = SIZES[kind];
  const group = svg("g", {
    class: `point ${kind}`, transform: `translate(${round(x)} ${round(y)})`, "data-trial": number, role: "button",
    tabindex: -1, "aria-label": about(number).join(", "), "aria-pressed": "false",
    onkeydown: (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); select(number); } },
  }, svg("circle", { class: "ring", r: r * 0.95 }), mark(number, r));
  if (kind === "front" && number === data.knee) group.prepend(svg("circle", { class: "knee", r: 12 }));
  return group;
}

// Numbers beside the marks of the front, where nothing else stands.
function label(c, at, members) {
  const taken = [...at.values()].map(([x, y]) => [x - 5, y - 5, x + 5, y + 5]);
  const free = (box) => box[0] > c.left && box[2] < c.right && box[1] > c.top && box[3] < c.bottom &&
    taken.every((other) => box[2] < other[0] || box[0] > other[2] || box[3] < other[1] || box[1] > other[3]);
  for (const number of [...members].sort((a, b) => (b === data.knee) - (a === data.knee))) {
    const [x, y] = at.get(number);
    const text = number === data.knee ? `${number} (knee)` : `${number}`;
    const w = words(text);
    for (const [dx, dy] of number === data.knee ? [[-w - 14, 14], [14, -8], [-w / 2, 26], [14, 16]] : [[-w - 9, 13], [9, -6], [-w / 2, 22], [9, 15], [-w - 9, -6], [-w / 2, -12]]) {
      const box = [x + dx, y + dy - 10, x + dx + w, y + dy + 2];
      if (!free(box)) continue;
      taken.push(box);
      c.plot.append(svg("text", { class: "number", x: round(x + dx), y: round(y + dy) }, text));
      break;
    }
  }
}

// One stop for the tab key; arrows go along the front.
function arrows(front) {
  const marks = [...front.children];
  if (marks.length) marks[0].setAttribute("tabindex", 0);
  front.addEventListener("keydown", (event) => {
    const here = marks.indexOf(document.activeElement);
    const step = { ArrowRight: here + 1, ArrowDown: here + 1, ArrowLeft: here - 1, ArrowUp: here - 1, Home: 0, End: marks.length - 1 }[event.key];
    if (step === undefined || here < 0) return;
    event.preventDefault();
    const next = marks[Math.max(0, Math.min(marks.length - 1, step))];
    marks[here].setAttribute("tabindex", -1);
    next.setAttribute("tabindex", 0);
    next.focus();
  });
}

// Mark the chosen trial in a chart of the front.
function choose(holder, number) {
  for (const mark of holder.querySelectorAll(".point")) {
    const is = Number(mark.dataset.trial) === number;
    mark.setAttribute("aria-pressed", is);
    mark.classList.toggle("chosen", is);
  }
}

// What colours and marks mean.
function drawKeys(holder) {
  const item = (name, colour, path) => html("li", {}, svg("svg", { viewBox: "-8 -8 16 16", width: 16, height: 16, "aria-hidden": "true" },
    svg("path", { d: path, transform: "scale(11)", fill: colour })), name || "not stated");
  const square = "M-.5-.5H.5V.5H-.5Z";
  holder.replaceChildren(
    html("ul", { "aria-label": "colours: aggregation" }, html("li", { class: "what" }, "aggregation"),
      ...Object.entries(data.keys.colors).map(([name, colour]) => item(name, colour, square))),
    html("ul", { "aria-label": "marks: topology" }, html("li", { class: "what" }, "topology"),
      ...Object.entries(data.keys.marks).map(([name, path]) => item(name, "currentColor", path))));
}
