"""Curvature of the loss along its own gradient, by an exact second backward pass.

The first backward pass is itself a graph of calls: each convolution or linear call y = W x has a partner
dx = W^T dy. Differentiated once more along the gradient G of the weights, both hand back adjoints y', dx' of
what they read, and the second derivative is needed only contracted with W, which is
sum W (H G) = <x, W^T y'> + <dy, W dx'>. So no weight gradient is formed twice; autograd does the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.attention import SDPBackend, sdpa_kernel

from pynas import ops
from pynas.stats._base import Statistic
from pynas.stats._calls import Call, ConvCall, EmbeddingCall, LinearCall, MatmulCall
from pynas.stats._collector import Collector
from pynas.stats._loss import LossFn, call_model, check_data, loss_of, ordinary
from pynas.stats._norm_calls import BatchNormCall
from pynas.stats._probe import AmbiguousLayoutError, Probe
from pynas.stats._state import preserved
from pynas.stats.collect import few_shapes, gradients_on, matrix_names

MatrixCall = ConvCall | LinearCall | MatmulCall | EmbeddingCall


@dataclass
class _Layer:
    """One use of a weight."""

    name: str
    call: MatrixCall


@dataclass
class _Passes:
    """What the passes share: gradients and roots that the first one made, the contractions of the second."""

    gradients: dict[str, Tensor] = field(default_factory=dict)
    roots: list[Tensor] = field(default_factory=list)
    second: bool = False
    found: dict[str, Tensor] = field(default_factory=dict)

    def add(self, name: str, a: Tensor, b: Tensor) -> None:
        """Add <a, b>."""
        product = _dot(a, b)
        self.found[name] = self.found[name] + product if name in self.found else product


def _linear(call: MatrixCall) -> MatrixCall:
    """The same without its bias."""
    return replace(call, bias=None) if isinstance(call, ConvCall | LinearCall) else call


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """<a, b>: sample by sample in their own precision, over samples in float64."""
    if a.dim() == 4:  # in the order in which channels_last keeps them
        a, b = a.permute(0, 2, 3, 1), b.permute(0, 2, 3, 1)
    rows = a.reshape(a.shape[0], 1, -1) @ b.reshape(b.shape[0], -1, 1)
    return rows.sum(dtype=torch.float64)


class _Matrix(torch.autograd.Function):
    """y = W x + b of a constant W."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, x: Tensor, layer: _Layer, passes: _Passes) -> Tensor:
        ctx.layer, ctx.passes = layer, passes
        ctx.save_for_backward(anchor, x)
        return layer.call.forward(x)[0]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor | None, None, None]:
        anchor, x = ctx.saved_tensors
        layer: _Layer = ctx.layer
        wanted = ctx.needs_input_grad[1]
        dx: Tensor | None
        if ctx.passes.second and isinstance(layer.call, EmbeddingCall):
            ctx.passes.add(layer.name, layer.call.forward(x)[0], grad)
            return None, None, None, None
        if ctx.passes.second:
            dx = layer.call.input_grad(grad, x, ())
            ctx.passes.add(layer.name, dx, x)
            return None, dx if wanted else None, None, None
        with torch.no_grad():
            gradient, known = layer.call.product(grad, x, ()).gradient(), ctx.passes.gradients
            known[layer.name] = known[layer.name] + gradient if layer.name in known else gradient
        ctx.passes.roots.append(_AlongGradient.apply(grad, x, layer, ctx.passes))  # type: ignore[no-untyped-call]
        dx = _Transposed.apply(anchor, grad, x, layer, ctx.passes) if wanted else None  # type: ignore[no-untyped-call]
        return None, dx, None, None


class _AlongGradient(torch.autograd.Function):
    """<g, G> of one use, g = dy (x) x the weight's gradient and G its value, held fixed; differentiated only.

    G is complete, and asked for, when the first pass is over.
    """

    @staticmethod
    def forward(ctx: Any, grad: Tensor, x: Tensor, layer: _Layer, passes: _Passes) -> Tensor:
        ctx.layer, ctx.passes = layer, passes
        ctx.save_for_backward(grad, x)
        return grad.new_zeros(())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, _: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        grad, x = ctx.saved_tensors
        along = replace(_linear(ctx.layer.call), weight=ctx.passes.gradients[ctx.layer.name])
        of_grad = along.forward(x)[0] if ctx.needs_input_grad[0] else None
        of_x = along.input_grad(grad, x, ()) if ctx.needs_input_grad[1] else None
        return of_grad, of_x, None, None


class _Transposed(torch.autograd.Function):
    """dx = W^T dy of a constant W."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, grad: Tensor, x: Tensor, layer: _Layer, passes: _Passes) -> Tensor:
        ctx.layer, ctx.passes = layer, passes
        ctx.save_for_backward(grad)
        return layer.call.input_grad(grad, x, ())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, adjoint: Tensor) -> tuple[None, Tensor, None, None, None]:
        (grad,) = ctx.saved_tensors
        y = _linear(ctx.layer.call).forward(adjoint)[0]
        ctx.passes.add(ctx.layer.name, y, grad)
        return None, y, None, None, None


class _BatchNorm(torch.autograd.Function):
    """Fused batch norm of constant scale and shift; mean and deviation are differentiated through."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, call: BatchNormCall) -> Tensor:
        y, mean, rstd = ops.batch_norm(x, call.weight, call.bias, call.eps)
        ctx.call = call
        ctx.save_for_backward(x, mean, rstd)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _BatchNormBackward.apply(grad, *ctx.saved_tensors, ctx.call), None  # type: ignore[no-untyped-call]


class _BatchNormBackward(torch.autograd.Function):
    """P(g) = w r (g - mean g - n mean(g n)), n = r (x - mean x); its gradients for g and x."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, x: Tensor, mean: Tensor, rstd: Tensor, call: BatchNormCall) -> Tensor:
        ctx.call = call
        ctx.save_for_backward(grad, x, mean, rstd)
        return ops.batch_norm_backward(grad, x, call.weight, mean, rstd)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, adjoint: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        grad, x, mean, rstd = ctx.saved_tensors
        of_grad, of_x = ops.batch_norm_double_backward(adjoint, grad, x, ctx.call.weight, mean, rstd)
        return of_grad, of_x, None, None, None


class _CurvatureProbe(Probe):
    """Runs convolutions and linear calls so that they can be differentiated twice."""

    fuses = False
    passes: _Passes

    def record(
        self,
        operator: str,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        call: Callable[[Tensor | None, Tensor | None], Call],
        matrix: bool = False,
    ) -> Tensor | None:
        """A weight's call by the nodes above, a tied embedding's too; None for any other call."""
        self.shapes.append(x.shape)
        use = None if self.watching else self.collector.use(operator, weight, None, matrix)
        if use is None or use.weight is None:
            return None
        made = call(*(t.detach() if t is not None else None for t in (weight, bias)))
        assert isinstance(made, MatrixCall)
        return cast(Tensor, _Matrix.apply(self.anchor, x, _Layer(use.weight, made), self.passes))  # type: ignore[no-untyped-call]

    def through(self, x: Tensor, call: Call) -> Tensor:
        """Batch norm, which is all that is asked of it."""
        assert isinstance(call, BatchNormCall)
        return cast(Tensor, _BatchNorm.apply(x, call))  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class _Weights(Statistic[None]):
    """Makes a collector name the weights."""


def curvature(
    model: nn.Module,
    inputs: Any,
    targets: Any = None,
    loss_fn: LossFn | None = None,
    *,
    training: bool | None = None,
    seed: int | None = None,
) -> dict[str, float]:
    """sum_w w (H g)_w by weight, with g = dL/dW and H = d^2 L / dW^2 over all convolution and linear weights.

    One forward and two backward passes; the model comes back bit for bit as it was.

    Args:
        model: Any module whose operators autograd differentiates twice.
        inputs: Batch [B, ...], or a tuple or dictionary of such.
        targets: For the loss.
        loss_fn: ``loss_fn(outputs, targets)`` to a scalar; default: mean cross-entropy.
        training: Put all modules in this mode; None leaves modes alone. Batch norm normalises by the batch.
        seed: Seeds torch's generators.

    Raises:
        UserError: Bad data, or a weight in a layer without a rule.
    """
    batch = check_data(inputs, targets)
    parameters = dict(model.named_parameters())
    names = {id(parameters[name]): name for name in matrix_names(model)}
    probe, needs = None, (_Weights(parameters="weights"),)
    with preserved(model), gradients_on(model, training, seed):
        inputs, targets = ordinary(inputs), ordinary(targets)
        for p in parameters.values():
            p.requires_grad_(False)

        def fresh() -> _CurvatureProbe:
            collector = Collector(needs, 1, names, frozenset(names.values()), {_Weights: {}})
            made = _CurvatureProbe(collector, model, parameters, frozenset(names), batch, "batch")
            made.passes = _Passes()
            return made

        probe = fresh()
        try:
            loss = _loss(probe, inputs, targets, loss_fn)
        except AmbiguousLayoutError:
            shapes, probe = few_shapes(probe, inputs), fresh()
            probe.few_shapes = shapes
            loss = _loss(probe, inputs, targets, loss_fn)
        passes = probe.passes
        if not loss.requires_grad:
            return {}
        try:
            torch.autograd.grad(loss, [probe.anchor], create_graph=True, allow_unused=True)
            passes.second = True
            roots = [root for root in passes.roots if root.requires_grad]
            if roots:
                ones = [torch.ones_like(root) for root in roots]
                torch.autograd.grad(roots, [probe.anchor], ones, allow_unused=True)
            return {name: float(passes.found.get(name, 0.0)) for name in passes.gradients}
        finally:
            # The nodes of the graph know the passes and these its roots: a circle through autograd, which no
            # garbage collector sees.
            passes.roots.clear()


def _loss(probe: Probe, inputs: Any, targets: Any, loss_fn: LossFn | None) -> Tensor:
    # Fused attention has no second derivative.
    with sdpa_kernel(SDPBackend.MATH), probe:
        outputs = call_model(probe.model, inputs)
    return loss_of(outputs, targets, loss_fn, probe.batch, 1)
