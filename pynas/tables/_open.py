"""Opens a table in a NumPy archive, either compact or from another source."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pynas import spaces
from pynas._errors import UserError
from pynas._io.files import shortened
from pynas._io.npz import open_npz
from pynas._plural import counted
from pynas.spaces import SearchSpace
from pynas.tables import _compact, _conventions
from pynas.tables._base import Rows
from pynas.tables._benchmark import Benchmark
from pynas.tables._compact import Content
from pynas.tables._families import FAMILIES
from pynas.tables._numbers import without_sentinels
from pynas.tables._rows import HashRows, IndexRows

_VERTICES = 7


def open(path: str | os.PathLike[str], space: SearchSpace | str | None = None) -> Benchmark:
    """Open a table: a file that ``pynas tables convert`` wrote, or another archive with conventional keys.

    Args:
        path: The ``.npz`` file.
        space: Space of the architectures, or its name. Optional for a compact file with a single space; with
            several spaces, it selects the rows.

    Raises:
        UserError: The file is absent or damaged, or has no architecture of ``space``.
    """
    file = Path(os.path.expanduser(path))
    wanted = spaces.get(space) if isinstance(space, str) else space
    content = load_content(file, wanted)
    known = FAMILIES[content.family].spaces
    if wanted is None:
        if len(known) != 1:
            raise UserError(f"{file}: give its space: {', '.join(known) or 'any'}")
        wanted = spaces.get(known[0])
    elif known and wanted.name not in known:
        raise UserError(f"{file}: holds architectures of {' and '.join(known)}, not of {wanted.name}")
    rows, kept = _rows(content, wanted, file)
    columns = content.columns if kept is None else {c: a[kept] for c, a in content.columns.items()}
    return Benchmark(content.family, wanted, rows, columns, file.name)


def load_content(path: Path, space: SearchSpace | None) -> Content:
    """The interpreted arrays of a file, before their rows are matched with a space.

    Without a space, the file must be compact, have architecture strings or hashes, or be in the index order
    of NAS-Bench-201.
    """
    with open_npz(path) as archive:
        arrays = archive.all()
    if _compact.HEADER in arrays:
        content = _compact.read(arrays, path)
    else:
        if space is None:
            space = spaces.get("nasbench101" if "hash" in arrays else "nasbench201")
        content = _conventions.read(arrays, path, space)
    columns = {column: without_sentinels(column, array) for column, array in content.columns.items()}
    return replace(content, columns=columns)


def _rows(content: Content, space: SearchSpace, path: Path) -> tuple[Rows, NDArray[np.int64] | None]:
    """The rows of ``space``, and their positions if these are not all rows."""
    names = content.names
    if "hash" in names:
        return _hash_rows(names, space, path), None
    if "index" in names:
        return IndexRows(space, names["index"].tolist()), None
    strings = names["arch_str"]
    if content.family != "transnas101" or strings.dtype.kind not in "SU":
        return IndexRows.parse(space, strings, path), None
    is_macro = np.char.endswith(strings, b"-basic" if strings.dtype.kind == "S" else "-basic")
    kept = np.flatnonzero(is_macro == (space.name == "transnas_macro"))
    if not len(kept):
        raise UserError(f"{path}: holds no architecture of {space.name}")
    return IndexRows.parse(space, strings[kept], path), kept


def _hash_rows(names: Mapping[str, NDArray[Any]], space: Any, path: Path) -> HashRows:
    missing = [key for key in _compact.HASH_NAMES if key not in names and key != "num_vertices"]
    if missing:
        raise UserError(f"{path}: NAS-Bench-101 needs the arrays {', '.join(missing)} too")
    if space.name != "nasbench101":
        raise UserError(f"{path}: holds architectures of nasbench101, not of {space.name}")
    hashes, adjacency, operations = names["hash"], names["adjacency"], names["ops"]
    count = len(hashes)
    shapes = adjacency.shape == (count, _VERTICES, _VERTICES) and operations.shape == (count, _VERTICES)
    if not shapes or adjacency.dtype.kind not in "iu" or operations.dtype.kind not in "iu":
        raise UserError(f"{path}: adjacency must be [N, 7, 7] and ops [N, 7], integers, for N hashes")
    if names["op_names"].ndim != 1 or names["op_names"].dtype.kind not in "SU":
        raise UserError(f"{path}: op_names must be the names of operations")
    op_names = [n.decode("latin1") if isinstance(n, bytes) else n for n in names["op_names"].tolist()]
    if operations.min(initial=0) < -3 or operations.max(initial=0) >= len(op_names):
        raise UserError(f"{path}: ops must be -1 (input), -2 (output), -3 (padding) or indices of op_names")
    try:
        if hashes.dtype.kind not in "SU":
            raise ValueError(f"{hashes.dtype}")
        digits = hashes.astype("S32")
        raw = bytes.fromhex(b"".join(digits.tolist()).decode())
        if len(raw) != 16 * count or (digits != hashes.astype("S")).any():
            raise ValueError(f"{counted(2 * len(raw), 'digit')} in {counted(count, 'row')}")
        rows = np.frombuffer(raw, dtype=np.uint8).reshape(count, 16)
        return HashRows(rows, adjacency, operations, op_names, space.hash, space.from_matrix)
    except ValueError as error:
        what = shortened(error)
        raise UserError(f"{path}: hash: expected 32 hexadecimal digits a row: {what}") from error
