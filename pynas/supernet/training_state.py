"""All tensors of a training, by name, and back; and how one training is told from another."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pynas import _weights
from pynas._errors import UserError


def collect(model: nn.Module, optimizers: Mapping[str, Optimizer]) -> dict[str, Tensor]:
    """Copies, on the CPU, of weights, buffers and what optimisers keep of each parameter."""
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
    """Put them back: all of them, or none.

    Args:
        tensors: What :func:`collect` gave.
        model: Of which they are.
        optimizers: Likewise; none to put back the model alone.
        where: Begins messages: the file.

    Raises:
        UserError: They are of another model, or of other optimisers.
    """
    weights = {
        name.removeprefix("model."): tensor for name, tensor in tensors.items() if name.startswith("model.")
    }
    _weights.check_fits(weights, model.state_dict(), f"{where}: of another model")
    states = _optimizer_states(tensors, optimizers, where)
    model.load_state_dict(weights, strict=True)
    for which, optimizer in optimizers.items():
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": states[which], "param_groups": groups})


def _optimizer_states(
    tensors: Mapping[str, Tensor], optimizers: Mapping[str, Optimizer], where: str
) -> dict[str, dict[int, dict[str, Tensor]]]:
    """By optimiser, number of the parameter and name; a parameter without a gradient so far has none."""
    parameters = {
        which: [parameter for group in optimizer.param_groups for parameter in group["params"]]
        for which, optimizer in optimizers.items()
    }
    states: dict[str, dict[int, dict[str, Tensor]]] = {which: {} for which in optimizers}
    for name, tensor in tensors.items():
        match name.split("."):
            case ["optimizer", which, number, key] if which in parameters and number.isdecimal():
                like = parameters[which][int(number) :][:1]
                if like and tensor.shape == like[0].shape:  # in the memory format of the parameter, as it was
                    tensor = torch.empty_like(like[0], dtype=tensor.dtype).copy_(tensor)
                elif not like:
                    raise UserError(f"{where}: of another model: its {name} fits no parameter")
                states[which].setdefault(int(number), {})[key] = tensor.clone()
            case ["optimizer", *_] if optimizers:
                raise UserError(f"{where}: of another training: it has {name}, here is no such optimiser")
    return states


def digest(inputs: Tensor, targets: Tensor) -> str:
    """A SHA-256 sum of shape, dtype, all targets and some 64 of the images."""
    found = hashlib.sha256(repr((list(inputs.shape), str(inputs.dtype))).encode())
    found.update(targets.cpu().contiguous().numpy().data)
    sample = inputs[:: max(1, len(inputs) // 64)].float().cpu().contiguous()
    found.update(sample.numpy().data)
    return found.hexdigest()


def check_same(there: Any, here: Mapping[str, Any], holds: str) -> None:
    """Raise UserError where a checkpoint's record is not of what is to go on from it.

    Args:
        there: What the checkpoint says of its settings.
        here: The settings now, as JSON has them.
        holds: For the message: where it is and what, such as ``run1: holds a training``.
    """
    known = there if isinstance(there, dict) else {}
    for key, value in here.items():
        found = known.get(key)
        if isinstance(value, dict) and isinstance(found, dict):
            check_same(found, value, holds)
        if found != value:
            raise UserError(
                f"{holds} with another {key}: {found}, here {value}; go on with the same settings, or take "
                "another folder"
            )
