"""Writes what docs/spaces.md says of every registered space: python docs/make_spaces.py."""

from __future__ import annotations

from pathlib import Path

from pynas import spaces
from pynas.spaces.description import Description, describe

PAGE = Path(__file__).with_name("spaces.md")
MARK = "<!-- From here on written by docs/make_spaces.py; change the docstrings instead. -->\n"


def sections() -> str:
    """A table of all spaces and a section of each."""
    found = [describe(spaces.get(name)) for name in spaces.names()]
    rows = [f"| [`{d.name}`](#{d.name}) | {d.size_text} | {spaces.get(d.name).summary} |" for d in found]
    table = "\n".join(["| space | architectures | what |", "|---|---|---|", *rows])
    return "\n".join([table, "", *map(_section, found)])


def _section(d: Description) -> str:
    lines = [f"## {d.name}", "", f"{d.title}.", ""]
    decisions = "" if d.decisions is None else f" {d.decisions} decisions."
    lines += [f"- Architectures: {d.size_text}.{decisions}", f"- Source: {d.source}"]
    lines += [f"- Option `{o.name}={o.default!r}`: {o.text}" for o in d.options]
    lines += ["", "```", d.example, "```", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    text = PAGE.read_text()
    PAGE.write_text(text[: text.index(MARK) + len(MARK)] + "\n" + sections())
