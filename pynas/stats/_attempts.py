"""How a collection goes on when a pass finds out that it needs to know more."""

from __future__ import annotations

import weakref
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import nn

from pynas.stats import _fallback
from pynas.stats._base import ParameterInfo, Statistic, Statistics
from pynas.stats._call_recorder import CallRecorder
from pynas.stats._collector import Collector, LeakError
from pynas.stats._dead_parts import SAMPLES, Plan, Skipping, ZeroSeenError, find, worth_while
from pynas.stats._double_backward import double_backward, lacks_derivative
from pynas.stats._mixing import NeedsScoutError
from pynas.stats._passes import LateWeightError, run
from pynas.stats._problems import Problem, UnsupportedLayerError
from pynas.stats._rules import RULES
from pynas.stats._scout import OtherPathError, Scouted, scout
from pynas.stats._second_order import NoSecondOrderError, SecondOrderRecorder
from pynas.stats._structure import structure_of
from pynas.stats._whole import WholeProduct, whole_pass
from pynas.stats.data import LossFn, cut, writable
from pynas.stats.eager import eager
from pynas.stats.grad_norms import GradNorms
from pynas.stats.state import preserved, seed_generators
from pynas.stats.weights import matrix_names

Values = Mapping[type[Statistic[Any]], dict[str, Any]]
# Kinds of models that needed measuring before: their next pass does not begin without.
_UNUSUAL: weakref.WeakSet[type] = weakref.WeakSet()
# What small passes found out about the structures seen last.
_KNOWN: dict[Hashable, Scouted] = {}
# Kinds of models that had parts which nothing depends on.
_PARTLY: weakref.WeakSet[type] = weakref.WeakSet()
_PLANS: dict[Hashable, Plan | None] = {}  # and what is dead in them
REMEMBERED = 256


@dataclass
class Attempts:
    """One collection: the arguments of :func:`pynas.stats.collect`, checked, and what passes found out."""

    model: nn.Module
    inputs: Any
    targets: Any
    loss_fn: LossFn | None
    needs: Sequence[Statistic[Any]]
    batch: int
    group_size: int
    batch_norm: str
    passes: int
    fallback: tuple[str, ...]
    training: bool | None = None
    seed: int | None = None
    scouted: Scouted | None = None
    remembered: bool = False
    stale: bool = False
    late: frozenset[str] = frozenset()
    plan: Plan | None = None
    looked: bool = False
    key: Hashable = None
    parameters: dict[str, torch.Tensor] = field(init=False)
    trainable: dict[int, str] = field(init=False)

    def __post_init__(self) -> None:
        self.parameters = dict(self.model.named_parameters())
        self.taken = [s for s in self.needs if s.needs_pass]
        self.curved = any(s.watches == "curvature" for s in self.needs)
        self.matrices = matrix_names(self.model)
        everyone = all(s.watches == "curvature" for s in self.needs)  # along all weights, whoever trains them
        self.trainable = {
            id(p): name
            for name, p in self.parameters.items()
            if p.requires_grad or (everyone and p.is_floating_point())
        }

    def collect(self) -> Statistics:
        """The statistics; passes begin again when one of them needs to know more."""
        whole = False
        if (
            type(self.model) in _PARTLY
            and worth_while(self.taken, self.batch // self.passes, self.model)
            and not self._remembers()
        ):
            with self._around():
                self._look()
        if self.taken and (self.fallback or type(self.model) in _UNUSUAL):
            whole = self._whole_enough()
            if not whole:
                self._scout()
        while True:
            try:
                if whole:
                    return self._whole()
                return self._attempt()
            except NeedsScoutError:
                if not type(self.model).__module__.startswith("torch."):  # nn.Sequential says nothing
                    _UNUSUAL.add(type(self.model))
                whole = self._whole_enough()
                if not whole:
                    self._scout()
            except LateWeightError as error:
                self.late |= error.names
            except OtherPathError:
                if not self.remembered:
                    raise
                self.scouted, self.stale = None, True  # another model than the one that was remembered
                self._scout()
            except NoSecondOrderError:
                return self._twice()
            except RuntimeError as error:
                if not (self.curved and lacks_derivative(error)):
                    raise
                return self._twice()
            except (LeakError, UnsupportedLayerError) as error:
                if self._whole_enough():
                    whole = True
                    continue
                if isinstance(error, UnsupportedLayerError):
                    raise
                raise UnsupportedLayerError(self.model, [Problem(n, UNSEEN) for n in error.names]) from None

    def _attempt(self) -> Statistics:
        """The passes; again with dead parts skipped once one is seen, and with nothing if that goes wrong."""
        while True:
            try:
                with self._around():
                    try:
                        return self._passes()
                    except ZeroSeenError:
                        pass
                    # The model is as the pass left it: which calls it makes does not depend on that, or
                    # passes find out.
                    if not self._remembers():
                        self._look()
            except (MemoryError, LateWeightError):
                raise
            except Exception:
                if self.plan is None:
                    raise
                self.plan = None

    def _remembers(self) -> bool:
        """Whether the dead parts of a model of equal structure are known; then they are this one's."""
        self.looked = True
        structure = structure_of(self.model, self.inputs, self.training)
        self.key = None if structure is None else (structure, self.fallback, self.training, self._asked())
        self.plan = _PLANS.get(self.key)
        return self.key in _PLANS

    def _look(self) -> None:
        """Find dead parts."""
        values: Values = {type(s): {} for s in self.needs}
        if self.seed is not None:
            seed_generators(self.seed)
        try:
            few = writable(cut(self.inputs, 0, SAMPLES))
            self.plan = find(lambda: self._recorder(values, SAMPLES, "batch", CallRecorder), few)
        except MemoryError:
            raise
        except Exception:  # what is wrong, the whole batch says
            return
        if self.key is not None:
            _PLANS[self.key] = self.plan
            if len(_PLANS) > REMEMBERED:
                _PLANS.pop(next(iter(_PLANS)))

    def _asked(self) -> Hashable:
        """By what the parameters that count are chosen."""
        return tuple((type(s), s.parameters) for s in self.taken), self.late, self.scouted is None

    @contextmanager
    def _around(self) -> Iterator[None]:
        """The model as passes want it, and as it was afterwards: each attempt begins from there."""
        asks = any(s.watches in ("weights", "saliency", "curvature") for s in self.taken)
        with preserved(self.model), gradients_on(self.model, self.training, self.seed), eager():
            for p in self.parameters.values():
                p.requires_grad_(asks and id(p) in self.trainable)
            yield

    def _scout(self) -> None:
        assert self.scouted is None
        structure = structure_of(self.model, self.inputs)
        key = None if structure is None else (structure, self.fallback, self.training)
        self.remembered = key in _KNOWN and not self.stale
        if self.remembered:
            self.scouted = _KNOWN[key]
            return
        with self._around():
            self.scouted = scout(
                lambda batch: self._recorder({}, batch, "batch", CallRecorder),
                self.inputs,
                lambda recorder: _fallback.installed(recorder, self.fallback),
            )
        if key is not None:
            _KNOWN[key] = self.scouted
            if len(_KNOWN) > REMEMBERED:
                _KNOWN.pop(next(iter(_KNOWN)))

    def _recorder(
        self, values: Values, batch: int, batch_norm: str, kind: type[CallRecorder]
    ) -> CallRecorder:
        named = set(self.trainable.values())
        matrices = frozenset(n for n in self.matrices if n in named) | self.late
        collector = Collector(self.taken if values else [], self.group_size, self.trainable, matrices, values)
        return kind(
            collector, self.model, self.parameters, batch, batch_norm, self.taken if values else [],
            rules=RULES, scouted=self.scouted, remembered=self.remembered,
        )  # fmt: skip

    def _passes(self) -> Statistics:
        values: Values = {type(s): {} for s in self.needs}
        seen, losses = {}, []
        shape: tuple[int, ...] = ()
        weights: set[str] = set()
        missed: set[str] = set()
        size = self.batch // self.passes
        for i in range(self.passes if self.taken else 0):
            recorder = self._recorder(
                values, size, self.batch_norm, SecondOrderRecorder if self.curved else CallRecorder
            )
            recorder.parts = None if self.plan is None else Skipping(self.plan)
            recorder.watches_zeros = not self.looked and worth_while(self.taken, size, self.model)
            part = (self.inputs, self.targets)
            if self.passes > 1:
                part = cut(self.inputs, i * size, size), cut(self.targets, i * size, size)
            losses += run(recorder, *part, self.loss_fn, self.fallback, self.taken)
            if not self.looked and not self.curved and recorder.collector.partly:
                _PARTLY.add(type(self.model))  # the next pass of its kind looks for dead parts
            seen.update(recorder.collector.seen)
            weights |= recorder.collector.weights
            missed |= recorder.collector.missed
            shape = recorder.output_shape
        return self._statistics(size, losses, seen, values, shape, weights | set(self.matrices), missed)

    def _statistics(
        self,
        size: int,
        losses: Any,
        seen: Any,
        values: Values,
        shape: Any,
        weights: set[str],
        missed: set[str],
    ) -> Statistics:
        unseen = set[str]()
        for statistic in self.needs:
            if not statistic.needs_pass:
                known = statistic.of_model(self.model, self.inputs)
                values[type(statistic)].update(known.values)
                weights = weights | known.weights
                unseen |= known.unseen
        own = {name: p.detach() for name, p in self.parameters.items()}
        found = {type(s): s.finish(values[type(s)]) for s in self.needs}
        return Statistics(
            size, self.group_size, tuple(losses), seen, own, found, self.targets, shape,
            frozenset(weights), frozenset(missed), frozenset(unseen - weights),
        )  # fmt: skip

    def _whole_enough(self) -> bool:
        """Whether nothing is asked for but gradients of whole batches."""
        return self.batch_norm != "group" and all(s.of_whole_batch for s in self.taken)

    def _whole(self) -> Statistics:
        """By plain autograd, where samples may depend on each other in any way."""
        values: Values = {type(s): {} for s in self.needs}
        trainable = {name: self.parameters[name] for name in self.trainable.values()}
        weights = frozenset(self.matrices) | self.late
        size = self.batch // self.passes
        seen: dict[str, ParameterInfo] = {}
        losses, missed = [], set[str]()
        with self._around():
            for i in range(self.passes):
                part = cut(self.inputs, i * size, size), cut(self.targets, i * size, size)
                found = whole_pass(self.model, trainable, *part, self.loss_fn, size, self.batch_norm)
                if i and not found.weights <= weights:
                    raise LateWeightError(found.weights)
                weights |= found.weights
                for name, gradient in found.gradients.items():
                    for s in self.taken:
                        if s.wants(name in weights):
                            s.observe(WholeProduct(gradient), name, None, self.group_size, values[type(s)])
                losses.append(found.loss)
                seen.update(found.used)
                missed |= found.unseen - weights
            return self._statistics(size, losses, seen, values, found.output_shape, set(weights), missed)

    def _twice(self) -> Statistics:
        """Curvature by plain double differentiation, the other statistics in a pass of their own."""
        others = [s for s in self.needs if s.watches != "curvature"]
        curvature = type(next(s for s in self.needs if s.watches == "curvature"))
        with self._around():
            for p in self.parameters.values():
                p.requires_grad_(p.is_floating_point())
            twice = double_backward(self.model, self.inputs, self.targets, self.loss_fn, self.batch)
        if not others:
            return self._statistics(
                self.batch, [twice.loss], {}, {curvature: twice.values}, (), set(twice.weights),
                set(twice.unseen),
            )  # fmt: skip
        rest = Attempts(
            self.model, self.inputs, self.targets, self.loss_fn, others, self.batch, self.group_size,
            self.batch_norm, self.passes, self.fallback, self.training, self.seed, late=self.late,
        ).collect()  # fmt: skip
        return replace(
            rest, values={**rest.values, curvature: twice.values}, missed=rest.missed | twice.unseen
        )

    def few(self, fallback: tuple[str, ...]) -> Attempts:
        """A collection of norms of a few samples under this fallback, to see whether it works."""
        few = min(self.batch, 4)
        parameters: Literal["all", "weights"] = (
            "all" if any(s.parameters == "all" for s in self.needs if s.watches == "weights") else "weights"
        )
        return Attempts(
            self.model, cut(self.inputs, 0, few), cut(self.targets, 0, few), self.loss_fn,
            [GradNorms(parameters=parameters)], few, 1, self.batch_norm, 1, fallback, self.training,
            self.seed,
        )  # fmt: skip


UNSEEN = (
    "reaches the loss by a way that cannot be followed: compiled or scripted code, or an autograd function "
    "of the model's own"
)


@contextmanager
def gradients_on(model: nn.Module, training: bool | None, seed: int | None) -> Iterator[None]:
    """Autograd on whatever the caller's mode; modules and generators as asked."""
    with torch.inference_mode(False), torch.enable_grad():
        if training is not None:
            model.train(training)
        if seed is not None:
            seed_generators(seed)
        yield
