"""Notices that somebody has changed modules which a fused operation computes."""

from __future__ import annotations

from collections.abc import Sequence
from operator import is_

from torch import nn


class Watch:
    """The classes and children of modules and all below them, and whether they have hooks."""

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        parts = {id(part): part for module in modules for part in module.modules()}
        self._parts = tuple(
            (part, type(part), tuple(part._modules.values()), _hooked(part)) for part in parts.values()
        )

    def changed(self) -> bool:
        """Whether a layer was put in, taken out or given another class, or a hook came or went."""
        return any(
            type(part) is not kind
            or len(part._modules) != len(children)
            or not all(map(is_, part._modules.values(), children))
            or _hooked(part) is not hooked
            for part, kind, children, hooked in self._parts
        )


def _hooked(module: nn.Module) -> bool:
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )
