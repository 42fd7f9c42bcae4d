"""The one-line notation of NAS-Bench-101 cells, ``conv3x3:0+maxpool3x3:0,1+output:0,2``."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from pynas._errors import UserError

NAMES: Final = ("conv3x3", "conv1x1", "maxpool3x3")
_INTERIOR: Final = 5
_WORD: Final = re.compile(r"[^:,+]*")

# Makes the error about text[start : start + length]: (text, start, length, expected, choices).
ParseError = Callable[[str, int, int, str, tuple[str, ...]], UserError]


def write(decisions: tuple[int, ...]) -> str:
    """The text of 21 edge bits and five operations."""
    sources = [[s for s in range(t) if decisions[t * (t - 1) // 2 + s]] for t in range(_INTERIOR + 2)]
    operations = decisions[-_INTERIOR:]
    last = _INTERIOR
    while last and not (operations[last - 1] or sources[last] or any(last in read for read in sources)):
        last -= 1
    named = [f"{NAMES[operations[t - 1]]}:{_list(sources[t])}" for t in range(1, last + 1)]
    return "+".join([*named, f"output:{_list(sources[-1])}"])


def read(text: str, error: ParseError) -> tuple[int, ...]:
    """The decisions of a text; raises the error at its first bad token."""
    bits = [0] * ((_INTERIOR + 2) * (_INTERIOR + 1) // 2)
    operations = [0] * _INTERIOR
    position = 0
    for vertex in range(1, _INTERIOR + 2):
        choices = (*(NAMES if vertex <= _INTERIOR else ()), "output")
        name = _word(text, position)
        if name not in choices:
            expected = f"one of {', '.join(choices)}" if len(choices) > 1 else "output"
            raise error(text, position, len(name), expected, choices)
        position = _expect(text, position + len(name), ":", error)
        sources, position = _sources(text, position, vertex, error)
        target = _INTERIOR + 1 if name == "output" else vertex
        for source in sources:
            bits[target * (target - 1) // 2 + source] = 1
        if name == "output":
            break
        operations[vertex - 1] = NAMES.index(name)
        position = _expect(text, position, "+", error)
    if position < len(text):
        raise error(text, position, len(text) - position, "the end of the text", ())
    return (*bits, *operations)


def _sources(text: str, position: int, vertex: int, error: ParseError) -> tuple[list[int], int]:
    """The list of ascending vertices below ``vertex`` at ``position``, and where the list ends."""
    sources: list[int] = []
    while True:
        token = _word(text, position)
        if not token and not sources and text[position : position + 1] != ",":
            return sources, position
        least = sources[-1] + 1 if sources else 0
        if not (token.isascii() and token.isdigit()) or not least <= int(token) < vertex:
            expected = f"a vertex in {least}..{vertex - 1}" if least < vertex else "no further vertex"
            raise error(text, position, len(token), expected, ())
        sources.append(int(token))
        position += len(token)
        if text[position : position + 1] != ",":
            return sources, position
        position += 1


def _word(text: str, position: int) -> str:
    match = _WORD.match(text, position)
    assert match is not None  # the pattern may be empty
    return match.group()


def _expect(text: str, position: int, literal: str, error: ParseError) -> int:
    if text[position : position + 1] != literal:
        raise error(text, position, min(1, len(text) - position), repr(literal), ())
    return position + 1


def _list(vertices: list[int]) -> str:
    return ",".join(map(str, vertices))
