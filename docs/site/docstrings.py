"""Docstrings are written in plain reStructuredText; the site is Markdown. This turns one into the other."""

from __future__ import annotations

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:func|class|meth|attr|mod|data|exc):`~?([\w.]+)`")
CODE = re.compile(r"(``.+?``|`[^`\n]+`)", re.DOTALL)


class PlainDocstrings(griffe.Extension):
    """Roles become links, double colons one, and angle brackets of formulas characters."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring before its sections are parsed."""
        if obj.docstring is not None:
            obj.docstring.value = markdown(obj.docstring.value, obj)


def markdown(text: str, obj: griffe.Object) -> str:
    """The docstring of ``obj`` as Markdown."""
    text = re.sub(r"::\n(?=\s*\n)", ":\n", text)
    return "\n".join(line if line.startswith("    >>>") else _line(line, obj) for line in text.split("\n"))


def _line(line: str, obj: griffe.Object) -> str:
    line = ROLE.sub(lambda match: _link(match[1], obj), line)
    parts = re.split(r"(<autoref.*?</autoref>|``.+?``|`[^`]+`)", line)
    return "".join(part if i % 2 else part.replace("<", "&lt;") for i, part in enumerate(parts))


def _link(target: str, obj: griffe.Object) -> str:
    try:
        path = obj.resolve(target)
    except griffe.NameResolutionError:
        path = target
    return f'<autoref optional identifier="{path}"><code>{target.rpartition(".")[2]}</code></autoref>'
