"""Nodes of NAS-Bench-201 cells as a probing pass runs them: for channels_last images on the CPU."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pynas import ops
from pynas.stats._collector import Collector, Use
from pynas.stats._conv_products import Conv2dProduct, Geometry
from pynas.stats._products import AffineProduct
from pynas.stats._second_order import Passes

CHANNELS_LAST = torch.channels_last
POOL: dict[str, Any] = {"stride": 1, "padding": 1, "count_include_pad": False}


@dataclass(frozen=True)
class Convolution:
    """``BN(conv(relu(x)))`` on an edge."""

    weight: Tensor
    scale: Tensor
    shift: Tensor
    eps: float
    use: Use | None
    norm_use: Use | None

    @property
    def size(self) -> int:
        """1 or 3."""
        return self.weight.shape[-1]

    def forward(self, x: Tensor, relu: bool = True) -> Tensor:
        """The convolution before its batch norm; of x itself without ``relu``."""
        return (ops.conv3x3 if self.size == 3 else ops.conv1x1)(x, self.weight, relu)

    def input_grad(self, grad: Tensor, x: Tensor, addend: Tensor | None) -> Tensor:
        """dL/dx plus ``addend``."""
        backward = ops.conv3x3_backward_input if self.size == 3 else ops.conv1x1_backward_input
        return backward(grad, self.weight, x, True, addend)

    def deliver(
        self, collector: Collector, grad: Tensor, x: Tensor, z: Tensor, passes: Passes | None
    ) -> None:
        """Hand over the factors of the weight's gradient, and what the output ``z`` contributes.

        The gradient itself goes to ``passes``, which will be differentiated along it.
        """
        if self.use is not None:
            pair = (self.size, self.size)
            pads = (self.size // 2, self.size // 2)
            geometry = Geometry(pair, (1, 1), pads, (1, 1), 1)
            product = Conv2dProduct(grad, x, geometry, self.weight.shape, relu=True)
            collector.deliver(self.use, product)
            if passes is not None:
                assert isinstance(self.use.weight, str)
                passes.add_gradient(self.use.weight, product.gradient())
            if collector.wants_saliency:
                collector.deliver_saliency(self.use, (z * grad).sum((2, 3)))


@dataclass(frozen=True)
class Node:
    """x_t = sum of its edges, by source node."""

    convolutions: list[tuple[int, Convolution]]
    pools: list[int]
    skips: list[int]


@dataclass
class Saved:
    """What a node's backward pass reads beside the sources: z_k = conv_k(relu(x_s)), their statistics.

    Statistics are [K, C], or K tensors [groups, C] where groups of samples are normalised each by itself.
    """

    products: list[Tensor]
    groups: int = 1
    mean: Tensor | list[Tensor] = field(default_factory=list)
    rstd: Tensor | list[Tensor] = field(default_factory=list)
    var: Tensor | None = None  # biased; of the batch


def run_nodes(
    nodes: dict[int, Node], x: Tensor, groups: int = 1
) -> tuple[dict[int, Tensor], dict[int, Saved]]:
    """Values of all nodes, and what backward needs."""
    values, saved, pooled = {0: x}, {}, {}
    for target, node in nodes.items():
        saved[target] = Saved([c.forward(values[s]) for s, c in node.convolutions], groups)
        for s in node.pools:
            if s not in pooled:
                pooled[s] = ops.avg_pool2d(values[s], 3, **POOL)
        direct = [*(pooled[s] for s in node.pools), *(values[s] for s in node.skips)]
        terms = [*saved[target].products, *direct]
        if not terms:  # of "none" edges only
            values[target] = torch.zeros_like(x)
            continue
        if len(terms) == 1 and not node.convolutions:
            values[target] = terms[0]
            continue
        count = len(node.convolutions)
        if groups > 1 and count:
            values[target] = _normalised_by_group(node, saved[target], direct)
            continue
        y, mean, rstd, var = torch.ops.pynas.normalized_sum.default(
            terms, torch.ones(len(terms)), 2**count - 1, *_affine(node), [], [], True, _eps(node)
        )
        values[target] = y
        if count:
            saved[target].mean, saved[target].rstd, saved[target].var = (t[:count] for t in (mean, rstd, var))
    return values, saved


def _normalised_by_group(node: Node, saved: Saved, direct: list[Tensor]) -> Tensor:
    """A node's value from its products and the terms that are added as they are."""
    parts = [
        ops.batch_norm(z, c.scale, c.shift, c.eps, saved.groups)
        for z, (_, c) in zip(saved.products, node.convolutions, strict=True)
    ]
    saved.mean, saved.rstd = [part[1] for part in parts], [part[2] for part in parts]
    total = parts[0][0]
    for term in (*(part[0] for part in parts[1:]), *direct):
        total.add_(term)
    return total


def node_gradients(
    node: Node, saved: Saved, values: dict[int, Tensor], grad: Tensor, grads: dict[int, Tensor],
    collector: Collector, retain: bool, passes: Passes | None = None,
) -> list[Tensor]:  # fmt: skip
    """Add the gradients of a node's sources to ``grads``, and deliver those of its weights.

    Returns the gradients at the outputs of its convolutions.
    """
    add_direct(node, grad, grads)
    count = len(node.convolutions)
    if not count:
        return []
    products = norm_gradients(node, saved, grad)
    keeps = collector.wants_saliency or any(c.norm_use for _, c in node.convolutions)
    outputs = list(saved.products if keeps else products)
    if not retain:
        saved.products.clear()
    for i, (s, convolution) in enumerate(node.convolutions):
        product, z = products[i], outputs[i]
        convolution.deliver(collector, product, values[s], z, passes)
        if convolution.norm_use is not None:
            size = z.shape[0] // saved.groups if saved.groups > 1 else 1  # one row of statistics per sample
            means, rstds = (
                t[i].view(saved.groups, -1, 1).repeat_interleave(size, 0) for t in (saved.mean, saved.rstd)
            )
            affine = AffineProduct(grad.flatten(2), z.flatten(2), means, rstds, z.shape[1:2])
            collector.deliver(convolution.norm_use, affine)
        grads[s] = convolution.input_grad(product, values[s], grads.get(s))
    return products


def add_direct(node: Node, grad: Tensor, grads: dict[int, Tensor]) -> None:
    """Add what a node's pools and skips give their sources to ``grads``."""

    def add(source: int, gradient: Tensor) -> None:
        grads[source] = grads[source] + gradient if source in grads else gradient

    for s in node.skips:
        add(s, grad)
    if node.pools:
        pooled = ops.avg_pool2d_backward(grad, grad, 3, **POOL)
        for s in node.pools:
            add(s, pooled)


def norm_gradients(node: Node, saved: Saved, grad: Tensor) -> list[Tensor]:
    """Gradients before a node's batch norms, whose statistics are of the batch or of a group of samples."""
    if saved.groups > 1:
        return [
            ops.batch_norm_backward(grad, z, c.scale, mean, rstd)
            for z, (_, c), mean, rstd in zip(
                saved.products, node.convolutions, saved.mean, saved.rstd, strict=True
            )
        ]
    count = len(node.convolutions)
    mask = 2**count - 1
    found: list[Tensor] = torch.ops.pynas.normalized_sum_backward.default(
        grad, saved.products, torch.ones(count), mask, *_affine(node), saved.mean, saved.rstd, True,
        _eps(node), mask,
    )[3]  # fmt: skip
    return found


def _eps(node: Node) -> float:
    return node.convolutions[0][1].eps if node.convolutions else 1e-5


def _affine(node: Node) -> tuple[list[Tensor], int, list[Tensor], int]:
    mask = 2 ** len(node.convolutions) - 1
    return [c.scale for _, c in node.convolutions], mask, [c.shift for _, c in node.convolutions], mask
