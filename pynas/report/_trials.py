"""All trials of a page as data, with the script that makes a sortable table and drawings of them.

The page holds each architecture once, however many plots show it: a point knows the number of its trial only.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence

from pynas._errors import printable
from pynas.report import document
from pynas.report._cell import Edge, colour_of

ROWS = 100  # of the table at first; a browser takes seconds to lay out thousands

_SCRIPT = """
(() => {
const data = JSON.parse(document.getElementById("trials").textContent);
const body = document.querySelector("#all tbody"), more = document.getElementById("more");
const NS = "http://www.w3.org/2000/svg";
let order = data.rows.map((_, i) => i), shown = data.first, column = 0, sign = 1;
const text = (v, c) => v === null ? "\\u2013" : typeof v !== "number" ? v
  : c === 0 || Number.isInteger(v) ? v.toLocaleString("en") : Math.abs(v) >= 0.01 && Math.abs(v) < 1e5
  ? v.toLocaleString("en", {minimumFractionDigits: 3, maximumFractionDigits: 3}) : v.toPrecision(4);
function fill() {
  body.replaceChildren(...order.slice(0, shown).map(i => {
    const row = document.createElement("tr");
    data.rows[i].forEach((value, c) => {
      const cell = document.createElement("td");
      cell.textContent = text(value, c);
      if (data.text[c]) cell.className = "text";
      row.append(cell);
    });
    row.onclick = () => show(data.rows[i][0]);
    return row;
  }));
  more.hidden = shown >= order.length;
}
document.querySelectorAll("#all th button").forEach((head, c) => head.onclick = () => {
  sign = column === c ? -sign : 1; column = c;
  order.sort((a, b) => {
    const x = data.rows[a][c], y = data.rows[b][c];
    if (x === null || y === null) return (x === null) - (y === null);
    return sign * (typeof x === "number" ? x - y : x < y ? -1 : x > y ? 1 : 0);
  });
  document.querySelectorAll("#all th").forEach((th, k) =>
    th.setAttribute("aria-sort", k !== c ? "none" : sign > 0 ? "ascending" : "descending"));
  fill();
});
more.onclick = () => { shown *= 10; fill(); };
const make = (name, attributes, inner) => {
  const made = document.createElementNS(NS, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (inner !== undefined) made.textContent = inner;
  return made;
};
function draw(edges) {
  const nodes = 1 + Math.max(...edges.map(e => e[1])), gap = 170, middle = 40 + 34 * (nodes - 1);
  const box = `0 0 ${gap * (nodes - 1) + 80} ${2 * middle}`;
  const svg = make("svg", {viewBox: box, class: "cell", role: "img"});
  const above = [];
  edges.forEach(([from, to, operation], k) => {
    const x0 = 40 + gap * from, x1 = 40 + gap * to, name = data.operations[operation];
    const seen = edges.slice(0, k).filter(e => e[0] === from && e[1] === to).length;
    const height = to - from === 1 && !seen ? 0 : 34 * (to - from - 1 + seen) + 26;
    const lift = (from + seen) % 2 ? -height : height;
    const colour = data.colours[operation], faint = name === "none";
    svg.append(make("path", {d: `M ${x0} ${middle} Q ${(x0 + x1) / 2} ${middle - 2 * lift} ${x1} ${middle}`,
      fill: "none", stroke: colour, "stroke-width": faint ? 1 : 2.5,
      "stroke-dasharray": faint ? "4 5" : "none"}));
    above.push(make("text", {x: (x0 + x1) / 2, y: middle - lift + 5, class: "operation"}, name));
  });
  for (let n = 0; n < nodes; n++) svg.append(make("circle", {cx: 40 + gap * n, cy: middle, r: 16}));
  for (let n = 0; n < nodes; n++) svg.append(make("text", {x: 40 + gap * n, y: middle + 5},
    n === 0 ? "in" : n === nodes - 1 ? "out" : n));
  svg.append(...above);
  return svg;
}
const panel = document.getElementById("picked"), byNumber = new Map(data.rows.map((r, i) => [r[0], i]));
function show(number) {
  const i = byNumber.get(number);
  if (i === undefined) return;
  panel.hidden = false;
  const label = data.rows[i][1];
  panel.querySelector("h2").textContent = `Trial ${number}`;
  panel.querySelector("code").textContent = label;
  panel.querySelector(".drawing").replaceChildren(...(data.edges[i].length ? [draw(data.edges[i])] : []));
  const said = panel.querySelector(".note");
  said.textContent = "";
  navigator.clipboard?.writeText(label).then(() => said.textContent = "copied", () => {});
}
document.getElementById("close").onclick = () => panel.hidden = true;
addEventListener("load", () => document.querySelectorAll(".js-plotly-plot").forEach(plot =>
  plot.on("plotly_click", event => {
    const found = /^trial (\\d+)/.exec(event.points[0].text ?? "");
    if (found) show(Number(found[1]));
  })));
fill();
})();
"""


def table_of_all(
    columns: Sequence[str],
    rows: Sequence[Sequence[str | float | None]],
    graphs: Sequence[Iterable[Edge]],
    text_columns: Sequence[str],
) -> str:
    """A table that sorts by any column, the drawing of a trial that is clicked, and the script of both.

    Args:
        columns: Names; the first is the number of the trial, the second its architecture.
        rows: Values of each trial; None where one is not known.
        graphs: Edges of each trial's architecture, empty where its space draws none.
        text_columns: Columns that hold text.
    """
    operations: dict[str, int] = {}
    edges = [
        [[e.source, e.target, operations.setdefault(printable(e.label), len(operations))] for e in graph]
        for graph in graphs
    ]
    data = {
        "first": ROWS,
        "text": [column in text_columns for column in columns],
        "rows": [[_value(value) for value in row] for row in rows],
        "edges": edges,
        "operations": list(operations),
        "colours": [colour_of(name) for name in operations],
    }
    held = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    head = "".join(f"<th><button>{document.escaped(column)}</button></th>" for column in columns)
    return (
        '<section id="picked" hidden><button id="close" aria-label="close">×</button><h2></h2>'
        '<p class="best"><code></code></p><div class="drawing"></div><p class="note"></p></section>'
        f'<div class="scroll"><table id="all"><thead><tr>{head}</tr></thead><tbody></tbody></table></div>'
        '<button id="more">more rows</button>'
        f'<script type="application/json" id="trials">{held}</script><script>{_SCRIPT}</script>'
    )


def _value(value: str | float | None) -> str | float | None:
    if isinstance(value, str):
        return printable(value)
    return None if value is None or not math.isfinite(value) else float(f"{value:.7g}")


def importances(
    decisions: Sequence[Sequence[int]], scores: Sequence[float], names: Mapping[int, str], seed: int = 0
) -> list[tuple[str, float, float]]:
    """How much each decision matters for a score among these trials, most important first.

    A random forest is fitted to the decisions, one-hot, on two thirds of the trials; a decision's importance
    is by how much R^2 on the others falls when its values are permuted among them (Breiman 2001).

    Returns:
        (name, mean, standard deviation over 10 permutations); empty if there are fewer than 30 trials, or the
        forest explains nothing of the others (R^2 <= 0), so that no importance could be trusted.
    """
    import numpy as np
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.inspection import permutation_importance
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    lengths = {len(row) for row in decisions}
    if len(decisions) < 30 or len(lengths) != 1 or lengths == {0}:
        return []
    x, y = np.array(decisions), np.array(scores)
    order = np.random.default_rng(seed).permutation(len(x))[:3000]
    cut = 2 * len(order) // 3
    fit, held = order[:cut], order[cut:]
    model = make_pipeline(
        OneHotEncoder(handle_unknown="ignore"), RandomForestRegressor(100, random_state=seed, n_jobs=1)
    ).fit(x[fit], y[fit])
    if model.score(x[held], y[held]) <= 0:
        return []
    found = permutation_importance(model, x[held], y[held], n_repeats=10, random_state=seed)
    values = zip(found.importances_mean, found.importances_std, strict=True)
    listed = [(names.get(i, f"decision {i + 1}"), float(m), float(s)) for i, (m, s) in enumerate(values)]
    return sorted(listed, key=lambda entry: -entry[1])
