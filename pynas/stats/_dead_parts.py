"""Parts of a network that reach nothing, or only a product with the number zero, are found once and skipped.

A forward of two samples notes every call and what it reads. A call is dead if no path from it leads to what
the network puts out, other than through ``x * 0``, as in the empty edges of search spaces. In the passes that
follow dead calls do not run: tensors without memory (on PyTorch's meta device) stand for what they would put
out. Nothing can be computed from those, so whatever reads one after all is found out, and the pass runs again
with nothing skipped.

A product by zero passes on a gradient of zeros, so the parameters of what leads to one have that gradient.
Values that are not finite are the one difference: zero times infinity is none of the results here.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pynas.stats._base import Statistic
from pynas.stats._functions import traits_of
from pynas.stats._layout import Layout
from pynas.stats._mixing import QUESTIONS, asks_about, tensors_of
from pynas.stats._scout import settings_of
from pynas.stats.data import call_model, leaves

if TYPE_CHECKING:
    from pynas.stats._call_recorder import CallRecorder

SAMPLES = 2  # of the forward that looks
FEWEST = 8  # samples of a pass for which it is worth while
PRODUCTS = {"mul", "multiply"}
NOTHING = torch.device("meta")
Use = tuple[str, str | None, str | None, bool]  # operator, weight, bias, whether the weight multiplies
Given = tuple[tuple[str | None, ...], tuple[torch.Size, ...], Hashable]


class ZeroSeenError(Exception):
    """A pass has multiplied something by zero; what leads there may be dead."""


class OffPlanError(Exception):
    """A pass does not go as the one that looked for dead parts."""


@dataclass(slots=True)
class Output:
    """What a call puts out, for two samples."""

    shape: torch.Size
    strides: tuple[int, ...]
    dtype: torch.dtype
    where: Layout

    def stand_in(self, batch: int, device: torch.device) -> Tensor:
        """The same for ``batch`` samples, its values not set."""
        shape = list(self.shape)
        shape[self.where.dim] = self.where.positions * batch
        return torch.empty_strided(shape, self.strides, dtype=self.dtype, device=device)


@dataclass(slots=True)
class Step:
    """One call, in the order in which calls begin.

    Attributes:
        name: Of the function.
        parent: The call inside which it is made, or -1.
        reads: Calls that made what it reads.
        inside: How many calls are made inside it.
        counted: By how much it moves the recorder's count of calls.
        outputs: What it puts out; None where nothing can stand for that, so that it has to run.
        single: Whether that is one tensor.
        uses: Parameters that it uses.
        given: Its parameters, shapes and settings, as arguments.
        cuts: Whether it multiplies by zero.
        smooth: Whether gradients come to what it puts out.
        sources: Parameters that it uses, also where something was computed from them.
        zero: Whether gradients come to it, all of them through products by zero.
    """

    name: str
    parent: int
    reads: set[int] = field(default_factory=set)
    inside: int = 0
    counted: int = 0
    outputs: list[Output] | None = None
    single: bool = True
    uses: list[Use] = field(default_factory=list)
    given: Given = ((), (), ())
    cuts: bool = False
    smooth: bool = False
    sources: frozenset[str] = frozenset()
    zero: bool = False


@dataclass(frozen=True)
class Plan:
    """Which calls of a pass are dead.

    Attributes:
        names: Of all calls in their order.
        dead: Calls to skip, by their number; those inside of one that is skipped are not among them.
        cuts: Products by zero, whose input may be dead.
        insides: How many calls are made inside each.
        zero: Parameters of calls that run, but whose gradients come through products by zero alone.
    """

    names: tuple[str, ...]
    dead: Mapping[int, Step]
    cuts: Mapping[int, Step]
    insides: tuple[int, ...]
    zero: frozenset[str]


def worth_while(needs: Sequence[Statistic[Any]], batch: int, model: torch.nn.Module) -> bool:
    """Whether calls may be skipped at all: where only gradients of parameters are asked for, on the CPU.

    Hooks may show somebody what a dead part puts out, so that all of it is to run.
    """
    if batch < FEWEST or not needs or any(s.watches != "weights" for s in needs):
        return False
    everywhere = torch.nn.modules.module
    if everywhere._global_forward_hooks or everywhere._global_forward_pre_hooks:
        return False
    if any(m._forward_hooks or m._forward_pre_hooks for m in model.modules()):
        return False
    return all(p.device.type == "cpu" for p in model.parameters())


def by_zero(args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether a product is of one tensor and the number zero."""
    if kwargs or len(args) != 2:
        return False
    x, y = args if isinstance(args[0], Tensor) else (args[1], args[0])
    return isinstance(x, Tensor) and isinstance(y, int | float) and y == 0 and not isinstance(y, bool)


class Looking:
    """Notes calls, and what each reads, in a pass of two samples.

    Args:
        watches_random: Whether to see which calls draw random numbers, and not only whether one does.
    """

    def __init__(self, *, watches_random: bool) -> None:
        self._steps: list[Step] = []
        self._made: dict[int, int] = {}  # by which call a tensor was made or last written
        self._kept: list[Any] = []  # or others could take an identity
        self._outputs: dict[int, list[Tensor]] = {}
        self._open: list[int] = []
        self._hidden = False  # whether something came from where nobody saw it being made
        self._random = torch.default_generator.get_state()
        self._watches_random = watches_random

    @property
    def drew(self) -> bool:
        """Whether random numbers were drawn since this was asked last."""
        before, self._random = self._random, torch.default_generator.get_state()
        return not torch.equal(before, self._random)

    def through(
        self,
        recorder: CallRecorder,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> Any:
        """Run a call, and note it."""
        n, traits, made = len(self._steps), traits_of(func), self._made
        step = Step(traits.name, self._open[-1] if self._open else -1)
        self._steps.append(step)
        tensors = tensors_of(args, kwargs)
        for t in tensors:
            known = made.get(id(t))
            if known is not None:
                step.reads.add(known)
            elif t.requires_grad and id(t) not in recorder.own:
                self._hidden = True
        versions = [t._version for t in tensors]
        random = torch.default_generator.get_state() if self._watches_random else None
        counted, uses = recorder._calls, len(recorder.collector.noted or ())
        self._open.append(n)
        try:
            result = recorder.handled(func, traits, args, kwargs)
        finally:
            self._open.pop()
        step.inside, step.counted = len(self._steps) - n - 1, recorder._calls - counted
        outputs = [result] if isinstance(result, Tensor) else tensors_of((result,), {})
        self._kept.append(tensors)
        self._outputs[n] = outputs
        if outputs and not asks_about(func):
            step.given = _given(recorder, args, kwargs, tensors)
            uses_known = self._note_uses(recorder, step, (recorder.collector.noted or [])[uses:])
            plain = isinstance(result, Tensor) or (
                type(result) in (tuple, list) and len(outputs) == len(result)
            )
            still = versions == [t._version for t in tensors] and {id(t) for t in tensors}.isdisjoint(
                map(id, outputs)
            )
            draws = random is not None and not torch.equal(random, torch.default_generator.get_state())
            draws = draws or any(isinstance(a, torch.Generator) for a in (*args, *kwargs.values()))
            if uses_known and plain and still and not draws:
                step.single = isinstance(result, Tensor)
                step.outputs = _described(recorder, outputs)
            step.cuts = step.outputs is not None and traits.name in PRODUCTS and by_zero(args, kwargs)
        elif not outputs and traits.name in HARMLESS:
            step.outputs = []
        for y in outputs:
            if not n < made.get(id(y), -1):
                made[id(y)] = n
                if step.inside:  # made by the rule of this call from what was made inside
                    step.reads.update(range(n + 1, len(self._steps)))
        return result

    @staticmethod
    def _note_uses(recorder: CallRecorder, step: Step, used: Sequence[Any]) -> bool:
        """Note the parameters that a call uses; whether they are all known, and its own arguments."""
        if not used:
            return True
        names = recorder.collector.names
        given = [p for use in used for p in use[1:3] if p is not None]
        step.sources = frozenset(recorder.own[i] for p in given for i in recorder.comes_from(p))
        if not all(id(p) in names for p in given):
            return False  # one is computed
        step.uses = [(what, names.get(id(w)), names.get(id(b)), m) for what, w, b, m in used]
        return {names[id(p)] for p in given} <= set(step.given[0])

    def plan(self, outputs: Sequence[Tensor]) -> Plan | None:
        """The plan for a network that puts these out; None where nothing is dead."""
        if self._hidden or len(outputs) != 1 or id(outputs[0]) not in self._made:
            return None
        for n, made in self._outputs.items():  # an autograd function of the model's own gives it afterwards
            self._steps[n].smooth = any(y.requires_grad for y in made)
        end = [self._made[id(outputs[0])]]
        roots = end + [n for n, step in enumerate(self._steps) if step.outputs is None]
        live, valued = self._reached(roots), self._reached(end)
        reached = self._reached(end, smoothly=True)
        dead: dict[int, Step] = {}
        after = 0
        for n, step in enumerate(self._steps):
            if n >= after and n not in live and step.outputs:
                step.zero, after = n in reached, n + 1 + step.inside
                dead[n] = step
        if not dead:
            return None
        cuts = {n: step for n, step in enumerate(self._steps) if step.cuts and n not in dead}
        zero = frozenset[str]().union(*(self._steps[n].sources for n in reached - valued))
        names, insides = tuple(s.name for s in self._steps), tuple(s.inside for s in self._steps)
        return Plan(names, dead, cuts, insides, zero)

    def _reached(self, roots: Sequence[int], *, smoothly: bool = False) -> set[int]:
        """Calls from which paths lead to these other than through zero, or by which gradients come."""
        found, waiting = set[int](), list(roots)
        while waiting:
            n = waiting.pop()
            if n < 0 or n in found or (smoothly and not self._steps[n].smooth):
                continue
            found.add(n)
            step = self._steps[n]
            waiting.append(step.parent)
            if smoothly or not step.cuts:
                waiting.extend(step.reads)
        return found


# What only asks for sizes runs on whatever stands for a tensor.
HARMLESS = {
    "size", "dim", "ndimension", "numel", "nelement", "stride", "is_contiguous", "element_size", "len",
    "is_floating_point", "is_complex", "is_signed", "hash",
} & QUESTIONS  # fmt: skip


def _described(recorder: CallRecorder, outputs: Sequence[Tensor]) -> list[Output] | None:
    """None where one has no samples in a dimension of their own, outermost in memory."""
    found = []
    for y in outputs:
        where = recorder.where(y)
        if not isinstance(where, Layout) or y.layout is not torch.strided or y.is_complex():
            return None
        strides = [s for s, size in zip(y.stride(), y.shape, strict=True) if size > 1]
        if y.stride(where.dim) != max(strides, default=0) or strides.count(y.stride(where.dim)) != 1:
            return None
        found.append(Output(y.shape, y.stride(), y.dtype, where))
    return found


class Skipping:
    """Follows a plan in a pass."""

    def __init__(self, plan: Plan) -> None:
        self._plan, self._at = plan, 0

    def through(
        self,
        recorder: CallRecorder,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> Any:
        """Run a call, or what stands for it.

        Raises:
            OffPlanError: It is another call than the one that was planned for, or reads what is not there.
        """
        plan, n, traits = self._plan, self._at, traits_of(func)
        if n >= len(plan.names) or plan.names[n] != traits.name:
            raise OffPlanError
        step = plan.dead.get(n)
        if step is not None:
            tensors = tensors_of(args, kwargs)
            if not _as_planned(step.given, _given(recorder, args, kwargs, tensors), recorder.batch):
                raise OffPlanError
            self._at = n + 1 + step.inside
            return _skipped(recorder, step)
        self._at = n + 1
        lacking = any(t.is_meta for t in tensors_of(args, kwargs))
        if lacking and n in plan.cuts and by_zero(args, kwargs):
            return _zeros(recorder, plan.cuts[n], func, args, kwargs)
        if lacking and traits.name not in HARMLESS:
            raise OffPlanError
        result = recorder.handled(func, traits, args, kwargs)
        if self._at != n + 1 + plan.insides[n]:
            raise OffPlanError
        return result

    def finish(self, recorder: CallRecorder, outputs: Any) -> None:
        """After forward; OffPlanError where the outputs are not there."""
        if any(t.is_meta for t in leaves(outputs)) or self._at != len(self._plan.names):
            raise OffPlanError
        recorder.collector.zero(recorder.parameters[name] for name in sorted(self._plan.zero))


def _given(recorder: CallRecorder, args: Any, kwargs: Mapping[str, Any], tensors: Sequence[Tensor]) -> Given:
    names = tuple(recorder.own.get(id(t)) for t in tensors)
    return names, tuple(t.shape for t in tensors), settings_of(args, kwargs)


def _as_planned(planned: Given, given: Given, batch: int) -> bool:
    """Whether a call is the one of two samples, for as many as there are."""
    if planned[0] != given[0] or len(planned[1]) != len(given[1]):
        return False
    pairs = [*zip(planned[1], given[1], strict=True), (planned[2], given[2])]
    for small, large in pairs:
        assert isinstance(small, tuple)
        assert isinstance(large, tuple)
        if len(small) != len(large):
            return False
        for a, b in zip(small, large, strict=True):
            scales = type(a) is type(b) is int and a % SAMPLES == 0 and b == a // SAMPLES * batch
            if a != b and not scales:
                return False
    return True


def _skipped(recorder: CallRecorder, step: Step) -> Any:
    assert step.outputs is not None
    for operator, weight, bias, matrix in step.uses:
        w, b = (None if name is None else recorder.parameters[name] for name in (weight, bias))
        recorder.collector.skipped(operator, w, b, matrix, zero=step.zero)
    made = [output.stand_in(recorder.batch, NOTHING) for output in step.outputs]
    for y, output in zip(made, step.outputs, strict=True):
        recorder.marks.sample(y, output.where)
    recorder._calls += step.counted
    return made[0] if step.single else made


def _zeros(
    recorder: CallRecorder,
    step: Step,
    func: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> Tensor:
    """What a product by zero puts out, in memory as it would be."""
    assert step.outputs
    y = step.outputs[0].stand_in(recorder.batch, torch.device("cpu")).zero_()
    recorder.called(func, args, kwargs, tensors_of(args, kwargs), y)
    return y


def find(recorder: Callable[[], CallRecorder], inputs: Any) -> Plan | None:
    """The dead parts of a network in a pass that such a recorder follows; None where there are none."""
    before = torch.default_generator.get_state()
    found, drew = _looked(recorder(), inputs, Looking(watches_random=False))
    if found is None or not drew:
        return found
    torch.default_generator.set_state(before)
    return _looked(recorder(), inputs, Looking(watches_random=True))[0]


def _looked(recorder: CallRecorder, inputs: Any, looking: Looking) -> tuple[Plan | None, bool]:
    """The plan, and whether anything drew random numbers."""
    recorder.parts, recorder.collector.noted = looking, []
    for x in leaves(inputs):
        recorder.marks.sample(x, Layout(0))
    with recorder:
        outputs = call_model(recorder.model, inputs)
    if recorder.problems or recorder.marks.has_copies:
        return None, False
    return looking.plan(leaves(outputs)), looking.drew
