"""One HTML file that opens without a network: style, escaping, and the pieces that pages are made of.

Functions that return HTML take text and escape it; what they return is safe to put into a page as it is.
Names come from files and stores of anybody's making: :func:`escaped` takes away what is more than text.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

import plotly.graph_objects as go
from plotly.io import to_html
from plotly.offline import get_plotlyjs

from pynas._errors import printable
from pynas._io.atomic import replacing

INK, MUTED, GRID = "#1f2937", "#6b7280", "#e5e7eb"
BLUE, GREEN, AMBER, VIOLET, GREY = "#2563eb", "#059669", "#d97706", "#9333ea", "#9ca3af"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'DejaVu Sans', sans-serif"

_MARGIN = {"l": 68, "r": 20, "t": 40, "b": 56}
_NO_BUTTONS = ["select2d", "lasso2d", "zoomIn2d", "zoomOut2d", "autoScale2d"]

_STYLE = f"""
:root {{ color-scheme: light dark; --ink: {INK}; --muted: {MUTED}; --grid: {GRID}; --card: white; }}
:root {{ --page: #f3f4f6; --best: #eff6ff; }}
@media (prefers-color-scheme: dark) {{
  :root {{ --ink: #e5e7eb; --muted: #9ca3af; --grid: #374151; --card: #1b2230; --page: #10151f; }}
  :root {{ --best: #1e2b45; }}
}}
* {{ box-sizing: border-box; }}
body {{ margin: 0; background: var(--page); color: var(--ink); font: 16px/1.5 {FONT}; }}
main {{ max-width: 1240px; margin: 0 auto; padding: 32px 24px 48px; }}
header p {{ margin: 4px 0 24px; color: var(--muted); }}
h1 {{ margin: 0; font-size: 28px; line-height: 1.2; letter-spacing: -0.01em; }}
h2 {{ margin: 0 0 12px; font-size: 18px; }}
section {{ background: var(--card); border: 1px solid var(--grid); border-radius: 10px; padding: 20px 22px; }}
.grid {{ display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 18px; margin-bottom: 18px; }}
.grid > .wide {{ grid-column: 1 / -1; }}
.numbers {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(170px, 1fr)); gap: 18px; }}
.numbers {{ margin-bottom: 18px; }}
.numbers section {{ padding: 14px 18px; }}
.numbers b {{ display: block; font-size: 25px; line-height: 1.25; font-variant-numeric: tabular-nums; }}
.numbers span, .note {{ color: var(--muted); font-size: 14px; }}
.note {{ margin: 10px 0 0; }}
code {{ font: 12.5px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; }}
code {{ overflow-wrap: anywhere; }}
td code {{ overflow-wrap: break-word; }}  /* a short name keeps its column as wide as it is */
p.best {{ margin: 0 0 12px; padding: 8px 12px; background: var(--best); border-radius: 6px; }}
.scroll {{ overflow-x: auto; }}
table {{ border-collapse: collapse; width: 100%; font-size: 15px; font-variant-numeric: tabular-nums; }}
th, td {{ padding: 7px 12px; border-bottom: 1px solid var(--grid); text-align: right; white-space: nowrap; }}
th {{ color: var(--muted); font-weight: 600; font-size: 13px; }}
th.text, td.text {{ text-align: left; white-space: normal; }}
dl {{ display: grid; grid-template-columns: max-content 1fr; gap: 5px 22px; margin: 0; font-size: 15px; }}
dt {{ color: var(--muted); }}
dd {{ margin: 0; overflow-wrap: anywhere; }}
svg.cell {{ display: block; width: 100%; max-height: 360px; }}
@media (max-width: 900px) {{
  .grid {{ grid-template-columns: minmax(0, 1fr); }}
  main {{ padding: 20px 12px; }}
}}
th button {{ all: unset; cursor: pointer; }}
th button:focus-visible {{ outline: 2px solid {BLUE}; }}
th[aria-sort=ascending] button::after {{ content: " ▲"; }}
th[aria-sort=descending] button::after {{ content: " ▼"; }}
#all tbody tr {{ cursor: pointer; }}
#all tbody tr:hover {{ background: var(--best); }}
#all td.text {{ font: 12.5px/1.5 ui-monospace, Menlo, Consolas, monospace; overflow-wrap: anywhere; }}
#all td.text {{ min-width: 240px; }}
#all th {{ white-space: normal; }}
#picked {{ position: fixed; right: 12px; bottom: 12px; width: min(640px, calc(100vw - 24px)); z-index: 9; }}
#picked {{ box-shadow: 0 6px 30px rgb(0 0 0 / 35%); max-height: 80vh; overflow: auto; }}
#picked text {{ fill: var(--ink); font-size: 14px; text-anchor: middle; }}
#picked .operation {{ paint-order: stroke; stroke: var(--card); stroke-width: 5px; }}
#picked circle {{ fill: var(--card); stroke: var(--ink); stroke-width: 2; }}
#close {{ float: right; }}
@media (max-width: 480px) {{
  section {{ padding: 14px 12px; min-width: 0; }}
  h1 {{ font-size: 22px; overflow-wrap: anywhere; }}
  .numbers {{ grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 10px; }}
  .numbers b {{ font-size: 20px; }}
  dl {{ grid-template-columns: minmax(0, 1fr); gap: 0; }}
  dd {{ margin-bottom: 8px; }}
}}
"""


# Plots take the colours of the page, also when the system's setting changes while it is open.
_COLOUR_SCRIPT = """
(() => {
const dark = matchMedia("(prefers-color-scheme: dark)");
function paint() {
  const style = getComputedStyle(document.documentElement), of = name => style.getPropertyValue(name).trim();
  document.querySelectorAll(".js-plotly-plot").forEach(plot => {
    const change = {"font.color": of("--ink"), "hoverlabel.bgcolor": of("--card"),
      "hoverlabel.font.color": of("--ink")};
    Object.keys(plot.layout).filter(key => /^[xy]axis/.test(key)).forEach(
      key => change[key + ".gridcolor"] = of("--grid"));
    if (innerWidth <= 480) Object.assign(change, {"margin.l": 52, "margin.r": 12, "font.size": 12});
    Plotly.relayout(plot, change).then(() => Plotly.Plots.resize(plot));
  });
}
dark.addEventListener("change", paint);
addEventListener("load", paint);
})();
"""


def write_page(path: str | os.PathLike[str], title: str, subtitle: str, body: Iterable[str]) -> Path:
    """Write a page whose ``body`` is HTML, plotly.js included once; returns its path.

    Raises:
        UserError: The file cannot be written; one that was there is what it was.
    """
    target = Path(path)
    html = "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escaped(title)}</title>\n<style>{_STYLE}</style>",
            f"<script>{get_plotlyjs()}</script>\n</head>\n<body>\n<main>",
            f"<header><h1>{escaped(title)}</h1><p>{escaped(subtitle)}</p></header>",
            *body,
            f"<script>{_COLOUR_SCRIPT}</script>",
            "</main>\n</body>\n</html>\n",
        ]
    )
    with replacing(target) as file:
        file.write(html.encode())
    return target


def escaped(value: str) -> str:
    """``value`` as HTML, its control characters spelled out; plotly reads its labels as HTML, too."""
    return escape(printable(value))


def card(heading: str, content: str, *, wide: bool = False) -> str:
    """A box with a heading around HTML."""
    return f'<section class="{"wide" if wide else ""}"><h2>{escaped(heading)}</h2>{content}</section>'


def grid(cards: Iterable[str]) -> str:
    """Cards two by two."""
    return f'<div class="grid">{"".join(cards)}</div>'


def numbers(values: Mapping[str, str]) -> str:
    """Large figures with what they are below."""
    boxes = (
        f"<section><b>{escaped(value)}</b><span>{escaped(name)}</span></section>"
        for name, value in values.items()
    )
    return f'<div class="numbers">{"".join(boxes)}</div>'


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], text_columns: Sequence[str] = ()) -> str:
    """A table; ``text_columns`` are aligned left and set in a fixed width, the others are numbers."""
    is_text = [column in text_columns for column in columns]
    head = "".join(
        f'<th class="{"text" if text else ""}">{escaped(column)}</th>'
        for column, text in zip(columns, is_text, strict=True)
    )
    lines = []
    for row in rows:
        cells = (
            f'<td class="text"><code>{_breakable(value)}</code></td>'
            if text
            else f"<td>{escaped(value)}</td>"
            for value, text in zip(row, is_text, strict=True)
        )
        lines.append(f"<tr>{''.join(cells)}</tr>")
    body = "".join(lines)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _breakable(value: str) -> str:
    """Escaped text that a browser may break after each ``+``, as between the nodes of a cell."""
    return escaped(value).replace("+", "+<wbr>")


def facts(values: Mapping[str, str]) -> str:
    """Names and values in two columns."""
    return f"<dl>{''.join(f'<dt>{escaped(k)}</dt><dd>{escaped(v)}</dd>' for k, v in values.items())}</dl>"


def note(remark: str) -> str:
    """A remark in small print; nothing for an empty one."""
    return f'<p class="note">{escaped(remark)}</p>' if remark else ""


def plot(figure: go.Figure, height: int = 400, margin: Mapping[str, int] = _MARGIN) -> str:
    """A figure in the page's style, as HTML."""
    figure.update_layout(
        template="none",
        height=height,
        margin=dict(margin),
        modebar={"bgcolor": "rgba(0,0,0,0)"},
        font={"family": FONT, "size": 14, "color": INK},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        hoverlabel={
            "bgcolor": "white",
            "bordercolor": GREY,
            "align": "left",
            "font": {"size": 13, "color": INK},
        },
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "font": {"size": 13}},
    )
    axis = {"gridcolor": GRID, "zeroline": False, "linecolor": GREY, "ticks": "outside", "tickcolor": GREY}
    figure.update_xaxes(**axis, title_standoff=12)
    figure.update_yaxes(**axis, title_standoff=10)
    return str(
        to_html(
            figure,
            include_plotlyjs=False,
            full_html=False,
            config={"displaylogo": False, "responsive": True, "modeBarButtonsToRemove": _NO_BUTTONS},
        )
    )
