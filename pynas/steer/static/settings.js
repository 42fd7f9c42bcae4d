// Strategy, budget, constraints, weights, and candidates added by hand: each a form of its own.

import { act, consider, who } from "./act.js";
import { debounced, post } from "./api.js";
import { $, button, field, h, number } from "./dom.js";
import { model, onAny } from "./model.js";

const forms = $("search-forms");

/** A form that follows the search until somebody types into it. */
function form(title, name, basis, fill, submit, action = "Apply", hint = "") {
  const body = h("div", { class: "fields" });
  const apply = h("button", { type: "submit", title: hint || action }, action);
  const back = button("Reset", "Show again what the search has", () => { dirty(false); draw(); }, { hidden: true });
  const made = h("form", { "aria-label": title, "data-form": name, oninput: () => dirty(true) }, h("h3", {}, title), hint ? h("p", { class: "muted small" }, hint) : null, body, h("div", { class: "tools" }, apply, back));
  let touched = false;
  let shown = null;
  function dirty(now) {
    touched = now;
    back.hidden = !now;
  }
  function draw() {
    shown = JSON.stringify(basis());
    body.replaceChildren(...[fill()].flat().filter(Boolean));
  }
  made.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (await submit(made)) {
      dirty(false);
      draw();
    }
  });
  made.refresh = () => {
    if (!touched && JSON.stringify(basis()) !== shown) draw();
  };
  forms.append(made);
  return made;
}

const given = (control) => (control.value.trim() === "" ? null : Number(control.value));
const numbers = (box, kind) =>
  Object.fromEntries([...box.querySelectorAll(`[data-${kind}]`)].map((control) => [control.dataset[kind], given(control)]).filter(([, value]) => value !== null));

function optionFields(name) {
  const { offers, search } = model.state;
  const known = offers.strategies.find((each) => each.name === name)?.options ?? {};
  const now = name === search.strategy ? search.strategy_options : {};
  return Object.entries(known).map(([option, standard]) => {
    const value = now[option] ?? standard;
    const type = typeof standard === "boolean" ? "checkbox" : typeof standard === "number" ? "number" : "text";
    const control = h("input", { type, "data-option": option, ...(type === "checkbox" ? { checked: value } : { value }), ...(type === "number" ? { step: "any" } : {}) });
    control.standard = standard;
    return field(option.replaceAll("_", " "), control);
  });
}

const all = [
  form(
    "Strategy", "strategy", () => [model.state.search.strategy, model.state.search.strategy_options, model.state.offers.strategies.length],
    () => {
      const { offers, search } = model.state;
      const options = h("div", { class: "fields" }, optionFields(search.strategy));
      const select = h("select", { onchange: () => options.replaceChildren(...optionFields(select.value)) }, offers.strategies.map(({ name }) => h("option", { value: name, selected: name === search.strategy }, name)));
      return [field("Strategy", select), options];
    },
    (made) => {
      const options = {};
      for (const control of made.querySelectorAll("[data-option]")) {
        const value = control.type === "checkbox" ? control.checked : control.type === "number" ? given(control) : control.value;
        if (value !== null && value !== control.standard) options[control.dataset.option] = value;
      }
      return act("strategy", { name: made.querySelector("select").value, options });
    },
    "Change strategy", "It is told of the current trials in the space.",
  ),
  form(
    "Budget", "budget", () => model.state.search.budget,
    () => field("Trials in all", h("input", { type: "number", min: 1, step: 1, required: true, value: model.state.search.budget })),
    (made) => act("budget", { trials: Number(made.querySelector("input").value) }),
    "Set budget",
  ),
  form(
    "Constraints", "constraints", () => [model.state.search.constraints, model.state.offers.costs],
    () => [...new Set([...model.state.offers.costs, ...Object.keys(model.state.search.constraints)])].map((cost) =>
      field(`${cost} at most`, h("input", { type: "number", step: "any", "data-cost": cost, placeholder: "no bound", value: model.state.search.constraints[cost] ?? "" }))),
    (made) => consider("constraints", { bounds: numbers(made, "cost") }, "Set the constraints"),
    "Look and set …", "Upper bounds; empty for none.",
  ),
  form(
    "Weights of objectives", "weights", () => [model.state.search.weights, model.state.search.objectives],
    () => {
      const { objectives, weights } = model.state.search;
      const clear = button("No weights", "Let the strategy combine the objectives", () => act("weights", { weights: null }), { disabled: weights === null });
      return [...objectives.map((name) => field(name, h("input", { type: "number", step: "any", "data-objective": name, placeholder: "1", value: weights?.[name] ?? "" }))), clear];
    },
    (made) => act("weights", { weights: numbers(made, "objective") }),
    "Set weights", "Maximise the sum of weight times score. Without weights the strategy combines several objectives itself.",
  ),
];

// ---- a candidate by hand ---------------------------------------------------------------------------------

const text = h("textarea", { rows: 2, spellcheck: "false", autocapitalize: "off", autocomplete: "off", oninput: () => check() });
const verdict = h("p", { role: "status", class: "wrap" });
const add = h("button", { type: "submit", disabled: true, title: "It is evaluated next, marked as the analyst's" }, "Evaluate next");
const queue = h("ul", { class: "queue", "aria-label": "Added candidates that wait" });
let asked = 0;

const check = debounced(200, async () => {
  const mine = ++asked;
  const value = text.value.trim();
  add.disabled = true;
  verdict.className = "wrap";
  verdict.textContent = "";
  if (!value) return;
  try {
    const found = await post("api/parse", { text: value });
    if (mine !== asked) return;
    const problems = [!found.allowed && "it is outside the space as it is now", !found.feasible && "it breaks a constraint"].filter(Boolean);
    const costs = Object.entries(found).filter(([name, cost]) => typeof cost === "number" && name !== "trial").map(([name, cost]) => `${name} ${number(cost)}`);
    verdict.textContent = [problems.length ? `${problems.join("; ")}.` : "Valid.", costs.join(", "), found.trial === null ? "" : `(trial ${found.trial} was the same)`].filter(Boolean).join(" ");
    verdict.classList.toggle("warning", problems.length > 0);
    add.disabled = problems.length > 0;
  } catch (error) {
    if (mine !== asked) return;
    verdict.textContent = error.message;
    verdict.classList.add("warning");
  }
});

const adding = h(
  "form", { "aria-label": "Add a candidate", "data-form": "add" },
  h("h3", {}, "Add a candidate"),
  h("p", { class: "muted small" }, "Typed here, picked on the map, or composed in the template."),
  field("Architecture", text), verdict, h("div", { class: "tools" }, add), queue,
);
adding.addEventListener("submit", async (event) => {
  event.preventDefault();
  if (await act("add", { text: text.value.trim() })) {
    text.value = "";
    check();
  }
});

const name = h("input", { type: "text", maxlength: 64, value: who.name, onchange: () => (who.name = name.value || "page") });
const naming = h("form", { "aria-label": "Who acts", onsubmit: (event) => event.preventDefault() }, h("h3", {}, "Who acts"), h("p", { class: "muted small" }, "Kept with each of your actions."), field("Your name", name));
forms.append(adding, naming);

let listed = "";
onAny("state", () => {
  for (const each of all) each.refresh();
  all.at(-1).hidden = model.state.search.objectives.length < 2;
  const { running } = model.state.search;
  const now = JSON.stringify([model.state.search.queue, running]);
  if (now === listed) return;
  listed = now;
  text.placeholder ||= model.trials[0]?.text ?? running?.text ?? "";
  queue.replaceChildren(
    ...(running ? [h("li", {}, h("span", { class: "code" }, running.text), h("span", { class: "muted" }, ` trial ${running.number}, running${running.by === "analyst" ? ", the analyst's" : ""}`))] : []),
    ...model.state.search.queue.map((each) =>
      h("li", {}, h("span", { class: "code" }, each.text), h("span", { class: "muted" }, ` added by ${each.who} `), button("Withdraw", "Take it from the queue", () => act("withdraw", { decisions: each.decisions })))),
  );
});
