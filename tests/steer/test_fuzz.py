"""Actions at random: nothing crashes, refusals change nothing, and a replay reaches every state."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from pynas.spaces import TransNASMacro
from pynas.steer import Malformed, Refused, SteeredSearch, Unit
from pynas.trial import Evaluation
from tests.steer.steered import SPACE, outcome, score

MACRO = TransNASMacro()
DECISIONS = st.lists(st.integers(0, 4), min_size=6, max_size=6)
BLOCKS = st.lists(st.builds("{}:{}".format, st.integers(0, 5), st.integers(0, 4)), min_size=1, max_size=8)
SELECTION = st.lists(DECISIONS, min_size=1, max_size=4)
ACTIONS = st.one_of(
    st.tuples(st.sampled_from(["forbid", "force", "allow"]), st.fixed_dictionaries({"blocks": BLOCKS})),
    st.tuples(
        st.sampled_from(["restrict", "fix", "forbid_common"]),
        st.fixed_dictionaries({"candidates": SELECTION}),
    ),
    st.tuples(st.just("add"), st.fixed_dictionaries({"decisions": DECISIONS})),
    st.tuples(st.just("withdraw"), st.fixed_dictionaries({"decisions": DECISIONS})),
    st.tuples(st.just("budget"), st.fixed_dictionaries({"trials": st.integers(1, 60)})),
    st.tuples(
        st.just("constraints"),
        st.fixed_dictionaries({"bounds": st.fixed_dictionaries({"params": st.integers(0, 12_000)})}),
    ),
    st.tuples(st.just("constraints"), st.just({"bounds": {}})),
    st.tuples(
        st.just("weights"),
        st.fixed_dictionaries({"weights": st.fixed_dictionaries({"s": st.integers(-1, 2)})}),
    ),
    st.tuples(st.just("weights"), st.just({"weights": None})),
    st.tuples(
        st.just("strategy"),
        st.fixed_dictionaries({"name": st.sampled_from(["random", "evolution", "local_search", "nsga2"])}),
    ),
    st.tuples(st.sampled_from(["undo", "redo"]), st.fixed_dictionaries({"of": st.integers(0, 12)})),
    st.tuples(st.sampled_from(["undo", "redo", "pause", "resume", "train_pause"]), st.just({})),
)
GARBAGE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
NAMES = (
    "blocks",
    "decisions",
    "candidates",
    "name",
    "options",
    "trials",
    "bounds",
    "weights",
    "text",
    "epochs",
    "of",
)
FEW = 40
ACTIONS_WANTED = int(os.environ.get("PYNAS_STEER_ACTIONS", FEW))
"""So many actions are tried; ``make evidence`` tries 10,000."""


def judged(arch: Any) -> Evaluation:
    return score(arch)


class Steerer(RuleBasedStateMachine):
    """Somebody who does anything at any time, also while a trial runs."""

    search: SteeredSearch
    space: Any
    tried = done = 0

    @initialize(constrained=st.booleans(), strategy=st.sampled_from(["random", "evolution"]))
    def begin(self, constrained: bool, strategy: str) -> None:
        self.space = MACRO if constrained else SPACE
        self.strategy = strategy
        self.folder = tempfile.TemporaryDirectory()
        self.search = self.made((), store=Path(self.folder.name, "runs.db"))
        self.unit: Unit | None = None
        self.search.act("resume")

    def made(self, script: Any, **options: Any) -> SteeredSearch:
        given = {"objectives": ["s"], "budget": 30, "seed": 7, "strategy": self.strategy, **options}
        return SteeredSearch(self.space, judged, script=script, **given)

    @rule(actions=st.lists(ACTIONS, min_size=1, max_size=8))
    def act(self, actions: list[tuple[str, dict[str, Any]]]) -> None:
        for kind, fields in actions:
            before, count = outcome(self.search), len(self.search.actions)
            with contextlib.suppress(Refused, Malformed):
                self.search.act(kind, **fields)
            Steerer.tried += 1
            if len(self.search.actions) == count:
                assert outcome(self.search) == before
            else:
                Steerer.done += 1
                assert self.search.text(self.search.actions[-1])

    @rule(
        kind=st.sampled_from(["forbid", "add", "weights", "train", "strategy", "x"]),
        fields=st.dictionaries(st.sampled_from(NAMES), GARBAGE, max_size=2),
    )
    def act_nonsense(self, kind: str, fields: dict[str, Any]) -> None:
        before, count = outcome(self.search), len(self.search.actions)
        with contextlib.suppress(Refused, Malformed):
            self.search.act(kind, **fields)
        assert len(self.search.actions) > count or outcome(self.search) == before

    @rule(action=ACTIONS)
    def preview(self, action: tuple[str, dict[str, Any]]) -> None:
        before = outcome(self.search)
        with contextlib.suppress(Refused, Malformed):
            self.search.preview(action[0], **action[1])
        assert outcome(self.search) == before

    @precondition(lambda self: self.unit is None)
    @rule(count=st.integers(1, 6))
    def advance(self, count: int) -> None:
        for _ in range(count):
            self.search.advance()

    @precondition(lambda self: self.unit is None)
    @rule()
    def begin_trial(self) -> None:
        self.unit = self.search.begin()

    @precondition(lambda self: self.unit is not None)
    @rule()
    def finish_trial(self) -> None:
        assert self.unit is not None
        self.search.finish(self.unit, self.unit.run())
        self.unit = None

    @precondition(lambda self: self.unit is not None and len(self.search.actions) > 15)
    @rule(kind=st.sampled_from(["stop", "cancel"]))
    def end(self, kind: str) -> None:
        with contextlib.suppress(Refused):
            self.search.act(kind)

    @rule()
    def kill_and_resume(self) -> None:
        """What runs is lost; all else is as it was."""
        before = outcome(self.search)
        runs, self.unit = self.unit is not None, None
        self.search.close()
        self.search = self.made((), store=Path(self.folder.name, "runs.db"), resume=True)
        while True:
            self.search.do_due()
            if not self.search.is_catching_up:
                break
            self.search.advance()
        if not runs:
            assert outcome(self.search) == before

    @invariant()
    def what_is_evaluated_was_allowed(self) -> None:
        settings_now = self.search.state.settings
        assert all(settings_now.allowed)
        assert len(self.search.trials) <= max(settings_now.budget, len(self.search.trials))
        seen = [trial.architecture for trial in self.search.trials]
        assert len(set(seen)) == len(seen)

    def teardown(self) -> None:
        if not hasattr(self, "search"):
            return
        if self.unit is not None:
            self.finish_trial()
        again = self.made(self.search.actions)
        for _ in range(10_000):
            again.do_due()
            if not again.is_catching_up and len(again.trials) >= len(self.search.trials):
                break
            if not again.advance():
                break
        assert outcome(again) == outcome(self.search)
        self.search.close()
        self.folder.cleanup()


@pytest.mark.slow
def test_anything_at_any_time_is_repeated_by_a_replay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pynas.steer._admission._SAMPLES", 200)  # drawn before a constraint is refused
    monkeypatch.setattr("pynas.steer._admission._LISTED", 0)
    few = ACTIONS_WANTED <= FEW
    chosen = settings(
        max_examples=6 if few else 60,
        stateful_step_count=20 if few else 50,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    Steerer.tried = Steerer.done = 0
    while True:
        run_state_machine_as_test(Steerer, settings=chosen)
        if few or Steerer.tried >= ACTIONS_WANTED:
            break
    print(f"{Steerer.tried:,} actions tried, {Steerer.done:,} of them done, none other in its replay")
    assert Steerer.done > 0
