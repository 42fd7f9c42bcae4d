// The map of candidates: evaluated ones coloured by score, others grey; selecting by rectangle, lasso or keys.

import { $, h, many, number } from "./dom.js";
import { gradient, range, rgb, shareOf, variable } from "./colour.js";
import { blockOf, candidateOf, decisionsOf, described, light, model, onAny, pin, select, trialOf } from "./model.js";
import { painter } from "./points.js";

const MARGIN = 14;
const view = $("map-view");
const overlay = h("canvas", {
  tabindex: 0, role: "application", "aria-roledescription": "map of candidates",
  "aria-label": "Map of candidates. Arrow keys go to the next candidate, Enter opens it, Space selects it.",
});
const tip = h("p", { class: "tip", hidden: true });
const aloud = h("p", { class: "sr", role: "status" });
const paint = painter(view);
view.append(overlay, tip, aloud);

export const tool = { value: "rectangle" };
let frame = [1, 1, 0, 0];
let size = [0, 0];
let placed = ""; // what the frame was computed for
let current = null; // candidate under the pointer or the keys
let drawn = null; // the selection that is being drawn, in pixels
let scale = null;

const column = (name) => model.map[name];
const pixel = (id) => [column("x")[id] * frame[0] + frame[2], column("y")[id] * frame[1] + frame[3]];

function layout() {
  const ratio = Math.min(2, devicePixelRatio || 1);
  const key = [model.state.session, column("x").length, view.clientWidth, view.clientHeight, ratio].join();
  if (key === placed) return ratio;
  placed = key;
  size = [view.clientWidth, view.clientHeight];
  for (const canvas of [paint.canvas, overlay]) {
    canvas.width = size[0] * ratio;
    canvas.height = size[1] * ratio;
    canvas.style.width = `${size[0]}px`;
    canvas.style.height = `${size[1]}px`;
  }
  const span = (values) => values.reduce(([a, b], v) => [Math.min(a, v), Math.max(b, v)], [Infinity, -Infinity]);
  const [left, right] = span(column("x"));
  const [low, high] = span(column("y"));
  const sx = (size[0] - 2 * MARGIN) / (right - left || 1);
  const sy = (size[1] - 2 * MARGIN) / (high - low || 1);
  frame = [sx, -sy, MARGIN - left * sx, size[1] - MARGIN + low * sy];
  return ratio;
}

function hex(name) {
  const [r, g, b] = variable(name).match(/\w\w/g).map((pair) => parseInt(pair, 16));
  return [r, g, b];
}

/** Room for so many points: what is drawn for each. */
function room(count) {
  return { place: new Float32Array(2 * count), fill: new Uint8Array(4 * count), rim: new Uint8Array(4 * count), size: new Float32Array(count) };
}

function put(dots, i, id, fill, rim, strength, size) {
  dots.place[2 * i] = column("x")[id];
  dots.place[2 * i + 1] = column("y")[id];
  for (let c = 0; c < 3; c++) {
    dots.fill[4 * i + c] = fill[c];
    dots.rim[4 * i + c] = rim[c];
  }
  dots.fill[4 * i + 3] = dots.rim[4 * i + 3] = 255 * strength;
  dots.size[i] = size;
}

// All points as grey ones change rarely; a layer of those that are evaluated or selected lies above.
let ground = { key: null, dots: null, strength: null };

function greys(block) {
  const key = JSON.stringify([model.state.session, column("x").length, block?.id, model.state.allowed, variable("map-grey")]);
  if (ground.key === key) return ground;
  const count = column("x").length;
  const per = column("decisions_per");
  const all = column("decisions");
  const most = 1 + Math.max(...model.template.blocks.map((each) => each.choice));
  const allowed = new Uint8Array(per * most);
  model.state.allowed.forEach((choices, d) => choices.forEach((choice) => (allowed[d * most + choice] = 1)));
  const grey = hex("map-grey");
  const dots = room(count);
  const strength = new Float32Array(count);
  for (let id = 0; id < count; id++) {
    let inside = true;
    for (let d = 0; inside && d < per; d++) inside = allowed[d * most + all[id * per + d]] === 1;
    const has = !block || all[id * per + block.decision] === block.choice;
    strength[id] = (inside ? 1 : 0.28) * (has ? 1 : 0.3);
    put(dots, id, id, grey, grey, 0.75 * strength[id], count > 5000 ? 4 : 5.5);
  }
  ground = { key, dots, strength };
  return ground;
}

function dots() {
  const under = greys(blockOf(model.block));
  scale = range(model.trials.map((trial) => (trial?.current ? trial.value : null)));
  const [grey, rim, accent] = [hex("map-grey"), hex("map-rim"), hex("lit")];
  const coloured = (id) => Boolean(trialOf(id)?.current) && trialOf(id).value !== null;
  const evaluated = [...new Set(model.trials.filter(Boolean).map((trial) => trial.candidate.id))].sort((a, b) => coloured(a) - coloured(b));
  const above = [...[...model.selection].filter((id) => column("trial")[id] === null), ...evaluated];
  const made = room(above.length);
  above.forEach((id, i) => {
    const selected = model.selection.has(id);
    const trial = trialOf(id);
    const fill = coloured(id) ? rgb(shareOf(trial.value, scale)) : grey;
    const size = (coloured(id) ? 11 : trial ? 8 : 5.5) + (selected ? 2 : 0);
    put(made, i, id, fill, selected ? accent : rim, under.strength[id], size);
    if (selected) made.rim[4 * i + 3] = 255;
  });
  return [under.dots, made];
}

function render() {
  if (!model.map || !view.clientWidth) return;
  const ratio = layout();
  paint.draw(dots(), frame, ratio);
  trace();
  legend();
}

function trace() {
  const context = overlay.getContext("2d");
  const ratio = overlay.width / (size[0] || 1);
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, ...size);
  const ring = (decisions, radius, colour) => {
    const id = decisions && candidateOf(decisions);
    if (id === null || id === undefined || id === false) return;
    context.beginPath();
    context.arc(...pixel(id), radius, 0, 7);
    context.lineWidth = 2.5;
    context.strokeStyle = colour;
    context.stroke();
  };
  ring(model.pinned, 9, variable("ink"));
  ring(model.lit, 9, variable("lit"));
  ring(model.composing, 12, variable("accent"));
  if (drawn) {
    context.beginPath();
    drawn.forEach(([x, y], i) => (i ? context.lineTo(x, y) : context.moveTo(x, y)));
    context.closePath();
    context.lineWidth = 1.5;
    context.setLineDash([5, 4]);
    context.strokeStyle = variable("ink");
    context.stroke();
    context.setLineDash([]);
    context.fillStyle = `${variable("lit")}22`;
    context.fill();
  }
}

let told = "";

function legend() {
  const box = $("map-legend");
  const { method, explained } = model.map;
  const share = explained?.length ? `, ${Math.round(100 * explained.reduce((a, b) => a + b, 0))} % of the variance` : "";
  const name = model.state.search.objectives.length === 1 ? model.state.search.objectives[0] : "score";
  const now = JSON.stringify([method, share, name, scale, column("x").length]);
  if (now === told) return;
  told = now;
  box.replaceChildren(
    ...(scale
      ? [h("span", {}, `${name} ${scale.clipped ? "≤ " : ""}${number(scale.low)}`), h("span", { class: "ramp", style: { background: gradient() }, role: "img", "aria-label": `colours from ${number(scale.low)} to ${number(scale.high)}` }), h("span", {}, number(scale.high))]
      : []),
    h("span", {}, h("span", { class: "dot grey" }), "not evaluated, failed, or scored with earlier weights"),
    h("span", {}, h("span", { class: "dot faint" }), "outside the space, or without the block that is pointed at"),
    h("span", { class: "muted" }, `${method.toUpperCase()} of ${many(column("x").length, "encoding")}${share}`),
  );
}

function nearest(x, y, within) {
  let best = null;
  let least = within ** 2;
  for (let id = 0; id < column("x").length; id++) {
    const [px, py] = pixel(id);
    const distance = (px - x) ** 2 + (py - y) ** 2 - (column("trial")[id] === null ? 0 : 6);
    if (distance < least) [best, least] = [id, distance];
  }
  return best;
}

function look(id, speak) {
  current = id;
  light(id === null ? null : decisionsOf(id));
  tip.hidden = id === null;
  if (id === null) return;
  const trial = trialOf(id);
  const what = trial ? `trial ${trial.number}: ${trial.value === null ? trial.status : number(trial.value)}${trial.current ? "" : ", with earlier weights"}` : "not evaluated";
  tip.textContent = what;
  const [x, y] = pixel(id);
  tip.style.left = `${Math.min(x + 10, size[0] - 150)}px`;
  tip.style.top = `${Math.max(2, y - 32)}px`;
  if (speak) aloud.textContent = `${what}. ${described(decisionsOf(id)).join(", ")}`;
}

const at = (event) => {
  const box = overlay.getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top];
};

let start = null;
overlay.addEventListener("pointerdown", (event) => {
  if (event.button !== 0 || !model.map) return;
  start = at(event);
  drawn = null;
  overlay.setPointerCapture(event.pointerId);
});
overlay.addEventListener("pointermove", (event) => {
  if (!model.map) return;
  const [x, y] = at(event);
  if (!start) return look(nearest(x, y, 12));
  if (!drawn && Math.hypot(x - start[0], y - start[1]) < 5) return undefined;
  if (tool.value === "rectangle") drawn = [start, [x, start[1]], [x, y], [start[0], y]];
  else (drawn ??= [start]).push([x, y]);
  return trace();
});
overlay.addEventListener("pointerup", (event) => {
  if (!start) return;
  if (drawn) enclose(drawn, event.shiftKey);
  else {
    const id = nearest(...at(event), 14);
    if (event.shiftKey && id !== null) toggle(id);
    else if (id !== null) pin(decisionsOf(id));
    else select([]);
  }
  start = drawn = null;
  trace();
});
overlay.addEventListener("pointercancel", () => { start = drawn = null; trace(); });
overlay.addEventListener("pointerleave", () => !start && look(null));
overlay.addEventListener("blur", () => look(null));

function within(polygon, x, y) {
  let inside = false;
  for (let i = 0, j = polygon.length - 1; i < polygon.length; j = i++) {
    const [[xi, yi], [xj, yj]] = [polygon[i], polygon[j]];
    if (yi > y !== yj > y && x < ((xj - xi) * (y - yi)) / (yj - yi) + xi) inside = !inside;
  }
  return inside;
}

function enclose(polygon, adding) {
  const found = [];
  for (let id = 0; id < column("x").length; id++) if (within(polygon, ...pixel(id))) found.push(id);
  select(adding ? [...model.selection, ...found] : found);
}

function toggle(id) {
  const next = new Set(model.selection);
  if (!next.delete(id)) next.add(id);
  select(next);
}

overlay.addEventListener("keydown", (event) => {
  const direction = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  if (event.key === "Escape") return select([]);
  if (current !== null && event.key === "Enter") return pin(decisionsOf(current));
  if (current !== null && event.key === " ") {
    event.preventDefault();
    return toggle(current);
  }
  if (!direction) return undefined;
  event.preventDefault();
  const from = current ?? (model.pinned && candidateOf(model.pinned)) ?? model.trials[model.state.search.best]?.candidate.id ?? 0;
  if (current === null) return look(from, true);
  const [x, y] = pixel(from);
  let best = null;
  let least = Infinity;
  for (let id = 0; id < column("x").length; id++) {
    const [px, py] = pixel(id);
    const along = (px - x) * direction[0] + (py - y) * direction[1];
    const across = Math.abs((px - x) * direction[1]) + Math.abs((py - y) * direction[0]);
    if (id !== from && along > 0.5 && along + 2.5 * across < least) [best, least] = [id, along + 2.5 * across];
  }
  return best === null ? undefined : look(best, true);
});

paint.restored = () => {
  placed = "";
  render();
};
onAny("map allowed block selection template", render);
onAny("trials", render, 100);
onAny("lit pinned composing", trace);
new ResizeObserver(() => model.state && render()).observe(view);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => model.state && render());
