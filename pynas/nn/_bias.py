"""Biases of convolutions that a batch norm follows: the operator leaves them out, and this accounts for them.

With ``z`` what the batch norm would read without biases, it reads ``z + b``, where ``b`` is constant over a
channel: the bias of the convolution before it, ``W_2 b_1 + b_2`` for a pointwise convolution behind a
depthwise one (padding comes before ``b_1`` is added, so the border is no exception), and ``[b_1, b_2]`` for
the two halves of a reduction. So

- by statistics of the batch, ``b`` cancels: ``z + b - mean(z + b) = z - mean(z)``. Outputs and gradients are
  those without it, and its own gradient is zero (not None: an optimiser decays it as before);
- the running mean follows ``mean(z) + b``: ``running += f b`` beside what the operator adds;
- by running statistics, ``z + b - running = z - (running - b)``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from pynas.nn._recognise import Recognised


@dataclass(frozen=True)
class BiasedNorm:
    """A batch norm behind convolutions of which one has a bias.

    Attributes:
        index: Its position among the batch norms of the mixture.
        owner: The position of its candidate among those that the operator computes.
        norm: The batch norm.
        convolutions: What it reads, in order.
        parallel: Whether these stand side by side, as in a reduction.
    """

    index: int
    owner: int
    norm: nn.BatchNorm2d
    convolutions: tuple[nn.Conv2d, ...]
    parallel: bool

    def shift(self) -> Tensor:
        """``b``, [C]."""
        if self.parallel:
            return torch.cat([_bias(conv) for conv in self.convolutions])
        total = _bias(self.convolutions[0])
        for conv in self.convolutions[1:]:
            # Not a matrix product, which autocast would round.
            total = (conv.weight.flatten(1) * total).sum(1) + _bias(conv)
        return total


def biased_norms(candidates: Sequence[Recognised]) -> tuple[BiasedNorm, ...]:
    """The batch norms of the candidates whose input has biases."""
    return tuple(_biased_norms(candidates))


def _biased_norms(candidates: Sequence[Recognised]) -> Iterator[BiasedNorm]:
    index = 0
    for owner, candidate in enumerate(candidates):
        before: list[nn.Conv2d] = []
        for layer in candidate.layers:
            if isinstance(layer, nn.Conv2d):
                before.append(layer)
                continue
            if any(conv.bias is not None for conv in before):
                parallel = candidate.name == "skip_connect"
                yield BiasedNorm(index, owner, layer, tuple(before), parallel)
            before = []
            index += 1


def biases(norms: Sequence[BiasedNorm]) -> list[Tensor]:
    """All biases before these batch norms."""
    return [conv.bias for biased in norms for conv in biased.convolutions if conv.bias is not None]


def without_shift(running: list[Tensor], norms: Sequence[BiasedNorm]) -> list[Tensor]:
    """Running means and variances, two of each batch norm, as the operator needs them in evaluation."""
    found = list(running)
    with torch.no_grad():
        for biased in norms:
            mean = found[2 * biased.index]
            found[2 * biased.index] = mean - biased.shift().to(mean.dtype)
    return found


@torch.no_grad()
def track_shift(norms: Sequence[BiasedNorm], weights: Tensor, momentum: float | None) -> None:
    """Add ``f b`` to running means, after the operator has updated them, where its candidate was computed."""
    for biased in norms:
        mean = cast(Tensor, biased.norm.running_mean)
        added = biased.shift().to(mean.dtype) * (weights[biased.owner] != 0).to(mean.device)
        if momentum is None:
            added = added / cast(Tensor, biased.norm.num_batches_tracked)
        mean.add_(added, alpha=1.0 if momentum is None else momentum)


def with_zero_gradients(weights: Tensor, norms: Sequence[BiasedNorm]) -> Tensor:
    """``weights``, in whose graph the biases have gradients of zeros."""
    result: Tensor = _ZeroGradients.apply(weights, *biases(norms))  # type: ignore[no-untyped-call]
    return result


class _ZeroGradients(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weights: Tensor, *others: Tensor) -> Tensor:
        ctx.save_for_backward(*others)
        return weights.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        others = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        zeros = (
            torch.zeros_like(t) if needed else None for t, needed in zip(others, wanted[1:], strict=True)
        )
        return (gradients[0] if wanted[0] else None, *zeros)


def _bias(conv: nn.Conv2d) -> Tensor:
    return conv.weight.new_zeros(conv.out_channels) if conv.bias is None else conv.bias
