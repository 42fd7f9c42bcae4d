"""Published latencies and energies, measured for every architecture of a space.

HW-NAS-Bench: C. Li et al., "HW-NAS-Bench: Hardware-Aware Neural Architecture Search Benchmark", ICLR 2021,
arXiv:2103.10584.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pynas._errors import UserError
from pynas._io.files import listed, shortened
from pynas._io.npz import open_npz
from pynas._plural import counted
from pynas.architecture import Architecture
from pynas.hardware.model import UNITS, HardwareModel
from pynas.spaces import SearchSpace

_KEY = re.compile(rf"(?P<dataset>[^/]+)/(?P<device>\w+)_(?P<quantity>{'|'.join(UNITS)})")
_DEFAULT_DATASET = "cifar10"
_UNSUPPORTED = -1


class TabularLatency(HardwareModel):
    """One column of a table of measurements, by architecture.

    Args:
        space: Space of the architectures.
        values: ``[space.size]`` in the index order of the space. -1, as in HW-NAS-Bench, means that the
            device cannot run the architecture, NaN that it was not measured.
        device: Short name of the device.
        quantity: ``latency`` (ms) or ``energy`` (mJ).
        dataset: Data set of the networks' inputs.
        source: Where the numbers come from, for messages.

    Raises:
        UserError: There is not one value per architecture, or one is infinite, zero or negative but not -1.
    """

    def __init__(
        self,
        space: SearchSpace,
        values: ArrayLike,
        device: str,
        quantity: str = "latency",
        dataset: str = "unknown",
        source: str = "a table",
    ) -> None:
        self.space = space
        self.device, self.quantity, self.dataset, self.source = device, quantity, dataset, source
        self.values: NDArray[np.float64] = np.asarray(values, dtype=np.float64)
        if self.values.shape != (space.size,):
            raise UserError(
                f"{source}: {device} has values of shape {list(self.values.shape)}, expected "
                f"[{space.size}], one for each architecture of {space.name}"
            )
        numbers = self.values
        bad = np.flatnonzero(np.isinf(numbers) | ((numbers <= 0) & (numbers != _UNSUPPORTED)))
        if len(bad):
            raise UserError(
                f"{source}: {self.name} of architecture {bad[0]} is {numbers[bad[0]]:g}; expected a "
                "positive number, -1 where the device does not support it, or NaN where it was not measured"
            )

    def predict(self, arch: Architecture) -> float:  # noqa: D102
        value = float(self.values[self.space.index(arch)])
        return value if value > 0 else float("nan")

    def explain(self, arch: Architecture) -> str:  # noqa: D102
        value = self.values[self.space.index(arch)]
        if value > 0:
            return ""
        return f"{self.device} does not support it" if value < 0 else f"{self.source} has no value for it"

    def describe(self) -> dict[str, Any]:  # noqa: D102
        digest = hashlib.sha256(self.values.tobytes()).hexdigest()[:16]
        return {"name": self.name, "dataset": self.dataset, "source": self.source, "values": digest}

    def facts(self) -> dict[str, Any]:  # noqa: D102
        return super().facts() | {"dataset": self.dataset, "source": self.source}

    def unlike(self, dataset: str) -> str:  # noqa: D102
        ours, theirs = (name.lower().removesuffix("-valid") for name in (self.dataset, dataset))
        if ours == theirs or "unknown" in (ours, theirs):
            return ""
        return f"it was measured on networks for {self.dataset}"

    @classmethod
    def read(
        cls,
        path: str | os.PathLike[str],
        space: SearchSpace,
        device: str | None = None,
        dataset: str | None = None,
    ) -> tuple[TabularLatency, ...]:
        """Read an ``.npz`` archive of arrays ``DATASET/DEVICE_latency`` and ``DATASET/DEVICE_energy``.

        Each array is in the index order of the space, or in that of an array ``arch_str`` of architecture
        strings in the same archive, whose rows may be a part of the space in any order.

        Args:
            path: The archive.
            space: Space of the architectures.
            device: ``raspi4``, ``cifar100/raspi4``, or None for all.
            dataset: Data set of the networks' inputs, where ``device`` does not name it; the same network is
                slower on larger images. By default cifar10, or the only one there is. The split
                ``cifar10-valid`` has the latencies of cifar10.

        Returns:
            One model for each quantity of the device or devices.

        Raises:
            UserError: The file cannot be read, has no such device or data set, or is not of this space.
        """
        path = Path(os.path.expanduser(path))
        with open_npz(path) as archive:
            columns = [match for key in archive.files if (match := _KEY.fullmatch(key))]
            if not columns:
                raise UserError(
                    f"{path}: expected arrays called DATASET/DEVICE_latency, got the keys "
                    f"{listed(sorted(archive.files)) or 'none'}"
                )
            wanted = _wanted(path, columns, device, dataset)
            rows = _rows(path, archive["arch_str"], space) if "arch_str" in archive else None
            read = {match: _numbers(path, match.string, archive[match.string]) for match in wanted}
        return tuple(
            cls(
                space, _placed(path, values, rows, space), m["device"], m["quantity"], m["dataset"], path.name
            )
            for m, values in read.items()
        )


def _wanted(
    path: Path, columns: list[re.Match[str]], device: str | None, dataset: str | None
) -> list[re.Match[str]]:
    named, _, name = (device or "").rpartition("/")
    datasets = sorted({match["dataset"] for match in columns})
    chosen = named or dataset or (datasets[0] if len(datasets) == 1 else _DEFAULT_DATASET)
    if chosen not in datasets:
        chosen = chosen.removesuffix("-valid")
    if chosen not in datasets:
        raise UserError(
            f"{path}: no latencies for data set {chosen!r}; it has: {listed(datasets)}; to take those of "
            f"another data set, name it: hw:{path.name}:{datasets[0]}/{name or 'DEVICE'}"
        )
    there = [match for match in columns if match["dataset"] == chosen]
    wanted = [match for match in there if name in ("", match["device"])]
    if not wanted:
        devices = listed(sorted({match["device"] for match in there}))
        raise UserError(f"{path}: no device {name!r}; it has: {devices}")
    return wanted


def _numbers(path: Path, key: str, array: NDArray[Any]) -> NDArray[np.float64]:
    if array.dtype.kind not in "fiu" or array.ndim != 1:
        raise UserError(f"{path}: {key} is {array.dtype} of shape {list(array.shape)}, expected N numbers")
    return array.astype(np.float64)


def _rows(path: Path, strings: NDArray[Any], space: SearchSpace) -> list[int]:
    """Index in the space of each row."""
    if strings.ndim != 1 or strings.dtype.kind not in "SU":
        raise UserError(
            f"{path}: arch_str is {strings.dtype} of shape {list(strings.shape)}, expected N strings"
        )
    rows: dict[int, int] = {}
    for row, text in enumerate(strings.tolist()):
        try:
            index = space.index(space.parse(text.decode() if isinstance(text, bytes) else text))
        except ValueError as error:
            raise UserError(f"{path}: row {row} of arch_str: {shortened(error)}") from error
        if (first := rows.setdefault(index, row)) != row:
            raise UserError(f"{path}: rows {first} and {row} of arch_str are the same architecture")
    return list(rows)


def _placed(
    path: Path, values: NDArray[np.float64], rows: list[int] | None, space: SearchSpace
) -> NDArray[np.float64]:
    """Values in the order of the space, NaN where the file has no row."""
    if rows is None:
        return values
    if values.shape != (len(rows),):
        raise UserError(
            f"{path}: arrays of different lengths: arch_str has {counted(len(rows), 'row')}, another "
            f"{len(values):,}"
        )
    assert space.size is not None  # rows have indices
    placed = np.full(space.size, np.nan)
    placed[rows] = values
    return placed
