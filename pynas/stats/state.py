"""Leaves a model bit for bit as it was."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from pynas._errors import UserError


@contextmanager
def preserved(model: nn.Module) -> Iterator[None]:
    """Restore buffers, modes, gradients, flags and random states on the way out, error or not.

    Parameters are not copied (that would cost their size): a forward that changes one of them in place is
    an error.
    """
    modules = list(model.modules())
    modes = [m.training for m in modules]
    parameters = list(model.parameters())
    flags = [p.requires_grad for p in parameters]
    grads = [p.grad for p in parameters]
    versions = [_version(p) for p in parameters]
    buffers = [(m, k, b, None if b is None else b.clone()) for m in modules for k, b in m._buffers.items()]
    devices = sorted({p.device.index for p in parameters if p.device.type == "cuda"})
    torch_state, cuda_states = torch.get_rng_state(), [torch.cuda.get_rng_state(d) for d in devices]
    python_state = random.getstate()
    try:
        yield
    finally:
        random.setstate(python_state)
        torch.set_rng_state(torch_state)
        for device, state in zip(devices, cuda_states, strict=True):
            torch.cuda.set_rng_state(state, device)
        with torch.no_grad():
            for module, key, buffer, copy in buffers:
                module._buffers[key] = buffer
                if buffer is not None and copy is not None:
                    buffer.copy_(copy)
        for p, flag, grad in zip(parameters, flags, grads, strict=True):
            p.requires_grad_(flag)
            p.grad = grad
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode
    if [_version(p) for p in parameters] != versions:
        raise UserError(
            "model: its forward changes its parameters in place; statistics need weights that stay"
        )


def copied(model: nn.Module) -> nn.Module:
    """A deep copy; UserError where the model holds what nothing copies: locks, files, computed tensors."""
    try:
        return copy.deepcopy(model)
    except MemoryError:
        raise
    except Exception as error:  # whatever the objects in it raise
        raise UserError(
            f"model: it cannot be copied, which is needed here: {type(error).__name__}: {error}"
        ) from error


def _version(t: torch.Tensor) -> int:
    return 0 if t.is_inference() else t._version
