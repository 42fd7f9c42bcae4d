"""NAS-Bench-201 cells in a probing pass: whole nodes at a time, for channels_last images on the CPU.

Module by module, half of a pass goes into reading and writing activations between the convolutions. Here ReLU
is part of the convolution that reads it, forward and backward; the batch norms and the sum of a node are one
operator; and a gradient is added to others of the same node where it is computed. Whatever differs from what
these networks are made of runs module by module.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from pynas import ops
from pynas.nn.candidates import AvgPool, ReLUConvBN, Zero
from pynas.stats._collector import Collector, Use
from pynas.stats._products import AffineProduct, Conv2dProduct, Geometry
from pynas.stats._rules import RULES

if TYPE_CHECKING:
    from pynas.spaces._nasbench201_network import Cell
    from pynas.stats._probe import Probe

WIDEST = 256  # channels; beyond, products outweigh what is saved here
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

    def forward(self, x: Tensor) -> Tensor:
        """The convolution before its batch norm."""
        return (ops.conv3x3 if self.size == 3 else ops.conv1x1)(x, self.weight, True)

    def input_grad(self, grad: Tensor, x: Tensor, addend: Tensor | None) -> Tensor:
        """dL/dx plus ``addend``."""
        backward = ops.conv3x3_backward_input if self.size == 3 else ops.conv1x1_backward_input
        return backward(grad, self.weight, x, True, addend)

    def deliver(self, collector: Collector, grad: Tensor, x: Tensor, z: Tensor) -> None:
        """Hand over the factors of the weight's gradient, and what the output ``z`` contributes."""
        if self.use is not None:
            pair = (self.size, self.size)
            pads = (self.size // 2, self.size // 2)
            geometry = Geometry(pair, (1, 1), pads, (1, 1), 1)
            collector.deliver(self.use, Conv2dProduct(grad, x, geometry, self.weight.shape, relu=True))
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
    """What a node's backward pass reads beside the sources: z_k = conv_k(relu(x_s)), their statistics."""

    products: list[Tensor]
    mean: Tensor | None = None
    rstd: Tensor | None = None


def run_nodes(nodes: dict[int, Node], x: Tensor) -> tuple[dict[int, Tensor], dict[int, Saved]]:
    """Values of all nodes, and what backward needs."""
    values, saved, pooled = {0: x}, {}, {}
    for target, node in nodes.items():
        saved[target] = Saved([c.forward(values[s]) for s, c in node.convolutions])
        for s in node.pools:
            if s not in pooled:
                pooled[s] = ops.avg_pool2d(values[s], 3, **POOL)
        terms = [*saved[target].products, *(pooled[s] for s in node.pools), *(values[s] for s in node.skips)]
        if not terms:  # of "none" edges only
            values[target] = torch.zeros_like(x)
            continue
        if len(terms) == 1 and not node.convolutions:
            values[target] = terms[0]
            continue
        count = len(node.convolutions)
        y, mean, rstd, _ = torch.ops.pynas.normalized_sum.default(
            terms, torch.ones(len(terms)), 2**count - 1, *_affine(node), [], [], True, _eps(node)
        )
        values[target] = y
        if count:
            saved[target].mean, saved[target].rstd = mean[:count], rstd[:count]
    return values, saved


def node_gradients(
    node: Node, saved: Saved, values: dict[int, Tensor], grad: Tensor, grads: dict[int, Tensor],
    collector: Collector, retain: bool,
) -> None:  # fmt: skip
    """Add the gradients of a node's sources to ``grads``, and deliver those of its weights."""

    def add(source: int, gradient: Tensor) -> None:
        grads[source] = grads[source] + gradient if source in grads else gradient

    for s in node.skips:
        add(s, grad)
    if node.pools:
        pooled = ops.avg_pool2d_backward(grad, grad, 3, **POOL)
        for s in node.pools:
            add(s, pooled)
    count = len(node.convolutions)
    if not count:
        return
    mask = 2**count - 1
    products = torch.ops.pynas.normalized_sum_backward.default(
        grad, saved.products, torch.ones(count), mask, *_affine(node), saved.mean, saved.rstd, True,
        _eps(node), mask,
    )[3]  # fmt: skip
    keeps = collector.wants_saliency or any(c.norm_use for _, c in node.convolutions)
    outputs = list(saved.products if keeps else products)
    if not retain:
        saved.products.clear()
    for i, (s, convolution) in enumerate(node.convolutions):
        product, z = products[i], outputs[i]
        convolution.deliver(collector, product, values[s], z)
        if convolution.norm_use is not None:
            assert saved.mean is not None
            assert saved.rstd is not None
            means, rstds = (t[i].view(1, -1, 1) for t in (saved.mean, saved.rstd))
            affine = AffineProduct(grad.flatten(2), z.flatten(2), means, rstds, z.shape[1:2])
            collector.deliver(convolution.norm_use, affine)
        grads[s] = convolution.input_grad(product, values[s], grads.get(s))


def _eps(node: Node) -> float:
    return node.convolutions[0][1].eps if node.convolutions else 1e-5


def _affine(node: Node) -> tuple[list[Tensor], int, list[Tensor], int]:
    mask = 2 ** len(node.convolutions) - 1
    return [c.scale for _, c in node.convolutions], mask, [c.shift for _, c in node.convolutions], mask


class _FusedCell(torch.autograd.Function):
    """A cell whose weights' gradients go to the collector; ``anchor`` requires one, so that it runs."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, x: Tensor, nodes: dict[int, Node], probe: Probe) -> Tensor:
        values, ctx.saved = run_nodes(nodes, x)
        for source, reads in Counter(s for node in nodes.values() for s, _ in node.convolutions).items():
            probe.saw_relu(values[source], reads)
        ctx.nodes, ctx.probe = nodes, probe
        last = values.pop(3)
        ctx.inner = {t: v for t, v in values.items() if t > 0}
        ctx.save_for_backward(x)
        return last.view_as(last) if last is x else last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, None, None]:
        (x,) = ctx.saved_tensors
        values, probe = {0: x, **ctx.inner}, ctx.probe
        grads = {3: grad.contiguous(memory_format=CHANNELS_LAST)}
        for target in sorted(ctx.nodes, reverse=True):
            if target in grads:
                node_gradients(
                    ctx.nodes[target], ctx.saved[target], values, grads.pop(target), grads, probe.collector,
                    probe.retain,
                )  # fmt: skip
            if not probe.retain:
                values.pop(target, None)
                ctx.inner.pop(target, None)
                ctx.saved.pop(target)
        return None, grads[0], None, None


def cell_rule(probe: Probe, func: Callable[..., Any], x: Tensor, cell: Cell) -> Tensor:
    """How a probe runs a cell: whole nodes where it can, else module by module."""
    if not (_fits_probe(probe) and _fits(cell, x)):
        with probe:
            return cell.by_module(x)
    nodes: dict[int, Node] = {}
    for key, source, target in cell.edges:
        node = nodes.setdefault(target, Node([], [], []))
        module = cell.layers[key]
        if isinstance(module, nn.Identity):
            node.skips.append(source)
            continue
        if isinstance(module, Zero):
            continue
        op = cast(nn.Sequential, module.op)
        if isinstance(op, nn.AvgPool2d):
            node.pools.append(source)
            continue
        convolution, norm = cast(nn.Conv2d, op[1]), cast(nn.BatchNorm2d, op[2])
        probe.shapes.append(x.shape)
        use = probe.collector.use("conv2d", convolution.weight, None, True)
        probe.shapes.append(x.shape)
        norm_use = probe.collector.use("batch_norm", norm.weight, norm.bias, False)
        weight, scale, shift = (t.detach() for t in (convolution.weight, norm.weight, norm.bias))
        node.convolutions.append((source, Convolution(weight, scale, shift, norm.eps, use, norm_use)))
    ordered = {target: nodes[target] for target in sorted(nodes)}
    return cast(Tensor, _FusedCell.apply(probe.anchor, x, ordered, probe))  # type: ignore[no-untyped-call]


def _fits_probe(probe: Probe) -> bool:
    plain = probe.fuses and probe.batch_norm == "batch"
    return plain and not probe.watching and not probe.few_shapes


def _fits(cell: Cell, x: Tensor) -> bool:
    """Only live edges, a convolution's channels a multiple of a vector's, and modules nobody has changed.

    Without gradients dead edges may be there too; zeros of what is not finite count as zeros then.
    """
    if torch.is_grad_enabled() and not x.requires_grad:
        return False
    if torch.is_autocast_enabled("cpu") or not ops.supports_batch_norm(x):
        return False
    if x.dim() != 4 or x.shape[1] % 16 or x.shape[1] > WIDEST or not any(t == 3 for _, _, t in cell.edges):
        return False
    reached = {0, *(target for _, _, target in cell.edges)}
    if any(source not in reached for _, source, _ in cell.edges):
        return False
    for module in cell.layers.values():
        if type(module) is ReLUConvBN:
            convolution, norm = cast(nn.Conv2d, module.op[1]), cast(nn.BatchNorm2d, module.op[2])
            weight = convolution.weight
            if weight.dtype != x.dtype or convolution.bias is not None:
                return False
            if not norm.affine or norm.weight.dtype != torch.float32:
                return False
        elif type(module) is Zero:
            if torch.is_grad_enabled() or module.stride != 1:
                return False
        elif type(module) not in (AvgPool, nn.Identity):
            return False
    return not any(_hooked(m) for m in cell.layers.modules())


def _hooked(module: nn.Module) -> bool:
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or "forward" in module.__dict__
    )


def register(func: Callable[..., Any]) -> None:
    """Let probes run calls of ``func(x, cell)`` by :func:`cell_rule`."""
    RULES[func] = cell_rule
