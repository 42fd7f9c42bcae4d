"""Samples that a forward brings together, or into another order, however their values happen to rank."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pynas._errors import UserError
from pynas.stats import GradMoments, GradNorms, collect
from pynas.stats._layout import Layout, Unknown
from pynas.stats._propagation import propagate

D, CLASSES = 6, 3


class Moved(nn.Module):
    """Something is done with hidden rows of a batch, which then meet a shift and a linear layer."""

    def __init__(self, f: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.f, self.a, self.head = f, nn.Linear(D, D), nn.Linear(D, CLASSES)
        self.shift = nn.Parameter(torch.randn(D))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.f(self.a(x)) + self.shift))


def eye(h: Tensor) -> Tensor:
    return torch.eye(len(h), dtype=h.dtype)


def written(h: Tensor) -> Tensor:
    y = torch.zeros_like(h)
    y[1:] = h[:-1]
    return y


def late(h: Tensor) -> Tensor:
    """An order that leaves few samples as they are, so that no small pass sees it."""
    n = len(h)
    return torch.arange(n) if n <= 4 else torch.arange(n - 1, -1, -1)


def pairs(h: Tensor) -> Tensor:
    return eye(h)[late(h)]


def filled(h: Tensor) -> Tensor:
    y = torch.zeros_like(h)
    y[late(h)] = h
    return y


def grid(h: Tensor) -> Tensor:
    """Where a grid of rows in that order and columns as they are looks."""
    rows = (late(h).to(h.dtype) / (len(h) - 1) * 2 - 1)[:, None].expand(len(h), D)
    columns = torch.linspace(-1, 1, D, dtype=h.dtype)[None].expand(len(h), D)
    return torch.stack([columns, rows], -1)[None]


LATE: dict[str, Callable[[Tensor], Tensor]] = {
    "written": filled,
    "index_copy": lambda h: torch.zeros_like(h).index_copy(0, late(h), h),
    "index_copy_": lambda h: torch.zeros_like(h).index_copy_(0, late(h), h),
    "index_add": lambda h: h.index_add(0, late(h), h),
    "index_put": lambda h: torch.zeros_like(h).index_put((late(h),), h),
    "index_reduce": lambda h: h.index_reduce(0, late(h), h, "amax"),
    "scatter": lambda h: torch.zeros_like(h).scatter(0, late(h)[:, None].expand_as(h), h),
    "scatter_add": lambda h: h.scatter_add(0, late(h)[:, None].expand_as(h), h),
    "scatter_reduce": lambda h: h.scatter_reduce(0, late(h)[:, None].expand_as(h), h, "sum"),
    "take": lambda h: h.take(late(h)[:, None] * D + torch.arange(D)),
    "put": lambda h: torch.zeros_like(h).put(late(h)[:, None] * D + torch.arange(D), h),
    "einsum": lambda h: torch.einsum("ij,jd->id", pairs(h), h),
    "tensordot": lambda h: torch.tensordot(pairs(h), h, 1),
    "addmm": lambda h: torch.addmm(torch.zeros_like(h), pairs(h), h),
    "linear": lambda h: F.linear(h.t(), pairs(h)).t(),
    "multi_dot": lambda h: torch.linalg.multi_dot([pairs(h), h, torch.eye(D, dtype=h.dtype)]),
    "sparse": lambda h: torch.sparse.mm(pairs(h).to_sparse(), h),
    "sum of products": lambda h: (pairs(h)[:, :, None] * h[None]).sum(1),
    "solve": lambda h: torch.linalg.solve(pairs(h), h),
    "attention": lambda h: F.scaled_dot_product_attention(h, h, h, attn_mask=pairs(h).bool()),
    "embedding_bag": lambda h: F.embedding_bag(late(h)[:, None], h, mode="sum"),
    "there and back by frequencies": lambda h: torch.fft.ifft(
        torch.fft.fft(h[late(h)], dim=0), dim=0
    ).real,
    "grid_sample": lambda h: F.grid_sample(
        h[None, None], grid(h), mode="nearest", align_corners=True
    )[0, 0],
    "largest of neighbours": lambda h: F.max_pool1d(h.t()[None], 3, 1, 1)[0].t(),
    "read as its transpose": lambda h: h.t().contiguous().view(h.shape),
}  # fmt: skip
TOGETHER: dict[str, Callable[[Tensor], Tensor]] = {
    "argsort": lambda h: h[h[:, 0].argsort()],
    "argsort, new dimension": lambda h: h[h[:, 0].argsort()][:, None].squeeze(1),
    "sort": lambda h: h.sort(0)[0],
    "topk": lambda h: h.topk(len(h), 0)[0],
    "index_select": lambda h: h.index_select(0, h[:, 0].argsort()),
    "gather": lambda h: h.gather(0, h.argsort(0)),
    "take_along_dim": lambda h: torch.take_along_dim(h, h.argsort(0), 0),
    "a permutation of values times rows": lambda h: eye(h)[h[:, 0].argsort()] @ h,
    "looked up": lambda h: F.embedding(h[:, 0].argsort(), h),
    "flip": lambda h: h.flip(0),
    "flipud": lambda h: h.flipud(),
    "roll": lambda h: h.roll(1, 0),
    "pieces exchanged": lambda h: torch.cat([h[1:], h[:1]]),
    "a reversal times rows": lambda h: eye(h).flip(0) @ h,
    "cummax": lambda h: h.cummax(0)[0],
    "cumsum": lambda h: h.cumsum(0),
    "softmax": lambda h: h.softmax(0),
    "numbers in reverse": lambda h: h[list(range(len(h)))[::-1]],
    "all but the first in reverse": lambda h: h[[0, *range(len(h) - 1, 0, -1)]],
    "shuffled by torch": lambda h: 0.7 * h + 0.3 * h[torch.randperm(len(h))],
    "shuffled by draws": lambda h: 0.7 * h + 0.3 * h[torch.rand(len(h)).argsort()],
    "shuffled by numpy": lambda h: h[np.random.default_rng(0).permutation(len(h))],
    "one of two rows": lambda h: torch.where(h[:, :1] > 0, h, h.roll(1, 0)),
    "those above zero first": lambda h: torch.cat([h[h[:, 0] > 0], h[h[:, 0] <= 0]]),
    "the last": lambda h: h[-1:].expand_as(h),
    "the first": lambda h: h - h[0],
    "the largest": lambda h: h - h.amax(0),
    "the largest of all": lambda h: h / h.abs().max(),
    "a vector of rows": lambda h: h + (h @ h[0])[:, None],
    "ranks": lambda h: h * torch.searchsorted(h[:, 0].detach().sort()[0], h[:, 0].detach())[:, None],
    "written one row on": written,
    **LATE,
}


@pytest.mark.filterwarnings("ignore:.*beta:UserWarning")
@pytest.mark.parametrize("name", TOGETHER)
def test_never_as_if_samples_were_on_their_own(name: str) -> None:
    """Whatever the batch is: with some, the first sample ranks first, or all are in order already."""
    for seed in range(4):
        torch.manual_seed(seed)
        model, batch = Moved(TOGETHER[name]).double(), 5 + seed
        x, targets = torch.randn(batch, D, dtype=torch.float64), torch.arange(batch) % CLASSES
        rows = [one_by_one(model, x[b : b + 1], targets[b : b + 1], batch) for b in range(batch)]
        try:
            found = collect(model, x, targets, needs=[GradMoments(("abs",)), GradNorms()], seed=0)
        except UserError:
            continue
        for name_, p in model.named_parameters():
            expected = torch.stack([g[name_].abs() for g in rows]).sum(0)
            torch.testing.assert_close(found[GradMoments][name_].abs, expected, msg=f"{name_} {p.shape}")


def one_by_one(model: nn.Module, x: Tensor, target: Tensor, batch: int) -> dict[str, Tensor]:
    named = dict(model.named_parameters())
    loss = F.cross_entropy(model(x), target) / batch
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    return {n: torch.zeros_like(named[n]) if g is None else g for n, g in zip(named, found, strict=True)}


IN_ORDER: dict[str, Callable[[Tensor], Tensor]] = {
    "numbers in order": lambda h: h[torch.arange(len(h))],
    "the largest feature": lambda h: h[torch.arange(len(h)), h.argmax(1)][:, None] + h,
    "order of features": lambda h: h.gather(1, h.argsort(1)),
    "sums over features": lambda h: h.cumsum(1).flip(1).roll(1, 1),
    "zeros of their dtype": lambda h: h + h.new_zeros(D) + torch.zeros_like(h[0]),
    "back again": lambda h: h.flip(0).flip(0),
    "sums of bags": lambda h: torch.zeros_like(h).index_add(
        0, torch.arange(len(h)).repeat_interleave(2), h.repeat_interleave(2, 0)
    ),
    "written in order": lambda h: torch.zeros_like(h).index_copy(0, torch.arange(len(h)), h),
    "by a mask": lambda h: h[torch.ones(len(h), dtype=torch.bool)],
}


@pytest.mark.parametrize("name", IN_ORDER)
def test_each_row_its_own(name: str) -> None:
    torch.manual_seed(0)
    model, batch = Moved(IN_ORDER[name]).double(), 6
    x, targets = torch.randn(batch, D, dtype=torch.float64), torch.arange(batch) % CLASSES
    rows = [one_by_one(model, x[b : b + 1], targets[b : b + 1], batch) for b in range(batch)]
    found = collect(model, x, targets, needs=[GradMoments(("abs",)), GradNorms()])
    for key in rows[0]:
        each = torch.stack([g[key] for g in rows])
        torch.testing.assert_close(found[GradMoments][key].abs, each.abs().sum(0))
        torch.testing.assert_close(found[GradNorms][key], each.flatten(1).square().sum(1))


class Across(nn.Module):
    """A last layer that takes the samples of its input together, where their number is that of features."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.a = kind, nn.Linear(D, D)
        self.layer: nn.Module = {
            "linear": nn.Linear(D, D), "layer_norm": nn.LayerNorm(D), "conv": nn.Conv1d(D, D, 1),
            "group_norm": nn.GroupNorm(2, D), "batch_norm": nn.BatchNorm1d(D),
        }[kind]  # fmt: skip
        self.matrix = nn.Parameter(torch.randn(D, D))

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.a(x)).t()
        h = self.layer(h[:, :, None] if self.kind == "conv" else h).flatten(1)
        return h @ self.matrix


@pytest.mark.parametrize("kind", ["linear", "layer_norm", "conv", "group_norm", "batch_norm"])
def test_layers_that_take_samples_together_are_refused(kind: str) -> None:
    torch.manual_seed(0)
    model, x = Across(kind).double(), torch.randn(D, D, dtype=torch.float64)
    with pytest.raises(UserError):
        collect(model, x, x, lambda y, t: (y * t).square().sum(), needs=[GradMoments(("abs",))])


@pytest.mark.parametrize("matrices", [True, False])
def test_a_product_with_a_vector_takes_a_dimension_away(matrices: bool) -> None:
    x, w = torch.randn(3, 3, 4, 4), torch.randn(4, 4) if matrices else torch.randn(4)
    places: Any = [(x, Layout(1))]
    for func, args in ((torch.matmul, (x, w)), (torch.matmul, (w, x))):
        found = propagate(func, args, {}, places, func(*args))
        assert isinstance(found, Layout if matrices else Unknown)
