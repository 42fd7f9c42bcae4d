"""Repeating a steered search without a page: the same actions at the same trials give the same trials."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pynas.steer.search import SteeredSearch
from pynas.steer.setup import begin, space_of_run, stored_setup
from pynas.store import Action, Journal, Run, RunConfig, Store
from pynas.trial import Trial


@dataclass(frozen=True)
class Replay:
    """A steered run and its repetition.

    Attributes:
        run: The run in the store.
        stored: Its trials.
        actions: Its actions.
        trials: The trials of the repetition.
        differing: Numbers of the trials that are not the same.
        settings: What differs in the settings, such as the number of threads; one phrase each.
    """

    run: Run
    stored: tuple[Trial, ...]
    actions: tuple[Action, ...]
    trials: tuple[Trial, ...]
    differing: tuple[int, ...]
    settings: tuple[str, ...]

    @property
    def is_same(self) -> bool:
        """Whether every trial came again, with the same scores."""
        return not self.differing and len(self.trials) == len(self.stored)


def replay(
    store: str | Store,
    run: int | None = None,
    *,
    on_trial: Callable[[Trial], None] | None = None,
) -> Replay:
    """Repeat a steered run of a store from its beginning: training, actions and evaluations.

    Raises:
        UserError: There is no such run, or it was begun by a program.
    """
    if not isinstance(store, Store):
        with Store(store, read_only=True) as opened:
            return replay(opened, run, on_trial=on_trial)
    found, setup = stored_setup(store, run)
    space = space_of_run(found)
    trials = store.trials(found, check=space.check)
    actions = Journal(store, found).actions()
    with begin(space, setup, script=actions) as search:
        repeat(search, len(trials), on_trial)
        return compared(found, trials, actions, search)


def repeat(search: SteeredSearch, trials: int, on_trial: Callable[[Trial], None] | None = None) -> None:
    """Let a search with a script go on until it has done everything and has so many trials."""
    while True:
        search.do_due()
        before = len(search.trials)
        if not search.is_catching_up and before >= trials:
            break
        if not search.advance():
            break
        if on_trial is not None and len(search.trials) > before:
            on_trial(search.trials[-1])


def compared(
    run: Run, stored: tuple[Trial, ...], actions: tuple[Action, ...], search: SteeredSearch
) -> Replay:
    """What came of a repetition."""
    again = tuple(search.trials)
    differing = tuple(
        number
        for number in range(max(len(stored), len(again)))
        if number >= min(len(stored), len(again)) or not same(stored[number], again[number])
    )
    config: RunConfig = search.run.config
    return Replay(run, stored, actions, again, differing, tuple(config.differences(run.config)))


def same(one: Trial, other: Trial) -> bool:
    """Whether two trials are of one architecture, with equal status, scores and metrics."""
    a, b = one.evaluation, other.evaluation
    return (
        one.architecture == other.architecture
        and a.status is b.status
        and _equal(a.scores, b.scores)
        and _equal(a.metrics, b.metrics)
    )


def _equal(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return one.keys() == other.keys() and all(
        value == other[name] or (math.isnan(value) and math.isnan(other[name])) for name, value in one.items()
    )
