// Lines and points by plotly, in the colours of the page.

import { variable } from "./colour.js";

let loading = null;

function plotly() {
  loading ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = "vendor/plotly.min.js";
    script.onload = () => resolve(window.Plotly);
    script.onerror = () => {
      loading = null;
      reject(new Error("the drawing library could not be read"));
    };
    document.head.append(script);
  });
  return loading;
}

// plotly reads tags in titles and names; those here may come from anybody's file.
const plain = (text) => (typeof text === "string" ? text.replaceAll("&", "&amp;").replaceAll("<", "&lt;") : text);

const drawn = new Map();
const visible = new WeakSet();

// Only what somebody sees is drawn; the rest when it comes into view.
const watcher = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (isIntersecting) visible.add(target);
    else visible.delete(target);
    if (isIntersecting) render(target);
  }
}, { rootMargin: "100px" });

export const colours = () => [variable("accent"), variable("warm"), variable("third"), variable("fourth")];

/** Draw traces into a box; `summary` is what a screen reader reads instead. */
export function chart(box, traces, layout, summary) {
  box.setAttribute("role", "img");
  box.setAttribute("aria-label", summary);
  if (!drawn.has(box)) watcher.observe(box);
  drawn.set(box, [traces, layout]);
  if (visible.has(box)) soon(box);
}

// plotly draws anew all that it shows. Where that takes long it is done less often, so that the page answers.
const SHARE = 8;
const rested = new WeakMap(); // when a box may be drawn again
const timers = new WeakMap();

function soon(box) {
  const left = (rested.get(box) ?? 0) - performance.now();
  if (left <= 0) render(box);
  else if (!timers.has(box)) timers.set(box, setTimeout(() => { timers.delete(box); render(box); }, left));
}

async function render(box) {
  const [traces, layout] = drawn.get(box);
  let library;
  try {
    library = await plotly();
  } catch (error) {
    box.textContent = error.message;
    return;
  }
  if (drawn.get(box)?.[0] !== traces || !box.isConnected) return; // newer ones are on their way
  const start = performance.now();
  const ink = variable("ink");
  const axis = { gridcolor: variable("grid"), zerolinecolor: variable("grid"), linecolor: variable("muted"), automargin: true, fixedrange: true };
  const { xaxis, yaxis, ...rest } = layout;
  const title = (given) => ({ ...axis, ...given, title: given?.title ? { text: plain(given.title), standoff: 6 } : undefined });
  library.react(
    box,
    traces(colours()).map((trace) => ({ ...trace, name: plain(trace.name) })),
    {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: ink, size: 12, family: "system-ui, sans-serif" },
      margin: { l: 48, r: 14, t: 8, b: 40 }, showlegend: true, hovermode: "closest",
      legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0, bgcolor: "rgba(0,0,0,0)" },
      hoverlabel: { bgcolor: variable("panel"), font: { color: ink } },
      ...rest, xaxis: title(xaxis), yaxis: title(yaxis),
    },
    { displayModeBar: false, responsive: true, doubleClick: false },
  );
  const end = performance.now();
  rested.set(box, end + SHARE * (end - start));
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  for (const box of drawn.keys()) if (visible.has(box)) render(box);
});
