"""Gradients of a call that runs as one node, by sample groups: through torch.func, or group by group."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pynas._errors import UserError
from pynas.stats import _products
from pynas.stats._layout import Layout, Where
from pynas.stats._products import GradientProduct

if TYPE_CHECKING:
    from pynas.stats._grouped import GroupedCall

TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-2}  # relative; half precisions get 0.2


def gradients(outputs: Sequence[Any], grads: Sequence[Tensor | None], of: Sequence[Tensor]) -> list[Tensor]:
    """Gradients of these outputs, zero where there are none."""
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
def requiring_grad(parameters: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """The same values as leaves of their own."""
    yield {k: p.detach().requires_grad_() for k, p in parameters.items()}


@dataclass
class Source:
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
                with requiring_grad(self.parameters) as leaves, torch.enable_grad():
                    found = gradients(self.layer.run(xs, leaves), grads, list(leaves.values()))
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

    source: Source
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
