"""Collects and restores all tensors of a training, and checks that a checkpoint is of the same training."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pynas._errors import UserError
from pynas._io import weights


def collect(model: nn.Module, optimizers: Mapping[str, Optimizer]) -> dict[str, Tensor]:
    """Copies, on the CPU, of weights, buffers and the optimisers' states, by name."""
    found = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    for which, optimizer in optimizers.items():
        for index, state in optimizer.state_dict()["state"].items():
            for key, value in state.items():
                if value is not None:
                    found[f"optimizer.{which}.{index}.{key}"] = torch.as_tensor(value)
    return {name: tensor.detach().cpu().clone() for name, tensor in found.items()}


def restore(
    tensors: Mapping[str, Tensor],
    model: nn.Module,
    optimizers: Mapping[str, Optimizer],
    where: str = "checkpoint",
) -> None:
    """Restore all tensors, or none if one does not fit.

    Args:
        tensors: A result of :func:`collect`.
        model: The model to restore.
        optimizers: The optimisers to restore; none to restore only the model.
        where: Start of error messages: the file.

    Raises:
        UserError: The tensors are of another model or of other optimisers.
    """
    of_model = {
        name.removeprefix("model."): tensor for name, tensor in tensors.items() if name.startswith("model.")
    }
    weights.check_fits(of_model, model.state_dict(), f"{where}: of another model")
    states = _optimizer_states(tensors, optimizers, where)
    model.load_state_dict(of_model, strict=True)
    for which, optimizer in optimizers.items():
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": states[which], "param_groups": groups})


def _optimizer_states(
    tensors: Mapping[str, Tensor], optimizers: Mapping[str, Optimizer], where: str
) -> dict[str, dict[int, dict[str, Tensor]]]:
    """States by optimiser, number of the parameter and name; parameters without a gradient have none yet."""
    parameters = {
        which: [parameter for group in optimizer.param_groups for parameter in group["params"]]
        for which, optimizer in optimizers.items()
    }
    states: dict[str, dict[int, dict[str, Tensor]]] = {which: {} for which in optimizers}
    for name, tensor in tensors.items():
        match name.split("."):
            case ["optimizer", which, number, key] if which in parameters and number.isdecimal():
                like = parameters[which][int(number) :][:1]
                if like and tensor.shape == like[0].shape:  # restore the memory format of the parameter
                    tensor = torch.empty_like(like[0], dtype=tensor.dtype).copy_(tensor)
                elif not like:
                    raise UserError(f"{where}: of another model: its {name} fits no parameter")
                states[which].setdefault(int(number), {})[key] = tensor.clone()
            case ["optimizer", *_] if optimizers:
                raise UserError(
                    f"{where}: of another training: it has {name}, for which there is no optimiser"
                )
    return states


def digest(inputs: Tensor, targets: Tensor) -> str:
    """A SHA-256 sum over shape, dtype, all targets and about 64 of the images."""
    found = hashlib.sha256(repr((list(inputs.shape), str(inputs.dtype))).encode())
    found.update(targets.cpu().contiguous().numpy().data)
    sample = inputs[:: max(1, len(inputs) // 64)].float().cpu().contiguous()
    found.update(sample.numpy().data)
    return found.hexdigest()


def check_same(there: Any, here: Mapping[str, Any], holds: str) -> None:
    """Raise UserError if a checkpoint has other settings than the training that should resume from it.

    Args:
        there: Settings in the checkpoint.
        here: Current settings, as a JSON value.
        holds: Start of the message, such as ``run1: holds a training``.
    """
    known = there if isinstance(there, dict) else {}
    for key, value in here.items():
        found = known.get(key)
        if isinstance(value, dict) and isinstance(found, dict):
            check_same(found, value, holds)
        if found != value:
            raise UserError(
                f"{holds} with another {key}: {found}, here {value}; use the same settings, or another folder"
            )
