"""Tensors in files: safetensors, which holds data alone, so that reading one runs nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from pynas._errors import UserError
from pynas._io import strict_json
from pynas._io.atomic import check_output, replacing
from pynas._io.files import listed, open_regular, shortened, size_of

if TYPE_CHECKING:
    from torch import Tensor

SUFFIX = ".safetensors"
_SUM = "sha256"
_METADATA = "__metadata__"
_LONGEST_HEADER = 100_000_000  # bytes, the format's own limit


def check_target(path: Path, argument: str) -> None:
    """Raise UserError, before any work is done, if ``path`` cannot become a file of weights."""
    check_output(path, argument, suffix=SUFFIX)


def save(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write ``tensors`` by name, whole or not at all: what was there stays until all is on the disk.

    A SHA-256 sum over names, dtypes, shapes, bytes and ``metadata`` goes with them.

    Raises:
        UserError: The file cannot be written.
    """
    from safetensors.torch import save as serialised

    written: dict[str, Tensor] = {}
    places: set[int] = set()
    for name, tensor in tensors.items():
        own = tensor.detach().cpu().contiguous()
        if own.numel() and own.untyped_storage().data_ptr() in places:
            own = own.clone()  # tied weights: the format has each tensor on its own
        places.add(own.untyped_storage().data_ptr())
        written[name] = own
    content = serialised(written, {**metadata, _SUM: _digest(written, metadata)})
    with replacing(path) as file:
        file.write(content)


def load(path: Path, *, checked: bool = True) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata that :func:`save` wrote.

    Args:
        path: The file.
        checked: Whether the file must have a sum, as all of pynas have. Without it one from elsewhere is read
            too; a sum that is there must be right all the same.

    Raises:
        UserError: The file is absent or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load as deserialised

    try:
        with open_regular(path) as file:
            metadata = _metadata(file)
            file.seek(0)
            tensors = deserialised(file.read())
        written, found = metadata.pop(_SUM, None), _digest(tensors, metadata)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    # A header whose numbers do not fit each other; types of numbers that torch or the library do not know.
    except (SafetensorError, ValueError, TypeError, KeyError, RuntimeError, OverflowError) as error:
        raise UserError(f"{path}: not a readable file of weights: {shortened(error)}") from error
    if written is None and checked:
        raise UserError(f"{path}: damaged, or not of pynas: it has no sum of its contents")
    if written is not None and written != found:
        raise UserError(f"{path}: damaged: its contents do not have the sum that it was written with")
    return tensors, metadata


def check_fits(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor], where: str) -> None:
    """Raise UserError unless ``tensors`` can be copied to ``wanted``: the same names, shapes and dtypes.

    Args:
        tensors: Read from a file.
        wanted: Of the model, such as its ``state_dict()``.
        where: Begins the message: the file, and what it is not, as in ``a.safetensors: of another model``.
    """
    missing, extra = wanted.keys() - tensors.keys(), tensors.keys() - wanted.keys()
    if missing or extra:
        parts = [
            f"it {verb} {listed(sorted(names))}"
            for verb, names in (("lacks", missing), ("also holds", extra))
            if names
        ]
        raise UserError(f"{where}: {' and '.join(parts)}")
    for name, like in wanted.items():
        found = tensors[name]
        if (found.dtype, found.shape) != (like.dtype, like.shape):
            raise UserError(f"{where}: its {name} is {_described(found)}, expected {_described(like)}")


def _described(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def _metadata(file: BinaryIO) -> dict[str, str]:
    """The texts in the header, after a look at whether the file is as long as the header says.

    The library would map or read all of it first, however long it is.
    """
    size = size_of(file)
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > min(size - 8, _LONGEST_HEADER):
        raise ValueError(f"its header should have {length} bytes, the file has {size}")
    header = strict_json.loads(file.read(length).decode())
    if not isinstance(header, dict):
        raise ValueError("its header is no object")
    metadata = header.pop(_METADATA, {})
    end = max((_end(tensor) for tensor in header.values()), default=0)
    if 8 + length + end != size:
        raise ValueError(f"its tensors end at byte {8 + length + end}, the file has {size}")
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise ValueError("the metadata of its header are no texts")
    return metadata


def _end(tensor: Any) -> int:
    match tensor:
        case {"data_offsets": [int(), int(end)]} if end >= 0:
            return end
    raise ValueError("a tensor of its header has no place")


def _digest(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    import torch

    found = hashlib.sha256("".join(f"{key}\n{metadata[key]}\n" for key in sorted(metadata)).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        found.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        if tensor.numel():
            raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            found.update(raw.numpy().data)
    return found.hexdigest()
