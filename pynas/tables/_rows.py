"""Maps architectures to rows: by index in the space, or by the module hash of NAS-Bench-101."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pynas._errors import UserError
from pynas._io.files import shortened
from pynas._plural import counted
from pynas.architecture import Architecture
from pynas.spaces import SearchSpace

_LONGEST_TEXT = 1 << 16


class IndexRows:
    """Rows in any order, identified by the index in the space.

    Args:
        space: The search space.
        indices: Index of the architecture of each row.
    """

    def __init__(self, space: SearchSpace, indices: Sequence[int]) -> None:
        self._space = space
        self._indices = list(indices)
        self._row = {index: row for row, index in enumerate(self._indices)}
        if len(self._row) < len(self._indices):
            repeated = next(i for row, i in enumerate(self._indices) if self._row[i] != row)
            raise UserError(f"{space.format(space.from_index(repeated))} stands in the table twice")

    @classmethod
    def parse(cls, space: SearchSpace, texts: NDArray[Any], source: object) -> IndexRows:
        """Rows named by architecture strings; UserError for a row that is not of ``space``."""
        try:
            return cls(space, list(parse_rows(space, texts, source)))
        except UserError as error:
            raise UserError(f"{source}: {error}") from None

    def row(self, arch: Architecture) -> int | None:
        """The row of ``arch``; None if there is none."""
        return self._row.get(self._space.index(arch))

    def architecture(self, row: int) -> Architecture:
        """The architecture in ``row``."""
        return self._space.from_index(self._indices[row])

    def index(self, row: int) -> int:
        """The index in the space of ``row``."""
        return self._indices[row]

    def __len__(self) -> int:
        return len(self._indices)


def parse_rows(space: SearchSpace, texts: NDArray[Any], source: object) -> Iterator[int]:
    """The index in ``space`` of each of the architecture strings ``texts``, an array ``arch_str``.

    Raises:
        UserError: It is not an array of N strings, or a row is not an architecture of the space.
    """
    if texts.ndim != 1 or texts.dtype.kind not in "SU":
        raise UserError(
            f"{source}: arch_str is {texts.dtype} of shape {list(texts.shape)}, expected N strings"
        )
    if texts.dtype.itemsize > _LONGEST_TEXT:
        raise UserError(
            f"{source}: arch_str has a text of {counted(texts.dtype.itemsize, 'byte')}, which is not an "
            "architecture"
        )
    for row, text in enumerate(texts.tolist()):
        try:
            yield space.index(space.parse(text.decode() if isinstance(text, bytes) else text))
        except ValueError as error:
            raise UserError(f"{source}: row {row} of arch_str: {shortened(error)}") from error


class HashRows:
    """Rows of NAS-Bench-101, identified by the hash that isomorphic cells share.

    Args:
        hashes: ``[N, 16]`` uint8, the 16 bytes of each hash.
        adjacency: ``[N, 7, 7]`` 0/1, zero-padded.
        operations: ``[N, 7]``: -1 input, -2 output, -3 padding, else an index into ``names``.
        names: Names of the operations.
        module_hash: Hash of an architecture, 32 hexadecimal digits.
        make: The architecture of (adjacency matrix, names of its operations).
    """

    def __init__(
        self,
        hashes: NDArray[np.uint8],
        adjacency: NDArray[np.int8],
        operations: NDArray[np.int8],
        names: Sequence[str],
        module_hash: Callable[[Architecture], str],
        make: Callable[[list[list[int]], list[str]], Architecture],
    ) -> None:
        raw = hashes.tobytes()
        self._row = {raw[i : i + 16]: i // 16 for i in range(0, len(raw), 16)}
        if len(self._row) < len(hashes):
            raise UserError("two rows of the table have the same module hash")
        self._adjacency, self._operations = adjacency, operations
        self._names = list(names)
        self._hash, self._make = module_hash, make

    def row(self, arch: Architecture) -> int | None:
        """The row of ``arch`` or of an isomorphic cell; None if there is none."""
        return self._row.get(bytes.fromhex(self._hash(arch)))

    def architecture(self, row: int) -> Architecture:
        """The cell in ``row``."""
        codes = self._operations[row]
        size = int((codes != -3).sum())
        names = ["input" if c == -1 else "output" if c == -2 else self._names[c] for c in codes[:size]]
        return self._make(self._adjacency[row, :size, :size].tolist(), names)

    def __len__(self) -> int:
        return len(self._adjacency)
