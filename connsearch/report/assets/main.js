// What happens when: everything is drawn once, and again when the page gets another width.
let chosen = data.front.includes(data.knee) ? data.knee : data.front[0] ?? Number(Object.keys(data.details)[0] ?? -1);

function select(number, { scroll = false } = {}) {
  if (!data.details[number]) return;
  chosen = number;
  for (const holder of document.querySelectorAll(".panel")) choose(holder, number);
  for (const row of document.querySelectorAll("tr[data-trial]"))
    row.classList.toggle("chosen", Number(row.dataset.trial) === number);
  showTrial(number);
  history.replaceState(null, "", `#trial-${number}`);
  if (scroll) byId("trial-title").parentNode.scrollIntoView({ block: "start" });
}

function drawAll() {
  document.querySelectorAll(".panel").forEach((holder, i) => drawFront(holder, data.panels[i], chosen));
  if (data.history) drawHistory();
  if (data.standings?.contestants) drawStandings();
  if (data.importance) drawImportance();
  if (chosen >= 0) showTrial(chosen);
}

function drawHistory() {
  const { n, volume, best } = data.history;
  const [left, right] = [byId("volume"), byId("best")];
  let c = chart(left, n, volume.axis, { height: 220, label: "hypervolume against finished trials" });
  c.plot.append(svg("path", { class: "stairs", d: stairs(volume.steps.map(([x, y]) => [c.x(x), c.y(y)])) }));
  c = chart(right, n, best.axis, { height: 220, label: `${best.axis.label} against finished trials` });
  for (const [x, y, number] of best.trials)
    c.plot.append(tells(svg("circle", { class: "single", cx: round(c.x(x)), cy: round(c.y(y)), r: 2.6 }), () => about(number)));
  c.plot.append(svg("path", { class: "curve val", d: stairs(best.steps.map(([x, y]) => [c.x(x), c.y(y)])) }));
}

function drawStandings() {
  const { contestants, axis } = data.standings;
  intervals(byId("standings-chart"), contestants.map((row) => ({
    name: `${row.topology} × ${row.aggregation}`, mean: 100 * row.val_error, strong: row.rank === 1,
    low: row.val_error_low === null ? null : 100 * row.val_error_low,
    high: row.val_error_high === null ? null : 100 * row.val_error_high,
    values: row.val_errors.map((value) => 100 * value),
    lines: [`validation error ${percent(row.val_error, 2)}, mean of ${row.val_errors.length}`, `${macs(row.macs)}, ${si(row.params)} parameters`],
  })), axis, "validation error of every contestant");
}

function drawImportance() {
  const rows = data.importance.knobs.filter((knob) => knob.share !== null);
  const value = (share) => (share === null ? null : 100 * share);
  const all = rows.flatMap((knob) => [knob.share, knob.high, knob.chance]).filter((share) => share !== null).map(value);
  intervals(byId("importance-chart"), rows.map((knob) => ({
    name: knob.knob, mean: value(knob.share), low: value(knob.low), high: value(knob.high), chance: value(knob.chance), strong: knob.stands_out,
    lines: [`share ${percent(knob.share, 0)}`, `chance stays below ${percent(knob.chance ?? 0, 0)}`],
  })), axisOf("share of the explained spread (%)", all, { zero: true }), "importance of every knob");
}

document.documentElement.classList.add("js");
document.querySelectorAll("table.sortable").forEach(sortable);
for (const row of document.querySelectorAll("tr[data-trial]")) {
  const number = Number(row.dataset.trial);
  const cell = row.querySelector(".trial-number");
  cell.replaceChildren(html("button", { type: "button", "aria-label": `show trial ${number}`, onclick: () => select(number, { scroll: true }) }, cell.textContent.trim()));
}
if (data.panels.length) drawKeys(byId("keys"));
const asked = () => Number(/^#trial-(\d+)$/.exec(location.hash)?.[1] ?? -1);
if (data.details[asked()]) chosen = asked();
drawAll();
for (const row of document.querySelectorAll("tr[data-trial]")) row.classList.toggle("chosen", Number(row.dataset.trial) === chosen);
addEventListener("hashchange", () => { if (asked() >= 0) select(asked(), { scroll: true }); });
let width = document.documentElement.clientWidth;
addEventListener("resize", () => {
  if (document.documentElement.clientWidth === width) return;
  width = document.documentElement.clientWidth;
  requestAnimationFrame(drawAll);
});
