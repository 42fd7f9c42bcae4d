"""Layers without a rule: gradients of each sample group by torch.func, for just these layers.

The layer runs as one autograd node. Its backward runs the layer once more for the gradient of its inputs,
and then, in chunks of groups that keep memory bounded, for the gradients of its parameters group by group.
Their sum is compared with the ordinary gradient, so a layer whose samples depend on each other is found out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils import _pytree

from pynas import ops
from pynas._errors import UserError
from pynas.stats import _products
from pynas.stats._call_recorder import CallRecorder
from pynas.stats._collector import Use
from pynas.stats._products import GradientProduct

TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-2}  # relative; half precisions get 0.2


@contextmanager
def installed(recorder: CallRecorder, names: Sequence[str]) -> Iterator[None]:
    """Run the named layers of the model as recorded wholes while the context lasts."""
    with ExitStack() as stack:
        for name in names:
            module = recorder.model.get_submodule(name)
            original = module.forward
            had = "forward" in module.__dict__
            module.__dict__["forward"] = _wrapper(recorder, name, module, original)
            stack.callback(
                module.__dict__.__setitem__ if had else module.__dict__.pop,
                *(("forward", original) if had else ("forward",)),
            )
        yield


def _wrapper(
    recorder: CallRecorder, name: str, module: nn.Module, original: Callable[..., Any]
) -> Callable[..., Any]:
    def forward(*args: Any, **kwargs: Any) -> Any:
        with torch._C.DisableTorchFunction():
            uses = {}
            for key, parameter in module.named_parameters():
                use = recorder.collector.use(type(module).__name__, parameter, None, matrix=False)
                if use is not None:
                    uses[key] = use
            flat, spec = _pytree.tree_flatten((args, kwargs))
            layer = _Layer(name, module, original, uses, recorder, flat, spec)
            tensors = [flat[i] for i in layer.positions]
            outputs = _Fallback.apply(recorder.anchor, layer, *tensors)  # type: ignore[no-untyped-call]
            return _pytree.tree_unflatten(list(outputs), layer.output_spec)

    return forward


@dataclass
class _Layer:
    """One call of a layer under fallback."""

    name: str
    module: nn.Module
    original: Callable[..., Any]
    uses: Mapping[str, Use]
    recorder: CallRecorder
    flat: list[Any]
    spec: Any
    output_spec: Any = None
    positions: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.positions = [i for i, v in enumerate(self.flat) if isinstance(v, Tensor)]
        # Autograd keeps the inputs; a second reference here would outlive its release.
        self.flat = [None if isinstance(v, Tensor) else v for v in self.flat]

    def run(self, tensors: Sequence[Tensor], parameters: Mapping[str, Tensor] | None = None) -> list[Tensor]:
        """The layer's outputs, flat; with other values for its parameters if given."""
        flat = list(self.flat)
        for position, tensor in zip(self.positions, tensors, strict=True):
            flat[position] = tensor
        args, kwargs = _pytree.tree_unflatten(flat, self.spec)
        with ops.StridedConvolutions():
            if parameters is None:
                result = self.original(*args, **kwargs)
            else:
                result = torch.func.functional_call(self.module, dict(parameters), args, kwargs)
        outputs, self.output_spec = _pytree.tree_flatten(result)
        if not all(isinstance(y, Tensor) for y in outputs):
            raise UserError(f"fallback: layer {self.name!r} returns something that is not a tensor")
        return outputs

    def sample_dim(self, t: Tensor) -> int | None:
        """Which dimension counts samples: by the layer's own ``batch_first``, else by its size."""
        batch = self.recorder.batch
        first = 1 if getattr(self.module, "batch_first", None) is False else 0
        for dim in (first, *range(t.dim())):
            if dim < t.dim() and t.shape[dim] == batch:
                return int(dim)
        return None


class _Fallback(torch.autograd.Function):
    """Forward and backward of a whole layer; the gradients of its parameters go to the collector."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, layer: _Layer, *tensors: Tensor) -> tuple[Tensor, ...]:
        before = torch.get_rng_state()
        outputs = layer.run(tensors)
        if not torch.equal(before, torch.get_rng_state()):
            raise UserError(
                f"fallback: layer {layer.name!r} draws random numbers in forward; put it in eval mode first"
            )
        if any(isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training for m in layer.module.modules()):
            raise UserError(f"fallback: layer {layer.name!r} contains batch norm, which couples samples")
        ctx.layer = layer
        ctx.save_for_backward(*tensors)
        return tuple(y.clone() if any(y is t for t in tensors) else y for y in outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        layer: _Layer = ctx.layer
        tensors: tuple[Tensor, ...] = ctx.saved_tensors
        parameters = {k: p for k, p in layer.module.named_parameters() if k in layer.uses}
        wanted = [
            t.is_floating_point() and need for t, need in zip(tensors, ctx.needs_input_grad[2:], strict=True)
        ]
        with _requiring_grad(parameters.values()), torch.enable_grad():
            xs = [t.detach().requires_grad_(w) for t, w in zip(tensors, wanted, strict=True)]
            found = _gradients(
                layer.run(xs),
                grads,
                [*parameters.values(), *(x for x, w in zip(xs, wanted, strict=True) if w)],
            )
        weights = dict(zip(parameters, found[: len(parameters)], strict=True))
        rest = iter(found[len(parameters) :])
        source = _Source(layer, parameters, tensors, grads, weights)
        for key, use in layer.uses.items():
            layer.recorder.collector.deliver(use, FallbackProduct(source, key))
        return None, None, *(next(rest) if w else None for w in wanted)


def _gradients(outputs: Sequence[Tensor], grads: Sequence[Tensor], of: Sequence[Tensor]) -> list[Tensor]:
    pairs = [(y, g) for y, g in zip(outputs, grads, strict=True) if y.requires_grad and g is not None]
    if not pairs or not of:
        return [torch.zeros_like(t) for t in of]
    ys, gs = zip(*pairs, strict=True)
    found = torch.autograd.grad(ys, of, gs, allow_unused=True)
    return [torch.zeros_like(t) if g is None else g for g, t in zip(found, of, strict=True)]


@contextmanager
def _requiring_grad(parameters: Any) -> Iterator[None]:
    flags = [(p, p.requires_grad) for p in parameters]
    try:
        for p, _ in flags:
            p.requires_grad_(True)
        yield
    finally:
        for p, flag in flags:
            p.requires_grad_(flag)


@dataclass
class _Source:
    """Factors of a layer's gradients: its inputs and output gradients; rows are formed on demand."""

    layer: _Layer
    parameters: Mapping[str, Tensor]
    tensors: Sequence[Tensor]
    grads: Sequence[Tensor]
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
        for start in range(0, groups, length):
            rows = self._rows(start, min(length, groups - start), group_size)
            if length == groups:
                self.cache[group_size] = [rows]
            for key, value in rows.items():
                part = value.sum(0)
                sums[key] = sums[key] + part if key in sums else part
            yield rows
        self._verify(sums)

    def _cut(self, t: Tensor, start: int, length: int) -> Tensor:
        dim = self.layer.sample_dim(t)
        return t if dim is None else t.narrow(dim, start, length)

    def _rows(self, start: int, groups: int, size: int) -> dict[str, Tensor]:
        if self.batched:
            try:
                rows = self._vmapped(start, groups, size)
                if groups * size == self.layer.recorder.batch:
                    self._verify({k: v.sum(0) for k, v in rows.items()})
                return rows
            except (RuntimeError, UserError, UserWarning):
                # Operators without a batching rule (recurrent layers among them): group by group through
                # autograd.
                self.batched = False
        return self._looped(start, groups, size)

    def _vmapped(self, start: int, groups: int, size: int) -> dict[str, Tensor]:
        dims = [self.layer.sample_dim(t) for t in (*self.tensors, *self.grads)]

        def grouped(t: Tensor, dim: int | None) -> Tensor:
            return (
                t
                if dim is None
                else torch.unflatten(t.narrow(dim, start * size, groups * size), dim, (groups, size))
            )

        values = [grouped(t, d) for t, d in zip((*self.tensors, *self.grads), dims, strict=True)]
        n = len(self.tensors)

        def inner(parameters: Mapping[str, Tensor], *values: Tensor) -> Tensor:
            outputs = self.layer.run(values[:n], parameters)
            return torch.stack([(y * g).sum() for y, g in zip(outputs, values[n:], strict=True)]).sum()

        frozen = {k: p.detach() for k, p in self.parameters.items()}
        rows = torch.func.vmap(torch.func.grad(inner), in_dims=(None, *dims))(frozen, *values)
        return dict(rows)

    def _looped(self, start: int, groups: int, size: int) -> dict[str, Tensor]:
        rows: dict[str, list[Tensor]] = {key: [] for key in self.parameters}
        with _requiring_grad(self.parameters.values()), torch.enable_grad():
            for g in range(start, start + groups):
                xs = [self._cut(t, g * size, size) for t in self.tensors]
                grads = [self._cut(t, g * size, size) for t in self.grads]
                found = _gradients(self.layer.run(xs), grads, list(self.parameters.values()))
                for key, value in zip(rows, found, strict=True):
                    rows[key].append(value)
        return {key: torch.stack(values) for key, values in rows.items()}

    def _verify(self, sums: Mapping[str, Tensor]) -> None:
        for key, total in sums.items():
            expected = self.totals[key]
            scale = expected.abs().max().clamp_min(torch.finfo(expected.dtype).tiny)
            if (total - expected).abs().max() > TOLERANCE.get(expected.dtype, 0.2) * scale:
                raise UserError(
                    f"fallback: gradients of layer {self.layer.name!r} by sample do not add up to it "
                    f"({key!r}): samples depend on each other, or its inputs have no clear sample dimension"
                )


@dataclass(frozen=True)
class FallbackProduct(GradientProduct):
    """One parameter of a layer under fallback."""

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
