"""Intercepts every functional call that uses a trainable parameter during one forward pass."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pynas._errors import UserError
from pynas._plural import counted
from pynas.stats._base import Statistic
from pynas.stats._calls import Call, Delivery, record
from pynas.stats._collector import Collector, Use
from pynas.stats._derivation import Derivation
from pynas.stats._fast import Memo
from pynas.stats._layout import Layout, Unknown, Where
from pynas.stats._marks import Marks
from pynas.stats._mixing import (
    LAYS_OUT,
    NeedsScoutError,
    is_python,
    mix,
    operands,
    outputs_of,
    rearranges,
)
from pynas.stats._problems import Problem, UnsupportedLayerError
from pynas.stats._propagation import is_pointwise, laid_out, name_of, propagate
from pynas.stats._scout import Log, OtherPathError, Scouted, expected, settings_of
from pynas.stats.overrides import without_override_check

# Beside what broadcasts: operators whose inputs have the samples of one output row in the same place.
MEETS = {"cat", "concat", "concatenate", "stack", "matmul", "bmm", "scaled_dot_product_attention"}
DATA = "has a size that depends on the data"


class IrregularError(Exception):
    """A call that its rule does not cover: a bias that depends on samples, for one."""


class CallRecorder(TorchFunctionMode):
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
        log: Where to note what each call puts out, in a pass that only measures; calls then run as they are.
        problems: Uses of parameters that nothing covers.
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
        super().__init__()
        self.rules = rules
        self.collector = collector
        self.model = model
        self.batch = batch
        self.batch_norm = batch_norm
        self.measured = None if scouted is None else scouted.calls
        self.products = frozenset() if scouted is None else scouted.products
        self.remembered = remembered
        self.anchor = torch.zeros((), requires_grad=True)
        self.memo = Memo()
        self.marks = Marks()
        self.log: Log | None = None
        self.problems: list[Problem] = []
        self.retain = False
        self.output_shape: tuple[int, ...] = ()
        self.sources: list[tuple[Tensor, Callable[[Tensor], Tensor]]] = []
        self.storages: frozenset[int] = frozenset()  # of inputs that are integers
        self._relu = [s for s in observers if s.watches == "relu"]
        self._relus = 0
        self._read: dict[int, tuple[weakref.ref[Tensor], int, str]] = {}
        self._calls = 0
        self._inside: list[Callable[..., Any]] = []  # functions written in Python that run now
        self._rearranged: dict[int, weakref.ref[Tensor]] = {}
        self.parameters = parameters
        self.own = {id(p): n for n, p in parameters.items()}
        self._by_id = {id(p): p for p in parameters.values()}
        collector.derivation = self.derivation

    # -- Calls ---------------------------------------------------------------------------------------------

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        rule = self.rules.get(func)
        tensors = operands(func, args, kwargs)
        self._check_kept(func, args)
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
            if rule is None and is_python(func) and self.measured is not None:
                result = self.descend(func, args, kwargs)  # so that calls are counted as they were measured
            else:
                result = mix(self, func, args, kwargs, used) if used else func(*args, **kwargs)
        self.called(func, args, kwargs, tensors, result)
        return result

    def _check_kept(self, func: Callable[..., Any], args: tuple[Any, ...]) -> None:
        name = getattr(func, "__name__", "")
        changes = (name.endswith("_") and not name.endswith("__")) or name == "__setitem__"
        if changes and name != "requires_grad_" and args and id(args[0]) in self.own:
            raise UserError(
                f"model: its forward changes parameter {self.own[id(args[0])]!r} in place ({name}); "
                "statistics are of a model that stays as it is"
            )

    def _measuring(
        self, func: Callable[..., Any], args: Any, kwargs: Mapping[str, Any], rule: Callable[..., Any] | None
    ) -> Any:
        result = NotImplemented if rule is None else rule(self, func, *args, **kwargs)
        if result is NotImplemented:
            descends = rule is None and is_python(func)
            result = self.descend(func, args, kwargs) if descends else func(*args, **kwargs)
        outputs = outputs_of(func, args, result)
        if outputs:
            assert self.log is not None
            self.log.add(func, args, kwargs, outputs)
        return result

    def called(
        self,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        tensors: Sequence[Tensor],
        result: Any,
    ) -> None:
        """Note what a call has put out."""
        outputs = outputs_of(func, args, result)
        if not outputs:
            return
        if self.log is not None:
            self.log.add(func, args, kwargs, outputs)
            return
        samples = [(t, self.marks.where(t)) for t in tensors if self.is_sample(t)]
        sources: frozenset[int] = frozenset()
        if not samples:
            sources = sources.union(*(self.comes_from(t) for t in tensors))
        places = self._places(func, outputs)
        if self.remembered and self.measured is not None:
            known = expected(self.measured[self._calls].settings, self.batch)
            if known != settings_of(args, kwargs):
                raise OtherPathError(self.measured[self._calls].layer)
        copies = all(self.marks.only_copies(t) for t, _ in samples)
        assumed = bool(samples) and self._assumes(func, samples)
        moved = (
            bool(sources) and len(sources) == 1 and rearranges(func, args) and self._is_rearranged(tensors)
        )
        for i, y in enumerate(outputs):
            if id(y) in self.own:
                continue
            where = places[i] if places is not None else None
            if samples:
                if places is None or assumed or isinstance(where, Unknown):
                    known = propagate(func, args, kwargs, samples, y)
                    # Of copies in an assumed order a measurement says nothing: all of them are equal.
                    where = known if places is None or assumed or isinstance(known, Layout) else where
                if any(y is t for t in tensors) and not any(y is t for t, _ in samples):
                    self.marks.written(y)
                if copies and where is None and y.requires_grad:
                    raise UserError(
                        f"model: {name_of(func)} brings copies of a parameter, one for each sample, "
                        "together again; compute with one copy, which is the same"
                    )
                self.marks.sample(y, where, copies, assumed)
            elif where is not None:
                usual = isinstance(where, Unknown) and name_of(func) in LAYS_OUT
                if usual:
                    where = laid_out(tensors[0], y, self.batch)
                self.marks.sample(y, where, copies=True, assumed=usual)
            elif sources:
                self.marks.derived(y, sources)
                if moved:
                    self._rearranged[id(y)] = weakref.ref(y)
        self._calls += 1

    def _assumes(self, func: Callable[..., Any], samples: Sequence[tuple[Tensor, Where]]) -> bool:
        """Whether all of these are copies in the usual order; an error where another has another one."""
        found = [self.marks.assumed(t) for t, _ in samples]
        if not any(found) or all(found):
            return any(found)
        orders = {(w.dim - t.dim(), w.before, w.after) if isinstance(w, Layout) else None for t, w in samples}
        name = name_of(func)
        if len(orders) > 1 or None in orders or not (is_pointwise(name) or name in MEETS):
            raise UserError(
                f"model: by {name}, samples meet copies of a tensor that has none, and which of "
                "the copies are of which sample cannot be told; let it broadcast, or expand it over the "
                "batch alone"
            )
        return False

    def where(self, x: Tensor) -> Where:
        """Where the samples of ``x`` are; None where it has none."""
        if self.marks.is_sample(x):
            return self.marks.where(x)
        return Unknown("has an unknown origin") if self.is_sample(x) else None

    def next_shape(self, where: Layout) -> list[int]:
        """The shape of the first output of the call that runs, as measured."""
        assert self.measured is not None
        shape = list(self.measured[self._calls].shapes[0])
        shape[where.dim] = where.positions * self.batch
        return shape

    def next_places(self, func: Callable[..., Any]) -> tuple[Where, ...] | None:
        """Where samples will be in the outputs of the call that runs, as measured; None if nothing was."""
        if self.measured is None:
            return None
        n = min(self._calls, len(self.measured) - 1)
        if self._calls > n or name_of(self.measured[n].func) != name_of(func):
            raise OtherPathError(max((m.layer for m in self.measured[max(n - 1, 0) : n + 1]), key=len))
        return self.measured[self._calls].where

    def _places(self, func: Callable[..., Any], outputs: Sequence[Tensor]) -> list[Where] | None:
        found = self.next_places(func)
        if found is None:
            return None
        assert self.measured is not None
        shapes = self.measured[self._calls].shapes
        return [
            self._checked(found[i], shapes[i], y.shape) if i < len(found) else Unknown("was not there before")
            for i, y in enumerate(outputs)
        ]

    def _checked(self, where: Where, small: torch.Size, shape: torch.Size) -> Where:
        """``where``, unless this shape does not go with the measured one."""
        if not isinstance(where, Layout):
            return where if tuple(small) == tuple(shape) or where is not None else Unknown(DATA)
        if len(small) != len(shape) or shape[where.dim] != where.positions * self.batch:
            return Unknown(DATA)
        others = [d for d in range(len(shape)) if d != where.dim and shape[d] != small[d]]
        # Sequences may be longer here than in the small passes; rows folded from them are then others, too.
        return Unknown(DATA) if others and where.positions > 1 else where

    # -- What tensors are ----------------------------------------------------------------------------------

    @property
    def tracks(self) -> bool:
        """Whether any statistic asks for gradients of parameters."""
        return bool(self.collector.needs or self.collector.salient or self.collector.curved)

    def is_sample(self, x: Tensor) -> bool:
        """Whether ``x`` depends on samples."""
        if self.marks.is_sample(x):
            return True
        # A history that nobody saw being made: of samples, as far as anyone can tell.
        return x.requires_grad and id(x) not in self.own and not self.marks.parameters(x)

    def comes_from(self, x: Tensor) -> frozenset[int]:
        """The trainable parameters that ``x`` is, or is computed from without samples."""
        if not x.requires_grad:
            return frozenset()
        return frozenset((id(x),)) if id(x) in self.own else self.marks.parameters(x)

    def derivation(self, x: Tensor) -> Derivation | None:
        """How ``x`` is computed from parameters; None where it is not."""
        found = self.marks.parameters(x) if x.requires_grad else frozenset()
        if not found or id(x) in self.own:
            return None
        order = sorted(found, key=lambda i: self.own[i])
        return Derivation(
            x, tuple(self.own[i] for i in order), tuple(self._by_id[i] for i in order),
            rearranged=self._is_rearranged([x]),
        )  # fmt: skip

    def _is_rearranged(self, tensors: Sequence[Tensor]) -> bool:
        used = [t for t in tensors if self.comes_from(t)]
        if len(used) != 1:
            return False
        known = self._rearranged.get(id(used[0]))
        return id(used[0]) in self.own or (known is not None and known() is used[0])

    def layout(self, x: Tensor) -> Layout:
        """Where the samples of ``x`` are.

        Raises:
            NeedsScoutError: That has to be measured first.
            IrregularError: They are nowhere in particular.
        """
        where = self.where(x)
        if isinstance(where, Layout):
            return where
        if self.measured is None:
            raise NeedsScoutError
        raise IrregularError

    def plain(self, x: Tensor, *parameters: Tensor | None) -> list[Tensor | None]:
        """Parameters for a call that nobody asks about: without history where they meet samples."""
        meets = self.log is None and self.is_sample(x)
        return [p.detach() if meets and p is not None and self.comes_from(p) else p for p in parameters]

    # -- For rules -----------------------------------------------------------------------------------------

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
            return self.layout(x)
        except IrregularError:
            self.problem(
                used,
                f"is used by {operator} on an input of {tuple(x.shape)}, {_lost(self.where(x), self.batch)}",
            )
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

    def saw_relu(self, x: Tensor, uses: int = 1) -> None:
        """Report what goes into ``uses`` ReLUs, unless no samples do."""
        if not self._relu or self.log is not None or not self.is_sample(x):
            return
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
            y = y if y.requires_grad else y.detach().requires_grad_()
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
