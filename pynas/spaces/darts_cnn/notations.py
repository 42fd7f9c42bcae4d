"""Cells in the notation of NAS-Bench-301's records, as NASLib passes them on."""

from __future__ import annotations

import ast
from typing import Any, Final

from pynas._errors import UserError
from pynas._io.files import shortened

# The operations in the order in which their records number them: no `none`.
OPERATIONS: Final = (
    "max_pool_3x3", "avg_pool_3x3", "skip_connect", "sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3",
    "dil_conv_5x5",
)  # fmt: skip
EDGES: Final = 8  # of a cell: two for each of four nodes
LONGEST: Final = 2000
FORM: Final = "two cells of eight (source, operation) pairs of numbers, two pairs for each node"


def genotype_text(text: str) -> str | None:
    """The ``Genotype(...)`` of ``(((0, 3), (1, 4), ...), (...))``; None for any other text.

    Raises:
        UserError: These are nested numbers, but not of two cells.
    """
    if not text.startswith(("(", "[")):
        return None
    try:
        if len(text) > LONGEST:
            raise ValueError
        cells = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise _refused(f"expected {FORM}, got {shortened(repr(text))}") from None
    if not isinstance(cells, tuple | list) or len(cells) != 2:
        raise _refused(f"expected {FORM}, got {shortened(repr(text))}")
    normal, reduce = (_cell(name, cell) for name, cell in zip(("normal", "reduction"), cells, strict=True))
    concat = "[2, 3, 4, 5]"
    return f"Genotype(normal={normal}, normal_concat={concat}, reduce={reduce}, reduce_concat={concat})"


def _refused(why: str) -> UserError:
    return UserError(f"not a darts_cnn architecture: {why}")


def _is_below(number: Any, end: int) -> bool:
    return type(number) is int and 0 <= number < end


def _cell(name: str, edges: Any) -> str:
    if not isinstance(edges, tuple | list) or len(edges) != EDGES:
        raise _refused(f"expected {FORM}, got {shortened(repr(edges))}")
    found = []
    for k, edge in enumerate(edges):
        node = k // 2
        match edge:
            case [source, operation] if _is_below(source, node + 2) and _is_below(operation, len(OPERATIONS)):
                found.append(f"('{OPERATIONS[operation]}', {source})")
            case _:
                raise _refused(
                    f"node {node} of the {name} cell: expected (source, operation) "
                    f"with a source in 0..{node + 1} and an operation in 0..{len(OPERATIONS) - 1}, "
                    f"got {shortened(repr(edge))}"
                )
    return f"[{', '.join(found)}]"
