"""CIFAR-10 from its own archives, python or binary.

Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pynas._errors import UserError
from pynas._io.files import open_regular, shortened, size_of
from pynas._io.pickles import unpickle
from pynas._io.pickles.stand_ins import ALLOWED, Array
from pynas._plural import counted
from pynas.data._base import Images, Select, make_images

# Statistics of the 50,000 training images.
MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2470, 0.2435, 0.2616)

_PIXELS = 3 * 32 * 32
_MOST_IMAGES = 100_000  # upper bound for a batch, which has 10,000


def read(rest: str, size: int | None, select: Select) -> Images:
    """Read ``cifar10:DIR``: all training batches in DIR, or in the folder of the unpacked archive in DIR.

    Raises:
        UserError: There are no batches, or one is damaged.
    """
    if not rest:
        raise UserError("images cifar10: give a folder, as in cifar10:data/cifar-10-batches-py")
    folder = Path(os.path.expanduser(rest))
    if os.path.isfile(folder):
        raise UserError(f"{folder}: is a file; unpack the archive and name the folder")
    if not os.path.isdir(folder):
        raise UserError(f"{folder}: no such folder")
    for place in (folder, folder / "cifar-10-batches-py", folder / "cifar-10-batches-bin"):
        for suffix, reader in (("", _read_python), (".bin", _read_binary)):
            files = [place / f"data_batch_{i}{suffix}" for i in range(1, 6)]
            batches = [reader(path) for path in files if os.path.lexists(path)]
            if batches:
                return make_images(
                    np.concatenate([pixels for pixels, _ in batches]).transpose(0, 2, 3, 1),
                    np.concatenate([labels for _, labels in batches]),
                    name="cifar10",
                    what=str(place),
                    size=size,
                    select=select,
                    num_classes=10,
                    mean=MEAN,
                    std=STD,
                )
    raise UserError(
        f"{folder}: holds no CIFAR-10 batches (data_batch_1 to data_batch_5, or data_batch_1.bin to ...)"
    )


def _read_binary(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Records of one label byte and 3,072 pixels, plane after plane."""
    record = 1 + _PIXELS
    with open_regular(path) as file:
        size = size_of(file)
        if size == 0 or size % record or size > _MOST_IMAGES * record:
            raise UserError(
                f"{path}: expected records of {record} bytes, got a file of {counted(size, 'byte')}"
            )
        content = np.frombuffer(file.read(size), dtype=np.uint8)
    if len(content) < size:
        raise UserError(f"{path}: it shrank while it was read")
    records = content.reshape(-1, 1 + _PIXELS)
    return records[:, 1:].reshape(-1, 3, 32, 32), _checked(records[:, 0].tolist(), path)


def _read_python(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """A dictionary pickled by Python 2: ``data`` [N, 3072] uint8 and ``labels``, a list of N integers."""
    what = "a python batch of CIFAR-10"
    content = unpickle(path, ALLOWED, what=what)
    if not isinstance(content, dict):
        raise UserError(f"{path}: not {what}: it holds a {type(content).__name__}, not a dictionary")
    # Keys written by Python 2 are read as str; compatible files written by Python 3 have bytes.
    named = {key.decode("latin1") if isinstance(key, bytes) else key: value for key, value in content.items()}
    data, labels = named.get("data"), named.get("labels")
    if not isinstance(data, Array) or not isinstance(labels, list):
        raise UserError(f"{path}: not {what}: expected an array data and a list labels")
    if not all(type(label) is int for label in labels):
        raise UserError(f"{path}: not {what}: labels must be integers")
    pixels = _pixels(data, path)
    if pixels.ndim != 2 or pixels.shape[1] != _PIXELS or len(pixels) != len(labels) or not labels:
        shape = list(pixels.shape)
        raise UserError(f"{path}: expected data [N, {_PIXELS}] and N labels, got {shape} and {len(labels)}")
    return pixels.reshape(-1, 3, 32, 32), _checked(labels, path)


def _pixels(data: Array, path: Path) -> NDArray[np.uint8]:
    try:
        pixels = data.numbers
    except ValueError as error:
        raise UserError(f"{path}: not a python batch of CIFAR-10: {error}") from error
    if pixels.dtype != np.uint8:
        raise UserError(f"{path}: not a python batch of CIFAR-10: data must be an array of uint8")
    return pixels


def _checked(labels: list[int], path: Path) -> NDArray[np.int64]:
    """Name the file and not only the folder when a label is out of range."""
    bad = next((position for position, label in enumerate(labels) if not 0 <= label <= 9), None)
    if bad is not None:
        got = shortened(labels[bad])
        raise UserError(f"{path}: labels must be in 0..9, got {got} at position {bad}")
    return np.array(labels, dtype=np.int64)
