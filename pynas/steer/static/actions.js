// Everything that was done to the search, newest first.

import { $, h } from "./dom.js";
import { model, onAny } from "./model.js";

const clock = new Intl.DateTimeFormat("en", { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });

function when(time) {
  const date = new Date(time);
  return Number.isNaN(date.valueOf()) ? "" : clock.format(date);
}

onAny("actions", () => {
  const list = model.actions.filter(Boolean).reverse();
  const rows = list.slice(0, 500).map((action) =>
    h("tr", { class: action.undone ? "undone" : "" }, h("th", { scope: "row" }, action.number), h("td", {}, action.text, action.undone ? h("span", { class: "muted" }, " (undone)") : null), h("td", {}, action.who), h("td", { class: "n" }, action.trial), h("td", { class: "n" }, action.step ?? "–"), h("td", {}, h("time", { datetime: action.time }, when(action.time)))),
  );
  $("actions-list").replaceChildren(
    list.length
      ? h("table", {}, h("thead", {}, h("tr", {}, ["No.", "What", "Who", "Before trial", "Before step", "When"].map((name) => h("th", { scope: "col" }, name)))), h("tbody", {}, rows))
      : h("p", { class: "muted" }, "Nothing was done yet. Whatever you do is listed here, kept in the store and repeated by a replay."),
  );
});
