"""Tensors in files: safetensors, which holds data alone, so that reading one runs nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pynas._errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

SUFFIX = ".safetensors"
_SUM = "sha256"


def check_target(path: Path, argument: str) -> None:
    """Raise UserError, before any work is done, if ``path`` cannot become a file of weights."""
    if path.suffix != SUFFIX:
        raise UserError(f"{argument}: expected a file name that ends in {SUFFIX}, got {str(path)!r}")
    if not path.absolute().parent.is_dir():
        raise UserError(f"{argument}: no such folder: {path.absolute().parent}")


def save(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write ``tensors`` by name, in one go: a file of that name stays whole until the new one is.

    A SHA-256 sum over names, dtypes, shapes, bytes and ``metadata`` goes with them.

    Raises:
        UserError: The file cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    try:
        save_file(contiguous, path, {**metadata, _SUM: _digest(contiguous, metadata)})
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: cannot write weights: {error}") from error


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata that :func:`save` wrote; of files from elsewhere, which have no sum, all there is.

    Raises:
        UserError: The file is absent or damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: not a readable file of weights: {error}") from error
    if _SUM in metadata and metadata.pop(_SUM) != _digest(tensors, metadata):
        raise UserError(f"{path}: damaged: its contents do not have the sum that it was written with")
    return tensors, metadata


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
