"""Cells in the notations of other code, read where their meaning is certain."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any, Final

from pynas._errors import UserError
from pynas._io.files import shortened

# Names of operations beside the official ones, as in NNI and NASLib.
ALIASES: Final[Mapping[str, str]] = {
    "conv_3x3": "nor_conv_3x3",
    "conv_1x1": "nor_conv_1x1",
    "conv3x3": "nor_conv_3x3",
    "conv1x1": "nor_conv_1x1",
    "avg_pool": "avg_pool_3x3",
    "skip": "skip_connect",
    "identity": "skip_connect",
    "zero": "none",
}
# NASLib numbers operations so, and its edges by source: 1-2, 1-3, 1-4, 2-3, 2-4, 3-4.
NASLIB_OPERATIONS: Final = ("skip_connect", "none", "nor_conv_3x3", "nor_conv_1x1", "avg_pool_3x3")
NASLIB_EDGES: Final = ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3))
LONGEST: Final = 1000
Edges = dict[tuple[int, int], str]


def read(text: str) -> Edges | None:
    """Operations by edge of a dictionary or of ``naslib:`` numbers; None for any other text.

    ``{"0_1": "conv_3x3", ...}`` has all six edges in any order, with nodes from 0 or from 1, whichever makes
    them the edges of a cell. Six numbers alone mean other cells in other projects, so they need the name of
    the convention: ``naslib:4,0,3,1,4,3``.

    Raises:
        UserError: The text is such a notation, but not of a cell.
    """
    text = text.strip()
    if text.startswith("{"):
        return _dictionary(_literal(text, dict, 'a dictionary such as {"0_1": "nor_conv_3x3", ...}'))
    if text.startswith("naslib:"):
        numbers = text.removeprefix("naslib:").strip(" ()[]")
        return _naslib(_literal(f"({numbers},)", tuple, "six numbers such as naslib:4,0,3,1,4,3"), text)
    if text and all(c in "0123456789,-()[] \t" for c in text):
        raise _refused(
            f"got {shortened(repr(text))}, numbers whose meaning differs from project "
            "to project; write naslib:4,0,3,1,4,3 for NASLib's, or the string |nor_conv_3x3~0|+|...|"
        )
    return None


def _refused(why: str) -> UserError:
    return UserError(f"not a nasbench201 architecture: {why}")


def _literal(text: str, kind: type, expected: str) -> Any:
    try:
        if len(text) > LONGEST:
            raise ValueError
        value = ast.literal_eval(text)
        if not isinstance(value, kind):
            raise ValueError
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise _refused(f"expected {expected}, got {shortened(repr(text))}") from None
    return value


def _dictionary(found: Mapping[Any, Any]) -> Edges:
    edges: Edges = {}
    for key, name in found.items():
        ends = str(key).split("_")
        if len(ends) != 2 or not all(end.isascii() and end.isdigit() and len(end) == 1 for end in ends):
            raise _refused(f"expected keys SOURCE_TARGET such as '0_1', got {key!r}")
        operation = ALIASES.get(name, name) if isinstance(name, str) else name
        if operation not in NASLIB_OPERATIONS:
            known = ", ".join(sorted({*NASLIB_OPERATIONS, *ALIASES}))
            raise _refused(
                f"expected an operation out of {known} for edge {key!r}, got {shortened(repr(name))}"
            )
        edges[int(ends[0]), int(ends[1])] = operation
    for first in (0, 1):
        if edges.keys() == {(s + first, t + first) for s, t in NASLIB_EDGES}:
            return {(s - first, t - first): operation for (s, t), operation in edges.items()}
    got = ", ".join(f"{s}_{t}" for s, t in sorted(edges)) or "none"
    raise _refused(
        f"expected the six edges 0_1, 0_2, 1_2, 0_3, 1_3, 2_3 (or the same with nodes from 1), got {got}"
    )


def _naslib(numbers: tuple[Any, ...], text: str) -> Edges:
    if len(numbers) != len(NASLIB_EDGES) or any(
        type(n) is not int or not 0 <= n < len(NASLIB_OPERATIONS) for n in numbers
    ):
        raise _refused(
            f"expected six numbers from 0 to {len(NASLIB_OPERATIONS) - 1} behind "
            f"naslib:, got {shortened(repr(text))}"
        )
    return {edge: NASLIB_OPERATIONS[n] for edge, n in zip(NASLIB_EDGES, numbers, strict=True)}
