"""What one parametrised call contributes to a gradient, kept as its two factors.

The gradient of a weight is a sum of outer products over positions, g_b = sum_t delta_bt (x) a_bt, where b
is the sample, delta the gradient at the output and a the input. A product holds the factors and answers
what a statistic asks of the g_b without ever holding all of them: nothing of size [B, P] is made here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, cast

import torch
from torch import Tensor

from pynas import ops
from pynas.stats import _rows
from pynas.stats._fast import fuses_conv3x3

Pair = tuple[int, int]
# Winograd's kernel forms samples' gradients faster than ops.conv2d_grad_moments does where a sample has tiles
# of 4x4 pixels enough to pay for its last transform, and where all of them stay in cache until they are read:
# 16x16 images of 32 channels, not 8x8 ones of 64.
MIN_TILES, CACHED_BYTES = 16, 8 << 20
ROW_BYTES = 64 << 20  # explicit rows of gradients are formed in chunks of at most this many bytes


class GradientProduct(ABC):
    """Gradients g_b of one weight (and the bias beside it), sample by sample, in factored form.

    Attributes:
        matrix: True when the weight multiplies the input (convolution, linear): the "weights" of the
            zero-cost literature, as opposed to scales, embeddings and biases.
    """

    matrix: ClassVar[bool] = False

    @property
    @abstractmethod
    def batch(self) -> int:
        """Number of samples B."""

    @abstractmethod
    def narrow(self, start: int, length: int) -> GradientProduct:
        """The same product of samples ``start`` to ``start + length``."""

    @abstractmethod
    def gradient(self) -> Tensor:
        """sum_b g_b, in the shape of the weight."""

    def wide_gradient(self) -> Tensor:
        """The same in the dtype that sums are taken in."""
        return _rows.widen(self.gradient())

    @abstractmethod
    def bias_rows(self, group_size: int) -> Tensor:
        """The bias's gradients by sample group, [G, O]: no larger than the output of the call."""

    def rows(self, group_size: int) -> Iterator[Tensor]:
        """The weight's gradients by sample group, in chunks [g, *shape] of at most ``ROW_BYTES``."""
        return chunked(
            self.narrow(start, group_size).gradient() for start in range(0, self.batch, group_size)
        )

    def moments(self, moments: Sequence[str], group_size: int, *, bias: bool) -> ops.GradMoments:
        """Sums over sample groups of g, |g|, g^2, sign(g), (g - mean g)^2 for weight and bias."""
        weight = _rows.moments(self.rows(group_size), moments)
        return ops.GradMoments(weight, self.bias_moments(moments, group_size) if bias else None)

    def bias_moments(self, moments: Sequence[str], group_size: int) -> ops.Moments:
        """The same sums for the bias alone."""
        return _rows.moments([self.bias_rows(group_size)], moments)

    def norms(self, group_size: int) -> Tensor:
        """Squared norms ||g||^2 of the weight's gradients by sample group, [G]."""
        return torch.cat([_rows.norms(chunk) for chunk in self.rows(group_size)])

    def gram(self, group_size: int) -> Tensor:
        """Inner products <g_i, g_j> of the weight's gradients by sample group, [G, G]."""
        return _rows.gram(lambda: self.rows(group_size))


@dataclass(frozen=True)
class LinearProduct(GradientProduct):
    """F.linear: grad_output [B, ..., O] and input [B, ..., I]."""

    grad_output: Tensor
    input: Tensor
    matrix: ClassVar[bool] = True

    @property
    def batch(self) -> int:
        return self.grad_output.shape[0]

    def narrow(self, start: int, length: int) -> LinearProduct:
        return LinearProduct(self.grad_output.narrow(0, start, length), self.input.narrow(0, start, length))

    def gradient(self) -> Tensor:
        return self.grad_output.flatten(0, -2).T @ self.input.flatten(0, -2)

    def bias_rows(self, group_size: int) -> Tensor:
        rows = torch.unflatten(self.grad_output, 0, (-1, group_size))
        return _rows.widen(rows).flatten(1, -2).sum(1)

    def moments(self, moments: Sequence[str], group_size: int, *, bias: bool) -> ops.GradMoments:
        return ops.linear_grad_moments(
            self.grad_output, self.input, moments=tuple(moments), group_size=group_size, bias=bias
        )

    def norms(self, group_size: int) -> Tensor:
        return ops.linear_grad_norms(self.grad_output, self.input, group_size=group_size)

    def gram(self, group_size: int) -> Tensor:
        return ops.linear_grad_gram(self.grad_output, self.input, group_size=group_size)


@dataclass(frozen=True)
class Geometry:
    """How a 2-D convolution slides."""

    kernel_size: Pair
    stride: Pair
    padding: Pair
    dilation: Pair
    groups: int


@dataclass(frozen=True)
class Conv2dProduct(GradientProduct):
    """F.conv2d: grad_output [B, O, Ho, Wo] and input [B, C, H, W]; weight [O, C/groups, kh, kw].

    ``shape`` is the parameter's own shape where it differs (a 1-D convolution runs as a 2-D one of height
    1), and ``bias_grad`` the gradient that the bias sees where that is not grad_output (transposed
    convolutions, whose two factors change places). With ``relu`` the convolution saw relu(input).
    """

    grad_output: Tensor
    input: Tensor
    geometry: Geometry
    shape: torch.Size
    bias_grad: Tensor | None = None
    relu: bool = False
    matrix: ClassVar[bool] = True
    _formed: dict[int, Tensor] = field(default_factory=dict, repr=False, compare=False)
    _whole: list[Tensor] = field(default_factory=list, repr=False, compare=False)

    @property
    def batch(self) -> int:
        return self.grad_output.shape[0]

    def narrow(self, start: int, length: int) -> Conv2dProduct:
        bias_grad = None if self.bias_grad is None else self.bias_grad.narrow(0, start, length)
        return replace(
            self,
            grad_output=self.grad_output.narrow(0, start, length),
            input=self.input.narrow(0, start, length),
            bias_grad=bias_grad,
            _formed={},
            _whole=[],
        )

    def gradient(self) -> Tensor:
        if self._whole:
            return self._whole[0].to(self.input.dtype)
        if self._fuses:
            self._whole.append(self.wide_gradient())
            return self._whole[0].to(self.input.dtype)
        g = self.geometry
        weight = (self.grad_output.shape[1], self.input.shape[1] // g.groups, *g.kernel_size)
        dummy = self.input.new_empty(1).expand(
            weight
        )  # only its shape is read when grad_input is not asked for
        _, gradient, _ = torch.ops.aten.convolution_backward(
            self.grad_output, self._activated, dummy, None, g.stride, g.padding, g.dilation, False, (0, 0),
            g.groups, (False, True, False),
        )  # fmt: skip
        return cast(Tensor, gradient.reshape(self.shape))

    def wide_gradient(self) -> Tensor:
        """The sum of samples' gradients where those have been formed, else a product of its own."""
        if self._whole:
            return self._whole[0]
        if not self._fuses:
            return super().wide_gradient()
        if self.geometry.kernel_size == (1, 1):
            return ops.conv1x1_backward_weight(self.grad_output, self.input, self.relu)
        if self._formed:
            return self._unpacked(next(iter(self._formed.values())).sum(0))
        return ops.conv3x3_backward_weight(self.grad_output, self.input, self.relu)[0]

    @property
    def _fuses(self) -> bool:
        if self.relu:  # made by one of these kernels
            return True
        g = self.geometry
        shape = (self.grad_output.shape[1], self.input.shape[1] // g.groups, *g.kernel_size)
        weight = self.input.new_empty(1).expand(shape)
        return self.bias_grad is None and fuses_conv3x3(
            self.input, weight, g.stride, g.padding, g.dilation, g.groups
        )

    def _rows(self, group_size: int) -> Tensor | None:
        """The gradients by sample group, [G, 9 C O] in the kernel's order; None where tiles are faster."""
        if group_size in self._formed:
            return self._formed[group_size]
        batch, channels, height, width = self.input.shape
        groups, tiles = batch // group_size, -(-height // 4) * -(-width // 4)
        if self.geometry.kernel_size != (3, 3) or groups == 1 or not self._fuses:
            return None
        if (
            tiles * group_size < MIN_TILES
            or groups * 36 * channels * self.grad_output.shape[1] > CACHED_BYTES
        ):
            return None
        formed = ops.conv3x3_backward_weight(self.grad_output, self.input, self.relu, groups)
        rows = formed.permute(0, 3, 4, 2, 1).flatten(1)
        self._formed[group_size] = rows
        return rows

    def _unpacked(self, row: Tensor) -> Tensor:
        """One of those rows, or sums of them, as [O, C, 3, 3]."""
        shape = (3, 3, self.input.shape[1], self.grad_output.shape[1])
        return row.view(shape).permute(3, 2, 0, 1).contiguous()

    @property
    def _activated(self) -> Tensor:
        return torch.relu(self.input) if self.relu else self.input

    def bias_rows(self, group_size: int) -> Tensor:
        grad = self.grad_output if self.bias_grad is None else self.bias_grad
        per_sample = _rows.widen(grad.flatten(2).sum(2, dtype=_rows.wide(grad.dtype)))
        return torch.unflatten(per_sample, 0, (-1, group_size)).sum(1)

    def moments(self, moments: Sequence[str], group_size: int, *, bias: bool) -> ops.GradMoments:
        found = self._moments(moments, group_size, bias=bias)
        if found.weight.sum is not None:
            self._whole[:] = [found.weight.sum]
        return found

    def _moments(self, moments: Sequence[str], group_size: int, *, bias: bool) -> ops.GradMoments:
        rows = self._rows(group_size)
        if rows is not None:
            ones = rows.new_ones(len(rows), 1, 1)
            weight = ops.linear_grad_moments(ones, rows.unsqueeze(1), moments=tuple(moments)).weight
            beside = self.bias_moments(moments, group_size) if bias else None
            return ops.GradMoments(_rows.map_moments(weight, self._unpacked), beside)
        fused_bias = bias and self.bias_grad is None
        found = ops.conv2d_grad_moments(
            self.grad_output, self._activated, self.geometry.kernel_size, **self._geometry(),
            moments=tuple(moments), group_size=group_size, bias=fused_bias,
        )  # fmt: skip
        beside = self.bias_moments(moments, group_size) if bias and not fused_bias else found.bias
        if beside is found.bias and len(self.shape) == 4:
            return found
        return ops.GradMoments(_rows.reshape(found.weight, self.shape), beside)

    def norms(self, group_size: int) -> Tensor:
        return ops.conv2d_grad_norms(
            self.grad_output, self._activated, self.geometry.kernel_size, **self._geometry(),
            group_size=group_size,
        )  # fmt: skip

    def gram(self, group_size: int) -> Tensor:
        rows = self._rows(group_size)
        if rows is not None:
            return rows @ rows.T
        return ops.conv2d_grad_gram(
            self.grad_output, self._activated, self.geometry.kernel_size, **self._geometry(),
            group_size=group_size,
        )  # fmt: skip

    def _geometry(self) -> dict[str, Any]:
        g = self.geometry
        return {"stride": g.stride, "padding": g.padding, "dilation": g.dilation, "groups": g.groups}


@dataclass(frozen=True)
class AffineProduct(GradientProduct):
    """Scale and shift of a normalisation: grad_output and input [B, C, T], mean and rstd [B or 1, G, T or 1].

    The normalised input is (x - mean) * rstd; channel c uses normalisation group c // (C / G).
    """

    grad_output: Tensor
    input: Tensor
    mean: Tensor
    rstd: Tensor
    shape: torch.Size

    @property
    def batch(self) -> int:
        return self.grad_output.shape[0]

    def narrow(self, start: int, length: int) -> AffineProduct:
        def cut(x: Tensor) -> Tensor:
            return x if x.shape[0] == 1 < self.batch else x.narrow(0, start, length)

        return AffineProduct(
            cut(self.grad_output), cut(self.input), cut(self.mean), cut(self.rstd), self.shape
        )

    def weight_rows(self, group_size: int) -> Tensor:
        """The scale's gradients by sample group, [G, C]: no larger than the output of the call."""
        B, C, T = self.input.shape
        dtype = _rows.wide(self.input.dtype)
        groups = self.mean.shape[1]
        x = self.input.to(dtype).reshape(B, groups, C // groups, T)
        normalised = (x - self.mean.to(dtype).unsqueeze(2)) * self.rstd.to(dtype).unsqueeze(2)
        per_sample = (self.grad_output.to(dtype) * normalised.view(B, C, T)).sum(2)
        return torch.unflatten(per_sample, 0, (-1, group_size)).sum(1)

    def rows(self, group_size: int) -> Iterator[Tensor]:
        yield torch.unflatten(self.weight_rows(group_size), 1, self.shape)

    def gradient(self) -> Tensor:
        return self.weight_rows(self.batch)[0].to(self.input.dtype).reshape(self.shape)

    def bias_rows(self, group_size: int) -> Tensor:
        per_sample = self.grad_output.sum(2, dtype=_rows.wide(self.grad_output.dtype))
        return torch.unflatten(torch.unflatten(per_sample, 0, (-1, group_size)).sum(1), 1, self.shape)

    def moments(self, moments: Sequence[str], group_size: int, *, bias: bool) -> ops.GradMoments:
        found = ops.affine_grad_moments(
            self.grad_output, self.input, self.mean, self.rstd, moments=tuple(moments), group_size=group_size
        )
        if len(self.shape) == 1:
            return found
        beside = _rows.reshape(found.bias, self.shape) if bias and found.bias is not None else None
        return ops.GradMoments(_rows.reshape(found.weight, self.shape), beside)


@dataclass(frozen=True)
class EmbeddingProduct(GradientProduct):
    """F.embedding: grad_output [B, ..., D] and indices [B, ...]."""

    grad_output: Tensor
    indices: Tensor
    num_embeddings: int
    padding_idx: int

    @property
    def batch(self) -> int:
        return self.grad_output.shape[0]

    def narrow(self, start: int, length: int) -> EmbeddingProduct:
        return replace(
            self,
            grad_output=self.grad_output.narrow(0, start, length),
            indices=self.indices.narrow(0, start, length),
        )

    def gradient(self) -> Tensor:
        gradient = torch.ops.aten.embedding_dense_backward(
            self.grad_output.contiguous(), self.indices, self.num_embeddings, self.padding_idx, False
        )
        return cast(Tensor, gradient)

    def bias_rows(self, group_size: int) -> Tensor:
        raise NotImplementedError("an embedding has no bias")

    def moments(self, moments: Sequence[str], group_size: int, *, bias: bool) -> ops.GradMoments:
        grad_output, indices, size, padding_idx = self._arguments()
        rows, found = ops.embedding_grad_moments(
            grad_output, indices, size, padding_idx=padding_idx, moments=tuple(moments), group_size=group_size
        )

        def scatter(values: Tensor) -> Tensor:
            # Rows of the table that no sample touched have g = 0 for every sample, so every sum of theirs
            # is 0.
            return values.new_zeros(self.num_embeddings, values.shape[1]).index_copy_(0, rows, values)

        return ops.GradMoments(_rows.map_moments(found.weight, scatter), None)

    def norms(self, group_size: int) -> Tensor:
        d, i, n, p = self._arguments()
        return ops.embedding_grad_norms(d, i, n, padding_idx=p, group_size=group_size)

    def gram(self, group_size: int) -> Tensor:
        d, i, n, p = self._arguments()
        return ops.embedding_grad_gram(d, i, n, padding_idx=p, group_size=group_size)

    def _arguments(self) -> tuple[Tensor, Tensor, int, int | None]:
        padding_idx = None if self.padding_idx < 0 else self.padding_idx
        return self.grad_output, self.indices, self.num_embeddings, padding_idx


@dataclass(frozen=True)
class RowsProduct(GradientProduct):
    """Gradients by sample group that are held explicitly, [G, *shape]: biases of calls used more than once.

    ``values`` already is one row per group of ``size`` samples.
    """

    values: Tensor
    size: int

    @property
    def batch(self) -> int:
        return self.values.shape[0] * self.size

    def narrow(self, start: int, length: int) -> RowsProduct:
        return RowsProduct(self.values.narrow(0, start // self.size, length // self.size), self.size)

    def gradient(self) -> Tensor:
        return self.values.sum(0)

    def rows(self, group_size: int) -> Iterator[Tensor]:
        yield torch.unflatten(self.values, 0, (-1, group_size // self.size)).sum(1)

    def bias_rows(self, group_size: int) -> Tensor:
        raise NotImplementedError("explicit rows have no bias beside them")


def chunked(rows: Iterable[Tensor]) -> Iterator[Tensor]:
    """Stack rows to chunks of about ``ROW_BYTES``."""
    chunk: list[Tensor] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) * row.numel() * row.element_size() >= ROW_BYTES:
            yield torch.stack(chunk)
            chunk = []
    if chunk:
        yield torch.stack(chunk)
