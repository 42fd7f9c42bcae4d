"""What LSTM, GRU and Elman layers do with their gates in one direction, and its derivatives.

Every local derivative of a step is a product with something that forward knows. Those factors are formed for
all steps together and kept in place of the gates, which leaves a few calls to each step of backward.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pynas.stats._recurrent_steps import GateGradients, Recurrence, Steps, Weights

aten = torch.ops.aten


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The input's part of all gates as one product: of a transposed ``x`` PyTorch would make one a step."""
    return F.linear(x.contiguous(), weight, bias)


def _added(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return a if b is None else b if a is None else a + b


@dataclass(frozen=True)
class Elman(Recurrence):
    """h_t = tanh(a_t) or relu(a_t)."""

    relu: bool

    def forward(
        self, w: Weights, steps: Steps, x: Tensor, h0: Tensor, c0: Tensor | None
    ) -> tuple[Tensor, Tensor | None, tuple[Tensor, ...]]:
        h = _linear(x, w.ih, _added(w.bias_ih, w.bias_hh))
        by_state = w.hh.T
        activate = Tensor.relu_ if self.relu else Tensor.tanh_
        for after, before, kept in zip(
            steps.views(h), steps.before(h, h0), steps.waiting(h, h0), strict=True
        ):
            activate(after.addmm_(before, by_state))
            if kept is not None:
                kept[0].copy_(kept[1])
        return h, None, ()

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
        gates = steps.gradients(h, h.shape[2])
        views = [steps.views(gates), steps.views(h), steps.views(dh), steps.before(dh, dh0)]
        for d, y, after, before, kept in _backwards(*views, steps.waiting(dh, dh0)):
            if self.relu:
                aten.threshold_backward.grad_input(after, y, 0, grad_input=d)
            else:
                aten.tanh_backward.grad_input(after, y, grad_input=d)
            before.addmm_(d, w.hh)
            if kept is not None:
                kept[1].add_(kept[0])
        return GateGradients(gates, gates)


class GRU(Recurrence):
    """h_t = n + z (h_(t-1) - n), n = tanh(a_n + r q), q = W_hn h_(t-1) + b_hn, (r, z) = sigmoid(a_r, a_z).

    q has a gradient of its own, r times that of a_n.
    """

    def forward(
        self, w: Weights, steps: Steps, x: Tensor, h0: Tensor, c0: Tensor | None
    ) -> tuple[Tensor, Tensor | None, tuple[Tensor, ...]]:
        H = w.hh.shape[1]
        bias = w.bias_ih
        if w.bias_hh is not None:
            bias = _added(bias, F.pad(w.bias_hh[: 2 * H], (0, H)))
        gates, q, h = _linear(x, w.ih, bias), steps.room(x, H), steps.room(x, H)
        r, z, n = gates.chunk(3, -1)
        rz_by_state, q_by_state = w.hh[: 2 * H].T, w.hh[2 * H :].T
        bias_q = w.hh.new_zeros(H) if w.bias_hh is None else w.bias_hh[2 * H :]
        views = [steps.views(t) for t in (gates[..., : 2 * H], r, z, n, q, h)]
        for rz_t, r_t, z_t, n_t, q_t, after, before, kept in zip(
            *views, steps.before(h, h0), steps.waiting(h, h0), strict=True
        ):
            rz_t.addmm_(before, rz_by_state).sigmoid_()
            torch.addmm(bias_q, before, q_by_state, out=q_t)
            n_t.addcmul_(r_t, q_t).tanh_()
            torch.lerp(n_t, before, z_t, out=after)
            if kept is not None:
                kept[0].copy_(kept[1])
        # d a_n = dh of_n, d a_r = dh of_n q r (1 - r), d a_z = dh (h_(t-1) - n) z (1 - z), dq = dh of_n r:
        # the last three take the gates' place, q's that of n.
        of_n = steps.only(aten.tanh_backward(1 - z, n))
        through = z.clone()
        aten.sigmoid_backward.grad_input(steps.all_before(h, h0).sub_(n), through, grad_input=z)
        torch.mul(of_n, r, out=n)
        aten.sigmoid_backward.grad_input(q.mul_(of_n), r, grad_input=r)
        return h, None, (gates, of_n, through)

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
        factors, of_n, through = saved
        H = h.shape[2]
        gates = steps.gradients(h, 3 * H)
        views = [steps.views(torch.unflatten(t, -1, (3, H))) for t in (gates, factors)]
        flat, z, after, before = (*map(steps.views, (gates, through, dh)), steps.before(dh, dh0))
        for d, f, d_flat, z_t, dh_t, dh_before, kept in _backwards(
            *views, flat, z, after, before, steps.waiting(dh, dh0)
        ):
            torch.mul(dh_t.unsqueeze(1), f, out=d)
            dh_before.addcmul_(dh_t, z_t).addmm_(d_flat, w.hh)
            if kept is not None:
                kept[1].add_(kept[0])
        of_input = steps.gradients(h, 3 * H)
        of_input[..., : 2 * H] = gates[..., : 2 * H]
        torch.mul(dh, of_n, out=of_input[..., 2 * H :])
        return GateGradients(of_input, gates)


class LSTM(Recurrence):
    """c_t = f c_(t-1) + i g, h_t = o tanh(c_t), (i, f, o) = sigmoid(a_i, a_f, a_o), g = tanh(a_g).

    With a projection, h_t = W_hr (o tanh(c_t)).
    """

    cells = True

    def forward(
        self, w: Weights, steps: Steps, x: Tensor, h0: Tensor, c0: Tensor | None
    ) -> tuple[Tensor, Tensor | None, tuple[Tensor, ...]]:
        assert c0 is not None
        H = w.hh.shape[0] // 4
        gates = _linear(x, w.ih, _added(w.bias_ih, w.bias_hh))
        c, tanh_c, m = (steps.room(x, H) for _ in range(3))
        h = m if w.hr is None else steps.room(x, w.hr.shape[0])
        i, f, g, o = gates.chunk(4, -1)
        by_state = w.hh.T
        project = None if w.hr is None else w.hr.T
        views = [steps.views(t) for t in (gates, gates[..., : 2 * H], i, f, g, o, c, tanh_c, m, h)]
        states = steps.before(h, h0), steps.before(c, c0), steps.waiting(h, h0), steps.waiting(c, c0)
        for a_t, if_t, i_t, f_t, g_t, o_t, c_t, y_t, m_t, h_t, h_before, c_before, kept, kept_c in zip(
            *views, *states, strict=True
        ):
            a_t.addmm_(h_before, by_state)
            if_t.sigmoid_()
            g_t.tanh_()
            o_t.sigmoid_()
            torch.mul(f_t, c_before, out=c_t).addcmul_(i_t, g_t)
            torch.tanh(c_t, out=y_t)
            torch.mul(o_t, y_t, out=m_t)
            if project is not None:
                torch.mm(m_t, project, out=h_t)
            if kept is not None:
                kept[0].copy_(kept[1])
                kept_c[0].copy_(kept_c[1])
        # With dm the gradient of o tanh(c): d a_o = dm tanh(c) o (1 - o), dc += dm o (1 - tanh(c)^2), and
        # (d a_i, d a_f, d a_g) = dc (g i (1 - i), c_(t-1) f (1 - f), i (1 - g^2)). In the gates' place:
        of_c, through, i_once = aten.tanh_backward(o, tanh_c), f.clone(), i.clone()
        aten.sigmoid_backward.grad_input(tanh_c, o, grad_input=o)
        aten.sigmoid_backward.grad_input(steps.all_before(c, c0), f, grad_input=f)
        aten.sigmoid_backward.grad_input(g, i_once, grad_input=i)
        aten.tanh_backward.grad_input(i_once, g, grad_input=g)
        last = steps.final(c).clone()
        return h, last, (gates, of_c, through) if w.hr is None else (gates, of_c, through, m)

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
        factors, of_c, through = saved[:3]
        assert dc is not None
        H = of_c.shape[2]
        gates = steps.gradients(h, 4 * H)
        three = [steps.views(torch.unflatten(t[..., : 3 * H], -1, (3, H))) for t in (gates, factors)]
        one = [steps.views(t[..., 3 * H :]) for t in (gates, factors)]
        views = [steps.views(t) for t in (gates, of_c, through, dh, dc.expand(len(h), *dc.shape))]
        states = steps.before(dh, dh0), steps.waiting(dh, dh0)
        dm = dh.new_empty(dc.shape)
        for d_ifg, f_ifg, d_o, f_o, d, c_t, f_t, dh_t, dc_t, dh_before, kept in _backwards(
            *three, *one, *views, *states
        ):
            dm_t = dh_t if w.hr is None else torch.mm(dh_t, w.hr, out=dm[: len(dh_t)])
            torch.mul(dm_t, f_o, out=d_o)
            dc_t.addcmul_(dm_t, c_t)
            torch.mul(dc_t.unsqueeze(1), f_ifg, out=d_ifg)
            dc_t.mul_(f_t)
            dh_before.addmm_(d, w.hh)
            if kept is not None:
                kept[1].add_(kept[0])
        return GateGradients(gates, gates, dc)


def _backwards(*views: Sequence[Any]) -> Any:
    """The steps' views together, the last step to run first."""
    return zip(*(v[::-1] for v in views), strict=True)
