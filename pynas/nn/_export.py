"""Exports a supernet with fixed weights as a network that consists of ``torch.nn`` layers only."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from torch import Tensor, fx, nn

from pynas.nn.mixed_op import MixedOp


class _Tracer(fx.Tracer):
    """Records layers of ``torch.nn`` and traces into others; a mixture becomes the sum of its live terms."""

    traced_func_name = "_export_forward"

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return m.__module__.startswith("torch.nn") and not isinstance(m, nn.Sequential)

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if isinstance(m, MixedOp):
            return _terms(m, *args, **kwargs)
        return super().call_module(m, forward, args, kwargs)


def _terms(mixture: MixedOp, x: Any, weights: Tensor) -> Any:
    total = None
    for weight, module in zip(weights.tolist(), mixture.modules_in_order, strict=True):
        if weight != 0.0:
            y = module(x) if weight == 1.0 else weight * module(x)
            total = y if total is None else total + y
    if total is not None:
        return total
    s = mixture.stride
    return x * 0.0 if s == 1 else x[:, :, ::s, ::s] * 0.0


def export(supernet: nn.Module, weights: tuple[Tensor, ...]) -> fx.GraphModule:
    """``supernet`` with these weights, without the layers that no output depends on."""
    network = copy.deepcopy(supernet)
    network._fixed = tuple(w.cpu() for w in weights)  # type: ignore[assignment]
    graph = _Tracer().trace(network)
    graph._tracer_cls = None  # otherwise pickles name the tracer, and loading them needs pynas
    plain = fx.GraphModule(network, graph, class_name=type(supernet).__name__)
    for node in plain.graph.nodes:
        node.type = None  # annotations are strings here: loading a pickled graph would import them
    plain.graph.eliminate_dead_code()
    plain.delete_all_unused_submodules()
    plain.recompile()
    plain.train(supernet.training)
    return plain
