// The network of a trial as a file.

import { say } from "./act.js";
import { ask } from "./api.js";
import { $, button, field, h } from "./dom.js";
import { model } from "./model.js";

const WORDS = {
  architecture: "Architecture (JSON)", state_dict: "Weights (safetensors)", pytorch: "PyTorch source, weights and card (.zip)",
  onnx: "ONNX", "torch.export": "Program of torch.export (.pt2)", script: "TorchScript (.ts)",
};

async function save(trial, format) {
  const response = await ask(`api/export?trial=${trial}&format=${encodeURIComponent(format)}`);
  const name = /filename="([^"]+)"/.exec(response.headers.get("content-disposition") ?? "")?.[1] ?? `trial-${trial}`;
  const address = URL.createObjectURL(await response.blob());
  const link = h("a", { href: address, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
  const weights = response.headers.get("x-pynas-weights");
  say(`Saved ${name}${format === "architecture" ? "" : weights === "shared" ? ", with the weights of the supernet" : ", with newly initialised weights"}.`);
}

/** Ask for the format, and save the file. */
export function exportTrial(trial) {
  const dialog = $("preview");
  const formats = model.state.offers.formats ?? ["architecture"];
  const format = h("select", {}, formats.map((name) => h("option", { value: name }, WORDS[name] ?? name)));
  const number = h("input", { type: "number", min: 0, max: model.trials.length - 1, step: 1, value: trial });
  const problem = h("p", { class: "warning", role: "alert", hidden: true });
  const go = button("Save", "Write the file", async () => {
    go.disabled = true;
    problem.hidden = true;
    try {
      await save(Number(number.value), format.value);
      dialog.close();
    } catch (error) {
      problem.textContent = error.message;
      problem.hidden = false;
    }
    go.disabled = false;
  }, { class: "primary" });
  dialog.oncancel = null;
  dialog.replaceChildren(
    h("h2", { id: "preview-h" }, "Export a network"),
    h("div", { class: "fields" }, field("Trial", number), field("Format", format)),
    h("p", { class: "muted" }, "With the weights of the supernet where it can hand them over, otherwise newly initialised."),
    problem,
    h("div", { class: "tools" }, go, button("Close", "Save nothing", () => dialog.close())),
  );
  dialog.showModal();
}
