"""What one parametrised call contributes to a gradient, kept as its two factors.

The gradient of a weight is a sum of outer products over positions, g_b = sum_t delta_bt (x) a_bt, where b
is the sample, delta the gradient at the output and a the input. A product holds the factors and answers
what a statistic asks of the g_b without ever holding all of them: nothing of size [B, P] is made here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, cast

import torch
from torch import Tensor

from pynas import ops
from pynas.stats import per_sample

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
        return per_sample.widen(self.gradient())

    @abstractmethod
    def bias_rows(self, group_size: int) -> Tensor:
        """The bias's gradients by sample group, [G, O]: no larger than the output of the call."""

    def rows(self, group_size: int) -> Iterator[Tensor]:
        """The weight's gradients by sample group, in chunks [g, *shape] of at most ``ROW_BYTES``."""
        return chunked(
            self.narrow(start, group_size).gradient() for start in range(0, self.batch, group_size)
        )

    def moments(self, moments: Sequence[str], group_size: int, *, bias: bool) -> ops.MomentSums:
        """Sums over sample groups of g, |g|, g^2, sign(g), (g - mean g)^2 for weight and bias."""
        weight = per_sample.moments(self.rows(group_size), moments)
        return ops.MomentSums(weight, self.bias_moments(moments, group_size) if bias else None)

    def bias_moments(self, moments: Sequence[str], group_size: int) -> ops.Moments:
        """The same sums for the bias alone."""
        return per_sample.moments([self.bias_rows(group_size)], moments)

    def norms(self, group_size: int) -> Tensor:
        """Squared norms ||g||^2 of the weight's gradients by sample group, [G]."""
        return torch.cat([per_sample.norms(chunk) for chunk in self.rows(group_size)])

    def gram(self, group_size: int) -> Tensor:
        """Inner products <g_i, g_j> of the weight's gradients by sample group, [G, G]."""
        return per_sample.gram(lambda: self.rows(group_size))


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
        return per_sample.widen(rows).flatten(1, -2).sum(1)

    def moments(self, moments: Sequence[str], group_size: int, *, bias: bool) -> ops.MomentSums:
        return ops.linear_grad_moments(
            self.grad_output, self.input, moments=tuple(moments), group_size=group_size, bias=bias
        )

    def norms(self, group_size: int) -> Tensor:
        return ops.linear_grad_norms(self.grad_output, self.input, group_size=group_size)

    def gram(self, group_size: int) -> Tensor:
        return ops.linear_grad_gram(self.grad_output, self.input, group_size=group_size)


@dataclass(frozen=True)
class TransposedLinearProduct(LinearProduct):
    """y = b + x W with W [I, O], which is a linear layer's weight transposed."""

    def narrow(self, start: int, length: int) -> TransposedLinearProduct:
        return TransposedLinearProduct(
            self.grad_output.narrow(0, start, length), self.input.narrow(0, start, length)
        )

    def gradient(self) -> Tensor:
        return super().gradient().T

    def moments(self, moments: Sequence[str], group_size: int, *, bias: bool) -> ops.MomentSums:
        found = super().moments(moments, group_size, bias=bias)
        return ops.MomentSums(per_sample.map_moments(found.weight, lambda t: t.T.contiguous()), found.bias)


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
        dtype = per_sample.wide(self.input.dtype)
        groups = self.mean.shape[1]
        x = self.input.to(dtype).reshape(B, groups, C // groups, T)
        normalised = (x - self.mean.to(dtype).unsqueeze(2)) * self.rstd.to(dtype).unsqueeze(2)
        samples = (self.grad_output.to(dtype) * normalised.view(B, C, T)).sum(2)
        return torch.unflatten(samples, 0, (-1, group_size)).sum(1)

    def rows(self, group_size: int) -> Iterator[Tensor]:
        yield torch.unflatten(self.weight_rows(group_size), 1, self.shape)

    def gradient(self) -> Tensor:
        return self.weight_rows(self.batch)[0].to(self.input.dtype).reshape(self.shape)

    def bias_rows(self, group_size: int) -> Tensor:
        samples = self.grad_output.sum(2, dtype=per_sample.wide(self.grad_output.dtype))
        return torch.unflatten(torch.unflatten(samples, 0, (-1, group_size)).sum(1), 1, self.shape)

    def moments(self, moments: Sequence[str], group_size: int, *, bias: bool) -> ops.MomentSums:
        found = ops.affine_grad_moments(
            self.grad_output, self.input, self.mean, self.rstd, moments=tuple(moments), group_size=group_size
        )
        if len(self.shape) == 1:
            return found
        beside = per_sample.reshape(found.bias, self.shape) if bias and found.bias is not None else None
        return ops.MomentSums(per_sample.reshape(found.weight, self.shape), beside)


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

    def moments(self, moments: Sequence[str], group_size: int, *, bias: bool) -> ops.MomentSums:
        grad_output, indices, size, padding_idx = self._arguments()
        rows, found = ops.embedding_grad_moments(
            grad_output, indices, size, padding_idx=padding_idx, moments=tuple(moments), group_size=group_size
        )

        def scatter(values: Tensor) -> Tensor:
            # Rows of the table that no sample touched have g = 0 for every sample, so every sum of theirs
            # is 0.
            return values.new_zeros(self.num_embeddings, values.shape[1]).index_copy_(0, rows, values)

        return ops.MomentSums(per_sample.map_moments(found.weight, scatter), None)

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
