// Training of the shared weights: its curves, and start, pause, resume, stop.

import { act } from "./act.js";
import { chart } from "./charts.js";
import { $, button, field, h, many, number } from "./dom.js";
import { model, onAny } from "./model.js";

const epochs = h("input", { type: "number", min: 1, step: 1, value: 3 });
const controls = {
  train: button("Train", "Train for these epochs, with the weights there are, in the space as it is allowed", () => act("train", { epochs: Number(epochs.value) })),
  train_pause: button("Pause training", "Keep the phase open, and take no further step", () => act("train_pause")),
  train_resume: button("Resume training", "Go on with the phase", () => act("train_resume")),
  train_stop: button("Stop training", "End the phase with the weights as they are", () => act("train_stop")),
};
$("training-tools").append(field("Epochs", epochs, { class: "field inline" }), ...Object.values(controls));
const [losses, accuracies] = [h("div", { class: "plot" }), h("div", { class: "plot" })];
$("training-view").append(losses, accuracies);

const shown = () => model.state.training !== null;

function status() {
  for (const part of document.querySelectorAll('[data-view="training"]')) part.hidden = !shown();
  if (!shown()) return;
  const { training, can } = model.state;
  for (const [name, control] of Object.entries(controls)) control.disabled = !can[name];
  const progress = training.phase ? `phase ${training.phase}, step ${training.phase_step} of ${training.phase_steps} (${many(training.epochs, "epoch")})` : "no phase yet";
  $("training-status").textContent = `${training.status}: ${progress}; ${many(training.steps, "step")} in all${training.message ? `. ${training.message}` : ""}`;
}

function curves() {
  if (!shown()) return;
  const { points } = model;
  const phases = points.filter((p, i) => i && p.phase !== points[i - 1].phase).map((p) => p.step);
  const lines = phases.map((x) => ({ type: "line", x0: x, x1: x, yref: "paper", y0: 0, y1: 1, line: { width: 1, dash: "dot", color: "#888" } }));
  const draw = (box, key, title, range) => {
    const validated = points.filter((p) => p[`validation_${key}`] !== null && p[`validation_${key}`] !== undefined);
    const last = points.at(-1);
    chart(
      box,
      ([first, second]) => [
        { x: points.map((p) => p.step), y: points.map((p) => p[key]), name: "training", mode: "lines", line: { color: first, width: 2 } },
        { x: validated.map((p) => p.step), y: validated.map((p) => p[`validation_${key}`]), name: "validation", mode: "lines+markers", line: { color: second, width: 2, dash: "dash" }, marker: { size: 7, symbol: "diamond" } },
      ],
      { xaxis: { title: "step" }, yaxis: { title, ...range }, shapes: lines },
      last ? `${title} by step: training ${number(last[key])} at step ${last.step}${validated.length ? `, validation ${number(validated.at(-1)[`validation_${key}`])}` : ""}` : `${title}: nothing yet`,
    );
  };
  draw(losses, "loss", "loss", { rangemode: "tozero" });
  draw(accuracies, "accuracy", "accuracy", { rangemode: "tozero" });
}

onAny("state", status);
onAny("points template", curves, 300);
