# ruff: noqa: E501 - one block a line
"""Random networks: blocks of every kind one after another, batches that often equal an inner dimension."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.zoo import random_blocks, random_features, random_images, random_tokens
from tests.zoo.networks import CLASSES, Network, cross_entropy, energy, labels, tokens, values
from tests.zoo.random_parts import BLOCKS, Block, Choose, Shape, weight

__all__ = ["random_blocks", "random_features", "random_images", "random_network", "random_tokens"]
LARGEST = 400  # values of a sample inside
STARTS: dict[str, Shape] = {
    "features": (6,), "tokens": (4, 6), "square": (4, 4), "images": (3, 4, 4), "wide": (2, 6, 4), "clips": (2, 3, 4, 4), "words": (5,),
}  # fmt: skip


class Chain(nn.Module):
    """Blocks, then a head; what comes out is a tensor, a tuple or a dictionary."""

    def __init__(self, blocks: list[nn.Module], head: nn.Module, form: str) -> None:
        super().__init__()
        self.blocks, self.head, self.form = nn.ModuleList(blocks), head, form

    def forward(self, x: Tensor) -> Any:
        for layer in self.blocks:
            x = layer(x)
        y = self.head(x)
        return {"tensor": y, "tuple": (y, None), "dictionary": {"logits": y, "last": x}}[self.form]


def random_network(choose: Choose[Any], mixing: bool = False) -> Network:
    """A random network, with one batch size.

    Args:
        choose: Takes one of a sequence.
        mixing: Put a layer among the others in which samples depend on each other.
    """
    torch.manual_seed(choose(range(4)))
    start = choose(tuple(STARTS))
    shape = STARTS[start]
    blocks: list[nn.Module] = []
    sizes = {*shape}
    if start == "words":
        first, shape = _embedded(choose)
        blocks.append(first)
    count = choose((1, 2, 3, 4, 5))
    mixed = choose(range(count)) if mixing else -1
    for i in range(count):
        makers = BLOCKS[len(shape)]
        layer, after = makers[choose(sorted(makers))](choose, shape)
        if torch.Size(after).numel() > LARGEST:
            continue
        blocks.append(layer)
        sizes |= {*after}
        shape = after
        if i == mixed:
            blocks.append(_mixing(choose))
    return _finished(choose, blocks, shape, start, sizes)


def _finished(
    choose: Choose[Any], blocks: list[nn.Module], shape: Shape, start: str, sizes: set[int]
) -> Network:
    n = torch.Size(shape).numel()
    head = nn.Sequential(nn.Flatten(), nn.Linear(n, CLASSES)) if choose((True, True, False)) else nn.Flatten()
    classified = isinstance(head, nn.Sequential) and choose((True, False))
    # A class of its own: pynas remembers classes whose samples had to be measured.
    model = type("Chain", (Chain,), {})(blocks, head, choose(("tensor", "tensor", "tuple", "dictionary")))
    if not any(p.requires_grad for p in model.parameters()):
        model.head = nn.Sequential(nn.Flatten(), nn.Linear(n, CLASSES))
    batch = choose(sorted({s for s in sizes if 1 < s < 10} | {2, 3, 5}))
    inputs = tokens(7, 5) if start == "words" else values(*STARTS[start])
    loss = cross_entropy if classified else energy
    return Network(
        "random", "random", lambda: model, inputs, labels if classified else None, loss, (batch,),
        tolerance=1e-9,
    )  # fmt: skip


def _embedded(choose: Choose[Any]) -> tuple[nn.Module, Shape]:
    """Words become vectors."""
    d = choose((4, 5))
    make = choose((
        lambda: nn.Embedding(7, d), lambda: nn.Embedding(7, d, padding_idx=0),
        lambda: Block(lambda k, x: F.embedding(x, k.a @ k.b), a=weight(7, 2), b=weight(2, d)),
        lambda: Block(lambda k, x: F.one_hot(x, 7).double() @ k.w, w=weight(7, d)),
        lambda: Block(lambda k, x: k.w[x], w=weight(7, d)),
        lambda: Block(lambda k, x: k.w.index_select(0, x.flatten()).view(*x.shape, d), w=weight(7, d)),
        lambda: Block(lambda k, x: k.e(x) + k.p(torch.arange(5)), e=nn.Embedding(7, d), p=nn.Embedding(5, d)),
        lambda: Block(lambda k, x: k.e(x) + k.p(torch.arange(5)[None].expand_as(x)), e=nn.Embedding(7, d), p=nn.Embedding(5, d)),
        lambda: Block(lambda k, x: k.e(x) @ k.e.weight.T @ k.e.weight, e=nn.Embedding(7, d)),
    ))  # fmt: skip
    return make(), (5, d)


def _mixing(choose: Choose[Any]) -> nn.Module:
    """Samples look at each other."""
    f = choose((
        lambda x: x - x.mean(0), lambda x: x + x.roll(1, 0), lambda x: x * x.flip(0),
        lambda x: x.softmax(0), lambda x: x + x.cumsum(0), lambda x: x / (x.square().sum() + 1).sqrt(),
        lambda x: (x.flatten(1) @ x.flatten(1).T).softmax(-1) @ x.flatten(1) + 0 * x.flatten(1) if x.dim() == 2 else x + x.amax(0),
        lambda x: torch.cat([x[1:], x[:1]]) + x,
        lambda x: x + x[torch.arange(len(x) - 1, -1, -1)], lambda x: x + x[:1], lambda x: x - x.sort(0)[0],
        lambda x: x + x.std(0, unbiased=False),
    ))  # fmt: skip
    return Block(lambda k, x: f(x))
