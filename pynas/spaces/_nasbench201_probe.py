"""NAS-Bench-201 cells in a probing pass: whole nodes at a time, for channels_last images on the CPU.

Module by module, half of a pass goes into reading and writing activations between the convolutions. Here ReLU
is part of the convolution that reads it, forward and backward; the batch norms and the sum of a node are one
operator; and a gradient is added to others of the same node where it is computed. Whatever differs from what
these networks are made of runs module by module.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from pynas import ops
from pynas.nn.candidates import AvgPool, ReLUConvBN, Zero
from pynas.spaces._nasbench201_nodes import (
    CHANNELS_LAST,
    Convolution,
    Node,
    node_gradients,
    run_nodes,
)
from pynas.spaces._nasbench201_twice import TwiceCell
from pynas.stats._rules import RULES
from pynas.stats._twice import TwiceProbe

if TYPE_CHECKING:
    from pynas.spaces._nasbench201_network import Cell
    from pynas.stats._probe import Probe

WIDEST = 256  # channels; beyond, products outweigh what is saved here


class _FusedCell(torch.autograd.Function):
    """A cell whose weights' gradients go to the collector; ``anchor`` requires one, so that it runs."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, x: Tensor, nodes: dict[int, Node], probe: Probe) -> Tensor:
        groups = probe.num_groups if probe.batch_norm == "group" else 1
        values, ctx.saved = run_nodes(nodes, x, groups)
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
    if not (_fits_probe(probe, x) and _fits(cell, x)):
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
    if isinstance(probe, TwiceProbe):
        y, _ = TwiceCell.apply(probe.anchor, x, ordered, probe)  # type: ignore[no-untyped-call]
        return cast(Tensor, y)
    return cast(Tensor, _FusedCell.apply(probe.anchor, x, ordered, probe))  # type: ignore[no-untyped-call]


def _fits_probe(probe: Probe, x: Tensor) -> bool:
    if probe.batch_norm == "frozen" or probe.watching or probe.few_shapes or x.dim() != 4:
        return False
    groups = probe.num_groups if probe.batch_norm == "group" else 1
    return x.shape[0] == probe.batch and x.shape[0] * x.shape[2] * x.shape[3] >= 2 * groups


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
