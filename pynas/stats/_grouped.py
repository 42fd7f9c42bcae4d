"""Calls without a rule as one node: gradients of each sample group by torch.func.

Backward runs the call once more for the gradient of its inputs, and then, in chunks of groups that keep
memory bounded, for the gradients of its parameters group by group. Their sum is compared with the ordinary
gradient, so a call whose samples depend on each other is found out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils import _pytree

from pynas import ops
from pynas._errors import UserError
from pynas.stats import _products
from pynas.stats._calls import Delivery, unshared
from pynas.stats._collector import Use
from pynas.stats._generators import states
from pynas.stats._layout import Layout, Unknown, Where
from pynas.stats._products import GradientProduct
from pynas.stats._snapshot import version

if TYPE_CHECKING:
    from pynas.stats._call_recorder import CallRecorder

TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-2}  # relative; half precisions get 0.2


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
        with _requiring_grad(parameters) as leaves, torch.enable_grad():
            xs = [t.detach().requires_grad_(w) for t, w in zip(tensors, wanted, strict=True)]
            found = _gradients(
                layer.again(xs, leaves),
                grads,
                [*leaves.values(), *(x for x, w in zip(xs, wanted, strict=True) if w)],
            )
        totals = dict(zip(parameters, found[: len(parameters)], strict=True))
        rest = iter(found[len(parameters) :])
        source = _Source(layer, parameters, tensors, grads, totals)
        for key, use in layer.uses.items():
            layer.recorder.collector.deliver(use, GroupedProduct(source, key))
        return None, None, *(next(rest) if w else None for w in wanted)


def _own(y: Tensor, tensors: Sequence[Tensor]) -> Tensor:
    if any(y is t for t in tensors):
        return y.clone()
    return unshared(y)


def _gradients(outputs: Sequence[Any], grads: Sequence[Tensor | None], of: Sequence[Tensor]) -> list[Tensor]:
    pairs = [
        (y, g)
        for y, g in zip(outputs, grads, strict=True)
        if isinstance(y, Tensor) and y.requires_grad and g is not None
    ]
    if not pairs or not of:
        return [torch.zeros_like(t) for t in of]
    ys, gs = zip(*pairs, strict=True)
    found = torch.autograd.grad(ys, of, gs, allow_unused=True)
    return [torch.zeros_like(t) if g is None else g for g, t in zip(found, of, strict=True)]


def _inner(y: Tensor, g: Tensor) -> Tensor:
    return (y.real * g.real + y.imag * g.imag).sum() if y.is_complex() else (y * g).sum()


@contextmanager
def _requiring_grad(parameters: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """The same values as leaves of their own."""
    yield {k: p.detach().requires_grad_() for k, p in parameters.items()}


@dataclass
class _Source:
    """Factors of a call's gradients: its inputs and output gradients; rows are formed on demand."""

    layer: GroupedCall
    parameters: Mapping[str, Tensor]
    tensors: Sequence[Tensor]
    grads: Sequence[Tensor | None]
    totals: Mapping[str, Tensor]
    cache: dict[int, list[dict[str, Tensor]]] = field(default_factory=dict)
    batched: bool = True

    def chunks(self, group_size: int) -> Iterator[dict[str, Tensor]]:
        """Gradients by sample group of all parameters, a few groups at a time."""
        if group_size in self.cache:
            yield from self.cache[group_size]
            return
        groups = self.layer.recorder.batch // group_size
        row = sum(p.numel() * p.element_size() for p in self.parameters.values())
        length = max(1, min(groups, _products.ROW_BYTES // max(row, 1)))
        sums: dict[str, Tensor] = {}
        sizes: dict[str, Tensor] = {}
        for start in range(0, groups, length):
            rows = self._rows(start, min(length, groups - start), group_size)
            if length == groups:
                self.cache[group_size] = [rows]
            for key, value in rows.items():
                part, size = value.sum(0), value.abs().amax()
                sums[key] = sums[key] + part if key in sums else part
                sizes[key] = torch.maximum(sizes[key], size) if key in sizes else size
            yield rows
        self._verify(sums, sizes)

    def _rows(self, start: int, groups: int, size: int) -> dict[str, Tensor]:
        if self.batched:
            try:
                rows = self._vmapped(start, groups, size)
                if groups * size == self.layer.recorder.batch:
                    self._verify(
                        {k: v.sum(0) for k, v in rows.items()}, {k: v.abs().amax() for k, v in rows.items()}
                    )
                return rows
            except MemoryError:
                raise
            except Exception:
                # Operators without a batching rule (recurrent layers among them): group by group through
                # autograd.
                self.batched = False
        return self._looped(start, groups, size)

    def _places(self) -> tuple[list[Where], list[Where]]:
        """Where the samples are of the tensors that go in, and of everything that comes out."""
        places = iter(self.layer.outputs)
        return list(self.layer.inputs), [next(places) if t else None for t in self.layer.tensor_outputs]

    def _vmapped(self, start: int, groups: int, size: int) -> dict[str, Tensor]:
        inputs, outputs = self._places()
        live = [(i, g, w) for i, (g, w) in enumerate(zip(self.grads, outputs, strict=True)) if g is not None]
        values = [*self.tensors, *(g for _, g, _ in live)]
        places = [*inputs, *(w for _, _, w in live)]
        dims = [w.dim if isinstance(w, Layout) else None for w in places]
        parts = [
            w.split(t, start, groups, size) if isinstance(w, Layout) else t
            for t, w in zip(values, places, strict=True)
        ]
        n = len(self.tensors)

        def inner(parameters: Mapping[str, Tensor], *values: Tensor) -> Tensor:
            ys = self.layer.run(values[:n], parameters)
            products = [
                _inner(ys[i], g)
                for (i, _, _), g in zip(live, values[n:], strict=True)
                if ys[i].is_floating_point() or ys[i].is_complex()
            ]
            return torch.stack(products).sum()

        frozen = {k: p.detach() for k, p in self.parameters.items()}
        rows = torch.func.vmap(torch.func.grad(inner), in_dims=(None, *dims))(frozen, *parts)
        return dict(rows)

    def _looped(self, start: int, groups: int, size: int) -> dict[str, Tensor]:
        rows: dict[str, list[Tensor]] = {key: [] for key in self.parameters}
        inputs, outputs = self._places()

        def cut(t: Tensor, where: Where, g: int) -> Tensor:
            return where.split(t, g, 1, size).squeeze(where.dim) if isinstance(where, Layout) else t

        for g in range(start, start + groups):
            xs = [cut(t, w, g) for t, w in zip(self.tensors, inputs, strict=True)]
            grads = [None if t is None else cut(t, w, g) for t, w in zip(self.grads, outputs, strict=True)]
            try:
                with _requiring_grad(self.parameters) as leaves, torch.enable_grad():
                    found = _gradients(self.layer.run(xs, leaves), grads, list(leaves.values()))
            except (RuntimeError, ValueError, LookupError, TypeError) as error:
                raise UserError(
                    f"model: {self.layer.name} does not run on the part of its input that belongs to one "
                    f"sample: "
                    f"{type(error).__name__}: {error}"
                ) from error
            for key, value in zip(rows, found, strict=True):
                rows[key].append(value)
        return {key: torch.stack(values) for key, values in rows.items()}

    def _verify(self, sums: Mapping[str, Tensor], sizes: Mapping[str, Tensor]) -> None:
        for key, total in sums.items():
            expected = self.totals[key]
            # A whole gradient of zero (a bias before a batch norm) is a sum of samples' that are not.
            scale = torch.maximum(expected.abs().max(), sizes[key]).clamp_min(
                torch.finfo(expected.dtype).tiny
            )
            if (total - expected).abs().max() > TOLERANCE.get(expected.dtype, 0.2) * scale:
                raise UserError(
                    f"model: gradients of {self.layer.name} by sample do not add up to it ({key!r}): "
                    "samples depend on each other there"
                )


@dataclass(frozen=True)
class GroupedProduct(GradientProduct):
    """One parameter of a call that runs as one node."""

    source: _Source
    key: str

    @property
    def batch(self) -> int:
        return self.source.layer.recorder.batch

    def narrow(self, start: int, length: int) -> GradientProduct:
        raise NotImplementedError

    def gradient(self) -> Tensor:
        return self.source.totals[self.key]

    def bias_rows(self, group_size: int) -> Tensor:
        raise NotImplementedError

    def rows(self, group_size: int) -> Iterator[Tensor]:
        for chunk in self.source.chunks(group_size):
            yield chunk[self.key]


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
