"""Records what a network does with one batch, as calls of layers of ``torch.nn`` and functions of torch."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_aggregate

from pynas.nn.nasbench201_cell import run_cell

_VALUE = "pynas_value"


class _Value(fx.Proxy):
    """A proxy that knows its value, so that what a forward asks of shapes has an answer."""

    @property
    def value(self) -> Any:
        return self.node.meta[_VALUE]

    @classmethod
    def __torch_function__(
        cls, orig_method: Any, types: Any, args: Any = None, kwargs: dict[str, Any] | None = None
    ) -> Any:
        if orig_method is run_cell:  # a cell of NAS-Bench-201 as one call, which only statistics need
            x, cell = args
            return cell.by_module(x)
        return super().__torch_function__(orig_method, types, args, kwargs)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.node.meta[_VALUE], name)
        if isinstance(found, Tensor) or (callable(found) and name not in _ASKED):
            return super().__getattr__(name)
        return found

    def __len__(self) -> int:
        return len(self.value)

    def __bool__(self) -> bool:
        return bool(self.value)

    def __iter__(self) -> Iterator[Any]:
        return iter([operator.getitem(self, i) for i in range(len(self))])


# Methods of tensors that say something about them; all others are recorded.
_ASKED = frozenset(
    {"dim", "size", "numel", "is_floating_point", "is_contiguous", "stride", "nelement", "element_size"}
)


class _Tracer(fx.Tracer):
    """Computes every call once, on the values of its arguments, while recording it."""

    def __init__(self, inputs: Tensor) -> None:
        super().__init__()
        self._inputs = inputs
        self._computing = False

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return m.__module__.startswith("torch.nn") and not isinstance(m, nn.Sequential)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Value(node, self)

    def to_bool(self, obj: fx.Proxy) -> bool:
        return bool(obj.node.meta[_VALUE])

    # While a value is computed, modules and their parameters are what they are.

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        return attr_val if self._computing else super().getattr(attr, attr_val, parameter_proxy_cache)

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        return forward(*args, **kwargs) if self._computing else super().call_module(m, forward, args, kwargs)

    def create_proxy(
        self, kind: str, target: Any, args: Any, kwargs: Any, *rest: Any, **more: Any
    ) -> fx.Proxy:
        made = super().create_proxy(kind, target, args, kwargs, *rest, **more)
        given = map_aggregate(made.node.args, _value_of)
        named = map_aggregate(made.node.kwargs, _value_of)
        self._computing = True
        try:
            made.node.meta[_VALUE] = self._result(kind, target, given, named)
        finally:
            self._computing = False
        return made

    def _result(self, kind: str, target: Any, args: Any, kwargs: Any) -> Any:
        if kind == "placeholder":
            return self._inputs
        if kind == "get_attr":
            found: Any = self.root
            for name in target.split("."):
                found = getattr(found, name)
            return found
        if kind == "call_module":
            return self.root.get_submodule(target).forward(*args, **kwargs)
        function: Callable[..., Any] = target if kind == "call_function" else getattr(args[0], target)
        return function(*(args if kind == "call_function" else args[1:]), **kwargs)


def _value_of(argument: Any) -> Any:
    return argument.meta[_VALUE] if isinstance(argument, fx.Node) else argument


def traced(model: nn.Module, inputs: Tensor) -> fx.GraphModule:
    """What a copy of ``model``, in evaluation mode, does with ``inputs``; layers keep their names."""
    network = copy.deepcopy(model).eval()
    tracer = _Tracer(inputs)
    with torch.no_grad():
        graph = tracer.trace(network)
    for node in graph.nodes:
        node.meta.pop(_VALUE, None)
        node.type = None
    plain = fx.GraphModule(network, graph, class_name="Network")
    plain.graph.eliminate_dead_code()
    plain.recompile()
    return plain
