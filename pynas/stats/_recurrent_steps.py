"""The time steps of a recurrent layer in one direction, its weights, and what a kind of layer has to do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Steps:
    """In which order time steps run, and how many samples each has.

    States are laid out by time, [T, B, H], whatever the direction. A sample that a step does not have (any
    more, or in reverse: yet) keeps its state; what inputs and gates hold for it means nothing.

    Attributes:
        sizes: Samples of each step, decreasing; None when all have all.
        reverse: From the last step to the first.
    """

    sizes: tuple[int, ...] | None
    reverse: bool

    def views(self, x: Tensor) -> list[Tensor]:
        """Each step of [T, B, ...], [n, ...], in the order in which they run."""
        found = list(x.unbind(0))
        if self.sizes is not None:
            found = [v[:n] for v, n in zip(found, self.sizes, strict=True)]
        return found[::-1] if self.reverse else found

    def before(self, states: Tensor, first: Tensor) -> list[Tensor]:
        """The state before each step, of its samples: ``first``, then those that the steps put out."""
        return [v[:n] for v, n in zip(self._before(states, first), self._sizes(states), strict=True)]

    def waiting(self, states: Tensor, first: Tensor) -> list[tuple[Tensor, Tensor] | None]:
        """For each step that lacks samples, their rows of its state and of the state before."""
        if self.sizes is None:
            return [None] * states.shape[0]
        after, before = self._ordered(states), self._before(states, first)
        return [
            None if n == first.shape[0] else (a[n:], b[n:])
            for a, b, n in zip(after, before, self._sizes(states), strict=True)
        ]

    def final(self, states: Tensor) -> Tensor:
        """The state after the last step that runs."""
        return states[0 if self.reverse else -1]

    def all_before(self, states: Tensor, first: Tensor) -> Tensor:
        """The states before all steps, [T, B, H] by time."""
        rest, one = (states[1:], first) if self.reverse else (states[:-1], first)
        return torch.cat([rest, one[None]] if self.reverse else [one[None], rest])

    def room(self, like: Tensor, features: int) -> Tensor:
        """[T, B, features] to be filled step by step; what no step fills is 0."""
        make = like.new_empty if self.sizes is None else like.new_zeros
        return make((*like.shape[:2], features))

    def gradients(self, like: Tensor, features: int) -> Tensor:
        """The same, samples first in memory as statistics read it."""
        make = like.new_empty if self.sizes is None else like.new_zeros
        return make((like.shape[1], like.shape[0], features)).transpose(0, 1)

    def only(self, x: Tensor) -> Tensor:
        """``x`` [T, B, ...] with 0 for samples that a step does not have, in place."""
        for v, n in zip(x.unbind(0), self.sizes or (), strict=False):
            v[n:].zero_()
        return x

    def _sizes(self, states: Tensor) -> Sequence[int]:
        sizes = self.sizes or (states.shape[1],) * states.shape[0]
        return sizes[::-1] if self.reverse else sizes

    def _ordered(self, states: Tensor) -> list[Tensor]:
        found = list(states.unbind(0))
        return found[::-1] if self.reverse else found

    def _before(self, states: Tensor, first: Tensor) -> list[Tensor]:
        return [first, *self._ordered(states)[:-1]]


@dataclass(frozen=True, slots=True)
class Weights:
    """Of one layer in one direction."""

    ih: Tensor
    hh: Tensor
    bias_ih: Tensor | None
    bias_hh: Tensor | None
    hr: Tensor | None = None

    def to(self, dtype: torch.dtype) -> Weights:
        """The same in another dtype, without their graph."""
        ih, hh = self.ih.detach().to(dtype), self.hh.detach().to(dtype)
        rest = (None if t is None else t.detach().to(dtype) for t in (self.bias_ih, self.bias_hh, self.hr))
        return Weights(ih, hh, *rest)


@dataclass(frozen=True, slots=True)
class GateGradients:
    """dL/da as the input's product sees it and as the state's does, [T, B, gates * H]; dL/dc before all."""

    ih: Tensor
    hh: Tensor
    c: Tensor | None = None


class Recurrence(ABC):
    """What one kind of layer does with its gates."""

    cells: ClassVar[bool] = False  # whether there is a cell state

    @abstractmethod
    def forward(
        self, w: Weights, steps: Steps, x: Tensor, h0: Tensor, c0: Tensor | None
    ) -> tuple[Tensor, Tensor | None, tuple[Tensor, ...]]:
        """States [T, B, H], the last cell state, and what backward needs."""

    @abstractmethod
    def backward(
        self,
        w: Weights,
        steps: Steps,
        dh: Tensor,
        dh0: Tensor,
        dc: Tensor | None,
        h: Tensor,
        saved: tuple[Tensor, ...],
    ) -> GateGradients:
        """Gradients of all gates; adds to ``dh`` (those of the states, from outside) and ``dh0`` in place."""
