// What was evaluated: the best, the front, the course of the search, and every trial with its message.

import { chart } from "./charts.js";
import { $, button, h, many, number } from "./dom.js";
import { exportTrial } from "./exporting.js";
import { isAllowed, light, model, onAny, pin } from "./model.js";

const FIRST = 60;
let shown = FIRST;
const filter = h("select", { "aria-label": "Which trials", onchange: () => render() },
  [["all", "All trials"], ["front", "Best and front"], ["analyst", "The analyst's"], ["failed", "Failed, infeasible"], ["old", "With earlier weights"]].map(([value, label]) => h("option", { value }, label)));
const order = h("select", { "aria-label": "Order of trials", onchange: () => render() }, h("option", { value: "new" }, "Newest first"), h("option", { value: "best" }, "Best first"));
const out = button("Export the winner …", "Write the network of the best trial to a file", () => exportTrial(model.state.search.best ?? model.trials.length - 1));
$("trials-tools").append(filter, order, out);
const [course, front] = [h("div", { class: "plot" }), h("div", { class: "plot" })];
$("trials-charts").append(course, front);

const keeps = {
  all: () => true,
  front: (trial, marked) => marked.has(trial.number),
  analyst: (trial) => trial.by === "analyst",
  failed: (trial) => trial.status !== "ok",
  old: (trial) => !trial.current,
};

function table() {
  const { best, front: on, objectives } = model.state.search;
  const marked = new Set([...on, best]);
  const rank = (trial) => trial.value ?? -Infinity;
  const trials = model.trials.filter((trial) => trial && keeps[filter.value](trial, marked));
  if (order.value === "best") trials.sort((a, b) => b.current - a.current || rank(b) - rank(a) || a.number - b.number);
  else trials.reverse();
  const scores = [...new Set([...objectives, ...trials.slice(0, 50).flatMap((trial) => Object.keys(trial.scores))])];
  const metrics = [...new Set(trials.slice(0, 50).flatMap((trial) => Object.keys(trial.metrics)))].filter((name) => !scores.includes(name));
  const head = ["Trial", ...scores, ...metrics, "Status", "By", "Seconds", "Architecture"];
  const rows = trials.slice(0, shown).map((trial) => row(trial, trial.number === best ? "★ " : marked.has(trial.number) ? "◆ " : "", scores, metrics));
  const box = $("trials-table");
  const drawn = JSON.stringify([head, trials.length > 0]);
  if (box.dataset.drawn !== drawn) {
    box.dataset.drawn = drawn;
    box.replaceChildren(
      trials.length ? h("table", {}, h("thead", {}, h("tr", {}, head.map((name) => h("th", { scope: "col" }, name)))), h("tbody", {})) : h("p", { class: "muted" }, "No trials."),
      h("p", { class: "more", hidden: true }, button("", "Show more trials", () => { shown += 200; render(); })),
    );
  }
  const body = box.querySelector("tbody");
  if (body) arrange(body, rows);
  const more = box.querySelector(".more");
  more.hidden = trials.length <= shown;
  more.firstChild.textContent = `Show ${Math.min(200, trials.length - shown)} more of ${trials.length}`;
}

// Most rows stay as they are when a trial comes: each is made once, until its trial or its mark changes.
const made = new WeakMap();

function row(trial, mark, scores, metrics) {
  const inside = isAllowed(trial.decisions);
  const key = JSON.stringify([mark, inside, scores, metrics]);
  const old = made.get(trial);
  if (old?.key === key) return old.element;
  const said = { "★ ": "best, ", "◆ ": "on the front, " }[mark] ?? "";
  const open = h("button", { type: "button", class: "link", "aria-label": `${said}trial ${trial.number}`, onclick: () => pin(trial.decisions), onfocus: () => light(trial.decisions), onblur: () => light(null) }, `${mark}${trial.number}`);
  const status = [trial.status, trial.current ? "" : "earlier weights", inside ? "" : "outside"].filter(Boolean).join(", ");
  const element = h(
    "tr",
    { class: [trial.current ? "" : "old", trial.status].join(" "), "data-trial": trial.number, onpointerenter: () => light(trial.decisions), onpointerleave: () => light(null) },
    h("th", { scope: "row" }, open),
    scores.map((name) => h("td", { class: "n" }, number(trial.scores[name]))),
    metrics.map((name) => h("td", { class: "n" }, number(trial.metrics[name]))),
    h("td", {}, status), h("td", {}, trial.by === "analyst" ? `analyst (${trial.who ?? ""})` : "strategy"),
    h("td", { class: "n" }, number(trial.seconds)),
    h("td", { class: "code" }, trial.text, trial.message ? h("span", { class: "warning block" }, trial.message) : null),
  );
  made.set(trial, { key, element });
  return element;
}

/** Put the rows into the table, and touch none that is there already: it keeps its focus and its place. */
function arrange(body, rows) {
  const held = body.contains(document.activeElement) ? document.activeElement.closest("tr").dataset.trial : null;
  const wanted = new Set(rows);
  for (const old of [...body.children]) if (!wanted.has(old)) old.remove();
  let at = body.firstChild;
  for (const element of rows) {
    if (element === at) at = at.nextSibling;
    else body.insertBefore(element, at);
  }
  if (held !== null && !body.contains(document.activeElement)) body.querySelector(`tr[data-trial="${held}"] th button`)?.focus({ preventScroll: true });
}

let told = null;
function best() {
  const { best: number_, front: on } = model.state.search;
  const trial = model.trials[number_];
  out.disabled = !model.state.can.export;
  const now = JSON.stringify([number_, trial?.scores, on.filter((each) => model.trials[each])]);
  if (told === now + model.state.session) return;
  told = now + model.state.session;
  const look = (given) => button(`trial ${given}`, "Look at it", () => pin(model.trials[given].decisions), { class: "link" });
  $("trials-best").replaceChildren(
    trial ? h("p", {}, "Best so far: ", look(number_), `, ${Object.entries(trial.scores).map(([name, value]) => `${name} ${number(value)}`).join(", ")}`) : h("p", { class: "muted" }, "Nothing has been evaluated with the present weights."),
    on.length > 1 ? h("p", {}, "Pareto front: ", on.filter((each) => model.trials[each]).map((each, i) => [i ? ", " : "", look(each)])) : "",
  );
}

const SHAPES = (actions) => actions.map((x) => ({ type: "line", x0: x, x1: x, yref: "paper", y0: 0, y1: 1, line: { width: 1, dash: "dot", color: "#888" } }));

/** The trials between which somebody changed the search. */
export const changes = (actions) => [...new Set(actions.filter((a) => a && !a.undone && a.trial > 0 && !["pause", "resume", "train_pause", "train_resume"].includes(a.kind)).map((a) => a.trial - 0.5))];

function charts() {
  const { objectives, front: on } = model.state.search;
  const name = objectives.length === 1 ? objectives[0] : "value";
  const trials = model.trials.filter((trial) => trial && trial.value !== null);
  const running = [];
  let high = -Infinity;
  for (const trial of trials.filter((each) => each.current)) {
    high = Math.max(high, trial.value);
    running.push([trial.number, high]);
  }
  const pick = (list, mark) => (colour) => ({ x: list.map((t) => t.number), y: list.map((t) => t.value), mode: "markers", type: "scatter", ...mark(colour) });
  const strategy = pick(trials.filter((t) => t.current && t.by !== "analyst"), (color) => ({ name: "strategy's", marker: { color, size: 6 } }));
  const analyst = pick(trials.filter((t) => t.current && t.by === "analyst"), (color) => ({ name: "analyst's", marker: { color, size: 10, symbol: "diamond" } }));
  const old = pick(trials.filter((t) => !t.current), () => ({ name: "earlier weights", marker: { color: "#999", size: 5, symbol: "circle-open" } }));
  chart(
    course,
    ([a, b, c]) => [old(), strategy(a), analyst(b), { x: running.map(([x]) => x), y: running.map(([, y]) => y), mode: "lines", name: "best so far", line: { shape: "hv", color: c, width: 2 } }].filter((trace) => trace.x.length),
    { xaxis: { title: "trial" }, yaxis: { title: name }, shapes: SHAPES(changes(model.actions)) },
    `Course of the search: ${many(trials.length, "trial")}${running.length ? `, best ${number(high)}` : ""}`,
  );
  const cost = objectives.length > 1 ? objectives[1] : model.state.offers.costs.find((each) => trials.some((t) => each in t.metrics));
  front.hidden = !cost;
  if (!cost) return;
  const second = (trial) => trial.scores[cost] ?? trial.metrics[cost];
  const first = (trial) => trial.scores[objectives[0]];
  const current = trials.filter((trial) => trial.current && second(trial) !== undefined);
  const onFront = current.filter((trial) => on.includes(trial.number)).sort((p, q) => second(p) - second(q));
  const points = (list, rest) => ({ x: list.map(second), y: list.map(first), text: list.map((t) => `trial ${t.number}`), type: "scatter", ...rest });
  chart(
    front,
    ([a, b]) => [points(current, { mode: "markers", name: "evaluated", marker: { color: a, size: 6 } }), points(onFront, { mode: "lines+markers", name: objectives.length > 1 ? "Pareto front" : "best", line: { color: b }, marker: { color: b, size: 10, symbol: "diamond" } })],
    { xaxis: { title: cost }, yaxis: { title: objectives[0] } },
    `${objectives[0]} against ${cost}: ${many(onFront.length, "trial")} on the front`,
  );
}

function render() {
  table();
  best();
}

onAny("trials state allowed", render, 60);
onAny("trials actions template", charts, 1000);
