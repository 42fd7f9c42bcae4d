// A space of one's own: layers of alternative blocks, put together from the palette and checked while one types.

import { say } from "./act.js";
import { debounced, get, post } from "./api.js";
import { $, button, count, field, h, many, number } from "./dom.js";
import { model, onAny } from "./model.js";
import { properties, titled } from "./design_block.js";

let palette = [];
let design = null;
let past = [];
let future = [];
let open = new Set(); // alternatives whose properties are shown, as "layer:alternative"
let asked = 0;

const view = $("design-view");
const list = h("ol", { class: "layers", "aria-label": "Layers of the design" });
const verdict = h("div", { role: "status" });
const head = h("div", { class: "fields" });
const undo = button("Undo", "Undo the last change of the design", () => step(past, future));
const redo = button("Redo", "Do it again", () => step(future, past));
const name = h("input", { type: "text", pattern: "[A-Za-z0-9_\\-]{1,60}", maxlength: 60, value: "mine" });
const search = button("Search in it …", "Begin another search, in this space, in the same store", () => start(), { class: "primary", disabled: true });
const save = button("Save", "Save it where the command was started, for --space template:FILE", () => keep(), { disabled: true });
const file = h("input", { type: "file", accept: ".json,application/json", onchange: () => read() });
$("design-tools").append(undo, redo, button("Download", "Save the design as a file on this machine", () => download()));
view.append(
  h("p", { class: "muted" }, "Draw a network as layers, each with one or several alternatives; the search chooses one of each. Shapes are checked as you type."),
  head, list,
  h("div", { class: "tools" }, button("Add a layer", "Add a layer at the end", () => change((to) => to.layers.push({ alternatives: [{ kind: palette[0].kind }] })))),
  verdict,
  h("div", { class: "tools" }, field("Name of the file", name, { class: "field inline" }), save, search, field("Open a file", file, { class: "field inline" })),
);

const clone = (value) => JSON.parse(JSON.stringify(value));

function change(edit) {
  past.push(clone(design));
  if (past.length > 200) past.shift();
  future = [];
  edit(design);
  draw();
}

function step(from, to) {
  if (!from.length) return;
  to.push(clone(design));
  design = from.pop();
  draw();
}

/** Move an entry; nothing where it would leave the list. */
function shift(entries, at, by) {
  if (entries[at + by] === undefined) return;
  [entries[at], entries[at + by]] = [entries[at + by], entries[at]];
}

const tool = (label, title, does, run, disabled = false) => button(label, title, run, { "aria-label": title, disabled, "data-does": does });

function alternative(block, l, a, only) {
  const key = `${l}:${a}`;
  const of = `alternative ${a + 1} of layer ${l + 1}`;
  const at = (to) => to.layers[l].alternatives;
  return h(
    "li", {},
    h("details", { open: open.has(key), ontoggle: (event) => (event.target.open ? open.add(key) : open.delete(key)) },
      h("summary", {}, titled(palette, block)),
      properties(palette, block, key, (edit) => change((to) => edit(at(to)[a])))),
    h("div", { class: "tools" },
      tool("Copy", `Duplicate ${of}`, `${key}:copy`, () => change((to) => at(to).splice(a + 1, 0, clone(block)))),
      tool("×", `Remove ${of}`, `${key}:remove`, () => change((to) => at(to).splice(a, 1)), only)),
  );
}

function layer(given, l, total) {
  const label = h("input", { type: "text", maxlength: 60, value: given.name ?? "", "aria-label": `Name of layer ${l + 1}`, placeholder: `layer ${l + 1}`, "data-does": `${l}:name`,
    onchange: (event) => change((to) => { if (event.target.value) to.layers[l].name = event.target.value; else delete to.layers[l].name; }) });
  const add = h("select", { "aria-label": `Add an alternative to layer ${l + 1}`, "data-does": `${l}:add`, onchange: () => {
    const kind = add.value;
    open.add(`${l}:${given.alternatives.length}`);
    change((to) => to.layers[l].alternatives.push({ kind }));
  } }, h("option", { value: "" }, "Add an alternative …"), palette.map((each) => h("option", { value: each.kind, title: each.text }, each.title)));
  const of = `layer ${l + 1}`;
  return h(
    "li", { class: "layer-of-design", "data-layer": l },
    h("div", { class: "tools" }, label,
      tool("↑", `Move ${of} up`, `${l}:up`, () => change((to) => shift(to.layers, l, -1)), l === 0),
      tool("↓", `Move ${of} down`, `${l}:down`, () => change((to) => shift(to.layers, l, 1)), l === total - 1),
      tool("Copy", `Duplicate ${of}`, `${l}:copy`, () => change((to) => to.layers.splice(l + 1, 0, clone(given)))),
      tool("×", `Remove ${of}`, `${l}:remove`, () => change((to) => to.layers.splice(l, 1)), total === 1)),
    h("ul", { class: "alternatives" }, given.alternatives.map((block, a) => alternative(block, l, a, given.alternatives.length === 1))),
    add, h("div", { class: "problems" }),
  );
}

function draw() {
  const held = view.contains(document.activeElement) ? document.activeElement.dataset.does : null;
  const size = h("input", { type: "number", min: 1, step: 1, value: design.image_size, "data-does": "size", onchange: (event) => change((to) => (to.image_size = Number(event.target.value))) });
  const title = h("input", { type: "text", maxlength: 60, value: design.name ?? "", "data-does": "name", onchange: (event) => change((to) => { if (event.target.value) to.name = event.target.value; else delete to.name; }) });
  head.replaceChildren(
    field("Title", title), field("Image size in pixels", size),
    h("details", { open: open.has("stem"), ontoggle: (event) => (event.target.open ? open.add("stem") : open.delete("stem")) }, h("summary", {}, `Stem: ${titled(palette, design.stem)}`), properties(palette, design.stem, "stem", (edit) => change((to) => edit(to.stem)))),
  );
  list.replaceChildren(...design.layers.map((each, l) => layer(each, l, design.layers.length)));
  undo.disabled = !past.length;
  redo.disabled = !future.length;
  if (held) view.querySelector(`[data-does="${CSS.escape(held)}"]`)?.focus();
  check();
}

const check = debounced(150, async () => {
  const mine = ++asked;
  let found;
  try {
    found = await post("api/design/check", { template: design });
  } catch (error) {
    found = { ok: false, problems: [{ layer: null, message: error.message }] };
  }
  if (mine !== asked) return;
  save.disabled = search.disabled = !found.ok;
  for (const box of list.querySelectorAll(".problems")) box.replaceChildren();
  const whole = [];
  for (const { layer: l, message } of found.problems) {
    const box = l === null ? null : list.children[l]?.querySelector(".problems");
    if (box) box.append(h("p", { class: "warning" }, message));
    else whole.push(h("p", { class: "warning" }, message));
  }
  const range = found.params?.every((value) => value !== null) ? `, ${number(found.params[0])} to ${number(found.params[1])} parameters` : "";
  verdict.replaceChildren(found.ok ? h("p", {}, `Fits: ${count(found.size)} architectures${range}.`) : h("p", {}, `${many(found.problems.length, "problem")} to be mended first.`), ...whole);
});

async function keep() {
  try {
    const { file: written, spec } = await post("api/design/save", { template: design, name: name.value });
    say(`Saved ${written}; elsewhere it is --space ${spec}`);
  } catch (error) {
    say(error.message, "error");
  }
}

function start() {
  const dialog = $("preview");
  const text = "The present search is stopped; its results stay in the store. Every page shows the new one.";
  const go = button("Begin the search", text, async () => {
    dialog.close();
    try {
      await post("api/design/open", { template: design });
    } catch (error) {
      say(error.message, "error");
    }
  }, { class: "primary" });
  dialog.oncancel = null;
  dialog.replaceChildren(h("h2", { id: "preview-h" }, "Search in this design?"), h("p", {}, text), h("div", { class: "tools" }, go, button("Not now", "Change nothing", () => dialog.close())));
  dialog.showModal();
}

function download() {
  const address = URL.createObjectURL(new Blob([JSON.stringify(design, null, 1)], { type: "application/json" }));
  const link = h("a", { href: address, download: `${name.value || "design"}.json` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}

async function read() {
  const [chosen] = file.files;
  if (!chosen) return;
  try {
    if (chosen.size > 1 << 20) throw new Error(`${chosen.name} is larger than a design can be`);
    const found = JSON.parse(await chosen.text());
    const isBlock = (each) => typeof each?.kind === "string";
    const isLayer = (each) => Array.isArray(each?.alternatives) && each.alternatives.length > 0 && each.alternatives.every(isBlock);
    if (!Array.isArray(found?.layers) || !found.layers.length || !found.layers.every(isLayer) || !isBlock(found.stem))
      throw new Error(`${chosen.name} is no design: it has no layers of alternatives, each a block of some kind`);
    change(() => (design = found));
  } catch (error) {
    say(error.message, "error");
  }
  file.value = "";
}

async function offer() {
  const offered = Boolean(model.state.offers.design);
  for (const part of document.querySelectorAll('[data-view="design"]')) part.hidden = !offered;
  if (!offered || design) return;
  try {
    const found = await get("api/design/palette");
    palette = found.palette;
    design = found.example;
    draw();
  } catch (error) {
    for (const part of document.querySelectorAll('[data-view="design"]')) part.hidden = true;
    if (error.status !== 404) say(error.message, "error");
  }
}

onAny("template", offer);
