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
from pynas.stats._collector import Use
from pynas.stats._layout import Layout
from pynas.stats._second_order import SecondOrderRecorder
from pynas.stats.nasbench201.nodes import (
    CHANNELS_LAST,
    Convolution,
    Node,
    Saved,
    node_gradients,
    run_nodes,
)
from pynas.stats.nasbench201.second_order import SecondOrderCell

if TYPE_CHECKING:
    from pynas.nn.nasbench201_cell import Cell
    from pynas.stats._call_recorder import CallRecorder

WIDEST = 256  # channels; beyond, products outweigh what is saved here


class _FusedCell(torch.autograd.Function):
    """A cell whose weights' gradients go to the collector; ``anchor`` requires one, so that it runs."""

    @staticmethod
    def forward(
        ctx: Any, anchor: Tensor, x: Tensor, nodes: dict[int, Node], recorder: CallRecorder
    ) -> Tensor:
        groups = recorder.num_groups if recorder.batch_norm == "group" else 1
        values, ctx.saved = run_nodes(nodes, x, groups)
        for value in values.values():
            recorder.marks.sample(value, Layout(0))
        for source, reads in Counter(s for node in nodes.values() for s, _ in node.convolutions).items():
            recorder.saw_relu(values[source], reads)
        ctx.nodes, ctx.recorder = nodes, recorder
        last = values.pop(3)
        ctx.inner = {t: v for t, v in values.items() if t > 0}
        ctx.save_for_backward(x)
        return last.view_as(last) if last is x else last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, None, None]:
        (x,) = ctx.saved_tensors
        values, recorder = {0: x, **ctx.inner}, ctx.recorder
        grads = {3: grad.contiguous(memory_format=CHANNELS_LAST)}
        for target in sorted(ctx.nodes, reverse=True):
            if target in grads:
                node, saved, of_node = ctx.nodes[target], ctx.saved[target], grads.pop(target)
                node_gradients(node, saved, values, of_node, grads, recorder.collector, recorder.retain)
            if not recorder.retain:
                values.pop(target, None)
                ctx.inner.pop(target, None)
                ctx.saved.pop(target)
        return None, grads[0], None, None


def cell_rule(recorder: CallRecorder, func: Callable[..., Any], x: Tensor, cell: Cell) -> Tensor:
    """How a recorder runs a cell: whole nodes where it can, else module by module."""
    if not (_fits_recorder(recorder, x) and _fits(cell, x)):
        with recorder:
            return cell.by_module(x)

    def use(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Use | None, Use | None]:
        return (
            recorder.collector.use("conv2d", convolution.weight, None, True),
            recorder.collector.use("batch_norm", norm.weight, norm.bias, False),
        )

    ordered = _nodes_of(cell, use)
    if isinstance(recorder, SecondOrderRecorder):
        y, _ = SecondOrderCell.apply(recorder.anchor, x, ordered, recorder)  # type: ignore[no-untyped-call]
        return cast(Tensor, y)
    return cast(Tensor, _FusedCell.apply(recorder.anchor, x, ordered, recorder))  # type: ignore[no-untyped-call]


def _nodes_of(
    cell: Cell, use: Callable[[nn.Conv2d, nn.BatchNorm2d], tuple[Use | None, Use | None]]
) -> dict[int, Node]:
    """The nodes of a cell, in order; ``use`` says to whom gradients of a convolution and its norm go."""
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
        weight, scale, shift = (t.detach() for t in (convolution.weight, norm.weight, norm.bias))
        made = Convolution(weight, scale, shift, norm.eps, *use(convolution, norm))
        node.convolutions.append((source, made))
    return {target: nodes[target] for target in sorted(nodes)}


def forward_cell(x: Tensor, cell: Cell) -> Tensor | None:
    """``cell(x)`` in train mode without gradients, batch norms' tracked statistics brought up to date.

    None where a cell does not run by whole nodes.
    """
    norms: list[nn.BatchNorm2d] = []

    def note(_: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[None, None]:
        norms.append(norm)
        return None, None

    if torch.is_grad_enabled() or not _fits(cell, x) or x.shape[0] * x.shape[2] * x.shape[3] < 2:
        return None
    nodes = _nodes_of(cell, note)
    if not all(n.training and n.track_running_stats and n.momentum is not None for n in norms):
        return None
    values, saved = run_nodes(nodes, x)
    of_edge = iter(norms)  # in the order of the cell's edges, which is that of its nodes
    for target, node in nodes.items():
        for i in range(len(node.convolutions)):
            _track(next(of_edge), saved[target], i, x.numel() // x.shape[1])
    return values[3]


def _track(norm: nn.BatchNorm2d, saved: Saved, i: int, values: int) -> None:
    """What the batch norm of a node's i-th convolution notes of ``values`` values a channel."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    assert norm.momentum is not None
    assert saved.var is not None
    norm.num_batches_tracked.add_(1)
    norm.running_mean.lerp_(saved.mean[i], norm.momentum)
    norm.running_var.lerp_(saved.var[i] * (values / (values - 1)), norm.momentum)


def _fits_recorder(recorder: CallRecorder, x: Tensor) -> bool:
    # Where the samples have been measured, calls are counted as modules make them.
    if (
        recorder.batch_norm == "frozen"
        or recorder.measured is not None
        or recorder.log is not None
        or x.dim() != 4
    ):
        return False
    if recorder.where(x) != Layout(0):
        return False
    groups = recorder.num_groups if recorder.batch_norm == "group" else 1
    return x.shape[0] == recorder.batch and x.shape[0] * x.shape[2] * x.shape[3] >= 2 * groups


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
