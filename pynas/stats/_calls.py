"""Functional calls with parameters, as autograd nodes that hand over the factors of the weight's gradient.

Each call runs the plain ATen operator on detached weights. Its backward computes the gradient of the input
alone (none for a first layer) and passes input and output gradient on at once, so nothing lives longer than
autograd itself would keep it and no ordinary weight gradient is computed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from pynas import ops
from pynas.stats._collector import Collector, Use
from pynas.stats._conv3d_product import Conv3dProduct
from pynas.stats._conv_products import Conv2dProduct, Geometry, InterleavedProduct
from pynas.stats._fast import fuses_conv3x3
from pynas.stats._layout import FIRST, Layout
from pynas.stats._products import EmbeddingProduct, GradientProduct, LinearProduct, TransposedLinearProduct

aten = torch.ops.aten


@dataclass(frozen=True, slots=True)
class Delivery:
    """To whom, and under which names, the products of one call go."""

    collector: Collector
    use: Use


class Call(ABC):
    """One use of a weight: its forward, the gradient of its input, and its gradient product."""

    @abstractmethod
    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Output, and what backward needs beside the input."""

    @abstractmethod
    def input_grad(self, grad: Tensor, x: Tensor, saved: tuple[Tensor, ...]) -> Tensor:
        """dL/dx from dL/dy."""

    @abstractmethod
    def product(self, grad: Tensor, x: Tensor, saved: tuple[Tensor, ...]) -> GradientProduct:
        """The factors of the weight's gradient, samples first."""

    def saliency(self, y: Tensor, grad: Tensor) -> Tensor:
        """sum_t y_bkt dL/dy_bkt over positions t, [B, K]; only asked of calls whose weight is a matrix."""
        raise NotImplementedError


class _Recorded(torch.autograd.Function):
    """A call whose parameters' gradients go to the collector instead of autograd.

    ``anchor`` is a scalar that requires a gradient, so that the node exists (and runs) even where the input
    needs none.
    """

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, x: Tensor, call: Call, to: Delivery | None) -> Tensor:
        y, saved = call.forward(x)
        y = unshared(y)
        ctx.call, ctx.to, ctx.output = call, to, None
        if to is not None and to.use.matrix and to.collector.salient:
            output = y.detach()  # not among the saved tensors, which the model may then not change in place
            ctx.output = output, output._version
        ctx.save_for_backward(x, *saved)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor | None, None, None]:
        x, *saved = ctx.saved_tensors
        call: Call = ctx.call
        # Under autocast the call ran in another dtype than its input came in.
        factor = x.to(grad.dtype) if x.is_floating_point() and x.dtype != grad.dtype else x
        to: Delivery | None = ctx.to
        if to is not None:
            to.collector.deliver(to.use, call.product(grad, factor, tuple(saved)))
            if ctx.output is not None and to.collector.wants_saliency:
                y, version = ctx.output
                y = y if y._version == version else call.forward(x)[0]
                to.collector.deliver_saliency(to.use, call.saliency(y, grad))
        wanted = ctx.needs_input_grad[1]
        return None, call.input_grad(grad, factor, tuple(saved)).to(x.dtype) if wanted else None, None, None


def unshared(y: Tensor) -> Tensor:
    """``y`` as a tensor that is no view, for autograd: a model may change what a layer puts out in place."""
    if not y._is_view():
        return y
    return torch.ops.aten._unsafe_view(y, y.shape) if y.is_contiguous() else y.clone()


def record(anchor: Tensor, x: Tensor, call: Call, to: Delivery | None) -> Tensor:
    """Run ``call`` on ``x``; its product goes ``to`` a collector (None: to nobody) in the backward pass."""
    return cast(Tensor, _Recorded.apply(anchor, x, call, to))  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class LinearCall(Call):
    """y = x W^T + b; ``arrange`` brings the samples of x and y to dimension 0."""

    weight: Tensor
    bias: Tensor | None
    arrange: Callable[[Tensor], Tensor]

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        return F.linear(x, self.weight, self.bias), ()

    def input_grad(self, grad: Tensor, x: Tensor, saved: tuple[Tensor, ...]) -> Tensor:
        return grad @ self.weight.to(grad.dtype)

    def product(self, grad: Tensor, x: Tensor, saved: tuple[Tensor, ...]) -> LinearProduct:
        return LinearProduct(self.arrange(grad), self.arrange(x))

    def saliency(self, y: Tensor, grad: Tensor) -> Tensor:
        return _over_positions(self.arrange(y * grad))


@dataclass(frozen=True)
class MatmulCall(Call):
    """y = x W."""

    weight: Tensor
    arrange: Callable[[Tensor], Tensor]

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        return x @ self.weight, ()

    def input_grad(self, grad: Tensor, x: Tensor, saved: tuple[Tensor, ...]) -> Tensor:
        return grad @ self.weight.to(grad.dtype).T

    def product(self, grad: Tensor, x: Tensor, saved: tuple[Tensor, ...]) -> LinearProduct:
        # dL/dW = x^T dL/dy: that of a linear layer with its factors exchanged.
        return LinearProduct(self.arrange(x), self.arrange(grad))

    def saliency(self, y: Tensor, grad: Tensor) -> Tensor:
        return _over_positions(self.arrange(y * grad))


@dataclass(frozen=True)
class AddmmCall(Call):
    """y = b + x W."""

    weight: Tensor
    bias: Tensor | None
    arrange: Callable[[Tensor], Tensor]

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        assert self.bias is not None
        return torch.addmm(self.bias, x, self.weight), ()

    def input_grad(self, grad: Tensor, x: Tensor, saved: tuple[Tensor, ...]) -> Tensor:
        return grad @ self.weight.to(grad.dtype).T

    def product(self, grad: Tensor, x: Tensor, saved: tuple[Tensor, ...]) -> TransposedLinearProduct:
        return TransposedLinearProduct(self.arrange(grad), self.arrange(x))

    def saliency(self, y: Tensor, grad: Tensor) -> Tensor:
        return _over_positions(self.arrange(y * grad))


def _over_positions(products: Tensor) -> Tensor:
    return products if products.dim() == 2 else products.flatten(1, -2).sum(1)


@dataclass(frozen=True)
class ConvCall(Call):
    """A 1-D, 2-D or 3-D convolution, or its transpose."""

    weight: Tensor
    bias: Tensor | None
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    transposed: bool = False
    output_padding: tuple[int, ...] = ()
    layout: Layout = FIRST

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        if self._fuses(x, self.weight):
            y = ops.conv3x3(x, self.weight)
            return y if self.bias is None else y.add_(self.bias.view(-1, 1, 1)), ()
        y = torch.convolution(
            x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.transposed,
            self._output_padding, self.groups,
        )  # fmt: skip
        return y, ()

    def input_grad(self, grad: Tensor, x: Tensor, saved: tuple[Tensor, ...]) -> Tensor:
        if self._fuses(grad, self.weight.transpose(0, 1)):
            return ops.conv3x3_backward_input(grad, self.weight)
        gradient, _, _ = aten.convolution_backward(
            grad, x, self.weight.to(grad.dtype), None, self.stride, self.padding, self.dilation,
            self.transposed, self._output_padding, self.groups, (True, False, False),
        )  # fmt: skip
        return cast(Tensor, gradient)

    def _fuses(self, x: Tensor, weight: Tensor) -> bool:
        return not self.transposed and fuses_conv3x3(
            x, weight, self.stride, self.padding, self.dilation, self.groups
        )

    @property
    def _output_padding(self) -> tuple[int, ...]:
        return self.output_padding or (0,) * len(self.stride)

    def product(self, grad: Tensor, x: Tensor, saved: tuple[Tensor, ...]) -> GradientProduct:
        uses = self.layout.positions
        x, grad = self.layout.stacked(x), self.layout.stacked(grad)
        # y = conv^T(x): dL/dW pairs x with dL/dy as a convolution pairs dL/dy with x.
        output, plane, biased = (x, grad, grad) if self.transposed else (grad, x, None)
        if self.weight.dim() == 5:
            return Conv3dProduct(
                output, plane, self.weight.shape, self.stride, self.padding, self.dilation, self.groups,
                uses=uses, bias_grad=biased,
            )  # fmt: skip
        geometry = Geometry(
            _pair(tuple(self.weight.shape[2:]), 1),
            _pair(self.stride, 1),
            _pair(self.padding, 0),
            _pair(self.dilation, 1),
            self.groups,
        )
        if x.dim() == 3:
            output, plane = output.unsqueeze(2), plane.unsqueeze(2)
            biased = None if biased is None else biased.unsqueeze(2)
        if uses > 1:
            return InterleavedProduct(output, plane, geometry, self.weight.shape, bias_grad=biased, uses=uses)
        return Conv2dProduct(output, plane, geometry, self.weight.shape, bias_grad=biased)

    def saliency(self, y: Tensor, grad: Tensor) -> Tensor:
        sums = self.layout.stacked((y * grad).flatten(2).sum(2))
        return torch.unflatten(sums, 0, (-1, self.layout.positions)).sum(1)


def _pair(values: tuple[int, ...], fill: int) -> tuple[int, int]:
    return (values[0], values[1]) if len(values) == 2 else (fill, values[0])


@dataclass(frozen=True)
class EmbeddingCall(Call):
    """y = W[indices]; the indices take the place of the input."""

    weight: Tensor
    padding_idx: int
    arrange: Callable[[Tensor], Tensor]

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        return F.embedding(x, self.weight), ()

    def input_grad(self, grad: Tensor, x: Tensor, saved: tuple[Tensor, ...]) -> Tensor:
        raise AssertionError("indices have no gradient")

    def product(self, grad: Tensor, x: Tensor, saved: tuple[Tensor, ...]) -> EmbeddingProduct:
        return EmbeddingProduct(self.arrange(grad), self.arrange(x), self.weight.shape[0], self.padding_idx)
