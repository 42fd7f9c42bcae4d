"""Gathers the gradient products of one pass and feeds complete ones to the statistics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

import pynas._C as _C
from pynas._errors import UserError
from pynas.stats._base import ParameterInfo, Statistic
from pynas.stats._combine import combine
from pynas.stats._derivation import Derivation
from pynas.stats._products import GradientProduct, RowsProduct
from pynas.stats._zero_product import ZeroProduct
from pynas.stats.gradients import Gradients

# Results of this size, and so much of activations freed since, are worth giving free memory back for.
HELD_BYTES = 32 << 20
FREED_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Use:
    """One call that used a weight and perhaps a bias: parameters by name, or what is computed from some."""

    weight: str | Derivation | None
    bias: str | Derivation | None
    matrix: bool


DIFFERENTIATES = (
    "model: its forward differentiates itself (torch.autograd.grad), which cannot be followed; pass "
    "fallback=('',) to take the gradients of the whole model group by group through torch.func (slower)"
)


class LeakError(Exception):
    """Parameters that are asked for reach the loss by a way that nobody saw."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(", ".join(names))
        self.names = tuple(names)


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

    Attributes:
        derivation: How a tensor that is no parameter is computed from some; None where it is not.
        late: Parameters that turned out to be weights after an earlier use had been passed over.
        missed: Parameters that reach the loss by a way that nobody saw.
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
        self._wants = {
            matrix: any(s.wants(matrix) for s in weights) or (matrix and bool(self.salient or self.curved))
            for matrix in (False, True)
        }
        self.open = False  # whether the backward pass runs
        self.gradient_of = "loss"  # what the backward pass that runs is of
        self.group_size = group_size
        self.names = names
        self.matrices = matrices
        self.results = results
        self.derivation: Callable[[Tensor], Derivation | None] = lambda _: None
        self.late: set[str] = set()
        self.missed: set[str] = set()
        self._passed_over: set[str] = set()
        self.seen: dict[str, ParameterInfo] = {}
        self._matrix: dict[str, bool] = {}
        self._uses: dict[str, int] = {}
        self._pending: dict[str, list[GradientProduct]] = {}
        self._held = self._freed = 0
        self.noted: list[tuple[str, Tensor | None, Tensor | None, bool]] | None = None
        self._skipped: dict[str, int] = {}  # uses in dead parts, of which nothing arrives
        self._zero: dict[str, Tensor] = {}  # parameters whose gradient through one of these is zero
        self._observed: set[str] = set()

    def use(self, operator: str, weight: Tensor | None, bias: Tensor | None, matrix: bool) -> Use | None:
        """Note a call in forward; None when no statistic asks for its parameters."""
        if self.noted is not None:
            self.noted.append((operator, weight, bias, matrix))
        wanted_weight = self._note(operator, weight, matrix)
        wanted_bias = self._note(operator, bias, matrix=False)
        if wanted_weight is None and wanted_bias is None:
            return None
        return Use(wanted_weight, wanted_bias, matrix)

    def skipped(
        self, operator: str, weight: Tensor | None, bias: Tensor | None, matrix: bool, *, zero: bool
    ) -> None:
        """Note a call that does not run: its parameters get a gradient of zero, or (not ``zero``) none."""
        for tensor, multiplies in ((weight, matrix), (bias, False)):
            name = None if tensor is None else self.names[id(tensor)]
            if tensor is not None and name is not None and self._noted(name, operator, tensor, multiplies):
                self._skipped[name] = self._skipped.get(name, 0) + 1
                if zero:
                    self._zero[name] = tensor

    def zero(self, parameters: Iterable[Tensor]) -> None:
        """Note that these, if asked for, have a gradient of zero unless another one arrives."""
        named = {self.names[id(p)]: p for p in parameters if id(p) in self.names}
        self._zero |= {name: p for name, p in named.items() if name in self._uses}

    def zeros(self, batch: int) -> None:
        """After backward: gradients of zero of parameters in dead parts that had no other one."""
        for name, tensor in self._zero.items():
            if name not in self._observed:
                self._observe(ZeroProduct(tensor.detach(), batch), name, None)
        self._observed.clear()

    @property
    def partly(self) -> bool:
        """Whether of some parameters that were used nothing has arrived."""
        return any(not self._uses.keys() <= self.results[type(s)].keys() for s in self.needs[:1])

    def _arriving(self, name: str) -> int:
        """Of how many uses of a parameter products arrive."""
        return self._uses[name] - self._skipped.get(name, 0)

    def deliver(self, use: Use, product: GradientProduct) -> None:
        """Take a call's product in backward."""
        if not self.open:
            raise UserError(DIFFERENTIATES)
        weight, bias = use.weight, use.bias
        if self._alone(weight) and self._alone(bias):
            assert not isinstance(weight, Derivation)
            assert not isinstance(bias, Derivation)
            self._observe(product, weight, bias)
            return
        if bias is not None:
            self._hand(bias, RowsProduct(product.bias_rows(self.group_size), self.group_size))
        if weight is not None:
            self._hand(weight, product)

    def _alone(self, target: str | Derivation | None) -> bool:
        """Whether it is a parameter that no other call uses, or nothing."""
        return target is None or (isinstance(target, str) and self._arriving(target) == 1)

    def _hand(self, target: str | Derivation, product: GradientProduct) -> None:
        if isinstance(target, str):
            self._collect(target, product)
            return
        for name, part in target.products(product).items():
            self._collect(name, part)

    @property
    def wants_saliency(self) -> bool:
        """Whether outputs are to be kept for :meth:`deliver_saliency`, which the running pass calls."""
        return any(s.gradient_of == self.gradient_of for s in self.salient)

    def deliver_saliency(self, use: Use, saliency: Tensor) -> None:
        """Take sum_t y_bkt dL/dy_bkt of a call, [B, K]."""
        name = use.weight.largest if isinstance(use.weight, Derivation) else use.weight
        if name is not None:
            for statistic in self.salient:
                if statistic.gradient_of == self.gradient_of:
                    statistic.observe_saliency(name, saliency, self.results[type(statistic)])

    def flush(self) -> None:
        """After backward: parameters some of whose uses the loss does not depend on are complete now."""
        for name in list(self._pending):
            self._observe(combine(self._pending.pop(name)), name, None)

    def _note(self, operator: str, tensor: Tensor | None, matrix: bool) -> str | Derivation | None:
        if tensor is None:
            return None
        name = self.names.get(id(tensor))
        if name is not None:
            return name if self._noted(name, operator, tensor, matrix) else None
        derivation = self.derivation(tensor)
        if derivation is None:
            return None
        wanted = [
            (name, p)
            for name, p in zip(derivation.names, derivation.parameters, strict=True)
            if self._noted(name, operator, p, matrix)
        ]
        if not wanted:
            return None
        names, parameters = zip(*wanted, strict=True)
        return replace(derivation, names=names, parameters=parameters)

    def _noted(self, name: str, operator: str, parameter: Tensor, matrix: bool) -> bool:
        matrix = matrix and parameter.dim() > 1  # what a weight is computed from, but for biases
        if matrix and name in self._passed_over:
            self.late.add(name)
        matrix = matrix or name in self.matrices or self._matrix.get(name, False)
        if not self._wants[matrix]:
            self._passed_over.add(name)
            return False
        self._uses[name] = self._uses.get(name, 0) + 1
        self._matrix[name] = self._matrix.get(name, False) or matrix
        self.seen[name] = ParameterInfo(
            name, name.rpartition(".")[0], operator, parameter.shape, self._uses[name]
        )
        return True

    def multiplied(self, names: Iterable[str]) -> None:
        """Note that copies of these parameters, whose use is noted already, multiply samples."""
        for name in names:
            if name in self._passed_over:
                self.late.add(name)
            elif name in self._matrix:
                self._matrix[name] = True

    def leaked(self, names: Sequence[str]) -> None:
        """Note parameters that reach the loss by a way that nobody saw; an error where all are asked for."""
        unseen = [name for name in names if any(s.parameters == "all" for s in self.needs)]
        unseen += [name for name in names if name not in unseen and name in self.matrices | self.weights]
        self.missed.update(names)
        if unseen:
            raise LeakError(unseen)

    @property
    def weights(self) -> set[str]:
        """Parameters that multiplied samples, so far."""
        return {name for name, matrix in self._matrix.items() if matrix}

    def _collect(self, name: str, product: GradientProduct) -> None:
        parts = self._pending.setdefault(name, [])
        parts.append(product)
        if len(parts) == self._arriving(name):
            self._observe(combine(self._pending.pop(name)), name, None)

    def _observe(self, product: GradientProduct, weight: str | None, bias: str | None) -> None:
        if self._zero:
            self._observed |= {name for name in (weight, bias) if name is not None}
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
