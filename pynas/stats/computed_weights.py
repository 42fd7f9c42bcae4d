"""Layers whose weight is computed from parameters, as layers that hold it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from pynas.stats.state import preserved
from pynas.stats.weights import MATRIX_LAYERS

# What computes `weight` before each forward, in the way from before parametrizations.
HOOKS = (WeightNorm, SpectralNorm, BasePruningMethod)


def has_computed_weights(model: nn.Module) -> bool:
    """Whether a convolution or linear layer computes its weight: weight norm, spectral norm, pruning."""
    return bool(_computing(model))


@contextmanager
def held(model: nn.Module) -> Iterator[None]:
    """Such layers hold ``weight`` as a parameter meanwhile, with the value that train mode computes.

    Proxies that are sums over weights count a weight once, whatever it is computed from: the function and
    dL/dw are those of the network without the parametrization.
    """
    before = [(m, m.__class__, {k: _copied(v) for k, v in vars(m).items()}) for m in _computing(model)]
    weights = _values(model)
    try:
        for module, weight in weights:
            _hold(module, weight)
        yield
    finally:
        for module, kind, attributes in before:
            module.__class__ = kind
            for key, value in attributes.items():
                own = vars(module).get(key)
                if isinstance(value, dict) and isinstance(own, dict):  # the same object as before
                    own.clear()
                    own.update(value)
                else:
                    vars(module)[key] = value
            for key in vars(module).keys() - attributes.keys():
                del vars(module)[key]


def _copied(value: Any) -> Any:
    return value.copy() if isinstance(value, dict) else value


def _computing(model: nn.Module) -> list[nn.Module]:
    layers = [m for m in model.modules() if isinstance(m, MATRIX_LAYERS)]
    return [m for m in layers if parametrize.is_parametrized(m, "weight") or _hooks(m)]


def _hooks(module: nn.Module) -> list[int]:
    hooks = module._forward_pre_hooks.items()
    return [k for k, hook in hooks if isinstance(hook, HOOKS) and _name(hook) == "weight"]


def _name(hook: Any) -> str:
    return str(hook._tensor_name if isinstance(hook, BasePruningMethod) else hook.name)


def _values(model: nn.Module) -> list[tuple[nn.Module, nn.Parameter]]:
    """The weights that the next forward in train mode would use; what computing them changes comes back."""
    found = []
    with preserved(model), torch.no_grad():
        for module in _computing(model):
            module.train()
            for k in _hooks(module):
                module._forward_pre_hooks[k](module, ())
            weight, sources = module.weight, _sources(module)
            assert isinstance(weight, Tensor)
            trains = any(p.requires_grad for p in sources)
            found.append((module, nn.Parameter(weight.detach().clone(), trains)))
    return found


def _sources(module: nn.Module) -> list[Tensor]:
    if parametrize.is_parametrized(module, "weight"):
        parametrizations = module.parametrizations
        assert isinstance(parametrizations, nn.ModuleDict)
        return list(parametrizations["weight"].parameters())
    return [p for key, p in module._parameters.items() if p is not None and key.startswith("weight_")]


def _hold(module: nn.Module, weight: nn.Parameter) -> None:
    for k in _hooks(module):
        del module._forward_pre_hooks[k]
        vars(module).pop("weight", None)
        for key in [key for key in module._parameters if key.startswith("weight_")]:
            del module._parameters[key]
    if parametrize.is_parametrized(module, "weight"):
        parametrizations = module.parametrizations
        assert isinstance(parametrizations, nn.ModuleDict)
        others = {key: part for key, part in parametrizations.items() if key != "weight"}
        kind = module.__class__
        if others:  # the same class without the property of this one
            module._modules["parametrizations"] = nn.ModuleDict(others)
            kept = {k: v for k, v in vars(kind).items() if k not in ("weight", "__dict__", "__weakref__")}
            module.__class__ = type(kind.__name__, kind.__bases__, kept)
        else:
            del module._modules["parametrizations"]
            module.__class__ = kind.__bases__[0]
    module._parameters["weight"] = weight
