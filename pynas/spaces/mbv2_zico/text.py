"""The structure strings of Zen-NAS: ``SuperConvK3BNRELU(in,out,stride,layers)SuperResIDWE6K3(...)...``."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence

from pynas._errors import UserError
from pynas._plural import counted
from pynas.spaces.mbv2_zico.blocks import TYPES, blocks_of

STEM, LAST, BLOCK = "SuperConvK3BNRELU", "SuperConvK1BNRELU", "SuperResIDW"

_NAME = re.compile(r"[A-Za-z0-9_]*")
_NUMBER = re.compile(r"[1-9][0-9]{0,8}(?![0-9])")

Explain = Callable[..., UserError]


def write(decisions: Sequence[int]) -> str:
    """The structure string of valid decisions."""
    stem, last, *_ = decisions
    blocks = blocks_of(decisions)
    widths = [stem, *(block.width for block in blocks)]
    text = f"{STEM}(3,{stem},2,1)"
    for (before, width), block in zip(itertools.pairwise(widths), blocks, strict=True):
        numbers = (before, width, block.stride, block.bottleneck, block.layers)
        text += f"{BLOCK}{TYPES[block.kind]}({','.join(map(str, numbers))})"
    return text + f"{LAST}({widths[-1]},{last},1,1)"


def read(text: str, space: str, explain: Explain | None = None) -> tuple[int, ...]:
    """The decisions of a structure string; ``explain`` makes the error for a malformed one.

    Checks that numbers are positive and that channels match; the space checks everything else.
    """
    reader = _Reader(text, explain or (lambda *arguments: UserError(f"not a {space} architecture: {text}")))
    names = tuple(BLOCK + kind for kind in TYPES)
    reader.name((STEM,))
    (stem,) = reader.numbers((3, None, 2, 1), "the input has 3 channels, the stem stride 2 and 1 layer")
    decisions: list[int] = []
    width = stem
    while True:
        name = reader.name(names if not decisions else (*names, LAST))
        if name == LAST:
            break
        out, stride, bottleneck, layers = reader.numbers(
            (width, None, None, None, None), f"the previous part has {counted(width, 'output channel')}"
        )
        decisions += (names.index(name), out, stride, bottleneck, layers)
        width = out
    why = f"the previous part has {counted(width, 'output channel')}; "
    why += "the last convolution has stride 1 and 1 layer"
    (last,) = reader.numbers((width, None, 1, 1), why)
    reader.end()
    return (stem, last, *decisions)


class _Reader:
    """A position in a structure string."""

    def __init__(self, text: str, explain: Explain) -> None:
        self.text = text
        self.explain = explain
        self.position = 0

    def name(self, allowed: tuple[str, ...]) -> str:
        """Read one of the allowed names and the opening parenthesis."""
        match = _NAME.match(self.text, self.position)
        assert match is not None  # the pattern may be empty
        name = match.group()
        if name not in allowed:
            expected = allowed[0] if len(allowed) == 1 else f"{BLOCK}E{{1,2,4,6}}K{{3,5,7}}"
            if len(allowed) > 1 and LAST in allowed:
                expected += f" or {LAST}"
            raise self.explain(self.text, self.position, max(len(name), self._rest(1)), expected, allowed)
        self.position = match.end()
        self.literal("(")
        return name

    def numbers(self, given: tuple[int | None, ...], why: str) -> tuple[int, ...]:
        """Read numbers and the closing parenthesis; return those that ``given`` leaves open."""
        read = []
        for i, known in enumerate(given):
            match = _NUMBER.match(self.text, self.position)
            if match is None:
                expected = "a positive integer below 10^9"
                raise self.explain(self.text, self.position, self._rest(1), expected)
            value = int(match.group())
            if known is not None and value != known:
                raise self.explain(self.text, self.position, len(match.group()), f"{known} ({why})")
            if known is None:
                read.append(value)
            self.position = match.end()
            self.literal("," if i + 1 < len(given) else ")")
        return tuple(read)

    def literal(self, character: str) -> None:
        if self.text[self.position : self.position + 1] != character:
            raise self.explain(self.text, self.position, self._rest(1), repr(character))
        self.position += 1

    def end(self) -> None:
        if self.position < len(self.text):
            raise self.explain(self.text, self.position, self._rest(None), "the end of the text")

    def _rest(self, limit: int | None) -> int:
        rest = len(self.text) - self.position
        return rest if limit is None else min(limit, rest)
