"""HTML pages that open without a network: style, escaping, and the pieces that pages are made of.

Functions that return HTML take text and escape it; what they return is safe to put into a page as it is.
Names come from files and stores of anybody's making: :func:`escaped` takes away what is more than text.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs, get_plotlyjs_version

from pynas._errors import printable
from pynas._io.atomic import is_stream, replacing

INK, MUTED, GRID = "#1f2937", "#6b7280", "#e5e7eb"
BLUE, GREEN, AMBER, VIOLET, GREY = "#2563eb", "#059669", "#d97706", "#9333ea", "#9ca3af"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'DejaVu Sans', sans-serif"

_MARGIN = {"l": 68, "r": 20, "t": 40, "b": 56}
_STATIC = Path(__file__).parent / "static"
_SCRIPTS = ("data.js", "cell.js", "architectures.js", "plots.js")


def write_page(
    path: str | os.PathLike[str], title: str, subtitle: str, body: Iterable[str], *, inline: bool = False
) -> Path:
    """Write a page whose ``body`` is HTML; returns its path.

    The drawing library, five megabytes, is written once for all pages of a folder, as
    ``plotly-VERSION.min.js``; with ``inline``, and where the page goes to a pipe or a terminal, it is in the
    page.

    Raises:
        UserError: A file cannot be written; one that was there is what it was.
    """
    target = Path(path)
    library = f"plotly-{get_plotlyjs_version()}.min.js"
    inline = inline or is_stream(target)
    if not inline:
        _keep_library(target.parent / library)
    style = (_STATIC / "page.css").read_text(encoding="utf-8")
    script = '"use strict";\n' + "\n".join((_STATIC / name).read_text(encoding="utf-8") for name in _SCRIPTS)
    html = "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escaped(title)}</title>\n<style>\n{style}</style>",
            f'</head>\n<body data-plotly="{library}">\n<main>',
            f"<header><h1>{escaped(title)}</h1><p>{escaped(subtitle)}</p></header>",
            *body,
            "</main>",
            f'<script type="text/plain" id="library">{get_plotlyjs()}</script>' if inline else "",
            f"<script>\n(() => {{\n{script}}})();\n</script>",
            "</body>\n</html>\n",
        ]
    )
    with replacing(target) as file:
        file.write(html.encode())
    return target


def _keep_library(path: Path) -> None:
    """Write plotly.js unless it is there, whole; before the page, so that no page is there without it."""
    content = get_plotlyjs().encode()
    try:
        if path.stat().st_size == len(content) and path.read_bytes() == content:
            return
    except OSError:  # it is not there, or cannot be read; writing says why, if it fails too
        pass
    with replacing(path) as file:
        file.write(content)


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


def plot(figure: go.Figure, height: int = 400, margin: Mapping[str, int] = _MARGIN, width: int = 0) -> str:
    """A figure in the page's style, which a script draws when it is near the window.

    Args:
        figure: Traces whose ``meta`` is ``rows`` have the row of each point among the page's architectures
            in ``customdata``.
        height: Of the plot, in pixels.
        margin: Around it, in pixels.
        width: Pixels that it needs; on a narrower screen it scrolls.
    """
    figure.update_layout(
        template="none",
        height=height,
        margin=dict(margin),
        modebar={"bgcolor": "rgba(0,0,0,0)"},
        font={"family": FONT, "size": 14, "color": INK},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        hoverlabel={"bordercolor": GREY, "align": "left", "font": {"size": 13}},
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "font": {"size": 13}},
    )
    axis = {"gridcolor": GRID, "zeroline": False, "linecolor": GREY, "ticks": "outside", "tickcolor": GREY}
    figure.update_xaxes(**axis, title_standoff=12)
    figure.update_yaxes(**axis, title_standoff=10)
    place = f'<div class="plot" style="height: {height}px; min-width: {width}px"></div>'
    return f'<div class="scroll">{place}{data_script(figure.to_json(), "figure")}</div>'


def data_script(json: str, name: str, *, single: bool = False) -> str:
    """JSON for the scripts of the page, as an element with a class or, where there is one of it, an id."""
    safe = json.replace("<", "\\u003c")
    return f'<script type="application/json" {"id" if single else "class"}="{name}">{safe}</script>'
