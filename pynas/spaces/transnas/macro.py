"""TransNAS-Bench-101, macro: where to widen and where to halve the resolution, 3,256 architectures.

Source: Y. Duan et al., "TransNAS-Bench-101", CVPR 2021, arXiv:2105.11871.
"""

from __future__ import annotations

import itertools
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from pynas.architecture import Architecture
from pynas.spaces.transnas.space import Block, TransNASSpace

if TYPE_CHECKING:
    from pynas.spaces.transnas.network import BlockFactory

FEWEST: Final = 4  # modules
MOST: Final = 6
CELL: Final = "basic"


class TransNASMacro(TransNASSpace):
    """Four to six modules of two residual blocks each.

    A module is 1 (keeps the shape), 2 (doubles the channels), 3 (halves the resolution) or 4 (both). There
    are one to four modules that halve (3 and 4) and one to three that double (2 and 4): 210 + 750 + 2,296
    architectures of four, five and six modules. A block is two times ReLU - 3x3 convolution - batch norm,
    plus a shortcut: the identity or, if the shape changes, a 1x1 convolution and a batch norm. That batch
    norm has eps 1 and momentum 1, as in the published networks.

    Decisions are ``digit - 1`` for the first four modules; for the last two the digit, or 0 if there is no
    module. Indices are sorted by length, then by digits; they are not those of the published file.
    """

    name = "transnas_macro"
    summary = "widening and halving in 4 to 6 residual modules, seven tasks (Duan et al., CVPR 2021)"

    def __init__(self, *, task: str = "class_scene", channels: int = 64) -> None:
        super().__init__(task=task, channels=channels)
        if self.dense:  # a decoder doubles the size as often as its encoder halves it, at most six times
            self.image_size = 64  # type: ignore[misc]

    @property
    def num_choices(self) -> tuple[int, ...]:
        """Four digits for each of four modules, a digit or none for two more."""
        return (4,) * FEWEST + (5,) * (MOST - FEWEST)

    @property
    def size(self) -> int:
        """3,256."""
        return len(_ordered())

    def is_valid(self, decisions: tuple[int, ...]) -> bool:
        """Whether modules are contiguous, one to four of them halve and one to three double."""
        return not (decisions[4] == 0 and decisions[5] != 0) and _allowed(_digits(decisions))

    def index(self, arch: Architecture) -> int:
        """Position in the order by length, then digits."""
        return _ranks()[self.check(arch)]

    def from_index(self, index: int) -> Architecture:
        """Inverse of :meth:`index`."""
        return Architecture(self.name, _ordered()[self._check_index(index)])

    # ---- notation --------------------------------------------------------------------------------

    def format(self, arch: Architecture) -> str:
        """The official string, ``64-1234-basic``: channels, modules, kind of block."""
        return f"{self.channels}-{self.modules(arch)}-{CELL}"

    def parse(self, text: str) -> Architecture:
        """Read an official string; surrounding blanks are ignored."""
        text = text.strip()
        head = f"{self.channels}-"
        if not text.startswith(head):
            length = next((i for i, (x, y) in enumerate(zip(text, head, strict=False)) if x != y), len(text))
            raise self._parse_error(text, length, min(1, len(text) - length), repr(head[length:]))
        start = position = len(head)
        while text[position : position + 1] in tuple("1234"):
            position += 1
        digits = text[start:position]
        if len(digits) < FEWEST:
            bad = min(1, len(text) - position)
            expected = f"{FEWEST} to {MOST} digits out of 1, 2, 3, 4"
            raise self._parse_error(text, position, bad, expected)
        if len(digits) > MOST:
            raise self._parse_error(text, start + MOST, len(digits) - MOST, f"'-{CELL}' after {MOST} digits")
        if not _allowed(digits):
            expected = "one to four modules that halve (3 and 4) and one to three that double (2 and 4)"
            raise self._parse_error(text, start, len(digits), expected)
        tail = text[position:]
        if tail != f"-{CELL}":
            raise self._parse_error(text, position, len(tail), f"'-{CELL}' and the end of the text")
        return Architecture(self.name, _decisions(digits))

    # ---- the network -----------------------------------------------------------------------------

    def modules(self, arch: Architecture) -> str:
        """The digits, such as ``1234``."""
        return _digits(self.check(arch))

    def _block_cost(self, decisions: tuple[int, ...], block: Block) -> tuple[int, int]:
        a, b = block.in_channels, block.out_channels
        if block == Block(b, b, 1):
            return 18 * b**2, 2 * b
        return 9 * a * b + 9 * b**2 + a * b, 3 * b

    def _block_factory(self, decisions: tuple[int, ...], prune: bool) -> BlockFactory:
        from pynas.spaces.transnas.network import BasicBlock

        return BasicBlock


def _digits(decisions: tuple[int, ...]) -> str:
    fixed = "".join(str(decision + 1) for decision in decisions[:FEWEST])
    return fixed + "".join(str(decision) for decision in decisions[FEWEST:] if decision)


def _decisions(digits: str) -> tuple[int, ...]:
    fixed = tuple(int(digit) - 1 for digit in digits[:FEWEST])
    return (*fixed, *map(int, digits[FEWEST:].ljust(MOST - FEWEST, "0")))


def _allowed(digits: str) -> bool:
    halving = sum(digit in "34" for digit in digits)
    doubling = sum(digit in "24" for digit in digits)
    return 1 <= halving <= 4 and 1 <= doubling <= 3


@lru_cache(maxsize=1)
def _ordered() -> tuple[tuple[int, ...], ...]:
    """All decisions, in the order of the index."""
    return tuple(
        _decisions(digits)
        for length in range(FEWEST, MOST + 1)
        for digits in map("".join, itertools.product("1234", repeat=length))
        if _allowed(digits)
    )


@lru_cache(maxsize=1)
def _ranks() -> dict[tuple[int, ...], int]:
    """Index of all decisions."""
    return {decisions: index for index, decisions in enumerate(_ordered())}
