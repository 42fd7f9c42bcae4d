"""What can be done to a search, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest

import pynas
from pynas import spaces
from pynas._errors import UserError
from pynas.architecture import Architecture
from pynas.run.objectives import summary
from pynas.spaces import NASBench201
from pynas.steer import Malformed, Refused, SteeredSearch
from pynas.trial import Evaluation, Status
from tests.steer.steered import CELL, SPACE, follow, outcome, score, steered


@pytest.mark.parametrize("strategy", ["evolution", "random", "local_search", "nsga2", "reinforce"])
@pytest.mark.parametrize("objectives", [["s"], ["s", "-params"]])
def test_without_actions_it_is_the_plain_search(strategy: str, objectives: list[str]) -> None:
    # By graphs it would train an embedding first, wherever none is in the cache.
    options = {"embedding": "encoding"} if strategy == "reinforce" else {}
    chosen: dict[str, Any] = {"strategy": strategy, "objectives": objectives, "strategy_options": options}
    plain = pynas.search(SPACE, budget=30, evaluator=score, seed=3, **chosen)
    search = steered(budget=30, **chosen)
    assert not search.advance(), "it waits for somebody to start it"
    search.act("resume")
    while search.advance():
        pass
    assert [t.architecture for t in search.trials] == [t.architecture for t in plain.trials]
    assert [t.evaluation.scores for t in search.trials] == [t.evaluation.scores for t in plain.trials]
    assert search.progress.best == plain.best
    assert tuple(search.progress.front) == plain.pareto
    assert (search.status, search.waiting) == ("finished", "budget")


def begun(trials: int = 8, **options: Any) -> SteeredSearch:
    search = steered(**options)
    search.act("resume")
    for _ in range(trials):
        search.advance()
    return search


def run_on(search: SteeredSearch, trials: int) -> list[Architecture]:
    first = len(search.trials)
    while len(search.trials) < first + trials and search.advance():
        pass
    return [trial.architecture for trial in search.trials[first:]]


def test_a_forbidden_choice_is_not_taken_again() -> None:
    search = begun()
    search.act("forbid", blocks=["0:0", "4:2"], who="Ada")
    later = run_on(search, 25)
    assert len(later) == 25
    assert all(arch.decisions[0] != 0 and arch.decisions[4] != 2 for arch in later)
    action = search.actions[-1]
    assert (action.trial, action.who, action.kind) == (8, "Ada", "forbid")
    assert search.text(action) == "forbid none on 0-1, nor_conv_1x1 on 1-3"


def test_force_and_allow() -> None:
    search = begun()
    search.act("force", blocks=["2:3"])
    assert all(arch.decisions[2] == 3 for arch in run_on(search, 8))
    search.act("allow", decisions=[2])
    assert search.state.settings.allowed[2] == (0, 1, 2, 3, 4)
    assert {arch.decisions[2] for arch in run_on(search, 20)} != {3}


def test_union_intersection_and_complement_of_a_selection() -> None:
    chosen = [[1, 2, 3, 4, 0, 1], [1, 2, 0, 4, 1, 1]]
    union, both, neither = begun(), begun(), begun()
    union.act("restrict", candidates=chosen)
    assert union.state.settings.allowed == ((1,), (2,), (0, 3), (4,), (0, 1), (1,))
    both.act("fix", candidates=chosen)
    assert both.state.settings.allowed == ((1,), (2,), (0, 1, 2, 3, 4), (4,), (0, 1, 2, 3, 4), (1,))
    neither.act("forbid_common", candidates=chosen)
    assert neither.state.settings.allowed == (
        *((0, 2, 3, 4), (0, 1, 3, 4), (0, 1, 2, 3, 4), (0, 1, 2, 3), (0, 1, 2, 3, 4), (0, 2, 3, 4)),
    )
    for search in (union, both, neither):
        space = search.allowed_space
        assert all(space.is_valid(arch.decisions) for arch in run_on(search, 10))
    assert union.status == "finished"
    assert union.waiting == "exhausted"
    assert union.actions[-1].kind == "exhausted"


def test_a_decision_with_one_choice_is_passed_over_by_the_complement() -> None:
    search = begun()
    search.act("force", blocks=["0:1"])
    search.act("forbid_common", candidates=[[1, 2, 3, 4, 0, 1]])
    assert search.state.settings.allowed[0] == (1,)


def test_a_candidate_added_by_hand_is_next_and_the_analysts() -> None:
    search = begun()
    search.act("add", text=CELL, who="Ada")
    search.advance()
    trial = search.trials[8]
    assert SPACE.format(trial.architecture) == CELL
    assert search.by[8] == ("analyst", "Ada")
    assert search.by[7] == ("strategy", "")
    later = run_on(search, 20)
    assert trial.architecture not in later, "the strategy was told of it"


def test_an_added_candidate_that_is_excluded_later_is_passed_over() -> None:
    search = begun()
    search.act("add", decisions=[1, 1, 1, 2, 1, 1])
    search.act("forbid", blocks=["0:1"])
    assert search.preview("undo")["text"].startswith("undo: forbid")
    search.advance()
    assert search.by[8] == ("strategy", "")
    assert not search.state.queue


def test_strategy_budget_constraints_and_weights_change_while_it_runs() -> None:
    search = begun(objectives=["s", "-params"])
    search.act("strategy", name="random")
    search.act("constraints", bounds={"params": 4000})
    assert all(SPACE.params(arch) <= 4000 for arch in run_on(search, 8))
    search.act("weights", weights={"s": 1.0, "-params": 0.001})
    run_on(search, 4)
    best = search.progress.best
    assert best is not None
    value = {
        t.number: t.evaluation.scores["s"] - t.evaluation.metrics["params"] / 1000
        for t in search.progress.trials
    }
    assert value[best.number] == max(value.values())
    search.act("budget", trials=22)
    assert len(run_on(search, 100)) == 2
    assert search.waiting == "budget"


def test_undo_and_redo_restore_what_was() -> None:
    search = begun()
    search.act("forbid", blocks=["0:0"])
    narrow = search.state.settings
    search.act("strategy", name="random")
    both = search.state.settings
    search.act("undo")
    assert search.state.settings == narrow
    assert search.undone() == {3}
    search.act("undo")
    with pytest.raises(Refused, match="nothing to undo"):
        search.act("undo")
    search.act("redo")
    search.act("redo")
    assert search.state.settings == both
    with pytest.raises(Refused, match="nothing to redo"):
        search.act("redo")
    search.act("undo")
    search.act("budget", trials=50)
    with pytest.raises(Refused, match="nothing to redo"):
        search.act("redo")


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("forbid", {"blocks": [f"0:{c}" for c in range(5)]}, "0-1: its last choice"),
    ("forbid", {"blocks": ["5:4"]}, "forbidden already"),
    ("force", {"blocks": ["5:4"]}, "forbidden; allow it first"),
    ("allow", {"blocks": ["0:0"]}, "changes nothing"),
    ("restrict", {"candidates": [[0, 0, 0, 0, 0, 4]]}, "forbidden choice of decision 5"),
    ("restrict", {"candidates": [[0, 0, 0, 0, 0, 7]]}, "must be in 0..4"),
    ("fix", {"candidates": [[0] * 6, [1] * 6]}, "share no choice"),
    ("forbid_common", {"candidates": [[0] * 6, [1] * 6]}, "share no choice"),
    ("strategy", {"name": "psychic"}, "psychic"),
    ("strategy", {"name": "evolution", "options": {"colour": "red"}}, "unknown option 'colour'"),
    ("strategy", {"name": "evolution", "options": {"population_size": -1}}, "population_size"),
    ("strategy", {"name": "evolution"}, "changes nothing"),
    ("budget", {"trials": 7}, "8 trials have begun"),
    ("constraints", {"bounds": {"params": 3}}, "no architecture would be left"),
    ("constraints", {"bounds": {"beauty": 3}}, "unknown"),
    ("constraints", {"bounds": {"params": -3}}, "at least 0"),
    ("weights", {"weights": {"t": 1}}, "expected one for each of s"),
    ("weights", {"weights": {"s": 0}}, "not zero"),
    ("add", {"text": "nonsense"}, "not a nasbench201 architecture"),
    ("add", {"decisions": [0, 0, 0, 0, 0]}, "6 decisions"),
    ("add", {"decisions": [0, 0, 0, 0, 0, 4]}, "avg_pool_3x3 on 2-3 is forbidden"),
    ("withdraw", {"decisions": [0, 0, 0, 0, 0, 0]}, "not waiting"),
    ("resume", {}, "runs already"),
    ("train", {"epochs": 1}, "without a supernet"),
    ("train_pause", {}, "without a supernet"),
    ("redo", {}, "nothing to redo"),
]
MALFORMED: list[tuple[Any, dict[str, Any], str]] = [
    ("explode", {}, "kind"),
    (None, {}, "kind"),
    ("pause", {"now": True}, "now"),
    ("forbid", {}, "blocks"),
    ("forbid", {"blocks": []}, "blocks"),
    ("forbid", {"blocks": "0:1"}, "blocks"),
    ("forbid", {"blocks": ["0:9"]}, "blocks"),
    ("forbid", {"blocks": ["0:-1"]}, "blocks"),
    ("forbid", {"blocks": ["\u0660:1"]}, "blocks"),
    ("forbid", {"blocks": [3]}, "blocks"),
    ("force", {"blocks": ["0:1", "0:2"]}, "blocks"),
    ("allow", {}, "blocks"),
    ("allow", {"decisions": [6]}, "decisions"),
    ("allow", {"decisions": [True]}, "decisions"),
    ("restrict", {"candidates": []}, "candidates"),
    ("restrict", {"candidates": [[0.0] * 6]}, "candidates"),
    ("budget", {"trials": True}, "trials"),
    ("budget", {"trials": 0}, "trials"),
    ("constraints", {"bounds": {"params": float("nan")}}, "bounds"),
    ("constraints", {"bounds": [1]}, "bounds"),
    ("weights", {}, "weights"),
    ("weights", {"weights": {"s": "1"}}, "weights"),
    ("add", {}, "text"),
    ("add", {"text": ""}, "text"),
    ("add", {"text": CELL, "decisions": [1] * 6}, "text"),
    ("strategy", {"name": "evolution", "options": {"a": [1]}}, "options"),
    ("train", {"epochs": 0}, "epochs"),
    ("train", {"epochs": 1.5}, "epochs"),
]


@pytest.mark.parametrize(("kind", "fields", "reason"), REFUSED)
def test_a_refusal_says_why_and_changes_nothing(kind: str, fields: dict[str, Any], reason: str) -> None:
    search = begun()
    search.act("forbid", blocks=["5:4"])
    before = outcome(search)
    with pytest.raises(Refused) as caught:
        search.act(kind, **fields)
    assert reason in str(caught.value)
    assert outcome(search) == before


@pytest.mark.parametrize(("kind", "fields", "argument"), MALFORMED)
def test_what_is_no_action_names_the_field(kind: Any, fields: dict[str, Any], argument: str) -> None:
    search = begun(0)
    before = outcome(search)
    with pytest.raises(Malformed) as caught:
        search.act(kind, **fields)
    assert caught.value.argument == argument
    assert outcome(search) == before


def test_what_was_evaluated_or_waits_is_not_added_again() -> None:
    search = begun()
    with pytest.raises(Refused, match="is trial 3 already"):
        search.act("add", decisions=list(search.trials[3].architecture.decisions))
    search.act("add", text=CELL)
    with pytest.raises(Refused, match="waiting already"):
        search.act("add", text=CELL)
    search.act("withdraw", decisions=[1, 1, 1, 2, 1, 1])
    search.act("constraints", bounds={"params": 3000})
    with pytest.raises(Refused, match="does not meet the constraints: params"):
        search.act("add", decisions=[3] * 6)
    search.act("budget", trials=8)
    with pytest.raises(Refused, match="is spent; raise it"):
        search.act("add", text=CELL)


def test_controls_mean_what_they_say() -> None:
    search = begun()
    search.act("pause")
    assert not search.advance()
    assert search.status == "paused"
    with pytest.raises(Refused, match="paused already"):
        search.act("pause")
    search.act("resume")
    unit = search.begin()
    assert unit is not None
    search.act("pause")
    assert search.waiting == "pausing"
    search.finish(unit, unit.run())
    assert (len(search.trials), search.actions[-1].trial) == (9, 9)
    search.act("resume")
    unit = search.begin()
    assert unit is not None
    search.act("stop")
    assert search.waiting == "stopping"
    search.finish(unit, unit.run())
    assert (len(search.trials), search.status) == (10, "stopped")
    assert not search.advance()
    for kind in ("resume", "stop", "cancel", "undo"):
        with pytest.raises(Refused, match="was stopped"):
            search.act(kind)


def test_cancelling_throws_away_what_runs() -> None:
    search = begun()
    unit = search.begin()
    assert unit is not None
    search.act("cancel")
    search.finish(unit, unit.run())
    assert (len(search.trials), search.status, search.actions[-1].trial) == (8, "cancelled", 8)
    assert not search.advance()


def test_a_preview_says_what_is_left_and_changes_nothing() -> None:
    search = begun(20)
    before = outcome(search)
    best = search.progress.best
    assert best is not None
    block = f"0:{best.architecture.decisions[0]}"
    told = search.preview("forbid", blocks=[block])
    assert (told["before"], told["after"], told["exact"]) == ("15625", "12500", True)
    assert told["kept"] + told["lost"] == len(search.progress.trials)
    assert told["best"][0] == {"trial": best.number, "value": search.progress.single(best), "kept": False}
    assert any("is lost" in note for note in told["notes"])
    with pytest.raises(Refused, match="last choice"):
        search.preview("forbid", blocks=[f"0:{c}" for c in range(5)])
    with pytest.raises(Malformed):
        search.preview("pause")
    assert outcome(search) == before


def test_sizes_of_spaces_with_constraints_are_counted_or_estimated() -> None:
    space = spaces.get("nasbench101")
    search = SteeredSearch(space, lambda arch: Evaluation(Status.OK, {"s": 1.0}), objectives=["s"])
    told = search.preview("forbid", blocks=["21:0"])
    assert told["before"] == str(space.size)
    assert not told["exact"]
    assert 0.55 < int(told["after"]) / space._known_size() < 0.8


def test_best_and_front_are_those_of_the_whole_list() -> None:
    search = begun(40, objectives=["s", "-params"])
    best, front, _ = summary(search.trials, search.objectives, search.cost_names)
    assert search.progress.best == best
    assert tuple(search.progress.front) == front


def test_what_cannot_be_steered_is_refused() -> None:
    for name in ("epnas", "mbv2_zico"):
        reason = f"{name} has no fixed number of decisions.* such as nasbench201.*pynas search takes {name}"
        with pytest.raises(UserError, match=reason):
            SteeredSearch(spaces.get(name), score)
        with pytest.raises(UserError, match=reason):  # and not that it has no supernet
            pynas.steer(name)
    with pytest.raises(UserError, match="needs a store"):
        steered(resume=True)
    with pytest.raises(Malformed, match="positive number of trials"):
        steered(budget=0)
    with pytest.raises(UserError, match="unknown"):
        steered(constraints={"beauty": 1})


def test_an_evaluator_that_raises_makes_a_failed_trial() -> None:
    def broken(arch: Architecture) -> Evaluation:
        raise RuntimeError("out of paper")

    search = SteeredSearch(NASBench201(channels=2, num_cells=1), broken, objectives=["s"], budget=2)
    search.act("resume")
    while search.advance():
        pass
    assert [t.evaluation.message for t in search.trials] == ["RuntimeError: out of paper"] * 2
    assert search.progress.best is None


def test_following_a_plan_does_all_of_it() -> None:
    search = steered()
    follow(search)
    assert [action.kind for action in search.actions] == [
        *("budget", "resume", "forbid", "add", "strategy", "undo", "constraints", "weights", "budget", "fix"),
        "exhausted",
    ]
