// Elements. All text goes through text nodes: nothing of a study is ever read as markup.
const SVG = "http://www.w3.org/2000/svg";

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}
const svg = (name, attributes, ...children) =>
  filled(document.createElementNS(SVG, name), attributes, children.flat());
const html = (name, attributes, ...children) =>
  filled(document.createElement(name), attributes, children.flat());
const byId = (id) => document.getElementById(id);
const data = JSON.parse(byId("data").textContent);
const round = (value) => Math.round(value * 100) / 100;

// Numbers as the rest of the page writes them: three digits and an SI prefix.
function si(value, digits = 3) {
  const rounded = Number(value.toPrecision(digits));
  for (const [factor, prefix] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]])
    if (Math.abs(rounded) >= factor) return `${Number((rounded / factor).toPrecision(digits))} ${prefix}`;
  return `${rounded}`;
}
const withUnit = (value, unit) => (Math.abs(value) < 1000 ? `${si(value)} ${unit}` : `${si(value)}${unit}`);
const macs = (value) => withUnit(value, "MACs");
const bytes = (value) => withUnit(value, "B");
const percent = (share, digits = 1) => `${(100 * share).toFixed(digits)} %`;

// What a mark stands for, shown beside the pointer.
const tip = byId("tip");
function showTip(event, lines) {
  tip.replaceChildren(...lines.map((line, index) => html(index ? "div" : "strong", {}, line)));
  tip.hidden = false;
  const { clientX: x, clientY: y } = event;
  tip.style.left = `${Math.max(8, Math.min(x + 14, innerWidth - tip.offsetWidth - 8))}px`;
  tip.style.top = `${y + 18 + tip.offsetHeight > innerHeight ? y - tip.offsetHeight - 10 : y + 18}px`;
}
const hideTip = () => (tip.hidden = true);
function tells(element, lines) {
  for (const name of ["pointerenter", "pointermove"]) element.addEventListener(name, (event) => showTip(event, lines()));
  element.addEventListener("pointerleave", hideTip);
  return element;
}
