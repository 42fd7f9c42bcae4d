"""NAS-Bench-201 cells in a pass that is differentiated twice: whole nodes at a time there too.

With t an adjoint that comes back through the first backward pass (from the images on, like a tangent), and
h one that comes back through the forward pass after it, for z = W r(x) between a ReLU and a batch norm N:
    z' = W (1[x > 0] t) + G r(x)                t_out = (dN/dz)^T z'
    dz' = (dN/dz)^T h + (d/dz <z', (dN/dz)^T g>)  h_in = 1[x > 0] (W^T dz' + G^T dz)
    sum W (H G) = <dz, W (1[x > 0] t)> + <dz', z>
with g, dz = (dN/dz)^T g and G the gradients that the loss pass found. Those are four products with weights.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pynas import ops
from pynas.stats._layout import Layout
from pynas.stats._second_order import Passes, SecondOrderRecorder
from pynas.stats.nasbench201.nodes import (
    CHANNELS_LAST,
    POOL,
    Convolution,
    Node,
    Saved,
    add_direct,
    node_gradients,
    norm_gradients,
    run_nodes,
)


@dataclass
class _State:
    """What the passes of a cell hand on. Nothing here knows autograd's graph, which knows this."""

    nodes: dict[int, Node]
    recorder: SecondOrderRecorder
    inner: dict[int, Tensor]
    saved: dict[int, Saved]
    grads: dict[int, Tensor] = field(default_factory=dict)  # g of each node
    products: dict[int, list[Tensor]] = field(default_factory=dict)  # dz of its convolutions
    second: dict[int, list[Tensor]] = field(default_factory=dict)  # d/dz <z', (dN/dz)^T g>

    def backward(self, x: Tensor, grad: Tensor, passes: Passes | None) -> Tensor:
        """dL/dx; for ``passes`` with what a second differentiation reads."""
        values, collector = {0: x, **self.inner}, self.recorder.collector
        grads = {3: grad.contiguous(memory_format=CHANNELS_LAST)}
        for target in sorted(self.nodes, reverse=True):
            if target not in grads:
                continue
            node, of_node = self.nodes[target], grads.pop(target)
            products = node_gradients(
                node, self.saved[target], values, of_node, grads, collector, True, passes
            )
            if passes is not None:
                self.grads[target], self.products[target] = of_node, products
        return grads[0]

    def along(self, x: Tensor, adjoint: Tensor) -> Tensor:
        """The t of the output from that of the input."""
        values, passes = {0: x, **self.inner}, self.recorder.passes
        found = {0: adjoint.contiguous(memory_format=CHANNELS_LAST)}
        masked: dict[int, Tensor] = {}
        for target, node in self.nodes.items():
            if target not in self.grads:
                continue
            saved, grad, seconds = self.saved[target], self.grads.pop(target), []
            sums: list[Tensor] = []
            for i, (s, convolution) in enumerate(node.convolutions):
                if s not in masked:
                    masked[s] = torch.ops.aten.threshold_backward(found[s], values[s], 0)
                z = convolution.forward(masked[s], relu=False)
                passes.add(_name(convolution), z, self.products[target][i])
                z.add_(_with_gradient(convolution, passes).forward(values[s]))
                of_grad, of_z = ops.batch_norm_double_backward(
                    z, grad, saved.products[i], convolution.scale, saved.mean[i], saved.rstd[i]
                )
                sums.append(of_grad)
                seconds.append(of_z)
            self.second[target] = seconds
            sums += [ops.avg_pool2d(found[s], 3, **POOL) for s in node.pools]
            own = len(sums)
            sums += [found[s] for s in node.skips]
            total = sums[0]
            for term in sums[1:]:
                total = total.add_(term) if own else total + term
                own = 1
            found[target] = total
        return found[3]

    def again(self, x: Tensor, adjoint: Tensor | None) -> Tensor:
        """The h of the input from that of the output, after :meth:`along`."""
        values, passes = {0: x, **self.inner}, self.recorder.passes
        last = torch.zeros_like(x) if adjoint is None else adjoint.contiguous(memory_format=CHANNELS_LAST)
        found = {3: last}
        for target in sorted(self.nodes, reverse=True):
            if target not in found:
                continue
            node, saved, grad = self.nodes[target], self.saved.pop(target), found.pop(target)
            add_direct(node, grad, found)
            if not node.convolutions:
                continue
            seconds, products = self.second.pop(target, []), self.products.pop(target, [])
            for i, of_z in enumerate(norm_gradients(node, saved, grad)):
                s, convolution = node.convolutions[i]
                if seconds:
                    of_z.add_(seconds[i])
                passes.add(_name(convolution), of_z, saved.products[i])
                found[s] = convolution.input_grad(of_z, values[s], found.get(s))
                if products:
                    along = _with_gradient(convolution, passes)
                    found[s] = along.input_grad(products[i], values[s], found[s])
        return found[0]


def _name(convolution: Convolution) -> str:
    assert convolution.use is not None
    assert isinstance(convolution.use.weight, str)
    return convolution.use.weight


def _with_gradient(convolution: Convolution, passes: Passes) -> Convolution:
    """The convolution by the gradient of its weight."""
    return replace(convolution, weight=passes.gradients[_name(convolution)])


class SecondOrderCell(torch.autograd.Function):
    """A cell and a token, which makes autograd come here last of all in the second differentiation."""

    @staticmethod
    def forward(
        ctx: Any, anchor: Tensor, x: Tensor, nodes: dict[int, Node], recorder: SecondOrderRecorder
    ) -> tuple[Tensor, Tensor]:
        """The cell's output ``[N, C, H, W]``, and the token ``[]``."""
        values, saved = run_nodes(nodes, x)
        for value in values.values():
            recorder.marks.sample(value, Layout(0))
        for source, reads in Counter(s for node in nodes.values() for s, _ in node.convolutions).items():
            recorder.saw_relu(values[source], reads)
        last, token = values.pop(3), x.new_zeros(())
        ctx.state = _State(nodes, recorder, {t: v for t, v in values.items() if t > 0}, saved)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, token)
        return last.view_as(last) if last is x else last, token

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, _: Tensor | None) -> tuple[None, Tensor | None, None, None]:
        """The gradient of x as a node of the graph that the second differentiation follows."""
        x, token = ctx.saved_tensors
        state: _State = ctx.state
        passes = state.recorder.passes
        if passes.second:
            return None, state.again(x, grad), None, None
        if grad is None:
            return None, None, None, None
        if not torch.is_grad_enabled():  # the pass of the outputs, which is differentiated once
            return None, state.backward(x, grad, None), None, None
        dx, root = _Gradient.apply(grad, token, x.detach(), state)  # type: ignore[no-untyped-call]
        passes.roots.append(root)
        return None, dx, None, None


class _Gradient(torch.autograd.Function):
    """dL/dx of a cell from dL/dy; and sum_k <g_k, G_k> over its weights, differentiated only."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, token: Tensor, x: Tensor, state: _State) -> tuple[Tensor, Tensor]:
        ctx.state = state
        ctx.save_for_backward(x)
        return state.backward(x, grad.detach(), state.recorder.passes), x.new_zeros(())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, adjoint: Tensor, _: Tensor) -> tuple[Tensor, Tensor, None, None]:
        (x,) = ctx.saved_tensors
        return ctx.state.along(x, adjoint), x.new_zeros(()), None, None
