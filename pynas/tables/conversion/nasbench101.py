"""NAS-Bench-101: ``nasbench_full.tfrecord`` and ``nasbench_only108.tfrecord``.

C. Ying et al., "NAS-Bench-101: Towards Reproducible Neural Architecture Search", ICML 2019, arXiv:1902.09635.

A record is a JSON list: module hash, epochs, adjacency matrix as a text of zeros and ones, operations joined
by commas, and a base64-encoded protocol buffer with the metrics before, halfway through and after one
training run. Each of the three runs of a cell at one length is a separate record; runs have no seed, so they
are numbered.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pynas._errors import UserError
from pynas._io.files import Bounded, open_regular, shortened, size_of
from pynas._plural import counted
from pynas.tables._columns import Column
from pynas.tables._compact import Content
from pynas.tables.conversion._collector import epochs_of
from pynas.tables.formats import protobuf, tfrecord

_OP_NAMES = ("conv3x3-bn-relu", "conv1x1-bn-relu", "maxpool3x3")
_CODES = {"input": -1, "output": -2} | {name: code for code, name in enumerate(_OP_NAMES)}
_PADDING = -3
_VERTICES = 7
_RUNS = 3
# Field of EvaluationData, our name, factor to our unit.
_METRICS = (
    (3, "train_accuracy", 100.0),
    (4, "valid_accuracy", 100.0),
    (5, "test_accuracy", 100.0),
    (2, "train_time", 1.0),
)
_WANTED = frozenset(field for field, _, _ in _METRICS)
_LENGTHS = 16  # upper bound on training lengths; there are four
_EVALUATION, _PARAMETERS = 1, 2  # fields of ModelMetrics


class _Cells:
    """The rows read so far, in growing arrays."""

    def __init__(self) -> None:
        self.row: dict[bytes, int] = {}
        self.adjacency = np.zeros((1024, _VERTICES, _VERTICES), dtype=np.int8)
        self.ops = np.full((1024, _VERTICES), _PADDING, dtype=np.int8)
        self.params = np.zeros(1024, dtype=np.int64)
        self.metrics: dict[int, NDArray[np.float32]] = {}  # epochs -> [rows, runs, metrics]
        self.runs: dict[int, NDArray[np.uint8]] = {}

    def add(self, digest: bytes, adjacency: str, operations: str) -> int:
        """The row of the cell with this hash; adds a row for a new one."""
        if (row := self.row.get(digest)) is not None:
            return row
        row = self.row[digest] = len(self.row)
        if row == len(self.params):
            self._grow()
        size = math.isqrt(len(adjacency))
        codes = [_CODES[name] for name in operations.split(",")]
        if size**2 != len(adjacency) or size > _VERTICES or len(codes) != size or adjacency.strip("01"):
            raise ValueError(
                f"a cell with {counted(len(codes), 'operation')} and "
                f"{counted(len(adjacency), 'matrix entry', 'matrix entries')}"
            )
        matrix = np.frombuffer(adjacency.encode(), dtype=np.uint8) - ord("0")
        self.adjacency[row, :size, :size] = matrix.reshape(size, size)
        self.ops[row, :size] = codes
        return row

    def record(self, row: int, epochs: int, numbers: list[float]) -> None:
        """Add one run."""
        if epochs not in self.metrics:
            if len(self.metrics) == _LENGTHS:
                raise ValueError(f"trainings of more than {_LENGTHS} lengths")
            self.metrics[epochs] = np.full((len(self.params), _RUNS, len(_METRICS)), np.nan, np.float32)
            self.runs[epochs] = np.zeros(len(self.params), np.uint8)
        run = int(self.runs[epochs][row])
        if run == _RUNS:
            raise ValueError(f"a fourth run of {counted(epochs, 'epoch')} of the same cell")
        self.metrics[epochs][row, run] = numbers
        self.runs[epochs][row] += 1

    def _grow(self) -> None:
        self.adjacency, self.params = _longer(self.adjacency, 0), _longer(self.params, 0)
        self.ops = _longer(self.ops, _PADDING)
        for epochs in self.metrics:
            self.metrics[epochs] = _longer(self.metrics[epochs], np.nan)
            self.runs[epochs] = _longer(self.runs[epochs], 0)


def _longer(array: NDArray[Any], fill: float) -> NDArray[Any]:
    more = np.full((len(array) // 2, *array.shape[1:]), fill, dtype=array.dtype)
    return np.concatenate([array, more])


def convert(path: Path, on_progress: Callable[[float], None]) -> Content:
    """Read the file in one pass; memory holds the result and its hashes (290 MB for the full file).

    Raises:
        UserError: The file is damaged or of another kind.
    """
    cells = _Cells()
    number = 0
    with open_regular(path) as opened:
        size = size_of(opened)
        file = Bounded(opened, size, "it grew while it was read", opened.close)
        try:
            for batch in tfrecord.batches(path, file):
                for record in batch:
                    _read(record, cells)
                    number += 1
                on_progress(opened.tell() / max(1, size))
        except UserError:
            raise
        except Exception as error:  # any value of a record can have any type
            what = shortened(str(error) or type(error).__name__)
            raise UserError(f"{path}: record {number} is no row of NAS-Bench-101: {what}") from error
    if not number:
        raise UserError(f"{path}: holds no record")
    return _content(path, cells)


def _read(record: bytes, cells: _Cells) -> None:
    digest, epochs, adjacency, operations, encoded = json.loads(record)
    if not all(isinstance(text, str) for text in (digest, adjacency, operations, encoded)):
        raise ValueError("not a hash, a matrix, operations and metrics as texts")
    raw = bytes.fromhex(digest)
    if len(raw) != 16:
        raise ValueError(f"the module hash {digest!r}")
    evaluations: list[bytes] = []
    params = 0
    for field, _, value in protobuf.fields(base64.b64decode(encoded, validate=True)):
        if field == _EVALUATION and isinstance(value, bytes) and len(evaluations) <= 3:
            evaluations.append(value)
        elif field == _PARAMETERS and isinstance(value, int):
            params = value
    if len(evaluations) != 3:
        raise ValueError(
            f"{counted(len(evaluations), 'evaluation')} of a run, expected before, halfway and after"
        )
    final = {field: value for field, _, value in protobuf.fields(evaluations[2]) if field in _WANTED}
    numbers = [
        protobuf.double(final[field]) * factor if field in final else math.nan
        for field, _, factor in _METRICS
    ]
    row = cells.add(raw, adjacency, operations)
    cells.params[row] = params
    cells.record(row, epochs_of(epochs), numbers)


def _content(path: Path, cells: _Cells) -> Content:
    count = len(cells.row)
    names: dict[str, NDArray[Any]] = {
        "hash": np.array([digest.hex() for digest in cells.row], dtype="S32"),
        "num_vertices": (cells.ops[:count] != _PADDING).sum(axis=1).astype(np.int8),
        "adjacency": cells.adjacency[:count],
        "ops": cells.ops[:count],
        "op_names": np.array(_OP_NAMES),
    }
    columns: dict[Column, NDArray[Any]] = {Column("cifar10", "params"): cells.params[:count]}
    for epochs in sorted(cells.metrics):
        for position, (_, name, _) in enumerate(_METRICS):
            column = Column("cifar10", name, epochs, tuple(range(_RUNS)))
            columns[column] = cells.metrics[epochs][:count, :, position]
    return Content("nasbench101", path.name, names, columns)
