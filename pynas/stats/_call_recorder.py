"""Intercepts every functional call that uses a trainable parameter during one forward pass."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import TensorWeakRef

from pynas._errors import UserError
from pynas._plural import counted
from pynas.stats._base import Statistic
from pynas.stats._calls import Call, Delivery, record
from pynas.stats._collector import Collector
from pynas.stats._fast import Memo
from pynas.stats.overrides import without_override_check


class UnsupportedLayerError(UserError):
    """A parameter reaches the loss through an operator that no rule covers."""


class AmbiguousLayoutError(Exception):
    """Two dimensions have the size of the batch: only a pass with another batch size tells them apart."""


class CallRecorder(TorchFunctionMode):
    """Replaces calls whose weight or bias *is* a trainable parameter by nodes that report to a collector.

    It sees functional calls, not modules: attention projections, tied weights and modules called twice need
    no special case. Calls without a rule are let through; if one of them makes something differentiable out
    of a parameter that must be seen, that is an error which names it.

    Args:
        collector: Where gradient products go.
        model: For names of layers in messages.
        parameters: All its parameters, by name.
        strict: Identities of parameters that must be covered by a rule.
        batch: Number of samples B.
        batch_norm: ``"batch"``, ``"group"`` or ``"frozen"``.
        observers: Statistics that watch ReLUs or the model's inputs.
        rules: What to do instead of a call, ``rule(recorder, function, *arguments)``, by function.

    Attributes:
        shapes: Input shape of every recorded call so far, in order.
        few_shapes: The same from a pass of :attr:`few` samples, where that was needed to find the samples.
        watching: Only note shapes; run every call as it is.
        retain: The graph is needed for another backward pass after the one that runs.
        output_shape: Shape of the model's output, or of the first of several.
        sources: Tensors whose gradients stand for those of the model's inputs, each with how to bring its
            samples to the front.
    """

    def __init__(
        self,
        collector: Collector,
        model: nn.Module,
        parameters: Mapping[str, Tensor],
        strict: frozenset[int],
        batch: int,
        batch_norm: str,
        observers: Sequence[Statistic[Any]] = (),
        *,
        rules: Mapping[Callable[..., Any], Callable[..., Any]],
    ) -> None:
        super().__init__()
        self.rules = rules
        self.collector = collector
        self.model = model
        self.strict = strict
        self.batch = batch
        self.batch_norm = batch_norm
        self.anchor = torch.zeros((), requires_grad=True)
        self.sample_dim: int | None = None  # set inside calls that lay out their samples otherwise
        self.memo = Memo()
        self.shapes: list[torch.Size] = []
        self.few_shapes: list[torch.Size] = []
        self.watching = False
        self.retain = False
        self.output_shape: tuple[int, ...] = ()
        self.sources: list[tuple[Tensor, Callable[[Tensor], Tensor]]] = []
        self.storages: frozenset[int] = frozenset()  # of inputs that are integers
        self._relu = [s for s in observers if s.watches == "relu"]
        self._relus = 0
        self._read: dict[int, tuple[TensorWeakRef, int, str]] = {}
        self.parameters = parameters
        self.own = {id(p): n for n, p in parameters.items()}

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        rule = self.rules.get(func)
        if rule is not None:
            return rule(self, func, *args, **kwargs)
        touched = [a for a in _tensors(args, kwargs) if id(a) in self.own]
        return self._other(func, args, kwargs, touched) if touched else func(*args, **kwargs)

    @property
    def few(self) -> int:
        """Another number of samples, small because a pass of them serves only to compare shapes."""
        return 2 if self.batch > 2 else 1

    @property
    def num_groups(self) -> int:
        """Number of sample groups."""
        return self.batch // self.collector.group_size

    def record(
        self,
        operator: str,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        call: Callable[[Tensor | None, Tensor | None], Call],
        matrix: bool = False,
    ) -> Tensor | None:
        """Run a call through the collector; None when nobody asks for its parameters.

        Args:
            operator: Name of the functional call, for messages and :class:`ParameterInfo`.
            x: Its input.
            weight: The weight as passed by the model.
            bias: The bias as passed by the model.
            call: Makes the call from detached weight and bias.
            matrix: Whether the weight multiplies the input.
        """
        self.shapes.append(x.shape)
        use = None if self.watching else self.collector.use(operator, weight, bias, matrix)
        if use is None:
            return None
        w, b = (t.detach() if t is not None else None for t in (weight, bias))
        return record(self.anchor, x, call(w, b), Delivery(self.collector, use))

    def through(self, x: Tensor, call: Call) -> Tensor:
        """Run a call whose parameters nobody asks for."""
        return record(self.anchor, x, call, None)

    def saw_relu(self, x: Tensor, uses: int = 1) -> None:
        """Report what goes into ``uses`` ReLUs."""
        if not self._relu or self.watching:
            return
        known = self._read.get(id(x))
        if known is not None and known[0]() is x and known[1] == x._version:
            key = known[2]
        else:
            key, self._relus = f"relu{self._relus}", self._relus + 1
            self._read[id(x)] = (TensorWeakRef(x), x._version, key)
        rows = self._rows(x.detach())
        with torch.no_grad():
            for statistic in self._relu:
                statistic.observe_relu(rows, key, uses, self.collector.results[type(statistic)])

    def embedded(self, indices: Tensor, y: Tensor) -> Tensor:
        """``y``, whose gradient stands for that of the model's inputs where ``indices`` are those."""
        if indices.untyped_storage().data_ptr() in self.storages and not self.watching:
            y = y if y.requires_grad else y.detach().requires_grad_()
            arrange = self.samples_first("embedding", None, y)
            self.sources.append((y, arrange))
        return y

    def _rows(self, x: Tensor) -> Tensor:
        """Samples first: dimension 0 when it has the batch's size, else the one dimension that has."""
        found = [d for d in range(x.dim()) if x.shape[d] == self.batch]
        if not found:
            raise UserError(
                f"model: a ReLU got an input of {tuple(x.shape)}, where no dimension counts the "
                f"{counted(self.batch, 'sample')}; keep samples in a dimension of their own"
            )
        return x if 0 in found else x.movedim(found[0], 0)

    def samples_first(self, operator: str, weight: Tensor | None, x: Tensor) -> Callable[[Tensor], Tensor]:
        """How to bring the sample dimension of ``x``, and of anything laid out like it, to the front.

        Samples are dimension 0 when it has the batch's size; else the one dimension (features excluded)
        that has.
        """
        if self.sample_dim is not None:
            return _mover(self.sample_dim, self.batch, folded=x.dim() == 2)
        same = [d for d in range(x.dim() - 1) if x.shape[d] == self.batch]
        if len(same) > 1 and self.batch > 1:
            if not self.few_shapes:
                raise AmbiguousLayoutError
            other = self.few_shapes[len(self.shapes) - 1]
            same = [d for d in same if other[d] == self.few] or same
            return _mover(same[0], self.batch, folded=False)
        if x.dim() and x.shape[0] == self.batch:
            return lambda t: t
        found = [d for d in range(1, x.dim() - 1) if x.shape[d] == self.batch]
        if len(found) == 1:
            return _mover(found[0], self.batch, folded=False)
        name = self.own.get(id(weight), "a weight")
        raise UnsupportedLayerError(
            f"{self._where(name)}: {operator} got an input of {tuple(x.shape)}, where no dimension counts "
            f"the {counted(self.batch, 'sample')}; keep samples in a dimension of their own, or "
            f"{self._remedy(name)}"
        )

    def descend(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Run a functional written in Python with this mode active inside it.

        PyTorch hands such a function to the mode as a whole and asks again on every call while a mode is
        active, so a copy of it runs whose own question is answered no; what it calls is intercepted as usual.
        """
        with self:
            return without_override_check(func)(*args, **kwargs)

    def _other(
        self,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        touched: list[Tensor],
    ) -> Any:
        name = getattr(func, "__name__", str(func))
        if name.endswith("_") and not name.endswith("__") and args and id(args[0]) in self.own:
            raise UserError(
                f"model: its forward changes parameter {self.own[id(args[0])]!r} in place ({name}); "
                "statistics are of a model that stays as it is"
            )
        if isinstance(func, types.FunctionType) and func.__module__ == F.__name__:
            return self.descend(func, args, kwargs)
        result = func(*args, **kwargs)
        missed = next((t for t in touched if id(t) in self.strict), None)
        if missed is not None and any(t.requires_grad and t is not missed for t in _tensors((result,), {})):
            raise self.unsupported(self.own[id(missed)], name)
        return result

    def unsupported(self, parameter: str, operator: str) -> UnsupportedLayerError:
        """The error for a parameter that ``operator`` uses."""
        return UnsupportedLayerError(
            f"{self._where(parameter)} is used by {operator}, for which there is no per-sample rule; "
            f"{self._remedy(parameter)}"
        )

    def _where(self, parameter: str) -> str:
        layer = parameter.rpartition(".")[0]
        kind = type(self.model.get_submodule(layer)).__name__ if "." in parameter or not layer else "?"
        return f"parameter {parameter!r} of layer {layer!r} ({kind})"

    def _remedy(self, parameter: str) -> str:
        layer = parameter.rpartition(".")[0]
        return (
            f"pass fallback=({layer!r},) to compute that layer's gradients group by group through torch.func "
            "(slower), or set requires_grad=False on the parameter to leave it out"
        )


def _tensors(args: Iterable[Any], kwargs: Mapping[str, Any]) -> Iterable[Tensor]:
    for value in (*args, *kwargs.values()) if kwargs else args:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from (v for v in value if isinstance(v, Tensor))


def _mover(dim: int, batch: int, folded: bool) -> Callable[[Tensor], Tensor]:
    def move(x: Tensor) -> Tensor:
        if folded:  # [T * B, E], samples fastest
            return torch.unflatten(x, 0, (-1, batch)).transpose(0, 1)
        return x.movedim(dim, 0)

    return move
