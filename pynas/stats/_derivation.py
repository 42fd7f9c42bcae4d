"""Tensors computed from parameters alone, and how gradients of them come back to the parameters.

A weight of weight norm, a low-rank update, a mask, a transposed or sliced table: whatever a model computes
from its parameters without samples is linear in each sample's gradient g_b, so g_b of a parameter is the
vector-Jacobian product of the computation with g_b of what it yields. Only the rows of a few samples are held
at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pynas import ops
from pynas.stats import _products, per_sample
from pynas.stats._products import GradientProduct


@dataclass(eq=False)
class Derivation:
    """A tensor that is computed from parameters, with the graph of how.

    Attributes:
        tensor: With its history.
        names: Parameters it comes from, as in ``model.named_parameters()``.
        parameters: These, in the same order.
        rearranged: Whether its values are some of those of one parameter in another order (transposed,
            sliced, reshaped), so that sums over samples can be brought back in place of the samples' own
            gradients.
    """

    tensor: Tensor
    names: tuple[str, ...]
    parameters: tuple[Tensor, ...]
    rearranged: bool = False
    _vectorised: bool = True

    @property
    def largest(self) -> str:
        """The name of the parameter with most values, which stands for the tensor."""
        return max(zip(self.names, self.parameters, strict=True), key=lambda pair: pair[1].numel())[0]

    def pull(self, rows: Tensor) -> dict[str, Tensor]:
        """Gradients [g, *parameter] of each parameter from gradients [g, *tensor] of the tensor."""
        rows = rows.to(self.tensor.dtype).reshape(rows.shape[0], *self.tensor.shape)
        found: Sequence[Tensor | None] | None = None
        if self._vectorised and rows.shape[0] > 1:
            try:
                found = self._pulled(rows, batched=True)
            except (RuntimeError, UserWarning):  # an operator that PyTorch cannot map over rows
                self._vectorised = False
        if found is None:
            each = [self._pulled(row, batched=False) for row in rows]
            found = [
                None if parts[0] is None else torch.stack([p for p in parts if p is not None])
                for parts in zip(*each, strict=True)
            ]
        return {
            name: p.new_zeros(rows.shape[0], *p.shape) if g is None else g
            for name, p, g in zip(self.names, self.parameters, found, strict=True)
        }

    def _pulled(self, rows: Tensor, *, batched: bool) -> Sequence[Tensor | None]:
        return torch.autograd.grad(
            self.tensor, self.parameters, rows, retain_graph=True, allow_unused=True, is_grads_batched=batched
        )

    def _each_once(self) -> bool:
        """Whether every value is one of the parameter's, and no two are the same one."""
        counts = self.pull(torch.ones_like(self.tensor)[None])[self.names[0]]
        counts = (counts.real if counts.is_complex() else counts).double()
        return float(counts.sum()) == self.tensor.numel() and bool(((counts == 0) | (counts == 1)).all())

    def products(self, source: GradientProduct) -> dict[str, GradientProduct]:
        """What ``source``, of the tensor, is for each parameter."""
        if self.rearranged and self._each_once():
            return {self.names[0]: RearrangedProduct(source, self)}
        shared = _Shared(source, self)
        return {name: DerivedProduct(shared, name) for name in self.names}


@dataclass(eq=False)
class _Shared:
    """The rows that all parameters of one derivation have in common."""

    source: GradientProduct
    derivation: Derivation
    kept: dict[int, list[dict[str, Tensor]]] = field(default_factory=dict)
    whole: dict[str, Tensor] = field(default_factory=dict)

    def rows(self, group_size: int) -> Iterator[dict[str, Tensor]]:
        """Rows of all parameters, a few sample groups at a time; kept where they are small."""
        if group_size in self.kept:
            yield from self.kept[group_size]
            return
        kept: list[dict[str, Tensor]] | None = []
        for chunk in self.source.rows(group_size):
            found = self.derivation.pull(chunk)
            if kept is not None:
                kept.append(found)
                if sum(t.nbytes for part in kept for t in part.values()) > _products.ROW_BYTES:
                    kept = None
            yield found
        if kept is not None and len(self.derivation.names) > 1:
            self.kept[group_size] = kept

    def gradient(self) -> dict[str, Tensor]:
        """The whole gradients."""
        if not self.whole:
            self.whole = {n: g[0] for n, g in self.derivation.pull(self.source.gradient()[None]).items()}
        return self.whole


@dataclass(frozen=True)
class DerivedProduct(GradientProduct):
    """One parameter of a derivation."""

    shared: _Shared
    name: str

    @property
    def batch(self) -> int:
        return self.shared.source.batch

    def narrow(self, start: int, length: int) -> DerivedProduct:
        return DerivedProduct(
            _Shared(self.shared.source.narrow(start, length), self.shared.derivation), self.name
        )

    def gradient(self) -> Tensor:
        return self.shared.gradient()[self.name]

    def bias_rows(self, group_size: int) -> Tensor:
        raise NotImplementedError("biases are derived on their own")

    def rows(self, group_size: int) -> Iterator[Tensor]:
        for chunk in self.shared.rows(group_size):
            yield chunk[self.name]


@dataclass(frozen=True)
class RearrangedProduct(GradientProduct):
    """A parameter whose values were moved about: sums are taken where they are, then moved back."""

    source: GradientProduct
    derivation: Derivation

    @property
    def batch(self) -> int:
        return self.source.batch

    def narrow(self, start: int, length: int) -> RearrangedProduct:
        return RearrangedProduct(self.source.narrow(start, length), self.derivation)

    def gradient(self) -> Tensor:
        return self._back(self.source.gradient())

    def bias_rows(self, group_size: int) -> Tensor:
        raise NotImplementedError("biases are derived on their own")

    def rows(self, group_size: int) -> Iterator[Tensor]:
        for chunk in self.source.rows(group_size):
            yield self.derivation.pull(chunk)[self.derivation.names[0]]

    def moments(self, moments: Sequence[str], group_size: int, *, bias: bool) -> ops.MomentSums:
        found = self.source.moments(moments, group_size, bias=False).weight
        return ops.MomentSums(per_sample.map_moments(found, self._back), None)

    def norms(self, group_size: int) -> Tensor:
        return self.source.norms(group_size)

    def gram(self, group_size: int) -> Tensor:
        return self.source.gram(group_size)

    def _back(self, values: Tensor) -> Tensor:
        d = self.derivation
        if values.dtype == d.tensor.dtype:
            return d.pull(values[None])[d.names[0]][0]
        # Sums of half-precision gradients are float32: send each value's place back in their stead.
        return _moved(d, values)


def _moved(d: Derivation, values: Tensor) -> Tensor:
    """``values`` at their places in the parameter, zero elsewhere, whatever the precision of the model is.

    Places are found bit by bit, by sending back ones from where a place has that bit.
    """
    places = torch.arange(d.tensor.numel(), device=values.device)
    found = torch.zeros(d.parameters[0].shape, dtype=torch.int64, device=values.device)

    def back(flags: Tensor) -> Tensor:
        rows = flags.to(d.tensor.dtype).reshape(1, *d.tensor.shape)
        return d.pull(rows)[d.names[0]][0] != 0

    for bit in range(max(d.tensor.numel() - 1, 1).bit_length()):
        found |= back(places >> bit & 1).long() << bit
    return torch.where(back(torch.ones_like(places)), values.reshape(-1)[found], values.new_zeros(()))
