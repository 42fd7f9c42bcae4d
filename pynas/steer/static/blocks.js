// Every block as a dot: how much better than the mean its candidates are, and how often it occurs.

import { $, h, number, prefersStill, set, signed, svg } from "./dom.js";
import { blockOf, choose, isBlockAllowed, layerOf, model, onAny, point } from "./model.js";
import { spoken } from "./template.js";

const view = $("blocks-view");
const EDGE = { left: 46, right: 16, top: 14, bottom: 40 };
const SHAPES = { good: "M-6,5h12l-6,-11z", bad: "M-6,-5h12l-6,11z", unclear: "M-5,0a5,5 0 1,0 10,0a5,5 0 1,0 -10,0" };
let dots = new Map();
let focused = null;
let plane = null;
let axes = null;
let names = null;

const table = h("details", { class: "table" }, h("summary", {}, "As a table"));
const note = h("p", { class: "muted small" });
view.append(h("div", { class: "chart" }), note, table);
const holder = view.querySelector(".chart");

function build() {
  dots = new Map();
  plane = svg("g", {});
  axes = svg("g", { class: "axes", "aria-hidden": "true" });
  names = svg("g", { class: "names", "aria-hidden": "true" });
  for (const block of model.template.blocks) {
    const whisker = svg("line", { class: "whisker" });
    const shape = svg("path", { class: "shape" });
    const group = svg(
      "g",
      {
        class: `dot-block family-${block.family}`, role: "button", tabindex: -1, "data-block": block.id,
        onclick: () => choose(block.id),
        onpointerenter: () => point(block.id), onpointerleave: () => point(null),
        onfocus: () => point(block.id), onblur: () => point(null),
        onkeydown: (event) => move(event, block.id),
      },
      whisker, svg("circle", { class: "reach", r: 12 }), shape,
    );
    plane.append(group);
    dots.set(block.id, { block, group, whisker, shape });
  }
  holder.replaceChildren(svg("svg", { role: "group", "aria-label": "Blocks: fitness to the right, frequency upwards" }, axes, plane, names));
  render();
}

const nice = (span) => {
  const power = 10 ** Math.floor(Math.log10(span));
  return [1, 2, 5, 10].map((m) => m * power).find((step) => span / step <= 6);
};

function ticks(low, high) {
  if (!(high > low)) return [low];
  const step = nice(high - low);
  const found = [];
  for (let i = Math.ceil(low / step); i * step <= high + 1e-9 * step; i++) found.push(Number((i * step).toPrecision(12)));
  return found;
}

function render() {
  if (!model.template || !plane || !holder.clientWidth) return;
  const facts = new Map((model.blocks?.blocks ?? []).map((block) => [block.id, block]));
  const known = [...facts.values()].filter((block) => block.n > 0);
  const [width, height] = [holder.clientWidth, holder.clientHeight];
  const drawing = holder.firstChild;
  set(drawing, "width", width);
  set(drawing, "height", height);
  const means = known.map((block) => block.fitness);
  const sturdy = known.filter((block) => block.n >= 5);
  const ends = (sturdy.length ? sturdy : known).flatMap((block) => [block.low, block.high, block.fitness]).filter((v) => v !== null);
  // The axis holds all dots, and the intervals of those with some evidence; longer ones are cut at its ends.
  let low = Math.min(0, ...means, ...ends);
  let high = Math.max(0, ...means, ...ends);
  if (low === high) [low, high] = [-1, 1];
  [low, high] = [low - 0.06 * (high - low), high + 0.06 * (high - low)];
  const top = Math.max(0.1, ...known.map((block) => block.frequency)) * 1.08;
  const x = (v) => EDGE.left + ((Math.min(high, Math.max(low, v)) - low) / (high - low)) * (width - EDGE.left - EDGE.right);
  const y = (v) => height - EDGE.bottom - (v / top) * (height - EDGE.top - EDGE.bottom);
  axes.replaceChildren(
    ...ticks(low, high).map((v) => [
      svg("line", { class: v === 0 ? "zero" : "grid", x1: x(v), x2: x(v), y1: EDGE.top, y2: height - EDGE.bottom }),
      svg("text", { x: x(v), y: height - EDGE.bottom + 15, "text-anchor": "middle" }, number(v)),
    ]).flat(),
    ...ticks(0, top).map((v) => [
      svg("line", { class: "grid", x1: EDGE.left, x2: width - EDGE.right, y1: y(v), y2: y(v) }),
      svg("text", { x: EDGE.left - 6, y: y(v) + 4, "text-anchor": "end" }, `${number(100 * v)} %`),
    ]).flat(),
    svg("text", { x: (EDGE.left + width - EDGE.right) / 2, y: height - 6, "text-anchor": "middle", class: "axis" }, "fitness: mean score with the block − mean of all"),
    svg("text", { x: EDGE.left + 4, y: EDGE.top + 8, class: "axis" }, "frequency"),
  );
  for (const { block, group, whisker, shape } of dots.values()) {
    const fact = facts.get(block.id);
    group.classList.toggle("absent", !fact?.n);
    if (!fact?.n) continue;
    group.style.transform = `translate(${x(fact.fitness)}px, ${y(fact.frequency)}px)`;
    whisker.setAttribute("x1", x(fact.low ?? fact.fitness) - x(fact.fitness));
    whisker.setAttribute("x2", x(fact.high ?? fact.fitness) - x(fact.fitness));
    set(shape, "d", SHAPES[fact.thin ? "unclear" : fact.verdict]);
    group.classList.toggle("thin", fact.thin);
    group.classList.toggle("out", !isBlockAllowed(block));
    group.classList.toggle("lit", (model.composing ?? model.lit ?? model.pinned)?.[block.decision] === block.choice);
    group.classList.toggle("pointed", model.block === block.id);
    group.classList.toggle("chosen", model.chosen === block.id);
    set(group, "aria-label", spoken(block));
    set(group, "aria-pressed", model.chosen === block.id);
  }
  const order = ordered(facts);
  if (!order.includes(focused)) focused = order[0] ?? null;
  for (const [id, { group }] of dots) set(group, "tabindex", id === focused ? 0 : -1);
  label(facts, x, y, width);
  tell(facts);
}

const ordered = (facts) => [...facts.values()].filter((block) => block.n).sort((a, b) => a.fitness - b.fitness).map((block) => block.id);

function move(event, id) {
  if (event.key === "Enter" || event.key === " ") {
    event.preventDefault();
    return choose(id);
  }
  const step = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1 }[event.key];
  if (!step) return undefined;
  event.preventDefault();
  const order = ordered(new Map(model.blocks.blocks.map((block) => [block.id, block])));
  const next = order[order.indexOf(id) + step];
  if (next === undefined) return undefined;
  focused = next;
  for (const [each, { group }] of dots) group.setAttribute("tabindex", each === next ? 0 : -1);
  return dots.get(next).group.focus({ preventScroll: true });
}

/** Names of the block that is looked at and of those that matter most, where there is room. */
function label(facts, x, y, width) {
  const sure = [...facts.values()].filter((block) => block.n && !block.thin).sort((a, b) => Math.abs(b.fitness) - Math.abs(a.fitness));
  const first = [model.block, model.chosen].map((id) => facts.get(id)).filter((block) => block?.n);
  const taken = [];
  const made = [];
  for (const fact of [...new Set([...first, ...sure.slice(0, 8)])]) {
    const block = blockOf(fact.id);
    const text = `${block.label} · ${layerOf(block.decision)?.label}`;
    const long = 6.2 * text.length;
    const [px, py] = [x(fact.fitness), y(fact.frequency)];
    const box = [px + 10 + long > width ? px - 10 - long : px + 10, py - 16, long, 14];
    const clash = taken.some(([a, b, c, d]) => box[0] < a + c && a < box[0] + box[2] && box[1] < b + d && b < box[1] + box[3]);
    if (clash || (box[0] < EDGE.left)) continue;
    taken.push(box);
    made.push(svg("text", { x: box[0], y: py - 5, class: first.includes(fact) ? "strong" : "" }, text));
  }
  names.replaceChildren(...made);
}

function tell(facts) {
  const trials = model.blocks?.trials ?? 0;
  note.textContent = trials
    ? `${trials} current trials. ▲ and ▼: the interval lies above or below 0; hollow: thin evidence (n below 5, or the interval contains 0). A search combines good blocks with good ones: fitness is evidence, not a cause.`
    : "No candidate has been evaluated yet.";
  if (!table.open) return;
  const rows = [...facts.values()].filter((fact) => fact.n).sort((a, b) => b.fitness - a.fitness).map((fact) => {
    const block = blockOf(fact.id);
    const open = h("button", { type: "button", class: "link", onclick: () => choose(fact.id) }, `${block?.label} on ${layerOf(block?.decision)?.label}`);
    return h("tr", {}, h("th", { scope: "row" }, open), [signed(fact.fitness), `[${number(fact.low, 3)}, ${number(fact.high, 3)}]`, fact.n, `${number(100 * fact.frequency, 3)} %`, fact.thin ? "thin" : fact.verdict].map((cell) => h("td", {}, cell)));
  });
  table.querySelector(".scroll")?.remove();
  table.append(h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Table of blocks" }, h("table", {}, h("thead", {}, h("tr", {}, ["Block", "Fitness", "Interval", "n", "Frequency", "Evidence"].map((name) => h("th", { scope: "col" }, name)))), h("tbody", {}, rows))));
}

table.addEventListener("toggle", render);
// Dots move to their new places. Where frames come late the motion costs more than it shows: then they jump for a while.
const LATE = 40; // milliseconds between two frames
const PAUSE = 30000;
let watching = false;

function watch() {
  if (watching || document.hidden || holder.classList.contains("still")) return;
  watching = true;
  let frames = 0;
  const first = performance.now();
  const next = () => {
    if (++frames < 8) return requestAnimationFrame(next);
    watching = false;
    if (performance.now() - first <= 8 * LATE) return undefined;
    holder.classList.add("still");
    return setTimeout(() => prefersStill() || holder.classList.remove("still"), PAUSE);
  };
  requestAnimationFrame(next);
}

if (prefersStill()) holder.classList.add("still");
onAny("blocks", watch);
onAny("template", build);
onAny("blocks allowed lit pinned block chosen composing", render);
new ResizeObserver(() => model.state && render()).observe(holder);
