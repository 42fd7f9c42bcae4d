"""A recorder whose passes can be differentiated once more, along the gradient that the loss pass finds.

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
from torch import Tensor
from torch.autograd.function import once_differentiable

from pynas import ops
from pynas.stats._call_recorder import CallRecorder
from pynas.stats._calls import (
    AddmmCall,
    Call,
    ConvCall,
    Delivery,
    EmbeddingCall,
    LinearCall,
    MatmulCall,
    unshared,
)
from pynas.stats._double_backward import ends_in_error
from pynas.stats._layout import Layout
from pynas.stats._norm_calls import BatchNormCall
from pynas.stats._products import GradientProduct
from pynas.stats.per_sample import widen

MatrixCall = ConvCall | LinearCall | MatmulCall | AddmmCall | EmbeddingCall


class NoSecondOrderError(Exception):
    """A weight is used in a way that these passes do not cover."""


@dataclass
class Passes:
    """What the passes share: gradients and roots that the first one made, the contractions of the second."""

    gradients: dict[str, Tensor] = field(default_factory=dict)
    roots: list[Tensor] = field(default_factory=list)
    second: bool = False
    found: dict[str, Tensor] = field(default_factory=dict)

    def add_gradient(self, name: str, gradient: Tensor) -> None:
        """Add one use's part of G."""
        known = self.gradients
        known[name] = known[name] + gradient if name in known else gradient

    def add(self, name: str, a: Tensor, b: Tensor) -> None:
        """Add <a, b>: sample by sample in their own precision (half ones in float32), then in float64."""
        if a.dim() == 4:  # in the order in which channels_last keeps them
            a, b = a.permute(0, 2, 3, 1), b.permute(0, 2, 3, 1)
        # PyTorch's sums go pairwise: a product of matrices would lose a digit more, and take longer.
        product = (widen(a) * widen(b)).flatten(1).sum(1).sum(dtype=torch.float64)
        self.found[name] = self.found[name] + product if name in self.found else product


@dataclass(frozen=True)
class _Layer:
    """One use of a weight."""

    name: str
    call: MatrixCall
    to: Delivery

    def deliver(self, grad: Tensor, x: Tensor, output: tuple[Tensor, int] | None) -> GradientProduct:
        """Hand over the factors of the weight's gradient."""
        product = self.call.product(grad, x, ())
        collector = self.to.collector
        collector.deliver(self.to.use, product)
        if output is not None and collector.wants_saliency:
            y, version = output
            y = y if y._version == version else self.call.forward(x)[0]
            collector.deliver_saliency(self.to.use, self.call.saliency(y, grad))
        return product


def _linear(call: MatrixCall) -> MatrixCall:
    """The same without its bias."""
    if isinstance(call, AddmmCall):
        return MatmulCall(call.weight, call.arrange)
    return replace(call, bias=None) if isinstance(call, ConvCall | LinearCall) else call


class _Matrix(torch.autograd.Function):
    """y = W x + b of a constant W."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, x: Tensor, layer: _Layer, passes: Passes) -> Tensor:
        ctx.layer, ctx.passes, ctx.output = layer, passes, None
        ctx.save_for_backward(anchor, x)
        y = unshared(layer.call.forward(x)[0])
        if layer.to.use.matrix and layer.to.collector.salient:
            output = y.detach()  # not among the saved tensors, which the model may then not change in place
            ctx.output = output, output._version
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor | None, None, None]:
        anchor, x = ctx.saved_tensors
        layer: _Layer = ctx.layer
        passes: Passes = ctx.passes
        wanted = ctx.needs_input_grad[1]
        dx: Tensor | None
        if passes.second and isinstance(layer.call, EmbeddingCall):
            passes.add(layer.name, layer.call.forward(x)[0], grad)
            return None, None, None, None
        if passes.second:
            dx = layer.call.input_grad(grad, x, ())
            passes.add(layer.name, dx, x)
            return None, dx if wanted else None, None, None
        with torch.no_grad():
            product = layer.deliver(grad, x, ctx.output)
        if not torch.is_grad_enabled():  # the pass of the outputs, which is differentiated once
            return None, layer.call.input_grad(grad, x, ()) if wanted else None, None, None
        with torch.no_grad():
            passes.add_gradient(layer.name, product.gradient())
        passes.roots.append(_AlongGradient.apply(grad, x, layer, passes))  # type: ignore[no-untyped-call]
        dx = _Transposed.apply(anchor, grad, x, layer, passes) if wanted else None  # type: ignore[no-untyped-call]
        return None, dx, None, None


class _AlongGradient(torch.autograd.Function):
    """<g, G> of one use, g = dy (x) x the weight's gradient and G its value, held fixed; differentiated only.

    G is complete, and asked for, when the first pass is over.
    """

    @staticmethod
    def forward(ctx: Any, grad: Tensor, x: Tensor, layer: _Layer, passes: Passes) -> Tensor:
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
    def forward(ctx: Any, anchor: Tensor, grad: Tensor, x: Tensor, layer: _Layer, passes: Passes) -> Tensor:
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


class SecondOrderRecorder(CallRecorder):
    """Runs calls that use a weight so that the pass of the loss can be differentiated twice.

    Its first pass serves statistics of weights and outputs as any other recorder's does; not those of scales,
    shifts and biases beside a normalisation.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.passes = Passes()

    def record(
        self,
        operator: str,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        call: Callable[[Tensor | None, Tensor | None, Layout], Call],
        matrix: bool = False,
        of: Tensor | None = None,
    ) -> Tensor | None:
        """A weight's call by the nodes above, a tied embedding's too; None for any other call."""
        found = self.prepare(operator, x if of is None else of, weight, None, matrix)
        if found is None:
            return None
        use, layout = found
        w, b = (t.detach() if t is not None else None for t in (weight, bias))
        made = call(w, b, layout)
        if not isinstance(made, MatrixCall) or not isinstance(use.weight, str):
            self.once_only()
        assert isinstance(made, MatrixCall)
        assert isinstance(use.weight, str)
        layer = _Layer(use.weight, made, Delivery(self.collector, use))
        return cast(Tensor, _Matrix.apply(self.anchor, x, layer, self.passes))  # type: ignore[no-untyped-call]

    def once_only(self) -> None:
        """A weight that reaches the loss in a way that these nodes do not cover."""
        raise NoSecondOrderError

    def through(self, x: Tensor, call: Call) -> Tensor:
        """Batch norm, which is all that is asked of it."""
        assert isinstance(call, BatchNormCall)
        return cast(Tensor, _BatchNorm.apply(x, call))  # type: ignore[no-untyped-call]

    def differentiate_again(self) -> dict[str, float]:
        """sum_w w (H g)_w by weight, after the pass of the loss."""
        passes = self.passes
        passes.second = True
        try:
            roots = [root for root in passes.roots if root.requires_grad]
            if ends_in_error(roots):
                raise NoSecondOrderError
            if roots:
                ones = [torch.ones_like(root) for root in roots]
                torch.autograd.grad(roots, [self.anchor], ones, allow_unused=True)
            return {name: float(passes.found.get(name, 0.0)) for name in passes.gradients}
        finally:
            self.forget()

    def forget(self) -> None:
        """Let the graph go.

        Its nodes know the passes and these its roots: a circle through autograd, which no garbage collector
        sees.
        """
        self.passes.roots.clear()
