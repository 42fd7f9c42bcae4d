"""The ask/tell protocol of search strategies, and what they share: seeds, constraints, duplicates, state."""

from __future__ import annotations

import base64
import itertools
import random
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pynas._errors import UserError
from pynas.architecture import Architecture
from pynas.trial import Trial

if TYPE_CHECKING:
    from pynas.spaces import SearchSpace

Feasible = Callable[[Architecture], bool]

ENUMERATION_LIMIT = 100_000
"""Spaces up to this size are searched exactly when sampling finds nothing new (seconds at most)."""

SAMPLES_BEFORE_ENUMERATION = 200
SAMPLES_WITHOUT_ENUMERATION = 10_000

ATTEMPTS = 64
ATTEMPTS_PER_MUTATION = 16


class Exhausted(Exception):  # noqa: N818  (an outcome of ask(), like StopIteration, not an error)
    """Every feasible architecture has been proposed."""


class Infeasible(UserError):  # noqa: N818
    """No architecture meets the constraints."""


class SearchStrategy(ABC):
    """Proposes architectures and learns from their evaluations.

    The life of a trial: ``ask()`` proposes an architecture, somebody evaluates it, ``tell()`` hands the trial
    back. Several asks may be open at a time. No two proposals have the same canonical form, unless the first
    was evaluated at a lower fidelity, and all of them are feasible.

    ``state()`` is a JSON value that holds everything, the random generator included: a strategy made with the
    same arguments and given that state by ``load_state()`` continues with exactly the proposals the first one
    would make.

    To add a strategy: subclass this in a file of its own, implement ``_propose`` (through ``_claim`` and
    ``_sample``), override ``tell``, ``state`` and ``load_state`` where there is more to remember, and
    register it in ``pynas/strategies/__init__.py``. ``pynas.testing.strategies`` holds the checks that it
    must pass.

    Args:
        space: Where to search.
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
        self._feasible = feasible or (lambda architecture: True)
        # Keys of everything proposed or told; a dict, whose order is repeatable, as a set.
        self._seen: dict[tuple[int, ...], None] = {}
        # What is left of the space, by key; None until sampling has become too slow.
        self._remaining: dict[tuple[int, ...], Architecture] | None = None

    costs: Sequence[str] = ()
    """Names of costs that the strategy reads from the metrics of trials."""

    def _depends_on(self) -> Mapping[str, Any]:
        """What proposals depend on beside the options, such as the content of a file: a JSON object."""
        return {}

    def fidelity(self, architecture: Architecture) -> float:
        """The share of a full evaluation that a proposal is worth, in (0, 1]; by default all of it.

        Asked after ``ask()`` and before the trial is told, whose metric ``fidelity`` then says what it got.
        """
        return 1.0

    def ask(self) -> Architecture:
        """Propose an architecture to evaluate.

        Raises:
            Exhausted: every feasible architecture has been proposed.
            Infeasible: no architecture meets the constraints (exact for spaces of up to ``ENUMERATION_LIMIT``
                architectures, else after ``SAMPLES_WITHOUT_ENUMERATION`` samples).
        """
        return self._propose()

    def tell(self, trial: Trial) -> None:
        """Learn from a trial, failed ones included; it need not come from ``ask``."""
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
        """Continue from what ``state()`` returned to a strategy made with the same arguments."""
        version, encoded, gauss = state["rng"]
        words = base64.b64decode(encoded)
        self._rng.setstate((version, struct.unpack(f"<{len(words) // 4}I", words), gauss))
        self._seen = {tuple(key): None for key in state["seen"]}
        self._remaining = self._enumerate() if state["enumerated"] else None

    @abstractmethod
    def _propose(self) -> Architecture:
        """Return an architecture that ``_claim`` accepted, or raise as ``ask`` does."""

    def _key(self, architecture: Architecture) -> tuple[int, ...]:
        """What two architectures share if only one of them should be proposed."""
        return self.space.canonical(architecture).decisions

    def _claim(self, architecture: Architecture) -> bool:
        """Take ``architecture`` as the next proposal if it is new and feasible (the dearer check)."""
        key = self._key(architecture)
        if key in self._seen or not self._feasible(architecture):
            return False
        self._remember(key)
        return True

    def _claim_child(self, breed: Callable[[int], Architecture]) -> Architecture:
        """Claim a child; a random architecture after ``ATTEMPTS`` that were infeasible or proposed before.

        Around a well-explored optimum that happens often, so every ``ATTEMPTS_PER_MUTATION`` attempts
        ``breed``, which takes the number of mutations, is asked for one more.
        """
        for attempt in range(ATTEMPTS):
            child = breed(1 + attempt // ATTEMPTS_PER_MUTATION)
            if self._claim(child):
                return child
        return self._sample()

    def _sample(self) -> Architecture:
        """Claim a random architecture: by sampling while that finds new ones, then by enumeration."""
        if self._remaining is None:
            size = self.space.size
            enumerable = size is not None and size <= ENUMERATION_LIMIT
            for _ in range(SAMPLES_BEFORE_ENUMERATION if enumerable else SAMPLES_WITHOUT_ENUMERATION):
                architecture = self.space.sample(self._rng)
                if self._claim(architecture):
                    return architecture
            if not enumerable:
                raise self._nothing_left(f"{SAMPLES_WITHOUT_ENUMERATION:,} samples tried")
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
        """The first feasible architecture of each key not seen yet, in the space's order."""
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
