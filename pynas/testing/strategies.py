"""The conformance suite of search strategies, for pynas's own and for yours.

Each check takes ``make``, a function ``make(space, seed=..., feasible=..., objectives=...)`` that returns a
new strategy, and raises AssertionError with the reason. With pytest::

    @pytest.mark.parametrize("check", pynas.testing.strategies.CHECKS, ids=lambda check: check.__name__)
    def test_my_strategy(check):
        check(MyStrategy)
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from pynas._plural import counted
from pynas.architecture import Architecture
from pynas.spaces import SearchSpace
from pynas.strategies import Exhausted, Infeasible, SearchStrategy
from pynas.trial import Evaluation, Status, Trial

if TYPE_CHECKING:
    from torch import nn

Make = Callable[..., SearchStrategy]


class ToySpace(SearchSpace):
    """Multisets: ``length`` decisions of ``choices`` choices whose order does not matter. Nothing to build.

    Its 4^5 = 1,024 architectures have C(8, 5) = 56 canonical forms: small enough to search to the end.
    """

    name: ClassVar[str] = "toy"
    summary: ClassVar[str] = "multisets of small integers, for tests of search strategies"

    def __init__(self, length: int = 5, choices: int = 4) -> None:
        self._num_choices = (choices,) * length

    @property
    def num_choices(self) -> tuple[int, ...]:  # noqa: D102
        return self._num_choices

    @property
    def num_forms(self) -> int:
        """Number of canonical forms."""
        return math.comb(len(self._num_choices) + self._num_choices[0] - 1, len(self._num_choices))

    def canonical(self, arch: Architecture) -> Architecture:  # noqa: D102
        return Architecture(self.name, tuple(sorted(self.check(arch))))

    def params(self, arch: Architecture, num_classes: int = 10, in_channels: int = 3) -> int:  # noqa: D102
        return 10 * sum(arch.decisions) + num_classes

    def macs(  # noqa: D102
        self, arch: Architecture, num_classes: int = 10, image_size: int = 32, in_channels: int = 3
    ) -> int:
        return 1000 * sum(arch.decisions)

    def build(  # noqa: D102
        self, arch: Architecture, num_classes: int = 10, in_channels: int = 3, prune: bool = False
    ) -> nn.Module:
        raise NotImplementedError("the toy space has no networks")


def toy_score(architecture: Architecture) -> float:
    """A repeatable score with several local optima: sum of squares plus a hash-like ripple."""
    decisions = sorted(architecture.decisions)
    ripple = sum((i + 1) * d for i, d in enumerate(decisions)) * 7919 % 101 / 101
    return sum(d * d for d in decisions) + ripple


def evaluate(architecture: Architecture) -> Evaluation:
    """Evaluate on the toy space; one form in seven fails and one in eleven scores NaN."""
    total = sum((i + 2) * d for i, d in enumerate(sorted(architecture.decisions)))
    if total % 7 == 3:
        return Evaluation(Status.FAILED, message="planted failure")
    if total % 11 == 5:
        return Evaluation(Status.FAILED, scores={"toy": math.nan}, message="toy is not finite")
    return Evaluation(Status.OK, scores={"toy": toy_score(architecture)})


def drive(
    strategy: SearchStrategy, trials: int, first: int = 0, evaluator: Callable[..., Evaluation] = evaluate
) -> list[Architecture]:
    """Ask and tell ``trials`` times; returns what was proposed, fewer if the space is exhausted."""
    proposed = []
    for number in range(first, first + trials):
        try:
            architecture = strategy.ask()
        except Exhausted:
            break
        proposed.append(architecture)
        strategy.tell(Trial(number, architecture, evaluator(architecture)))
    return proposed


def check_same_seed_gives_the_same_search(make: Make) -> None:
    """Two strategies with one seed propose the same; the strategy leaves the global generator alone."""
    space = ToySpace()
    first, second = (drive(make(space, seed=3), 40) for _ in range(2))
    assert first == second, "two runs with the same seed differ"


def check_every_form_once(make: Make) -> None:
    """Driven to the end, each canonical form is proposed exactly once, then ask() raises Exhausted."""
    space = ToySpace()
    strategy = make(space, seed=0)
    forms = [space.canonical(architecture) for architecture in drive(strategy, 10 * space.num_forms)]
    assert len(set(forms)) == len(forms), "a canonical form was proposed twice"
    assert len(forms) == space.num_forms, f"proposed {len(forms):,} of {counted(space.num_forms, 'form')}"
    for _ in range(2):
        _expect(Exhausted, strategy.ask)


def check_constraints_are_hard(make: Make) -> None:
    """Only feasible architectures are proposed, and all of them."""
    space = ToySpace()

    def feasible(architecture: Architecture) -> bool:
        return space.params(architecture) <= 60

    forms = {space.canonical(arch) for arch in space.all() if feasible(arch)}
    proposed = drive(make(space, seed=1, feasible=feasible), 10 * space.num_forms)
    assert all(map(feasible, proposed)), "an infeasible architecture was proposed"
    assert {space.canonical(arch) for arch in proposed} == forms, "not every feasible form was proposed"


def check_impossible_constraint(make: Make) -> None:
    """A constraint that nothing meets raises Infeasible at the first ask, not a search without end."""
    _expect(Infeasible, make(ToySpace(), seed=0, feasible=lambda architecture: False).ask)


def check_impossible_constraint_in_a_large_space(make: Make) -> None:
    """The same where the space is too large to enumerate."""
    strategy = make(ToySpace(length=20, choices=6), seed=0, feasible=lambda architecture: False)
    _expect(Infeasible, strategy.ask)


def check_state_continues_exactly(make: Make) -> None:
    """A strategy restored from JSON at any point proposes what the original goes on to propose."""
    space = ToySpace()
    whole = drive(make(space, seed=5, objectives=("toy",)), 2 * space.num_forms)
    original = make(space, seed=5, objectives=("toy",))
    done: list[Architecture] = []
    for stop in (0, 1, 3, 8, 21, space.num_forms - 2, space.num_forms):
        done += drive(original, stop - len(done), first=len(done))
        text = json.dumps(original.state(), allow_nan=False)
        restored = make(space, seed=99, objectives=("toy",))
        restored.load_state(json.loads(text))
        assert json.dumps(restored.state()) == text, f"state() after load_state() differs at trial {stop}"
        rest = drive(restored, 2 * space.num_forms, first=stop)
        assert done + rest == whole, f"the search restored at trial {stop} goes another way"


def check_state_with_open_asks_continues_exactly(make: Make) -> None:
    """The same while several proposals are open, as searches with several workers have them."""
    space = ToySpace()
    ahead = 4

    def go(strategy: SearchStrategy, told: int, stop: int, asked: list[Architecture]) -> None:
        """Tell the oldest one, ask for another one."""
        for number in range(told, stop):
            strategy.tell(Trial(number, asked[number], evaluate(asked[number])))
            asked.append(strategy.ask())

    def started() -> tuple[SearchStrategy, list[Architecture]]:
        strategy = make(space, seed=7, objectives=("toy",))
        return strategy, [strategy.ask() for _ in range(ahead)]

    strategy, whole = started()
    go(strategy, 0, 40, whole)
    original, asked = started()
    told = 0
    for stop in (0, 1, 6, 17, 33):
        go(original, told, stop, asked)
        told = stop
        restored = make(space, seed=99, objectives=("toy",))
        restored.load_state(json.loads(json.dumps(original.state(), allow_nan=False)))
        again = list(asked)
        go(restored, stop, 40, again)
        assert again == whole, (
            f"the search restored at trial {stop} with {counted(ahead, 'open ask')} goes another way"
        )


def check_failures_are_tolerated(make: Make) -> None:
    """When every evaluation fails, proposals go on to the end of the space."""
    space = ToySpace()

    def fail(architecture: Architecture) -> Evaluation:
        return Evaluation(Status.FAILED, message="planted failure")

    proposed = drive(make(space, seed=2), 10 * space.num_forms, evaluator=fail)
    assert len(proposed) == space.num_forms, (
        f"proposed {len(proposed):,} of {counted(space.num_forms, 'form')}"
    )


def check_told_trials_are_known(make: Make) -> None:
    """An architecture that was told without being asked for is not proposed again."""
    space = ToySpace()
    strategy = make(space, seed=4)
    known = [Architecture(space.name, (i, 0, 0, 0, 3)) for i in range(4)]
    for number, architecture in enumerate(known):
        strategy.tell(Trial(number, architecture, evaluate(architecture)))
    forms = {space.canonical(arch) for arch in drive(strategy, 10 * space.num_forms, first=len(known))}
    assert not forms & {space.canonical(arch) for arch in known}, "a known form was proposed again"
    assert len(forms) == space.num_forms - len(known)


def check_asks_may_overlap(make: Make) -> None:
    """Several proposals may be open at a time, and be told in another order."""
    space = ToySpace()
    strategy = make(space, seed=6)
    asked = [strategy.ask() for _ in range(10)]
    for number in reversed(range(10)):
        strategy.tell(Trial(number, asked[number], evaluate(asked[number])))
    asked += drive(strategy, 10, first=10)
    assert len({space.canonical(arch) for arch in asked}) == 20, "a canonical form was proposed twice"


def _expect(kind: type[Exception], function: Callable[[], Any]) -> None:
    try:
        got = function()
    except kind:
        return
    raise AssertionError(f"expected {kind.__name__}, got {got!r}")


CHECKS: tuple[Callable[[Make], None], ...] = (
    check_same_seed_gives_the_same_search,
    check_every_form_once,
    check_constraints_are_hard,
    check_impossible_constraint,
    check_impossible_constraint_in_a_large_space,
    check_state_continues_exactly,
    check_state_with_open_asks_continues_exactly,
    check_failures_are_tolerated,
    check_told_trials_are_known,
    check_asks_may_overlap,
)
