// Doing something to the search: with a look at what it would change, or at once; and saying what came of it.

import { post } from "./api.js";
import { $, button, count, h, many, number, put } from "./dom.js";
import { model } from "./model.js";

const SHOWN = 4;

/** Say something to the analyst. Errors stay until they are closed. */
export function say(text, kind = "note") {
  const box = $("messages");
  const line = h("p", { class: `message ${kind}` }, h("span", {}, text));
  line.append(button("×", "Close this message", () => line.remove(), { class: "close", "aria-label": "Close this message" }));
  box.prepend(line);
  while (box.children.length > SHOWN) box.lastChild.remove();
  if (kind === "note") setTimeout(() => line.remove(), 6000);
}

export const who = {
  get name() {
    try {
      return localStorage.getItem("pynas-steer-who") || "page";
    } catch {
      return "page";
    }
  },
  set name(name) {
    try {
      localStorage.setItem("pynas-steer-who", name.trim().slice(0, 64));
    } catch { /* without storage everybody is "page" */ }
  },
};

const bodyOf = (kind, fields) => ({ kind, ...fields, who: who.name, session: model.state.session });

/** Do it; true if it was done, otherwise the analyst is told why not. */
export async function act(kind, fields = {}) {
  try {
    const { action } = await post("api/actions", bodyOf(kind, fields));
    say(`Done: ${action.text}`);
    return true;
  } catch (error) {
    say(error.message, "error");
    return false;
  }
}

/** Show what it would do to the space and to what is known, and do it if the analyst agrees. */
export async function consider(kind, fields, title) {
  let seen;
  try {
    seen = await post("api/preview", bodyOf(kind, fields));
  } catch (error) {
    say(error.message, "error");
    return false;
  }
  const dialog = $("preview");
  return new Promise((resolve) => {
    const finish = async (agreed) => {
      dialog.close();
      resolve(agreed ? await act(kind, fields) : false);
    };
    dialog.oncancel = (event) => {
      event.preventDefault();
      finish(false);
    };
    const apply = button("Apply", "Do this to the running search", () => finish(true), { class: "primary" });
    const leave = button("Leave as it is", "Change nothing", () => finish(false));
    put(
      dialog,
      h("h2", { id: "preview-h" }, title),
      h("p", { class: "wrap" }, seen.text),
      sizes(seen),
      h("p", {}, `Of ${many(seen.kept + seen.lost, "current trial")}, ${seen.kept.toLocaleString("en")} stay in the space and ${seen.lost.toLocaleString("en")} fall out of it.`),
      seen.best.length ? best(seen.best) : null,
      seen.notes.length ? h("ul", { class: "warnings", "aria-label": "Warnings" }, seen.notes.map((note) => h("li", {}, note))) : null,
      h("div", { class: "tools" }, apply, leave),
    );
    dialog.showModal();
    apply.focus();
  });
}

function sizes({ before, after, exact }) {
  const share = before !== null && after !== null ? Number((BigInt(after) * 100000n) / (BigInt(before) || 1n)) / 1000 : null;
  const sign = exact ? "" : "about ";
  return h(
    "p",
    { class: "sizes" },
    "Architectures: ",
    h("strong", {}, `${sign}${count(before)}`),
    " → ",
    h("strong", {}, `${sign}${count(after)}`),
    share === null ? "" : ` (${number(Number(share.toPrecision(3)))} %)`,
    share === null ? null : h("span", { class: "gauge", "aria-hidden": "true" }, h("span", { style: { width: `${Math.min(100, share)}%` } })),
  );
}

function best(list) {
  const items = list.map(({ trial, value, kept }) =>
    h("li", { class: kept ? "kept" : "lost" }, `${kept ? "keeps" : "loses"} trial ${trial} (${number(value)})`),
  );
  return h("div", {}, h("h3", {}, "Best known architectures"), h("ol", { class: "best" }, items));
}
