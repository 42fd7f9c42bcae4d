"""Facts about a space, taken from its code, for ``pynas spaces NAME`` and docs/spaces.md."""

from __future__ import annotations

import inspect
import random
import re
import sys
from dataclasses import dataclass
from typing import Any

from pynas.spaces._arguments import is_published
from pynas.spaces.base import SearchSpace


@dataclass(frozen=True, slots=True)
class Option:
    """One argument of a space's constructor."""

    name: str
    default: Any
    text: str


@dataclass(frozen=True, slots=True)
class Description:
    """Facts about a space with its default options.

    Attributes:
        name: Name for ``pynas.spaces.get``.
        title: First line of the documentation.
        source: The paper or papers.
        size: Number of architectures; None if unbounded.
        decisions: Number of decisions of an architecture; None if it varies.
        example: A random architecture in the space's notation.
        options: Arguments of the constructor.
    """

    name: str
    title: str
    source: str
    size: int | None
    decisions: int | None
    example: str
    options: tuple[Option, ...]

    @property
    def size_text(self) -> str:
        """The size with thousands separated, and in scientific notation if it is long."""
        if self.size is None:
            return "unbounded"
        return f"{self.size:,}" + (f" ({self.size:.2e})" if self.size >= 10**9 else "")


def describe(space: SearchSpace) -> Description:
    """Facts about ``space`` from its docstrings and its code."""
    kind = type(space)
    title, *paragraphs = _paragraphs(sys.modules[kind.__module__].__doc__)
    texts = _arguments(kind)
    parameters = inspect.signature(kind).parameters.values()
    return Description(
        name=space.name,
        title=title.removesuffix(".") if is_published(kind) else space.summary,
        source=next((p for p in paragraphs if p.startswith("Source")), "").partition(": ")[2],
        size=space.size,
        decisions=None if space.size is None else len(space.num_choices),
        example=space.format(space.sample(random.Random(0))),
        options=tuple(Option(p.name, p.default, texts.get(p.name, "")) for p in parameters),
    )


def _paragraphs(documentation: str | None) -> list[str]:
    """The paragraphs of a docstring, each on one line, without the markup of references."""
    text = re.sub(r":[a-z]+:`~?([^`]*)`", r"`\1`", inspect.cleandoc(documentation or "")).replace("``", "`")
    return [" ".join(paragraph.split()) for paragraph in text.split("\n\n")]


def _arguments(kind: type[SearchSpace]) -> dict[str, str]:
    """The ``Args:`` sections of a class and its base classes, by argument."""
    found: dict[str, str] = {}
    for ancestor in reversed(kind.__mro__):
        documentation = inspect.cleandoc(vars(ancestor).get("__doc__") or "")
        section = re.search(r"^Args:\n((?:[ ]+.*\n?|\n)*)", documentation, re.MULTILINE)
        arguments = re.findall(r"^    (\w+): (.*(?:\n     .*)*)", section[1], re.MULTILINE) if section else []
        found |= {name: _paragraphs(text)[0] for name, text in arguments}
    return found
