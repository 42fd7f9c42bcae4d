"""CIFAR-10 from its own archives, python or binary.

Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pynas._errors import UserError
from pynas._unpickle import unpickle
from pynas.data._base import Images, Select, make_images

# Of the 50,000 training images.
MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2470, 0.2435, 0.2616)

_PIXELS = 3 * 32 * 32


def read(rest: str, size: int | None, select: Select) -> Images:
    """Read ``cifar10:DIR``: all training batches in DIR, or in the folder of its unpacked archive below DIR.

    Raises:
        UserError: There are none, or one is damaged.
    """
    if not rest:
        raise UserError("images cifar10: say which folder, as in cifar10:data/cifar-10-batches-py")
    folder = Path(os.path.expanduser(rest))
    if folder.is_file():
        raise UserError(f"{folder}: is a file; unpack the archive and name the folder")
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    for place in (folder, folder / "cifar-10-batches-py", folder / "cifar-10-batches-bin"):
        for suffix, reader in (("", _read_python), (".bin", _read_binary)):
            files = [place / f"data_batch_{i}{suffix}" for i in range(1, 6)]
            batches = [reader(path) for path in files if path.is_file()]
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
    content = np.fromfile(path, dtype=np.uint8)
    if len(content) == 0 or len(content) % (1 + _PIXELS):
        raise UserError(f"{path}: expected records of {1 + _PIXELS} bytes, got {len(content)} bytes")
    records = content.reshape(-1, 1 + _PIXELS)
    labels = records[:, 0].astype(np.int64)
    return records[:, 1:].reshape(-1, 3, 32, 32), _checked(labels, path)


def _read_python(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """A dictionary pickled by Python 2: ``data`` [N, 3072] uint8 and ``labels``, a list of N integers."""
    what = "a python batch of CIFAR-10"
    content = unpickle(path, _NUMPY, what=what, encoding="bytes")
    if not isinstance(content, dict):
        raise UserError(f"{path}: not {what}: it holds a {type(content).__name__}, not a dictionary")
    named = {key.decode() if isinstance(key, bytes) else key: value for key, value in content.items()}
    data, labels = named.get("data"), named.get("labels")
    if not isinstance(data, _Array) or not isinstance(labels, list):
        raise UserError(f"{path}: not {what}: expected an array data and a list labels")
    if not all(type(label) is int for label in labels):
        raise UserError(f"{path}: not {what}: labels must be integers")
    pixels = data.as_uint8(path)
    if pixels.ndim != 2 or pixels.shape[1] != _PIXELS or len(pixels) != len(labels) or not labels:
        shape = list(pixels.shape)
        raise UserError(f"{path}: expected data [N, {_PIXELS}] and N labels, got {shape} and {len(labels)}")
    return pixels.reshape(-1, 3, 32, 32), _checked(np.array(labels, dtype=np.int64), path)


def _checked(labels: NDArray[np.int64], path: Path) -> NDArray[np.int64]:
    """Name the file and not only the folder when a label is out of range."""
    bad = np.flatnonzero((labels < 0) | (labels > 9))
    if len(bad):
        raise UserError(f"{path}: labels must be in 0..9, got {labels[bad[0]]} at position {bad[0]}")
    return labels


# ---- stand-ins for the parts of NumPy that a pickled array names ----------------------------------------


class _State:
    """Keeps the state that the pickle gives it."""

    state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _DType(_State):
    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments


class _Array(_State):
    def as_uint8(self, path: Path) -> NDArray[np.uint8]:
        """The array, if it is a contiguous one of bytes."""
        match self.state:
            case (_, tuple() as shape, _DType() as dtype, bool() | int() as fortran, bytes() as raw):
                is_uint8 = dtype.arguments[:1] in ((b"u1",), ("u1",))
                if is_uint8 and not fortran and all(type(n) is int and n >= 0 for n in shape):
                    array = np.frombuffer(raw, dtype=np.uint8)
                    if len(array) == np.prod(shape, dtype=np.int64):
                        return array.reshape(shape)
        raise UserError(f"{path}: not a python batch of CIFAR-10: data must be an array of uint8")


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _encode(text: Any, encoding: Any) -> bytes:
    """``_codecs.encode``: how Python 3 writes bytes for protocol 2."""
    if not isinstance(text, str) or encoding not in ("latin1", b"latin1"):
        raise ValueError("unexpected text encoding")
    return text.encode("latin1")


_NUMPY = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): _DType,
    ("_codecs", "encode"): _encode,
}
