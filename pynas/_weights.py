"""Tensors in files: safetensors, which holds data alone, so that reading one runs nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pynas._errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

SUFFIX = ".safetensors"


def check_target(path: Path, argument: str) -> None:
    """Raise UserError, before any work is done, if ``path`` cannot become a file of weights."""
    if path.suffix != SUFFIX:
        raise UserError(f"{argument}: expected a file name that ends in {SUFFIX}, got {str(path)!r}")
    if not path.absolute().parent.is_dir():
        raise UserError(f"{argument}: no such folder: {path.absolute().parent}")


def save(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write ``tensors`` by name, in one go: a file of that name stays whole until the new one is.

    Raises:
        UserError: The file cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    try:
        save_file(contiguous, path, dict(metadata))
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: cannot write weights: {error}") from error


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata that :func:`save` wrote.

    Raises:
        UserError: The file is absent or damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: not a readable file of weights: {error}") from error
