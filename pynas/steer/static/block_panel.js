// One block: its numbers, its properties, and what can be done to it.

import { act, consider } from "./act.js";
import { $, button, h, number, signed } from "./dom.js";
import { blockOf, choose, fitnessOf, isBlockAllowed, layerOf, model, onAny } from "./model.js";

const panel = $("block-panel");
const facts = (pairs) => h("dl", { class: "facts" }, pairs.map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));

function shown(value) {
  return typeof value === "object" && value !== null ? JSON.stringify(value) : number(value);
}

function evidence(fitness) {
  if (!fitness?.n) return h("p", { class: "muted" }, "No evaluated candidate has this block yet.");
  const level = Math.round(100 * model.blocks.level);
  const warning = fitness.thin
    ? h("p", { class: "warning" }, fitness.n < 5 ? `Thin evidence: only ${number(fitness.n)} evaluated with it.` : "Thin evidence: the interval contains 0.")
    : h("p", { class: `verdict ${fitness.verdict}` }, fitness.verdict === "good" ? "Better than the mean of all." : "Worse than the mean of all.");
  return [
    facts([
      ["Fitness", `${signed(fitness.fitness)} [${number(fitness.low, 3)}, ${number(fitness.high, 3)}]`],
      ["Mean score", `${number(fitness.mean)}, of all ${number(model.blocks.mean)}`],
      ["Frequency", `${number(100 * fitness.frequency, 3)} % (n = ${number(fitness.n)} of ${number(model.blocks.trials)})`],
    ]),
    warning,
    h("p", { class: "muted small" }, `Fitness is the mean score of candidates with the block minus that of all, with its ${level} % bootstrap interval.`),
  ];
}

function render() {
  const block = model.chosen === null ? null : blockOf(model.chosen);
  if (!block) {
    panel.replaceChildren(
      h("h3", {}, "Block"),
      h("p", { class: "muted" }, "Choose a block in the template or in the chart of blocks: its numbers and properties stand here, and it can be forbidden or forced."),
      h("ul", { class: "key muted" },
        h("li", {}, h("span", { class: "swatch lit" }), "of the candidate looked at"),
        h("li", {}, h("span", { class: "swatch out" }), "forbidden"),
        h("li", {}, h("span", { class: "good" }, "▲ "), "fitness above 0 with its whole interval"),
        h("li", {}, h("span", { class: "bad" }, "▼ "), "below 0 with its whole interval")),
    );
    return;
  }
  const layer = layerOf(block.decision);
  const allowed = model.state.allowed[block.decision];
  const is = isBlockAllowed(block);
  const all = model.template.blocks.filter((each) => each.decision === block.decision).length;
  const name = `${block.label} on ${layer.label}`;
  const status = !is ? "Forbidden." : allowed.length === 1 ? "Forced: the only choice here." : `Allowed, with ${allowed.length - 1} of ${all - 1} others.`;
  const numbers = h("div", { class: "evidence" }, evidence(fitnessOf(block.id)));
  // Each trial changes the numbers. The buttons stay the same and where they are, or a click would miss them.
  const drawn = JSON.stringify([block.id, name, status]);
  const old = panel.querySelector(".evidence");
  if (old && panel.dataset.drawn === drawn) {
    old.replaceWith(numbers);
    return;
  }
  panel.dataset.drawn = drawn;
  const held = document.activeElement?.closest?.("#block-panel") ? document.activeElement.dataset.does : null;
  panel.replaceChildren(
    h("div", { class: "head" }, h("h3", {}, name), button("×", "Close this block", () => choose(null), { class: "close", "aria-label": "Close this block" })),
    h("p", {}, status),
    h("div", { class: "tools" },
      button("Forbid", "No longer take this choice", () => consider("forbid", { blocks: [block.id] }, `Forbid ${name}`), { disabled: !is || allowed.length === 1, "data-does": "forbid" }),
      button("Force", "Take only this choice here", () => consider("force", { blocks: [block.id] }, `Force ${name}`), { disabled: !is || allowed.length === 1, "data-does": "force" }),
      button("Allow again", "Un-do: take this choice again", () => act("allow", { blocks: [block.id] }), { disabled: is, "data-does": "allow" }),
      button("Allow all here", "Un-do: take every choice of this layer again", () => act("allow", { decisions: [block.decision] }), { disabled: allowed.length === all, "data-does": "all" })),
    numbers,
    h("h4", {}, "Properties"),
    facts([["family", block.family], ...Object.entries(block.properties).map(([key, value]) => [key, shown(value)])]),
  );
  if (held) panel.querySelector(`[data-does=${held}]`)?.focus();
}

onAny("chosen blocks allowed template", render);
