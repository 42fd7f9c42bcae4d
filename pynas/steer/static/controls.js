// The head of the page: what is going on, and the four controls with their fixed meanings.

import { act, consider } from "./act.js";
import { onContact } from "./connection.js";
import { $, button, count, h, many, number, say, set } from "./dom.js";
import { model, onAny } from "./model.js";

const WAITING = {
  catching_up: "repeating what its store says", training: "waiting for the training", pausing: "pausing: what runs finishes",
  stopping: "stopping: what runs finishes", budget: "the budget is spent: raise it to go on",
  exhausted: "no new architecture is left: change the space or the constraints",
};

const controls = {
  pause: button("Pause", "Begin nothing new; what runs finishes", () => act("pause")),
  resume: button("Resume", "Go on with the search", () => act("resume")),
  stop: button("Stop", "What runs finishes, then the search and its training end for good", () => sure("stop")),
  cancel: button("Cancel", "End at once; what runs is thrown away", () => sure("cancel")),
};
const MEANINGS = {
  stop: ["Stop the search?", "What runs finishes, then the search and its training end for good. Results stay, and can be exported."],
  cancel: ["Cancel the search?", "It ends at once; what runs is thrown away. Results stay in the store."],
};

function sure(kind) {
  const dialog = $("preview");
  const [title, text] = MEANINGS[kind];
  const go = button(title.replace("?", ""), text, () => { dialog.close(); act(kind); }, { class: "danger" });
  dialog.oncancel = null;
  dialog.replaceChildren(h("h2", { id: "preview-h" }, title), h("p", {}, text), h("div", { class: "tools" }, go, button("Let it go on", "Change nothing", () => dialog.close())));
  dialog.showModal();
}

// With the number of what the analyst saw: on another page somebody may have done something meanwhile.
const last = (kind) => (model.state[kind] ? { of: model.state[kind].action } : {});
const undo = button("Undo", "Undo the last change", () => act("undo", last("undo")));
const redo = button("Redo", "Do again what was undone", () => act("redo", last("redo")));
$("controls").append(...Object.values(controls), h("span", { class: "gap" }), undo, redo);
$("actions-tools").append(
  button("Undo …", "See what undoing the last change would do", () => consider("undo", last("undo"), "Undo the last change"), { id: "undo-look" }),
);

const bar = h("progress", { max: 1, value: 0, "aria-label": "Trials of the budget" });
const left = h("span", {});
$("progress").append(bar, left);

function render() {
  const { space, search, can, training } = model.state;
  const title = `${search.trials}/${search.budget} · ${space.name} · pynas steer`;
  if (document.title !== title) document.title = title;
  say($("space"), `${space.name}: ${space.exact ? "" : "about "}${count(space.remaining)} of ${count(space.size)} architectures`);
  const words = [search.status, WAITING[search.waiting], search.message].filter(Boolean).join(": ");
  const busy = training?.status === "running" ? `training, step ${training.phase_step} of ${training.phase_steps}` : "";
  const best = model.trials[search.best];
  const status = $("status");
  set(status, "class", `pill ${search.status}`);
  const text = [words, busy].filter(Boolean).join("; ");
  say(status, text);
  bar.max = Math.max(1, search.budget);
  bar.value = search.trials;
  say(left, `${number(search.trials)} of ${many(search.budget, "trial")}${best?.value === null || !best ? "" : `, best ${number(best.value)}`}`);
  for (const [name, control] of Object.entries(controls)) control.disabled = !can[name];
  undo.disabled = !can.undo;
  redo.disabled = !can.redo;
  $("undo-look").disabled = !can.undo;
  set(undo, "title", model.state.undo ? `Undo: ${model.state.undo.text}` : "Nothing to undo");
  set(redo, "title", model.state.redo ? `Redo: ${model.state.redo.text}` : "Nothing to redo");
}

onContact(({ gone, message }) => {
  const banner = $("banner");
  if (gone && banner.textContent !== message) banner.textContent = message;
  banner.hidden = !gone;
  document.body.classList.toggle("gone", gone);
});

onAny("state trials", render);
