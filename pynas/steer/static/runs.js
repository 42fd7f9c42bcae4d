// Two runs of the store, one beside the other: with steering and without, say.

import { say } from "./act.js";
import { get } from "./api.js";
import { chart } from "./charts.js";
import { $, button, field, h, many, number } from "./dom.js";
import { model, onAny } from "./model.js";
import { changes } from "./trials.js";

const box = h("div", { class: "plot" });
const words = h("p", {});
const selects = [h("select", {}), h("select", {})];
const refresh = button("Compare", "Read both runs again and draw them", () => compare());
$("runs-tools").append(field("Run", selects[0], { class: "field inline" }), field("with", selects[1], { class: "field inline" }), refresh);
$("runs-view").append(words, box);

const named = (run) => `${run.id}: ${run.strategy}, seed ${run.seed}, ${many(run.trials, "trial")}, ${many(run.actions, "action")}${run.this ? " (this one)" : ""}`;

async function list() {
  try {
    const { runs } = await get("api/runs");
    $("runs").hidden = false;
    selects.forEach((select, i) => {
      const before = select.value;
      select.replaceChildren(...runs.map((run) => h("option", { value: String(run.id) }, named(run))));
      const mine = runs.find((run) => run.this) ?? runs.at(-1);
      const other = runs.filter((run) => !run.this && run.space === mine.space).at(-1) ?? mine;
      select.value = before || String((i ? other : mine).id);
    });
    words.textContent = runs.length > 1 ? "" : "There is one run in this store. A second one in the same store can be compared with it.";
    box.hidden = runs.length < 2;
    refresh.disabled = runs.length < 2;
    return runs.length;
  } catch (error) {
    if (error.status === 404) $("runs").hidden = true;
    return 0;
  }
}

async function compare() {
  if ((await list()) < 2) return;
  try {
    const both = await Promise.all(selects.map((select) => get(`api/runs/${encodeURIComponent(select.value)}`)));
    const line = (run, color, dash) => {
      const ends = [...run.best, ...(run.best.length ? [[Math.max(run.best.at(-1)[0], run.values.length - 1), run.best.at(-1)[1]]] : [])];
      return { x: ends.map(([x]) => x), y: ends.map(([, y]) => y), mode: "lines", name: `run ${run.id}`, line: { shape: "hv", color, dash, width: 2.5 } };
    };
    const marks = (run, color) => {
      const at = changes(run.steps);
      const value = (x) => run.best.filter(([n]) => n <= x).at(-1)?.[1] ?? null;
      return { x: at, y: at.map(value), mode: "markers", name: `changes of run ${run.id}`, marker: { color, size: 9, symbol: "triangle-down" } };
    };
    const told = (run) => `run ${run.id}: best ${number(run.best.at(-1)?.[1])} after ${many(run.values.length, "trial")}, ${many(run.steps.length, "action")}`;
    words.textContent = `${told(both[0])}; ${told(both[1])}.`;
    const title = both[0].objectives[0];
    chart(box, ([a, b]) => [line(both[0], a, "solid"), line(both[1], b, "dash"), marks(both[0], a), marks(both[1], b)].filter((trace) => trace.x.length), { xaxis: { title: "trial" }, yaxis: { title: `best ${title}` } }, words.textContent);
  } catch (error) {
    say(error.message, "error");
  }
}

let session = null;
onAny("template", () => {
  if (session === model.state.session) return;
  session = model.state.session;
  compare();
});
