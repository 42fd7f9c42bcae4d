"""Gathers the gradient products of one pass and feeds complete ones to the statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

import pynas._C as _C
from pynas.stats._base import ParameterInfo, Statistic
from pynas.stats._combine import combine
from pynas.stats._products import GradientProduct, RowsProduct
from pynas.stats.gradients import Gradients

# Results of this size, and so much of activations freed since, are worth giving free memory back for.
HELD_BYTES = 32 << 20
FREED_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Use:
    """One call that used a weight and perhaps a bias, by parameter name."""

    weight: str | None
    bias: str | None
    matrix: bool


class Collector:
    """Counts the uses of each parameter in forward; observes it in backward once all of them have arrived.

    A parameter that one call uses is observed at once and its factors are let go. For one that several
    calls use, the factors of all calls are kept until the last, because |.| and squares come after the sum.

    Args:
        needs: The statistics to feed.
        group_size: Consecutive samples that form one group.
        names: Trainable parameters, name by identity.
        matrices: Names of parameters that count as weights however they are used (a tied embedding).
        results: Values by statistic and name; kept from pass to pass.
    """

    def __init__(
        self,
        needs: Sequence[Statistic[Any]],
        group_size: int,
        names: Mapping[int, str],
        matrices: frozenset[str],
        results: Mapping[type[Statistic[Any]], dict[str, Any]],
    ) -> None:
        weights = [s for s in needs if s.watches == "weights"]
        # Whole gradients last: where the samples' have been formed, they are a sum of those.
        self.needs = sorted(weights, key=lambda s: isinstance(s, Gradients))
        self.salient = [s for s in needs if s.watches == "saliency"]
        self.curved = any(s.watches == "curvature" for s in needs)
        self.gradient_of = "loss"  # what the backward pass that runs is of
        self.group_size = group_size
        self.names = names
        self.matrices = matrices
        self.results = results
        self.seen: dict[str, ParameterInfo] = {}
        self._matrix: dict[str, bool] = {}
        self._uses: dict[str, int] = {}
        self._pending: dict[str, list[GradientProduct]] = {}
        self._held = self._freed = 0

    def use(self, operator: str, weight: Tensor | None, bias: Tensor | None, matrix: bool) -> Use | None:
        """Note a call in forward; None when no statistic asks for its parameters."""
        wanted_weight = self._note(operator, weight, matrix)
        wanted_bias = self._note(operator, bias, matrix=False)
        if wanted_weight is None and wanted_bias is None:
            return None
        return Use(wanted_weight, wanted_bias, matrix)

    def deliver(self, use: Use, product: GradientProduct) -> None:
        """Take a call's product in backward."""
        weight, bias = use.weight, use.bias
        if (weight is None or self._uses[weight] == 1) and (bias is None or self._uses[bias] == 1):
            self._observe(product, weight, bias)
            return
        if weight is not None:
            self._collect(weight, product)
        if bias is not None:
            self._collect(bias, RowsProduct(product.bias_rows(self.group_size), self.group_size))

    @property
    def wants_saliency(self) -> bool:
        """Whether outputs are to be kept for :meth:`deliver_saliency`, which the running pass calls."""
        return any(s.gradient_of == self.gradient_of for s in self.salient)

    def deliver_saliency(self, use: Use, saliency: Tensor) -> None:
        """Take sum_t y_bkt dL/dy_bkt of a call, [B, K]."""
        if use.weight is not None:
            for statistic in self.salient:
                if statistic.gradient_of == self.gradient_of:
                    statistic.observe_saliency(use.weight, saliency, self.results[type(statistic)])

    def flush(self) -> None:
        """After backward: parameters some of whose uses the loss does not depend on are complete now."""
        for name in list(self._pending):
            self._observe(combine(self._pending.pop(name)), name, None)

    def _note(self, operator: str, parameter: Tensor | None, matrix: bool) -> str | None:
        name = None if parameter is None else self.names.get(id(parameter))
        if name is None or parameter is None:
            return None
        matrix = matrix or name in self.matrices
        if not any(s.wants(matrix) for s in self.needs) and not (matrix and (self.salient or self.curved)):
            return None
        self._uses[name] = self._uses.get(name, 0) + 1
        self._matrix[name] = self._matrix.get(name, False) or matrix
        self.seen[name] = ParameterInfo(
            name, name.rpartition(".")[0], operator, parameter.shape, self._uses[name]
        )
        return name

    def _collect(self, name: str, product: GradientProduct) -> None:
        parts = self._pending.setdefault(name, [])
        parts.append(product)
        if len(parts) == self._uses[name]:
            self._observe(combine(self._pending.pop(name)), name, None)

    def _observe(self, product: GradientProduct, weight: str | None, bias: str | None) -> None:
        for statistic in self.needs:
            if statistic.gradient_of != self.gradient_of:
                continue
            w = weight if weight is not None and statistic.wants(self._matrix[weight]) else None
            b = bias if bias is not None and statistic.wants(self._matrix[bias]) else None
            if w is not None or b is not None:
                results = self.results[type(statistic)]
                statistic.observe(product, w, b, self.group_size, results)
                self._held += sum(_tensor_bytes(results.get(name)) for name in (w, b) if name is not None)
        self._freed += _tensor_bytes(product)
        if self._held > HELD_BYTES and self._freed > FREED_BYTES:
            # Results grow while activations go, but in pieces that the allocator cannot use for them: without
            # this a large network's peak would be both together. It costs a few percent of such a pass.
            _C.release_free_memory()
            self._freed = 0


def _tensor_bytes(value: Any) -> int:
    """Bytes of a tensor, or of all those in a value's attributes."""
    if isinstance(value, Tensor):
        return value.nbytes if value.device.type == "cpu" else 0
    names = getattr(value, "__slots__", None) or getattr(value, "__dict__", {})
    return sum(_tensor_bytes(t) for t in (getattr(value, n) for n in names) if isinstance(t, Tensor))
