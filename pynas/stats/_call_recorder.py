"""Intercepts every functional call that uses a trainable parameter during one forward pass."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch._C._functorch import (
    get_unwrapped,
    is_functorch_wrapped_tensor,
    peek_interpreter_stack,
)
from torch.overrides import TorchFunctionMode

from pynas._errors import UserError
from pynas._plural import counted
from pynas.stats._base import Statistic
from pynas.stats._calls import Call, Delivery, record
from pynas.stats._collector import Collector, Use
from pynas.stats._dead_parts import PRODUCTS, Looking, Skipping, ZeroSeenError, by_zero
from pynas.stats._fast import Memo
from pynas.stats._following import Following, IrregularError
from pynas.stats._functions import Traits, traits_of
from pynas.stats._layout import Layout, Unknown, Where, together
from pynas.stats._mixing import NeedsScoutError, mix, operands
from pynas.stats._problems import Problem, UnsupportedLayerError
from pynas.stats._scout import OtherPathError, Scouted
from pynas.stats.memory_format import check_format
from pynas.stats.overrides import without_override_check

TRANSFORMS = (
    "layer {layer!r} transforms itself by torch.func (vmap, grad, jvp and the like), inside which dimensions "
    "are hidden, so its samples cannot be followed"
)
SWITCH = torch.Tensor.requires_grad.__set__  # type: ignore[attr-defined]


class CallRecorder(Following, TorchFunctionMode):
    """Replaces calls of trainable parameters with samples by nodes that report to a collector.

    It sees functional calls, not modules: attention projections, tied weights and modules called twice need
    no special case. Every tensor of the pass is samples, computed from parameters alone, or a constant
    (:class:`~pynas.stats._marks.Marks`). What is computed from parameters alone runs as it is, until it meets
    samples: by a rule, or by :func:`~pynas.stats._mixing.mix`.

    Args:
        collector: Where gradient products go.
        model: For names of layers in messages.
        parameters: All its parameters, by name.
        batch: Number of samples B.
        batch_norm: ``"batch"``, ``"group"`` or ``"frozen"``.
        observers: Statistics that watch ReLUs or the model's inputs.
        rules: What to do instead of a call, ``rule(recorder, function, *arguments)``, by function.
        scouted: What small passes have found out about this one, if they have run.
        remembered: They were passes of another model of this structure, so that calls are compared with
            theirs.

    Attributes:
        problems: Uses of parameters that nothing covers.
        parts: What looks for dead parts, or skips those that were found.
        watches_zeros: Whether a product by zero ends the pass, so that these are looked for.
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
        batch: int,
        batch_norm: str,
        observers: Sequence[Statistic[Any]] = (),
        *,
        rules: Mapping[Callable[..., Any], Callable[..., Any]],
        scouted: Scouted | None = None,
        remembered: bool = False,
    ) -> None:
        super().__init__(parameters, batch, scouted, remembered)
        self.rules = rules
        self.collector = collector
        self.model = model
        self.batch_norm = batch_norm
        self.anchor = torch.zeros((), requires_grad=True)
        self.memo = Memo()
        self.problems: list[Problem] = []
        self.retain = False
        self.parts: Looking | Skipping | None = None
        self.watches_zeros = False
        self.output_shape: tuple[int, ...] = ()
        self.sources: list[tuple[Tensor, Callable[[Tensor], Tensor]]] = []
        self.storages: frozenset[int] = frozenset()  # of inputs that are integers
        self._relu = [s for s in observers if s.watches == "relu"]
        self._relus = 0
        self._read: dict[int, tuple[weakref.ref[Tensor], int, str]] = {}
        self._inside: list[Callable[..., Any]] = []  # functions written in Python that run now
        collector.derivation = self.derivation

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        traits = traits_of(func)
        if traits.reads_attribute:  # half of all calls
            return func(*args, **kwargs)
        if traits.reads_memory:
            check_format(func)
        if peek_interpreter_stack() is not None:  # inside a transform of torch.func
            self._check_transformed(operands(func, args, kwargs))
        if func == SWITCH and args[1] and args[0].requires_grad:
            return None  # it has a gradient already, and a history where gradients of inputs are asked for
        if self.parts is not None:
            return self.parts.through(self, func, args, kwargs)
        if traits.name in PRODUCTS and self.watches_zeros and by_zero(args, kwargs):
            raise ZeroSeenError
        return self.handled(func, traits, args, kwargs)

    def handled(
        self, func: Callable[..., Any], traits: Traits, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        """The result of a call that may use parameters."""
        rule = self.rules.get(func)
        tensors = operands(func, args, kwargs)
        if traits.changes and args:
            self._check_kept(traits.name, args[0])
        if self.log is not None:
            return self._measuring(func, args, kwargs, rule)
        result = NotImplemented
        if rule is not None:
            try:
                result = rule(self, func, *args, **kwargs)
            except IrregularError:
                result = NotImplemented
        if result is NotImplemented:
            used = [t for t in tensors if self.comes_from(t)]
            if rule is None and traits.is_python and self.measured is not None:
                result = self.descend(func, args, kwargs)  # so that calls are counted as they were measured
            else:
                result = mix(self, func, args, kwargs, used) if used else func(*args, **kwargs)
        if self.marks.has_copies and self.tracks:
            self.collector.multiplied(self.multiplied(func, args, kwargs, tensors))
        self.called(func, args, kwargs, tensors, result)
        return result

    def _check_transformed(self, tensors: Iterable[Tensor]) -> None:
        """An error where a transform, which hides dimensions, runs on samples or parameters."""
        if self.log is not None:
            return  # what only measures knows no samples
        for tensor in tensors:
            t = tensor
            while is_functorch_wrapped_tensor(t):
                t = get_unwrapped(t)
            if not (self.is_sample(t) or self.comes_from(t)):
                continue  # of constants, as where a mask is made
            self.once_only()
            if self.measured is None:
                raise NeedsScoutError
            raise OtherPathError(self.measured[min(self._calls, len(self.measured) - 1)].layer, TRANSFORMS)

    def _check_kept(self, name: str, changed: Any) -> None:
        for x in changed if isinstance(changed, list | tuple) else (changed,):
            if not isinstance(x, Tensor):
                continue
            if id(x) in self.own:
                raise UserError(
                    f"model: its forward changes parameter {self.own[id(x)]!r} in place ({name}); "
                    "statistics are of a model that stays as it is"
                )
            if self.marks.is_used(x):
                raise UserError(
                    f"model: its forward changes in place ({name}) what it has computed from parameters and "
                    "used already; write it as a new tensor"
                )

    def _measuring(
        self, func: Callable[..., Any], args: Any, kwargs: Mapping[str, Any], rule: Callable[..., Any] | None
    ) -> Any:
        result = NotImplemented if rule is None else rule(self, func, *args, **kwargs)
        if result is NotImplemented:
            descends = rule is None and traits_of(func).is_python
            result = self.descend(func, args, kwargs) if descends else func(*args, **kwargs)
        self.called(func, args, kwargs, (), result)
        return result

    @property
    def tracks(self) -> bool:
        """Whether any statistic asks for gradients of parameters."""
        return bool(self.collector.needs or self.collector.salient or self.collector.curved)

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
        call: Callable[[Tensor | None, Tensor | None, Layout], Call],
        matrix: bool = False,
        of: Tensor | None = None,
    ) -> Tensor | None:
        """Run a call through the collector; None when nobody asks for its parameters, or it sees no samples.

        Args:
            operator: Name of the functional call, for messages and :class:`ParameterInfo`.
            x: Its input.
            weight: The weight as passed by the model.
            bias: The bias as passed by the model.
            call: Makes the call from detached weight and bias and the layout of the input.
            matrix: Whether the weight multiplies the input.
            of: The model's own tensor that ``x`` was made from, if it is another one.

        Raises:
            IrregularError: A weight or bias depends on samples beside one that does not.
        """
        found = self.prepare(operator, x if of is None else of, weight, bias, matrix)
        if found is None:
            return None
        use, layout = found
        w, b = (t.detach() if t is not None else None for t in (weight, bias))
        return record(self.anchor, x, call(w, b, layout), Delivery(self.collector, use))

    def prepare(
        self, operator: str, x: Tensor, weight: Tensor | None, bias: Tensor | None, matrix: bool
    ) -> tuple[Use, Layout] | None:
        """To whom the gradients of a call go, and where its samples are; None where nobody asks."""
        if self.log is not None or not torch.is_grad_enabled():
            return None
        used = [t for t in (weight, bias) if t is not None and self.comes_from(t)]
        if not used:
            return None
        if not self.is_sample(x):
            if self.tracks and self.measured is None:
                raise NeedsScoutError
            return None
        given = [t for t in (weight, bias) if t is not None]
        if any((t.requires_grad and not self.comes_from(t)) or t.is_complex() for t in given):
            raise IrregularError
        use = self.collector.use(operator, weight, bias, matrix)
        layout = None if use is None else self._layout_of_call(operator, x, used)
        return None if use is None or layout is None else (use, layout)

    def _layout_of_call(self, operator: str, x: Tensor, used: Sequence[Tensor]) -> Layout | None:
        """The layout; None, and a problem noted, where the samples are nowhere in particular."""
        try:
            layout = self.layout(x)
        except IrregularError:
            lost = _lost(self.where(x), self.batch)
        else:
            if layout.dim < x.dim() - together(operator, x, used):
                return layout
            lost = f"whose samples are in dimension {layout.dim}, which that takes together"
        self.problem(used, f"is used by {operator} on an input of {tuple(x.shape)}, {lost}")
        return None

    def once_only(self) -> None:
        """Called before a node that cannot be differentiated twice is made; an error where that is needed."""

    def problem(self, used: Sequence[Tensor], reason: str) -> None:
        """Note that the samples' gradients of these cannot be had; the pass goes on without them."""
        for t in used:
            for i in self.comes_from(t):
                if i in self.collector.names:
                    self.problems.append(Problem(self.own[i], reason))

    def check(self) -> None:
        """Raise what was noted by :meth:`problem`."""
        if self.problems:
            raise UnsupportedLayerError(self.model, self.problems)

    def through(self, x: Tensor, call: Call) -> Tensor:
        """Run a call whose parameters nobody asks for."""
        return record(self.anchor, x, call, None)

    def saw_relu(self, x: Tensor, uses: int = 1, func: Callable[..., Any] | None = None) -> None:
        """Report what goes into ``uses`` ReLUs, or the call of ``func`` that runs, unless no samples do."""
        if not self._relu or self.log is not None:
            return
        if not self.is_sample(x):
            if func is None or id(x) in self.own or self.marks.parameters(x):
                return
            places = self.next_places(func)  # nobody saw where x is from: what comes out of it says more
            if places is None:
                raise NeedsScoutError
            if not places or places[0] is None:
                return
            self.marks.sample(x, places[0])
        known = self._read.get(id(x))
        if known is not None and known[0]() is x and known[1] == x._version:
            key = known[2]
        else:
            key, self._relus = f"relu{self._relus}", self._relus + 1
            self._read[id(x)] = (weakref.ref(x), x._version, key)
        try:
            rows = self.layout(x).first(x.detach())
        except IrregularError:
            raise UserError(
                f"model: a ReLU got an input of {tuple(x.shape)}, {_lost(self.where(x), self.batch)}; keep "
                "samples in a dimension of their own"
            ) from None
        with torch.no_grad():
            for statistic in self._relu:
                statistic.observe_relu(rows, key, uses, self.collector.results[type(statistic)])

    def embedded(self, indices: Tensor, y: Tensor) -> Tensor:
        """``y``, whose gradient stands for that of the model's inputs where ``indices`` are those."""
        if indices.untyped_storage().data_ptr() in self.storages and self.log is None:
            if not y.requires_grad:
                leaf = y.detach().requires_grad_()
                self.sources.append((leaf, self.layout(indices).first))
                return leaf.clone()  # which the model may change in place
            self.sources.append((y, self.layout(indices).first))
        return y

    def descend(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Run a functional written in Python with this mode active inside it.

        PyTorch hands such a function to the mode as a whole and asks again on every call while a mode is
        active, so a copy of it runs whose own question is answered no; what it calls is intercepted as usual.
        """
        if func in self._inside:  # one that asks again by its public name
            return func(*args, **kwargs)
        self._inside.append(func)
        try:
            with self:
                return without_override_check(func)(*args, **kwargs)
        finally:
            self._inside.pop()


def _lost(where: Where, batch: int) -> str:
    if isinstance(where, Unknown):
        return f"which {where.why}"
    return f"where no dimension counts the {counted(batch, 'sample')}"
