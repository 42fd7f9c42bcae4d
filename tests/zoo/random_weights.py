"""Weights that random networks multiply by: bare, shared, cut out, or computed in every way people write."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

from tests.zoo.random_parts import Block, Choose, weight

WeightMaker = Callable[[Choose[Any], int, int], nn.Module]


class Matrix(nn.Module):
    """A matrix [out, in] that is computed whenever it is read."""

    def __init__(self, function: Callable[[Any], Tensor], **parts: Any) -> None:
        super().__init__()
        self.inner = Block(lambda k, _: function(k), **parts)

    def forward(self) -> Tensor:
        return self.inner(None)


def matrix(choose: Choose[Any], out: int, inner: int) -> nn.Module:
    """A module without inputs that returns a matrix [out, in]."""
    return choose(MATRICES)(choose, out, inner)


def _bare(choose: Choose[Any], o: int, i: int) -> nn.Module:
    return Matrix(lambda k: k.w, w=weight(o, i))


def _transposed(choose: Choose[Any], o: int, i: int) -> nn.Module:
    how = choose(
        (
            lambda w: w.t(),
            lambda w: w.T,
            lambda w: w.permute(1, 0),
            lambda w: w.transpose(0, 1).contiguous(),
            lambda w: torch.einsum("io->oi", w),
        )
    )
    return Matrix(lambda k: how(k.w), w=weight(i, o))


def _low_rank(choose: Choose[Any], o: int, i: int) -> nn.Module:
    r = choose((1, 2))
    return Matrix(lambda k: k.w + 0.5 * (k.up @ k.down), w=weight(o, i), up=weight(o, r), down=weight(r, i))


def _sliced(choose: Choose[Any], o: int, i: int) -> nn.Module:
    start = choose((0, 1, 2))
    return Matrix(lambda k: k.w[start : start + o, :i] + k.w[-o:, -i:], w=weight(o + 3, i + 1))


def _chunked(choose: Choose[Any], o: int, i: int) -> nn.Module:
    return Matrix(lambda k: torch.sub(*k.w.chunk(2)), w=weight(2 * o, i))


def _joined(choose: Choose[Any], o: int, i: int) -> nn.Module:
    return Matrix(lambda k: torch.cat([k.w, k.row.unsqueeze(0)], 0)[:o], w=weight(o, i), row=weight(i))


def _stacked(choose: Choose[Any], o: int, i: int) -> nn.Module:
    rows = nn.ParameterList([weight(i) for _ in range(o)])
    return Matrix(lambda k: torch.stack(list(k.rows)), rows=rows)


def _masked(choose: Choose[Any], o: int, i: int) -> nn.Module:
    return Matrix(lambda k: k.w * k.mask, w=weight(o, i), mask=(torch.rand(o, i) > 0.4).double())


def _normed(choose: Choose[Any], o: int, i: int) -> nn.Module:
    how = choose((
        lambda k: k.g[:, None] * k.w / k.w.norm(dim=1, keepdim=True),
        lambda k: F.normalize(k.w, dim=choose_dim) * k.g[:, None],
        lambda k: F.layer_norm(k.w, (i,)) + k.g[:, None], lambda k: torch._weight_norm(k.w, k.g[:, None], 0),
    ))  # fmt: skip
    choose_dim = choose((0, 1))
    return Matrix(how, w=weight(o, i + 0), g=weight(o))


def _hyper(choose: Choose[Any], o: int, i: int) -> nn.Module:
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, o * i))
    code = choose((weight(3), torch.randn(3).double()))
    return Matrix(lambda k: k.net(k.code).view(o, i), net=net, code=code)


def _hyper_rows(choose: Choose[Any], o: int, i: int) -> nn.Module:
    """A network that runs over rows, as many as a batch may have samples."""
    return Matrix(lambda k: torch.tanh(k.net(k.codes)), net=nn.Linear(3, i), codes=weight(o, 3))


def _outer(choose: Choose[Any], o: int, i: int) -> nn.Module:
    how = choose(
        (
            lambda k: torch.outer(k.a, k.b),
            lambda k: k.a[:, None] * k.b,
            lambda k: torch.einsum("o,i->oi", k.a, k.b),
        )
    )
    return Matrix(how, a=weight(o), b=weight(i))


def _indexed(choose: Choose[Any], o: int, i: int) -> nn.Module:
    index = torch.arange(o)[:, None] - torch.arange(i) + i - 1
    return Matrix(lambda k: k.table[k.index], table=weight(o + i - 1), index=index)


def _looked_up(choose: Choose[Any], o: int, i: int) -> nn.Module:
    return Matrix(lambda k: k.table(k.index), table=nn.Embedding(5, i), index=torch.arange(o) % 5)


def _expanded(choose: Choose[Any], o: int, i: int) -> nn.Module:
    how = choose(
        (
            lambda w: w.expand(o, i),
            lambda w: w.repeat(o, 1),
            lambda w: w.tile((o, 1)),
            lambda w: w.repeat_interleave(o, 0),
        )
    )
    return Matrix(lambda k: how(k.w) * k.g[:, None], w=weight(1, i), g=weight(o))


def _softmax(choose: Choose[Any], o: int, i: int) -> nn.Module:
    d = choose((0, 1))
    how = choose(
        (
            lambda w: w.softmax(d),
            torch.tanh,
            torch.triu,
            lambda w: w.abs().sqrt(),
            lambda w: F.dropout(w, 0.5, False),
            lambda w: w.cumsum(d),
            lambda w: w.flip(d),
        )
    )
    return Matrix(lambda k: how(k.w), w=weight(o, i))


def _written(choose: Choose[Any], o: int, i: int) -> nn.Module:
    def written(k: Any) -> Tensor:
        w = torch.zeros(o, i, dtype=k.w.dtype)
        w[:, : (i + 1) // 2] = k.w
        w[0] += k.b
        return w

    return Matrix(written, w=weight(o, (i + 1) // 2), b=weight(i))


def _straight(choose: Choose[Any], o: int, i: int) -> nn.Module:
    """Quantised, with a straight-through gradient."""
    return Matrix(lambda k: k.w + (torch.round(k.w * 4) / 4 - k.w).detach(), w=weight(o, i))


def _through(make: Callable[[nn.Module], nn.Module]) -> WeightMaker:
    def made(choose: Choose[Any], o: int, i: int) -> nn.Module:
        torch.manual_seed(1)
        return Matrix(lambda k: k.layer.weight, layer=make(nn.Linear(i, o, bias=False).double()))

    return made


def _pruned(choose: Choose[Any], o: int, i: int) -> nn.Module:
    """Computed before each forward of its layer, which is then asked for the matrix by the identity."""
    layer = prune.l1_unstructured(nn.Linear(i, o, bias=False).double(), "weight", amount=0.3)
    return Matrix(lambda k: k.layer(torch.eye(i, dtype=torch.float64)).T, layer=layer)


class Skewed(nn.Module):
    def forward(self, w: Tensor) -> Tensor:
        return w - w.mean() + w.tanh()


def _skewed(layer: nn.Module) -> nn.Module:
    parametrize.register_parametrization(layer, "weight", Skewed())
    return layer


MATRICES: tuple[WeightMaker, ...] = (
    _bare, _bare, _transposed, _low_rank, _sliced, _chunked, _joined, _stacked, _masked, _normed, _hyper,
    _hyper_rows, _outer, _indexed, _looked_up, _expanded, _softmax, _written, _straight,
    _through(parametrizations.weight_norm), _through(parametrizations.spectral_norm),
    _through(_skewed), _pruned,
)  # fmt: skip
