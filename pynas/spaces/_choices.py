"""What a custom space is made of: its choices by text, its factory's arguments, and its conditions."""

from __future__ import annotations

import inspect
import itertools
import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pynas._errors import UserError

Choices = Mapping[str, Mapping[str, Any]]
"""For each argument of a factory its values by label."""

Condition = Callable[..., bool] | Mapping[str, Any]
"""A function of choices before, or the values that these must have."""

TASK = ("num_classes", "in_channels")
"""Passed to a factory that takes them, besides the choices."""

MOST_CASES = 100_000
"""Up to so many combinations of the choices that conditions read."""


def labelled(name: str, values: Iterable[Any]) -> dict[str, Any]:
    """The values of one argument by their texts."""
    if isinstance(values, str):
        raise UserError(f"choices[{name!r}]: expected a list of values, got the text {values!r}")
    if isinstance(values, Mapping):
        pairs = [(str(label), value) for label, value in values.items()]
    else:
        pairs = [(_label(value), value) for value in values]
    if not pairs:
        raise UserError(f"choices[{name!r}]: expected at least one value, got none")
    for label, _ in pairs:
        if not label or not label.isprintable() or set(label) & {",", "="} or label != label.strip():
            raise UserError(
                f"choices[{name!r}]: the text {label!r} of a value cannot stand in name=value,name=value; "
                "pass a dictionary {label: value} with other labels"
            )
    found = dict(pairs)
    if len(found) < len(pairs):
        raise UserError(f"choices[{name!r}]: two values have the same text among {[p[0] for p in pairs]}")
    return found


def _label(value: Any) -> str:
    return value.__name__ if inspect.isroutine(value) or inspect.isclass(value) else str(value)


def check_signature(
    factory: Callable[..., Any], names: Sequence[str], conditional: Iterable[str]
) -> tuple[str, ...]:
    """The arguments of the task that the factory takes.

    Raises:
        UserError: It cannot be called with ``names``, or without those that are ``conditional``.
    """
    if not callable(factory):
        raise UserError(
            f"factory: expected a function that returns a torch.nn.Module, got {type(factory).__name__}"
        )
    reserved = [name for name in names if name in TASK]
    if reserved:
        raise UserError(f"choices: {reserved[0]!r} is given by the task and cannot be a choice")
    try:
        parameters = inspect.signature(factory).parameters.values()
    except ValueError:  # some callables of extension modules have no signature
        return ()
    keywords = {p.name: p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    for name in names:
        if name not in keywords and not takes_any:
            known = ", ".join(sorted(keywords)) or "none"
            raise UserError(f"choices: the factory takes no keyword argument {name!r}; it takes: {known}")
    for name in conditional:
        if name in keywords and keywords[name].default is inspect.Parameter.empty:
            raise UserError(
                f"when[{name!r}]: where it has no meaning the factory is called without it; give it a default"
            )
    needed = {
        p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    }
    missing = sorted(needed - set(names) - set(TASK))
    if missing:
        raise UserError(f"choices: the factory needs {missing[0]!r} too; add it, or give it a default")
    return tuple([name for name in TASK if name in keywords])


def position(values: Mapping[str, Any], value: object) -> int | None:
    """Which of the values of a choice ``value`` is: itself, an equal one, or the label of one."""
    for i, (label, known) in enumerate(values.items()):
        try:
            if known is value or (type(known) is type(value) and known == value) or label == value:
                return i
        except Exception:  # whatever a value's own comparison raises
            continue
    return None


@dataclass(frozen=True)
class _Case:
    """One combination of the choices that conditions read.

    Attributes:
        read: Their decisions.
        active: Whether each choice of the space has a meaning.
        free: Positions of the others that have one.
        before: Number of architectures of the cases before.
    """

    read: tuple[int, ...]
    active: tuple[bool, ...]
    free: tuple[int, ...]
    before: int


class Conditions:
    """Which choices have a meaning, given those before them; the decision of one that has none is 0.

    A choice whose condition reads a choice without a meaning has none itself.

    Args:
        choices: The choices in order.
        when: For some of them a condition: a function whose arguments are choices before it, or
            ``{choice: value}`` or ``{choice: [value, ...]}``, all of which must hold.
    """

    def __init__(self, choices: Choices, when: Mapping[str, Condition]) -> None:
        self._counts = tuple([len(values) for values in choices.values()])
        names = list(choices)
        self._tests: dict[int, tuple[tuple[int, ...], set[tuple[int, ...]]]] = {}
        for name, condition in when.items():
            if name not in choices:
                raise UserError(f"when: {name!r} is none of the choices: {', '.join(choices)}")
            test, read = _test(name, condition, choices)
            at = tuple([names.index(other) for other in read])
            if math.prod(self._counts[i] for i in at) > MOST_CASES:
                raise UserError(f"when[{name!r}]: reads more than {MOST_CASES:,} combinations of choices")
            held = itertools.product(*(range(self._counts[i]) for i in at))
            self._tests[names.index(name)] = at, {d for d in held if test(d)}
        self._read = tuple(sorted({i for at, _ in self._tests.values() for i in at}))
        self._cases = list(self._enumerate())
        self._number = {case.read: number for number, case in enumerate(self._cases)}
        last = self._cases[-1]
        self.size = last.before + math.prod(self._counts[i] for i in last.free)

    def _is_active(
        self, i: int, active: Sequence[bool], decisions: Mapping[int, int] | Sequence[int]
    ) -> bool:
        if i not in self._tests:
            return True
        at, held = self._tests[i]
        return all(active[j] for j in at) and tuple([decisions[j] for j in at]) in held

    def _enumerate(self) -> Iterator[_Case]:
        before = 0
        partial: list[dict[int, int]] = [{}]
        for i in self._read:
            grown = []
            for known in partial:
                active = self._activity(known, upto=i)
                choices = range(self._counts[i]) if self._is_active(i, active, known) else (0,)
                grown += [{**known, i: decision} for decision in choices]
            if len(grown) > MOST_CASES:
                raise UserError(
                    f"when: the choices that conditions read have more than {MOST_CASES:,} combinations"
                )
            partial = grown
        for known in partial:
            active = self._activity(known, upto=len(self._counts))
            free = tuple([i for i, on in enumerate(active) if on and i not in known])
            yield _Case(tuple(known.values()), tuple(active), free, before)
            before += math.prod(self._counts[i] for i in free)

    def _activity(self, known: Mapping[int, int], upto: int) -> list[bool]:
        active: list[bool] = []
        for i in range(upto):
            active.append(self._is_active(i, active, known))
        return active

    def active(self, decisions: Sequence[int]) -> tuple[bool, ...]:
        """Whether each choice has a meaning."""
        active: list[bool] = []
        for i in range(len(decisions)):
            active.append(self._is_active(i, active, decisions))
        return tuple(active)

    def is_next_active(self, decisions: Sequence[int]) -> bool:
        """Whether the choice behind these first ones has a meaning."""
        return self._is_active(len(decisions), self.active(decisions), decisions)

    def normal(self, decisions: Iterable[int]) -> tuple[int, ...]:
        """The decisions, 0 for choices without a meaning."""
        found: list[int] = []
        active: list[bool] = []
        for i, decision in enumerate(decisions):
            active.append(self._is_active(i, active, found))
            found.append(decision if active[-1] else 0)
        return tuple(found)

    def is_normal(self, decisions: Sequence[int]) -> bool:
        """Whether choices without a meaning are 0."""
        return self.normal(decisions) == tuple(decisions)

    def index(self, decisions: Sequence[int]) -> int:
        """Position in ``0 .. size - 1``: by the choices that conditions read, then by the others."""
        case = self._cases[self._number[tuple([decisions[i] for i in self._read])]]
        rank = 0
        for i in case.free:
            rank = rank * self._counts[i] + decisions[i]
        return case.before + rank

    def from_index(self, index: int) -> tuple[int, ...]:
        """Inverse of :meth:`index`."""
        case = self._cases[bisect_right(self._cases, index, key=lambda case: case.before) - 1]
        decisions = [0] * len(self._counts)
        for i, decision in zip(self._read, case.read, strict=True):
            decisions[i] = decision
        rank = index - case.before
        for i in reversed(case.free):
            rank, decisions[i] = divmod(rank, self._counts[i])
        return tuple(decisions)

    def moves(self, decisions: Sequence[int], i: int, choice: int) -> Iterator[tuple[int, ...]]:
        """All decisions that take ``choice`` at ``i`` and keep the others that have a meaning in both.

        What gains a meaning takes every value.
        """
        was = self.active(decisions)
        partial: list[tuple[int, ...]] = [(*decisions[:i], choice)]
        for j in range(i + 1, len(decisions)):
            grown = []
            for found in partial:
                if not self.is_next_active(found):
                    grown.append((*found, 0))
                elif was[j]:
                    grown.append((*found, decisions[j]))
                else:
                    grown += [(*found, value) for value in range(self._counts[j])]
            partial = grown
        yield from partial


def _test(
    name: str, condition: Condition, choices: Choices
) -> tuple[Callable[[tuple[int, ...]], bool], tuple[str, ...]]:
    """A condition as a function of decisions, and the choices that it reads, in this order."""
    before = list(choices)[: list(choices).index(name)]
    if isinstance(condition, Mapping):
        read = tuple(condition)
        _check_before(name, read, before)
        allowed = [_positions(name, other, wanted, choices[other]) for other, wanted in condition.items()]
        return lambda decisions: all(d in held for d, held in zip(decisions, allowed, strict=True)), read
    if not callable(condition):
        raise UserError(
            f"when[{name!r}]: expected a function of choices before it or {{choice: values}}, got "
            f"{type(condition).__name__}"
        )
    function = condition
    read = tuple(inspect.signature(function).parameters)
    _check_before(name, read, before)
    values = [list(choices[other].values()) for other in read]

    def holds(decisions: tuple[int, ...]) -> bool:
        given = {other: known[d] for other, known, d in zip(read, values, decisions, strict=True)}
        try:
            return bool(function(**given))
        except Exception as error:
            raise UserError(f"when[{name!r}]: {given} raised {type(error).__name__}: {error}") from error

    return holds, read


def _check_before(name: str, read: Sequence[str], before: Sequence[str]) -> None:
    if not read:
        raise UserError(f"when[{name!r}]: reads no choice, so it holds always or never")
    for other in read:
        if other not in before:
            raise UserError(
                f"when[{name!r}]: reads {other!r}, which is no choice before it; before it are: "
                f"{', '.join(before) or 'none'}"
            )


def _positions(name: str, other: str, wanted: object, values: Mapping[str, Any]) -> set[int]:
    listed = list(wanted) if isinstance(wanted, (list, tuple, set, frozenset, range)) else [wanted]
    found = set()
    for value in listed:
        at = position(values, value)
        if at is None:
            raise UserError(
                f"when[{name!r}]: {value!r} is no value of {other}, which has: {', '.join(values)}"
            )
        found.add(at)
    return found
