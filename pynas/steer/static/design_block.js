// The properties of one block of a design, as fields.

import { field, h } from "./dom.js";

const kindOf = (palette, block) => palette.find((each) => each.kind === block.kind);

/** What a block is, and what of it is not as usual. */
export function titled(palette, block) {
  const given = Object.entries(block).filter(([key]) => key !== "kind").map(([key, value]) => `${key} ${value}`);
  return [kindOf(palette, block)?.title ?? block.kind, ...given].join(", ");
}

function control(property, value, put) {
  if (property.choices || typeof property.default === "boolean") {
    const choices = property.choices ?? [true, false];
    return h("select", { onchange: (event) => put(choices[event.target.selectedIndex]) }, choices.map((choice) => h("option", { selected: choice === value }, choice)));
  }
  if (property.low !== undefined || typeof property.default === "number") {
    const { low, high, odd, optional } = property;
    return h("input", {
      type: "number", min: low, max: high, step: odd ? 2 : 1, value: value ?? "", placeholder: optional ? "as comes in" : "",
      onchange: (event) => put(event.target.value === "" ? null : Number(event.target.value)),
    });
  }
  return h("input", { type: "text", value: value ?? "", onchange: (event) => put(event.target.value) });
}

/** Fields of a block; `change(edit)` is called with what edits it. */
export function properties(palette, block, key, change) {
  const kind = kindOf(palette, block);
  const select = h("select", { "data-does": `${key}:kind`, onchange: () => change((to) => {
    for (const each of Object.keys(to)) delete to[each];
    to.kind = select.value;
  }) }, palette.map((each) => h("option", { value: each.kind, selected: each.kind === block.kind, title: each.text }, each.title)));
  const fields = (kind?.properties ?? []).map((property) => {
    const put = (value) => change((to) => {
      if (value === property.default || value === null) delete to[property.name];
      else to[property.name] = value;
    });
    const made = control(property, block[property.name] ?? property.default, put);
    made.dataset.does = `${key}:${property.name}`;
    made.title = property.text;
    return field(property.name, made);
  });
  return h("div", { class: "fields" }, field("Kind", select), fields);
}
