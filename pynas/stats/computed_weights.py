"""Modules whose weights are computed from parameters, as modules that hold them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from pynas.stats._snapshot import ModuleState
from pynas.stats.state import preserved, seed_generators

# What computes an attribute before each forward, in the way from before parametrizations.
HOOKS = (WeightNorm, SpectralNorm, BasePruningMethod)
# What such a hook computes the attribute `name` from, as parameters with the name and one of these.
PARTS = ("_g", "_v", "_orig")


def has_computed_weights(model: nn.Module) -> bool:
    """Whether a module computes an attribute that it uses: weight norm, spectral norm, pruning, any other."""
    return any(_computed(module) for module in model.modules())


@contextmanager
def held(model: nn.Module, seed: int | None = None) -> Iterator[None]:
    """Such modules hold what they compute as parameters meanwhile, with the values that train mode gives.

    Proxies that are sums over weights count a weight once, whatever it is computed from: the function and
    dL/dw are those of the network without the parametrization. Modules that compute the same weight from the
    same parameters share it.

    Args:
        model: The model, which comes back as it was.
        seed: Seed of parametrizations that draw random numbers; None draws from torch's present state.
    """
    found = _values(model, seed)
    before = [ModuleState(one.module) for one in found]
    try:
        for one in found:
            one.hold()
        yield
    finally:
        for state in before:
            state.restore()


@dataclass
class _Computing:
    """One module and the values of what it computes."""

    module: nn.Module
    values: dict[str, nn.Parameter] = field(default_factory=dict)

    def hold(self) -> None:
        module = self.module
        hooks = {k: _name(hook) for k, hook in module._forward_pre_hooks.items() if isinstance(hook, HOOKS)}
        for k, name in hooks.items():
            del module._forward_pre_hooks[k]
            vars(module).pop(name, None)
            for part in PARTS:
                module._parameters.pop(name + part, None)
        if parametrize.is_parametrized(module):
            del module._modules["parametrizations"]
            module.__class__ = module.__class__.__bases__[0]
        for name, value in self.values.items():
            setattr(module, name, value)  # recurrent layers note it in a list of their own


def _computed(module: nn.Module) -> list[str]:
    """Attributes that a module computes."""
    hooks = [_name(hook) for hook in module._forward_pre_hooks.values() if isinstance(hook, HOOKS)]
    if not parametrize.is_parametrized(module):
        return hooks
    parametrizations = module.parametrizations
    assert isinstance(parametrizations, nn.ModuleDict)
    return [*parametrizations, *hooks]


def _name(hook: Any) -> str:
    return str(hook._tensor_name if isinstance(hook, BasePruningMethod) else hook.name)


def _values(model: nn.Module, seed: int | None) -> list[_Computing]:
    """What the next forward in train mode would use; what computing that changes comes back."""
    found = []
    shared: dict[tuple[int, ...], list[nn.Parameter]] = {}
    with preserved(model), torch.no_grad():
        if seed is not None:
            seed_generators(seed)
        for module in model.modules():
            names = _computed(module)
            if not names:
                continue
            module.train()
            for hook in list(module._forward_pre_hooks.values()):
                if isinstance(hook, HOOKS):
                    hook(module, ())
            one = _Computing(module)
            for name in names:
                value, sources = getattr(module, name), _sources(module, name)
                assert isinstance(value, Tensor)
                known = shared.setdefault(tuple(map(id, sources)), [])
                same = next((p for p in known if p.shape == value.shape and torch.equal(p, value)), None)
                if same is None:
                    same = nn.Parameter(value.detach().clone(), any(p.requires_grad for p in sources))
                    known.append(same)
                one.values[name] = same
            found.append(one)
    return found


def _sources(module: nn.Module, name: str) -> list[Tensor]:
    parametrizations = getattr(module, "parametrizations", None)
    if isinstance(parametrizations, nn.ModuleDict) and name in parametrizations:
        return list(parametrizations[name].parameters())
    parts = (module._parameters.get(name + part) for part in PARTS)
    return [p for p in parts if p is not None]
