"""One layer of a recurrent network in one direction, as an autograd node that hands over gradient products.

The gates of step t are a_t = W_ih x_t + b_ih + W_hh h_(t-1) + b_hh, so that the weights' gradients are
sums of outer products over time, g_b = sum_t (dL/da_bt) (x) x_bt and sum_t (dL/da_bt) (x) h_b(t-1): two
linear calls. Backward keeps dL/da of all steps and hands both over at once; the sum over time therefore comes
before any absolute value or square.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from pynas.stats._collector import Collector, Use
from pynas.stats._layout import FIRST, Layout
from pynas.stats._products import LinearProduct
from pynas.stats._recurrent_steps import GateGradients, Recurrence, Steps, Weights


@dataclass(frozen=True, slots=True)
class Uses:
    """Who asks for the parameters of one layer in one direction, by the product they are part of."""

    ih: Use | None
    hh: Use | None
    hr: Use | None = None


@dataclass(frozen=True, slots=True)
class Direction:
    """One layer in one direction: what runs, and to whom its products go.

    Attributes:
        order: Brings samples, [B, ...], into the order of the batch; None when they are in it.
        layout: Of rows [N, T, ...], several of which may be of one sample.
    """

    kind: Recurrence
    weights: Weights
    steps: Steps
    uses: Uses
    collector: Collector
    order: Tensor | None
    layout: Layout = FIRST

    def deliver(self, x: Tensor, h: Tensor, h0: Tensor, dh: Tensor, gates: GateGradients, m: Tensor) -> None:
        """Hand over the products of all weights."""
        w, uses = self.weights, self.uses
        of_input = self._arranged(gates.ih)
        if uses.ih is not None:
            self._product(uses.ih, of_input, x, w.ih, w.bias_ih)
        if uses.hh is not None:
            of_state = of_input if gates.hh is gates.ih else self._arranged(gates.hh)
            self._product(uses.hh, of_state, self.steps.all_before(h, h0), w.hh, w.bias_hh)
        if uses.hr is not None:
            assert w.hr is not None
            self._product(uses.hr, self._arranged(self.steps.only(dh)), m, w.hr, None)

    def _product(self, use: Use, grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None) -> None:
        rows = self._arranged(x)
        self.collector.deliver(use, LinearProduct(grad, rows))
        if use.matrix and self.collector.wants_saliency:
            y = F.linear(rows, weight, bias)
            self.collector.deliver_saliency(use, y.mul_(grad).sum(1))

    def _arranged(self, x: Tensor) -> Tensor:
        """[T, B, ...] as [B, T, ...] in the order of the batch."""
        rows = x.transpose(0, 1)
        if self.layout.positions > 1:
            return self.layout.first(rows).flatten(1, -2)
        return rows.contiguous() if self.order is None else rows.index_select(0, self.order)


class _Direction(torch.autograd.Function):
    """States [T, B, H], the last of them and the last cell state, without gradients of the weights.

    ``anchor`` is a scalar that requires a gradient, so that the node runs even where the input needs none.
    """

    @staticmethod
    def forward(
        ctx: Any, anchor: Tensor, x: Tensor, h0: Tensor, c0: Tensor | None, run: Direction
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        h, c, saved = run.kind.forward(run.weights, run.steps, x, h0, c0)
        ctx.run = run
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, h0, h, *saved)
        return h, run.steps.final(h).clone(), c

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, of_h: Tensor | None, of_last: Tensor | None, of_c: Tensor | None
    ) -> tuple[None, Tensor | None, Tensor | None, Tensor | None, None]:
        x, h0, h, *saved = ctx.saved_tensors
        run: Direction = ctx.run
        dh = torch.zeros_like(h) if of_h is None else torch.empty_like(h).copy_(of_h)
        if of_last is not None:
            run.steps.final(dh).add_(of_last)
        dh0 = torch.zeros_like(h0)
        dc = None
        if run.kind.cells:
            factors = saved[1]  # [T, B, H]
            dc = (
                torch.zeros_like(factors[0])
                if of_c is None
                else of_c.clone(memory_format=torch.contiguous_format)
            )
        gates = run.kind.backward(run.weights, run.steps, dh, dh0, dc, h, tuple(saved))
        dx = None
        if ctx.needs_input_grad[1]:
            dx = (gates.ih.transpose(0, 1) @ run.weights.ih).transpose(0, 1)  # contiguous: one product
        run.deliver(x, h, h0, dh, gates, saved[-1] if saved else h)
        needs = ctx.needs_input_grad
        return None, dx, dh0 if needs[2] else None, gates.c if needs[3] else None, None


def run(
    anchor: Tensor, x: Tensor, h0: Tensor, c0: Tensor | None, direction: Direction
) -> tuple[Tensor, Tensor, Tensor | None]:
    """States [T, B, H] of inputs [T, B, I], the last state, and the last cell state where there is one."""
    found = _Direction.apply(anchor, x, h0, c0, direction)  # type: ignore[no-untyped-call]
    return cast(tuple[Tensor, Tensor, Tensor | None], found)
