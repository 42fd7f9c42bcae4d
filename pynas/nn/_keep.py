"""Modules that keep their class and their forward, whose candidates are computed by fused operations.

The module stays the same object, with its children, parameters, hooks and methods. Its class becomes a
subclass in which the methods ``forward`` and ``forward_*`` run on a copy of its attributes, where
:class:`~pynas.nn._terms.Deferred` stand for the candidates.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from pynas.nn._family import one_family
from pynas.nn._recognise import Recognised
from pynas.nn._terms import Deferred, computed
from pynas.nn._watch import Watch
from pynas.nn.mixed_op import MixedOp, Save

_EDGES = "_pynas_edges"
_HOLDING = "_pynas_holding"  # the attributes under which candidates are found
_CLASSES: dict[type[nn.Module], type[nn.Module]] = {}


class Edge:
    """Candidates of one mixture, and the fused operation over those of them that the operator knows.

    ``members`` are all candidates; the others are called as they are.
    """

    def __init__(
        self, members: Sequence[nn.Module], known: Sequence[Recognised | None], save: Save = "products"
    ) -> None:
        self.members, self.save = tuple(members), save
        self._bind(known)

    def _bind(self, known: Sequence[Recognised | None]) -> None:
        fused = [(member, item) for member, item in zip(self.members, known, strict=True) if item is not None]
        self.mixture = None
        if any(item.layers for _, item in fused):
            container, items = nn.ModuleList([member for member, _ in fused]), [item for _, item in fused]
            self.mixture = MixedOp._of(container, items, {}, holder="_ops", save=self.save)
        self._watch = Watch(self.members)

    def deferred(self) -> dict[int, Deferred]:
        """What stands for each fused candidate, by its identity."""
        if self._watch.changed():
            self._bind(one_family(self.members)[0])
        if self.mixture is None:
            return {}
        return {id(m): Deferred(self.mixture, k) for k, m in enumerate(self.mixture.modules_in_order)}


def keep(module: nn.Module, edges: Sequence[Edge]) -> None:
    """Let ``module`` compute these candidates fused, from now on."""
    ids = dict.fromkeys((id(member) for edge in edges for member in edge.members), Deferred)
    holding = tuple(key for key, value in vars(module).items() if _replaced(value, ids) is not value)
    vars(module)[_EDGES] = tuple(edges)
    vars(module)[_HOLDING] = holding
    module.__class__ = _class(type(module))


def is_kept(module: nn.Module) -> bool:
    """Whether :func:`keep` has been called on it."""
    return _EDGES in vars(module)


def edges_of(module: nn.Module) -> tuple[Edge, ...]:
    """The edges that :func:`keep` was given."""
    found: tuple[Edge, ...] = vars(module)[_EDGES]
    return found


def forwards(original: type[nn.Module]) -> list[str]:
    """Names of the methods of a class that may run candidates: ``forward`` and ``forward_*``."""
    return [
        name
        for name in dir(original)
        if name.startswith("forward")
        and inspect.isfunction(inspect.getattr_static(original, name))
        and getattr(original, name) is not nn.Module.forward
    ]


def _class(original: type[nn.Module]) -> type[nn.Module]:
    if original not in _CLASSES:
        _CLASSES[original] = _subclass(original)
    return _CLASSES[original]


def _subclass(original: type[nn.Module]) -> type[nn.Module]:
    namespace: dict[str, Any] = {name: _method(original, name) for name in forwards(original)}
    namespace["__reduce_ex__"] = _reduce
    namespace["__module__"], namespace["__qualname__"] = original.__module__, original.__qualname__
    namespace["__doc__"] = original.__doc__
    return type(original.__name__, (original,), namespace)


def _method(original: type[nn.Module], name: str) -> Any:
    function = getattr(original, name)

    # torch.compile breaks the graph here: it cannot trace terms, and would trace the loop at best.
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    @functools.wraps(function)
    def method(self: nn.Module, *args: Any, **named: Any) -> Any:
        before = vars(self)
        deferred = {key: stub for edge in before[_EDGES] for key, stub in edge.deferred().items()}
        shadow = object.__new__(original)
        attributes = before | {
            key: _replaced(before[key], deferred) for key in before[_HOLDING] if key in before
        }
        vars(shadow).update(attributes)
        result = computed(function(shadow, *args, **named))
        for key, value in vars(shadow).items():  # what forward has assigned
            if key not in attributes or value is not attributes[key]:
                before[key] = computed(value)
        return result

    return method


def _replaced(value: Any, deferred: Mapping[int, object]) -> Any:
    """``value`` with candidates replaced, within containers; itself where it holds none."""
    if id(value) in deferred:
        return deferred[id(value)]
    if isinstance(value, (nn.ModuleList, nn.ModuleDict)):
        modules = _replaced(value._modules, deferred)
        if modules is value._modules:
            return value
        container = object.__new__(type(value))
        vars(container).update({**vars(value), "_modules": modules})
        return container
    if type(value) in (list, tuple):
        items = [_replaced(item, deferred) for item in value]
        return value if all(a is b for a, b in zip(items, value, strict=True)) else type(value)(items)
    if isinstance(value, dict):
        found = {key: _replaced(item, deferred) for key, item in value.items()}
        return value if all(found[key] is item for key, item in value.items()) else found
    return value


def _reduce(self: nn.Module, protocol: Any) -> tuple[Any, ...]:
    # The class exists in this process only: pickle and copy make it anew.
    return _restored, (type(self).__mro__[1],), vars(self)


def _restored(original: type[nn.Module]) -> nn.Module:
    made: nn.Module = object.__new__(_class(original))
    return made
