// The space as a drawing: layers of alternative blocks. Lights up a candidate; a click opens a block.

import { $, button, count, number, prefersStill, set, svg } from "./dom.js";
import { blockOf, choose, compose, fitnessOf, isBlockAllowed, layerOf, model, onAny, point } from "./model.js";

const view = $("template-view");
let zoom = 1;
let fitted = true;
let focused = null; // id of the block that the Tab key reaches
let shapes = new Map();

function fit() {
  const { width, height } = model.template;
  const room = Math.max(200, view.clientWidth - 4);
  // As large as fits, but never so small that labels cannot be read: then the view scrolls.
  return Math.min(1.4, Math.max(0.72, Math.min(room / width, 620 / height)));
}

function setZoom(next, at) {
  const before = zoom;
  zoom = Math.min(4, Math.max(0.3, next));
  const drawing = view.querySelector("svg");
  if (!drawing) return;
  const box = view.getBoundingClientRect();
  const x = at ? at.x - box.left : box.width / 2;
  const y = at ? at.y - box.top : box.height / 2;
  const left = ((view.scrollLeft + x) * zoom) / before - x;
  const top = ((view.scrollTop + y) * zoom) / before - y;
  drawing.setAttribute("width", model.template.width * zoom);
  drawing.setAttribute("height", model.template.height * zoom);
  view.scrollLeft = left;
  view.scrollTop = top;
}

function zoomBy(factor, at) {
  fitted = false;
  setZoom(zoom * factor, at);
}

function refit() {
  fitted = true;
  setZoom(fit());
}

$("template-tools").append(
  button("−", "Zoom out", () => zoomBy(1 / 1.25), { "aria-label": "Zoom out" }),
  button("+", "Zoom in", () => zoomBy(1.25), { "aria-label": "Zoom in" }),
  button("Fit", "Fit the template into the view", refit),
);

view.addEventListener("wheel", (event) => {
  if (!event.ctrlKey && !event.metaKey) return;
  event.preventDefault();
  zoomBy(Math.exp(-event.deltaY / 400), { x: event.clientX, y: event.clientY });
}, { passive: false });

let drag = null;
view.addEventListener("pointerdown", (event) => {
  const box = view.getBoundingClientRect();
  const onBar = event.clientX - box.left > view.clientWidth || event.clientY - box.top > view.clientHeight;
  if (event.pointerType === "touch" || event.button !== 0 || onBar || event.target.closest(".block")) return;
  drag = { x: event.clientX + view.scrollLeft, y: event.clientY + view.scrollTop };
  view.setPointerCapture(event.pointerId);
  view.classList.add("dragging");
});
view.addEventListener("pointermove", (event) => {
  if (drag) view.scrollTo(drag.x - event.clientX, drag.y - event.clientY);
});
for (const name of ["pointerup", "pointercancel"])
  view.addEventListener(name, () => {
    drag = null;
    view.classList.remove("dragging");
  });

function drawBlock(block) {
  const left = block.x - block.width / 2;
  const top = block.y - block.height / 2;
  const mark = svg("path", { class: "mark", d: "" });
  const group = svg(
    "g",
    {
      class: `block family-${block.family}`, role: "button", tabindex: -1, "data-block": block.id,
      onclick: () => press(block),
      onpointerenter: () => point(block.id),
      onpointerleave: () => point(null),
      onfocus: () => point(block.id),
      onblur: () => point(null),
    },
    svg("rect", { class: "face", x: left, y: top, width: block.width, height: block.height, rx: 3 }),
    svg("rect", { class: "stripe", x: left, y: top, width: 5, height: block.height, rx: 2 }),
    svg("text", { x: left + 10, y: block.y + 3.8 }, block.label),
    svg("line", { class: "strike", x1: left + 8, x2: left + block.width - 6, y1: block.y, y2: block.y }),
    mark,
  );
  shapes.set(block.id, { block, group, mark });
  return group;
}

function draw() {
  const { template } = model;
  const old = view.querySelector("svg");
  shapes = new Map();
  const links = template.links.map((link) =>
    svg("polyline", { class: "link", points: link.points.map((p) => p.join(",")).join(" "), "data-from": link.from, "data-to": link.to }),
  );
  const nodes = template.nodes.map((node) =>
    svg("g", { class: "node", "aria-hidden": "true" }, svg("circle", { cx: node.x, cy: node.y, r: node.radius }), svg("text", { x: node.x, y: node.y + 4 }, node.label)),
  );
  const layers = template.layers.map((layer) =>
    svg(
      "g",
      { class: "layer", role: "group", "aria-label": `layer ${layer.label}` },
      svg("rect", { class: "box", x: layer.x - layer.width / 2, y: layer.y - layer.height / 2, width: layer.width, height: layer.height, rx: 6 }),
      svg("text", { class: "title", x: layer.x - layer.width / 2 + 8, y: layer.y - layer.height / 2 + 16 }, layer.label),
      template.blocks.filter((block) => block.decision === layer.decision).map(drawBlock),
    ),
  );
  const cells = [...new Set(template.layers.map((layer) => layer.cell))].filter(Boolean);
  const names = cells.length < 2 ? [] : cells.map((cell) => {
    const of = template.layers.filter((layer) => layer.cell === cell);
    const x = Math.min(...of.map((layer) => layer.x - layer.width / 2));
    const y = Math.min(...of.map((layer) => layer.y - layer.height / 2));
    return svg("text", { class: "cell", x, y: y - 8 }, `${cell} cell`);
  });
  const drawing = svg(
    "svg",
    { viewBox: `0 0 ${template.width} ${template.height}`, role: "group", "aria-label": `Template of ${template.layers.length} layers`, onkeydown: move },
    links, layers, nodes, names,
  );
  if (!blockOf(focused)) focused = template.blocks[0]?.id ?? null;
  if (old) old.replaceWith(drawing);
  else view.append(drawing);
  zoom = 1;
  setZoom(fit());
  paint();
}

function press(block) {
  focused = block.id;
  if (model.composing) {
    const next = [...model.composing];
    next[block.decision] = block.choice;
    compose(next);
  }
  choose(block.id);
}

function move(event) {
  if (event.key === "+" || event.key === "=") return zoomBy(1.25);
  if (event.key === "-") return zoomBy(1 / 1.25);
  if (event.key === "0") return refit();
  const here = shapes.get(event.target.dataset?.block)?.block;
  if (!here) return undefined;
  if (event.key === "Enter" || event.key === " ") {
    event.preventDefault();
    return press(here);
  }
  const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  if (!step) return undefined;
  event.preventDefault();
  const layer = here.decision + step[0];
  const inLayer = model.template.blocks.filter((block) => block.decision === layer);
  const next = inLayer[Math.min(inLayer.length - 1, here.choice + step[1])];
  if (!next) return undefined;
  focused = next.id;
  paint();
  const group = shapes.get(next.id).group;
  group.focus({ preventScroll: true });
  return group.scrollIntoView({ block: "nearest", inline: "nearest", behavior: prefersStill() ? "auto" : "smooth" });
}

/** What a block is, in words. */
export function spoken(block) {
  const fitness = fitnessOf(block.id);
  const allowed = isBlockAllowed(block);
  const parts = [`${block.label} on ${layerOf(block.decision)?.label ?? block.decision}`];
  if (!allowed) parts.push("forbidden");
  else if (model.state.allowed[block.decision].length === 1) parts.push("the only choice");
  if (fitness?.n) parts.push(`fitness ${number(fitness.fitness)}, n ${count(String(fitness.n))}, ${fitness.thin ? "evidence is thin" : fitness.verdict}`);
  return parts.join(", ");
}

const UP = (x, y) => `M${x - 3},${y + 3}h6l-3,-6z`;
const DOWN = (x, y) => `M${x - 3},${y - 3}h6l-3,6z`;

function paint() {
  const shown = model.composing ?? model.lit ?? model.pinned;
  for (const { block, group, mark } of shapes.values()) {
    const allowed = isBlockAllowed(block);
    const fitness = fitnessOf(block.id);
    const sure = fitness && !fitness.thin && fitness.verdict !== "unclear" ? fitness.verdict : "";
    group.classList.toggle("lit", shown?.[block.decision] === block.choice);
    group.classList.toggle("out", !allowed);
    group.classList.toggle("only", allowed && model.state.allowed[block.decision].length === 1);
    group.classList.toggle("pointed", model.block === block.id);
    group.classList.toggle("chosen", model.chosen === block.id);
    set(group, "tabindex", block.id === focused ? 0 : -1);
    set(group, "aria-label", spoken(block));
    set(group, "aria-pressed", model.chosen === block.id);
    set(mark, "class", `mark ${sure}`);
    const x = block.x + block.width / 2 - 5;
    set(mark, "d", sure === "good" ? UP(x, block.y) : sure === "bad" ? DOWN(x, block.y) : "");
  }
}

onAny("template", draw);
onAny("allowed blocks lit pinned block chosen composing", paint);
new ResizeObserver(() => fitted && model.template && setZoom(fit())).observe(view);
