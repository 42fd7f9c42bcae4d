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
const shown = new WeakSet(); // boxes that hold a picture
const visible = new WeakSet();

// Only what somebody sees is drawn; the rest when it comes into view.
const watcher = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (isIntersecting) visible.add(target);
    else visible.delete(target);
    if (isIntersecting) soon(target);
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

// plotly draws anew all that it shows. So charts are drawn one at a time, when the page has nothing better to do, and where
// that takes long less often, so that the page answers: together they take a small share of its time.
const SHARE = 16;
const LONGEST = 4000; // milliseconds between two drawings
const queue = new Set();
const idle = window.requestIdleCallback ? (run) => requestIdleCallback(run, { timeout: 1000 }) : (run) => setTimeout(run, 30);
let free = 0; // when the next may be drawn
let timer = 0;
let drawing = false;

function soon(box) {
  queue.add(box);
  if (!drawing) schedule();
}

function schedule() {
  clearTimeout(timer);
  if (!queue.size) return;
  // An empty box is filled at once.
  const first = [...queue].find((box) => !shown.has(box));
  timer = setTimeout(() => {
    drawing = true;
    idle(async () => {
      const box = first ?? queue.values().next().value;
      queue.delete(box);
      try {
        if (visible.has(box)) await render(box);
      } finally {
        drawing = false;
        schedule();
      }
    });
  }, first ? 0 : Math.max(0, free - performance.now()));
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
  shown.add(box);
  const end = performance.now();
  free = end + Math.min(LONGEST, SHARE * (end - start));
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  for (const box of drawn.keys()) if (visible.has(box)) soon(box);
});
