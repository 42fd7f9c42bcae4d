// What can be done with the candidates that are selected, and with the one that is looked at.

import { act, consider } from "./act.js";
import { Failure, post } from "./api.js";
import { $, button, h, many, number, put } from "./dom.js";
import { candidateOf, compose, decisionsOf, described, isAllowed, light, model, onAny, pin, select, trialOf, trialWith } from "./model.js";
import { tool } from "./map.js";
import { exportTrial } from "./exporting.js";

const LIMIT = 20000;

function tools() {
  const radio = (value, label, title) =>
    h("label", { class: "choice", title }, h("input", { type: "radio", name: "map-tool", value, checked: tool.value === value, onchange: () => (tool.value = value) }), label);
  const evaluated = () => model.trials.filter((trial) => trial?.current && trial.value !== null).sort((a, b) => b.value - a.value);
  const part = (from, to) => () => {
    const trials = evaluated();
    const ids = trials.slice(Math.floor(from * trials.length), Math.max(1, Math.ceil(to * trials.length))).map((trial) => trial.candidate.id);
    select(ids);
  };
  const choices = { "best 10 %": part(0, 0.1), "best quarter": part(0, 0.25), "worst quarter": part(0.75, 1), "all evaluated": part(0, 1), none: () => select([]) };
  const quick = h("select", { "aria-label": "Select candidates by score", onchange: () => { choices[quick.value]?.(); quick.value = ""; } },
    h("option", { value: "" }, "Select …"), Object.keys(choices).map((name) => h("option", { value: name }, name)));
  $("map-tools").append(
    h("span", { role: "radiogroup", "aria-label": "Select with", class: "tools" }, radio("rectangle", "Rectangle", "Drag a rectangle around candidates; with Shift, add them"), radio("lasso", "Lasso", "Drag a line around candidates; with Shift, add them")),
    quick,
  );
}

const KINDS = [
  ["restrict", "Union", "Restrict the space to the choices that occur among the selected candidates"],
  ["fix", "Intersection", "Force what all selected candidates share"],
  ["forbid_common", "Complement", "Forbid what all selected candidates share"],
];

function renderSelection() {
  const ids = [...model.selection];
  const box = $("selection");
  if (!ids.length) {
    put(box, h("p", { class: "muted" }, "Drag on the map to select candidates, then restrict the space to what they use, fix what they share, or forbid it. Each is shown before it is done."));
    return;
  }
  const values = ids.map(trialOf).filter((trial) => trial?.current && trial.value !== null).map((trial) => trial.value);
  const mean = values.reduce((sum, value) => sum + value, 0) / (values.length || 1);
  const candidates = () => ids.slice(0, LIMIT).map(decisionsOf);
  put(
    box,
    h("p", { role: "status" }, h("strong", {}, `${many(ids.length, "candidate")} selected`), values.length ? `, ${values.length.toLocaleString("en")} of them evaluated, mean score ${number(mean)}` : ", none of them evaluated"),
    h("div", { class: "tools" },
      KINDS.map(([kind, label, title]) => button(label, title, () => consider(kind, { candidates: candidates() }, `${label} of ${many(ids.length, "candidate")}`), { disabled: ids.length > LIMIT })),
      button("Clear", "Select nothing", () => select([]))),
  );
}

let asked = 0;

async function renderCandidate() {
  const box = $("candidate-panel");
  const decisions = model.composing ?? model.pinned;
  const composing = model.composing !== null;
  const mine = ++asked;
  if (!decisions) {
    put(
    box,
      h("div", { class: "tools" },
        button("Look at the best", "Open the best candidate so far", () => pin(model.trials[model.state.search.best].decisions), { disabled: model.state.search.best === null }),
        button("Compose one", "Put a candidate together by choosing blocks in the template", () => compose(beginning()))),
    );
    return;
  }
  const trial = trialWith(decisions);
  let facts = null;
  try {
    facts = await post("api/parse", { decisions });
  } catch (error) {
    facts = error instanceof Failure ? { problem: error.message } : null;
  }
  if (mine !== asked) return;
  const held = box.contains(document.activeElement) ? document.activeElement.dataset.does : null;
  const scores = Object.entries(trial?.scores ?? {}).map(([name, value]) => `${name} ${number(value)}`);
  const costs = facts && !facts.problem ? Object.entries(facts).filter(([, value]) => typeof value === "number").filter(([name]) => name !== "trial").map(([name, value]) => `${name} ${number(value)}`) : [];
  const problems = facts?.problem ? [facts.problem] : [!isAllowed(decisions) && "It is outside the space as it is now.", facts && !facts.feasible && "It breaks a constraint."].filter(Boolean);
  const title = composing ? "Composing a candidate" : trial ? `Trial ${trial.number}` : "Candidate";
  put(
    box,
    h("div", { class: "head" }, h("h3", {}, title), button("×", "Close this candidate", () => { compose(null); pin(null); light(null); }, { class: "close", "aria-label": "Close this candidate" })),
    composing ? h("p", {}, "Choose a block in each layer of the template; then evaluate it.") : null,
    h("p", { class: "code" }, facts?.text ?? trial?.text ?? decisions.join(" ")),
    h("p", {}, [...scores, ...costs].join(" · ") || "Not evaluated."),
    trial?.message ? h("p", { class: "warning wrap" }, trial.message) : null,
    problems.map((problem) => h("p", { class: "warning" }, problem)),
    h("details", {}, h("summary", {}, "Its blocks"), h("ul", { class: "columns" }, described(decisions).map((line) => h("li", {}, line)))),
    h("div", { class: "tools" },
      button("Evaluate next", "Add it: it is evaluated next, marked as the analyst's", async () => { if (await act("add", { decisions })) compose(null); }, { class: "primary", disabled: problems.length > 0, "data-does": "add" }),
      composing ? null : button("Change it", "Put together another candidate, beginning with this one", () => compose(decisions), { "data-does": "compose" }),
      button("Select it", "Add it to the selection of the map", () => { const id = candidateOf(decisions); if (id !== null) select([...model.selection, id]); }, { disabled: candidateOf(decisions) === null, "data-does": "select" }),
      trial ? button("Export …", "Write its network to a file", () => exportTrial(trial.number), { "data-does": "export" }) : null),
  );
  if (held) box.querySelector(`[data-does=${held}]`)?.focus();
}

/** A candidate to begin with: the best, or the first choices that are allowed. */
function beginning() {
  const best = model.trials[model.state.search.best];
  return model.pinned ?? best?.decisions ?? model.state.allowed.map((choices) => choices[0]);
}

tools();
onAny("selection map", renderSelection);
onAny("trials", renderSelection, 500);
onAny("pinned composing allowed map", renderCandidate);
onAny("trials", renderCandidate, 500);
