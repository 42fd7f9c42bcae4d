"""The ask/tell protocol of search strategies, with seeds, constraints, duplicates and state."""

from __future__ import annotations

import base64
import copy
import itertools
import random
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pynas._errors import UserError
from pynas._plural import counted
from pynas.architecture import Architecture
from pynas.trial import Trial

if TYPE_CHECKING:
    from pynas.spaces import SearchSpace

Feasible = Callable[[Architecture], bool]

ENUMERATION_LIMIT = 100_000
"""Spaces up to this size are enumerated when sampling finds nothing new; that takes seconds at most."""

SAMPLES_BEFORE_ENUMERATION = 200
SAMPLES_WITHOUT_ENUMERATION = 10_000

ATTEMPTS = 64
ATTEMPTS_PER_MUTATION = 16


def _anything(architecture: Architecture) -> bool:
    """The constraint of a search without constraints."""
    return True


class Exhausted(Exception):  # noqa: N818  (an outcome of ask(), like StopIteration, not an error)
    """Every feasible architecture has been proposed."""


class Infeasible(UserError):  # noqa: N818
    """No architecture meets the constraints."""


class SearchStrategy(ABC):
    """Proposes architectures and learns from their evaluations.

    ``ask()`` proposes an architecture; the caller evaluates it and returns the trial by ``tell()``. Several
    asks may be open at a time. All proposals are feasible, and no two have the same canonical form, unless
    the first was evaluated at a lower fidelity.

    ``state()`` is a JSON value that holds everything, including the random generator: a strategy made with
    the same arguments that loads this state by ``load_state()`` continues with exactly the same proposals.

    To add a strategy: subclass this in a file of its own, implement ``_propose`` (with ``_claim`` and
    ``_sample``), override ``tell``, ``state`` and ``load_state`` if there is more state, and register it in
    ``pynas/strategies/__init__.py``. It has to pass the checks of ``pynas.testing.strategies``.

    Args:
        space: The space to search.
        seed: Seed of the strategy's own random generator.
        feasible: The hard constraints as a predicate; None allows every architecture.
        objectives: Names of the scores to maximise; empty means all scores of each evaluation.
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int = 0,
        feasible: Feasible | None = None,
        objectives: Sequence[str] = (),
    ) -> None:
        self.space = space
        self.objectives = tuple(objectives)
        self._rng = random.Random(seed)
        self._feasible = feasible or _anything
        # Keys of everything proposed or told; a dict as a set, because its order is reproducible.
        self._seen: dict[tuple[int, ...], None] = {}
        # The rest of the space, by key; None until sampling has become too slow.
        self._remaining: dict[tuple[int, ...], Architecture] | None = None

    added: ClassVar[Mapping[str, Any]] = {}
    """Options that earlier versions did not have, each with the value by which those versions searched."""

    def _for_search(self, space: SearchSpace, feasible: Feasible | None, objectives: Sequence[str]) -> Self:
        """A copy of this instance, which somebody made, for a search with these constraints and objectives.

        Raises:
            UserError: It is of another space or other objectives, was used already, or cannot be copied.
        """
        name = type(self).__name__
        if self.space is not space and (type(self.space), self.space.name) != (type(space), space.name):
            raise UserError(f"strategy: {name} was made for {self.space.name}, the search is of {space.name}")
        if self.objectives and self.objectives != tuple(objectives):
            raise UserError(
                f"strategy: {name} was made for the objectives {', '.join(self.objectives)}, "
                f"the search is for {', '.join(objectives)}"
            )
        if self._seen:
            raise UserError(
                f"strategy: {name} has proposed or been told {counted(len(self._seen), 'architecture')} "
                "already; make a new one for each search"
            )
        own = self._feasible
        try:
            made = copy.deepcopy(self, {id(self.space): space, id(own): own})
        except Exception as error:  # of what the user's class holds
            raise UserError(
                f"strategy: {name} cannot be copied ({type(error).__name__}: {error}); give the class, and "
                "its options as strategy_options"
            ) from error
        made.objectives = tuple(objectives)
        if feasible is not None:
            limits = feasible
            made._feasible = limits if own is _anything else lambda arch: own(arch) and limits(arch)
        return made

    def _made_of(self) -> dict[str, Any]:
        """The attributes of an instance that nobody has used, without what a search gives it."""
        given = {"space", "objectives", *(["_feasible"] if self._feasible is _anything else [])}
        return {name: value for name, value in vars(self).items() if name not in given}

    costs: Sequence[str] = ()
    """Names of costs that the strategy reads from the metrics of trials."""

    def _depends_on(self) -> Mapping[str, Any]:
        """A JSON object of what proposals depend on besides the options, such as the content of a file."""
        return {}

    def fidelity(self, architecture: Architecture) -> float:
        """The fidelity at which to evaluate a proposal: a share of a full evaluation in (0, 1], by default 1.

        Called between ``ask()`` and ``tell()``. The trial's metric ``fidelity`` is the one it was evaluated
        at.
        """
        return 1.0

    def ask(self) -> Architecture:
        """Propose an architecture to evaluate.

        Raises:
            Exhausted: Every feasible architecture has been proposed.
            Infeasible: No architecture meets the constraints. Exact for spaces of up to ``ENUMERATION_LIMIT``
                architectures, otherwise concluded after ``SAMPLES_WITHOUT_ENUMERATION`` samples.
        """
        return self._propose()

    def tell(self, trial: Trial) -> None:
        """Learn from a trial, also a failed one; it need not come from ``ask``."""
        self._remember(self._key(trial.architecture))

    def state(self) -> dict[str, Any]:
        """Everything that the next proposals depend on, as a JSON value."""
        version, internal, gauss = self._rng.getstate()
        words = struct.pack(
            f"<{len(internal)}I", *internal
        )  # half the size and a tenth of the time of JSON numbers
        return {
            "rng": [version, base64.b64encode(words).decode(), gauss],
            "seen": [list(key) for key in self._seen],
            "enumerated": self._remaining is not None,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue from the ``state()`` of a strategy that was made with the same arguments."""
        version, encoded, gauss = state["rng"]
        words = base64.b64decode(encoded)
        self._rng.setstate((version, struct.unpack(f"<{len(words) // 4}I", words), gauss))
        self._seen = {tuple(key): None for key in state["seen"]}
        self._remaining = self._enumerate() if state["enumerated"] else None

    @abstractmethod
    def _propose(self) -> Architecture:
        """Return an architecture that ``_claim`` accepted, or raise an exception of ``ask``."""

    def _key(self, architecture: Architecture) -> tuple[int, ...]:
        """The key of an architecture; of those with equal keys only one is proposed."""
        return self.space.canonical(architecture).decisions

    def _claim(self, architecture: Architecture) -> bool:
        """Take ``architecture`` as the next proposal if it is new and, the more expensive check, feasible."""
        key = self._key(architecture)
        if key in self._seen or not self._feasible(architecture):
            return False
        self._remember(key)
        return True

    def _claim_child(self, breed: Callable[[int], Architecture]) -> Architecture:
        """Claim a child, or a random architecture after ``ATTEMPTS`` infeasible or repeated children.

        These are frequent around a well-explored optimum. So ``breed``, which takes the number of mutations,
        gets one more after every ``ATTEMPTS_PER_MUTATION`` attempts.
        """
        for attempt in range(ATTEMPTS):
            child = breed(1 + attempt // ATTEMPTS_PER_MUTATION)
            if self._claim(child):
                return child
        return self._sample()

    def _sample(self) -> Architecture:
        """Claim a random architecture: by sampling as long as that finds new ones, then by enumeration."""
        if self._remaining is None:
            size = self.space.size
            enumerable = size is not None and size <= ENUMERATION_LIMIT
            for _ in range(SAMPLES_BEFORE_ENUMERATION if enumerable else SAMPLES_WITHOUT_ENUMERATION):
                architecture = self.space.sample(self._rng)
                if self._claim(architecture):
                    return architecture
            if not enumerable:
                raise self._nothing_left(f"tried {counted(SAMPLES_WITHOUT_ENUMERATION, 'sample')}")
            self._remaining = self._enumerate()
        if not self._remaining:
            raise self._nothing_left(f"all {self.space.size or 0:,} checked")
        position = self._rng.randrange(len(self._remaining))
        architecture = next(itertools.islice(self._remaining.values(), position, None))
        self._remember(self._key(architecture))
        return architecture

    def _remember(self, key: tuple[int, ...]) -> None:
        self._seen[key] = None
        if self._remaining is not None:
            self._remaining.pop(key, None)

    def _enumerate(self) -> dict[tuple[int, ...], Architecture]:
        """The first feasible architecture of each new key, in the order of the space."""
        remaining: dict[tuple[int, ...], Architecture] = {}
        for architecture in self.space.all():
            key = self._key(architecture)
            if key not in self._seen and key not in remaining and self._feasible(architecture):
                remaining[key] = architecture
        return remaining

    def _nothing_left(self, how_known: str) -> Exception:
        if self._seen:
            count = f"{len(self._seen):,} proposed"
            return Exhausted(
                f"no new feasible architecture of {self.space.name} is left ({count}; {how_known})"
            )
        return Infeasible(f"no architecture of {self.space.name} meets the constraints ({how_known})")
