"""Calls without a rule as one node: gradients of each sample group by torch.func.

Backward runs the call once more for the gradient of its inputs, and then, in chunks of groups that keep
memory bounded, for the gradients of its parameters group by group. Their sum is compared with the ordinary
gradient, so a call whose samples depend on each other is found out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils import _pytree

from pynas import ops
from pynas._errors import UserError
from pynas._generators import states
from pynas.stats._calls import Delivery, unshared
from pynas.stats._collector import Use
from pynas.stats._grouped_product import GroupedProduct, Source, gradients, requiring_grad
from pynas.stats._layout import Layout, Unknown, Where
from pynas.stats._snapshot import version

if TYPE_CHECKING:
    from pynas.stats._call_recorder import CallRecorder


@dataclass
class GroupedCall:
    """One call whose parameters' gradients are taken group by group.

    Attributes:
        name: For messages: ``"layer 'encoder'"``.
        call: ``call(parameters or None, *args, **kwargs)``.
        uses: To whom each parameter's gradient goes, by key.
        parameters: Their values, by key.
        recorder: Of the pass.
        inputs: Where the samples of each tensor among the arguments are.
        outputs: Where those of each output are.
        whole: It is the whole model, which alone gets its inputs and may write into them.
    """

    name: str
    call: Callable[..., Any]
    uses: Mapping[str, Use]
    parameters: Mapping[str, Tensor]
    recorder: CallRecorder
    flat: list[Any]
    spec: Any
    inputs: list[Where] = field(default_factory=list)
    outputs: list[Where] = field(default_factory=list)
    output_spec: Any = None
    tensor_outputs: list[bool] = field(default_factory=list)
    whole: bool = False
    shapes: list[torch.Size] = field(default_factory=list)
    positions: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.positions = [i for i, v in enumerate(self.flat) if isinstance(v, Tensor)]
        # Autograd keeps the inputs; a second reference here would outlive its release.
        self.flat = [None if isinstance(v, Tensor) else v for v in self.flat]

    def run(self, tensors: Sequence[Tensor], parameters: Mapping[str, Tensor] | None = None) -> list[Tensor]:
        """The outputs, flat; with other values for the parameters if given."""
        flat = list(self.flat)
        for position, tensor in zip(self.positions, tensors, strict=True):
            flat[position] = tensor.clone() if self.whole else tensor
        args, kwargs = _pytree.tree_unflatten(flat, self.spec)
        with ops.StridedConvolutions():
            result = self.call(parameters, *args, **kwargs)
        outputs, self.output_spec = _pytree.tree_flatten(result)
        self.tensor_outputs = [isinstance(y, Tensor) for y in outputs]
        return outputs

    def again(self, tensors: Sequence[Tensor], parameters: Mapping[str, Tensor]) -> list[Tensor]:
        """The outputs once more; an error where a second run of the same is another."""
        shapes = self.shapes
        try:
            outputs = self.run(tensors, parameters)
        except (RuntimeError, ValueError, LookupError, TypeError) as error:
            raise UserError(
                f"model: {self.name} does not run a second time on the same input, as where it keeps "
                f"something from one call for the next: {type(error).__name__}: {error}"
            ) from error
        if [y.shape for y in outputs if isinstance(y, Tensor)] != shapes:
            raise UserError(f"model: a second run of {self.name} on the same input has another result")
        return outputs

    def apply(self, tensors: Sequence[Tensor]) -> Any:
        """The result of the call, as one node."""
        outputs = _Grouped.apply(self.recorder.anchor, self, *tensors)  # type: ignore[no-untyped-call]
        return _pytree.tree_unflatten(list(outputs), self.output_spec)


class _Grouped(torch.autograd.Function):
    """Forward and backward of a whole call; the gradients of its parameters go to the collector."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, layer: GroupedCall, *tensors: Tensor) -> tuple[Any, ...]:
        before, versions = states(), [version(t) for t in tensors]
        outputs = layer.run(tensors)
        if versions != [version(t) for t in tensors]:
            raise UserError(
                f"model: {layer.name} writes into its input, so it cannot be run again for each sample; let "
                "it write into a tensor of its own"
            )
        if before != states():
            raise UserError(
                f"model: random numbers are drawn by {layer.name} in forward, so it cannot be run again for "
                "each sample; put it in eval mode first"
            )
        layer.shapes = [y.shape for y in outputs if isinstance(y, Tensor)]
        ctx.layer = layer
        ctx.save_for_backward(*tensors)
        ctx.set_materialize_grads(False)
        # Nothing that goes out is a view or an argument: the model may change it in place.
        return tuple(_own(y, tensors) if isinstance(y, Tensor) else y for y in outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        layer: GroupedCall = ctx.layer
        tensors: tuple[Tensor, ...] = ctx.saved_tensors
        parameters = {k: p for k, p in layer.parameters.items() if k in layer.uses}
        wanted = [
            (t.is_floating_point() or t.is_complex()) and need
            for t, need in zip(tensors, ctx.needs_input_grad[2:], strict=True)
        ]
        with requiring_grad(parameters) as leaves, torch.enable_grad():
            xs = [t.detach().requires_grad_(w) for t, w in zip(tensors, wanted, strict=True)]
            found = gradients(
                layer.again(xs, leaves),
                grads,
                [*leaves.values(), *(x for x, w in zip(xs, wanted, strict=True) if w)],
            )
        totals = dict(zip(parameters, found[: len(parameters)], strict=True))
        rest = iter(found[len(parameters) :])
        source = Source(layer, parameters, tensors, grads, totals)
        for key, use in layer.uses.items():
            layer.recorder.collector.deliver(use, GroupedProduct(source, key))
        return None, None, *(next(rest) if w else None for w in wanted)


def _own(y: Tensor, tensors: Sequence[Tensor]) -> Tensor:
    if any(y is t for t in tensors):
        return y.clone()
    return unshared(y)


def run_operator(
    recorder: CallRecorder,
    func: Callable[..., Any],
    name: str,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    asked: Mapping[int, Delivery],
    places: Sequence[Where],
) -> Any:
    """Run an operator that mixes samples with tensors computed from parameters as one node.

    Where the samples of an argument or output are nowhere in particular, that becomes a problem of the
    recorder's, and the operator runs as it is.
    """
    flat, spec = _pytree.tree_flatten((args, dict(kwargs)))
    used = {id(v): v for v in flat if isinstance(v, Tensor) and id(v) in asked}
    keys = {i: f"p{n}" for n, i in enumerate(used)}
    slots = [keys.get(id(v)) if isinstance(v, Tensor) else None for v in flat]
    tensors = [v for v, key in zip(flat, slots, strict=True) if isinstance(v, Tensor) and key is None]
    inputs: list[Where] = [recorder.where(t) for t in tensors]
    lost = [w.why for w in (*inputs, *places) if isinstance(w, Unknown)]
    if not any(isinstance(w, Layout) for w in places):
        lost.append("has no dimension that counts the samples")
    if not any(isinstance(w, Layout) for w in inputs):
        lost.append("is laid out over the samples by an operator that pynas does not know")
    if lost or (name.endswith("_") and not name.endswith("__")):
        why = f"with a tensor that {lost[0]}" if lost else "in place"
        recorder.problem(list(used.values()), f"is used by {name} {why}")
        args, kwargs = _pytree.tree_map_only(
            Tensor, lambda t: t.detach() if id(t) in used else t, (args, dict(kwargs))
        )
        return func(*args, **kwargs)
    values = {keys[i]: v.detach() for i, v in used.items()}

    def call(parameters: Mapping[str, Tensor] | None, *leaves: Any) -> Any:
        rest = iter(leaves)
        chosen = values if parameters is None else parameters
        args, kwargs = _pytree.tree_unflatten(
            [chosen[slot] if slot is not None else next(rest) for slot in slots], spec
        )
        return func(*args, **kwargs)

    others = [v for v, slot in zip(flat, slots, strict=True) if slot is None]
    leaves, leaf_spec = _pytree.tree_flatten((tuple(others), {}))
    layer = GroupedCall(
        f"operator {name}", call, {keys[i]: asked[i].use for i in used}, values, recorder, leaves, leaf_spec,
        inputs, list(places),
    )  # fmt: skip
    return layer.apply(tensors)
