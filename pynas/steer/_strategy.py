"""The strategy of a steered search: made anew whenever what it was made with changes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from pynas import strategies
from pynas._errors import UserError
from pynas.architecture import Architecture
from pynas.hardware.costs import Costs
from pynas.spaces import SearchSpace
from pynas.steer._progress import weighted
from pynas.steer._settings import Allowed, Refused, Settings, space_of
from pynas.strategies import SearchStrategy
from pynas.trial import Status, Trial

WEIGHTED = "weighted"
"""Name of the only objective where objectives have weights."""

Key = tuple[object, ...]


class Adviser:
    """Asks a strategy, and tells it what it should know.

    A change of the space, the constraints, the weights, the strategy or its options, or of the weights that
    score, makes a new strategy, which is told of all trials that still count: scored with the present
    weights, in the space, within the constraints. Its seed depends on the number of trials so far, so that a
    replay makes the same. The first has the search's own seed: without any action the proposals are those of
    :func:`pynas.search`.

    Args:
        space: The whole space.
        objectives: What is searched for.
        seed: Seed of the search.
        costs: Makes the costs of given bounds.
    """

    def __init__(
        self,
        space: SearchSpace,
        objectives: Sequence[str],
        seed: int,
        costs: Callable[[Mapping[str, float]], Costs],
    ) -> None:
        self._space, self._objectives, self._seed = space, tuple(objectives), seed
        self._make_costs = costs
        self._key: Key | None = None
        self._told = 0
        self.strategy: SearchStrategy | None = None
        self._spaces: tuple[Allowed, SearchSpace] | None = None
        self._costs: tuple[Mapping[str, float], Costs] | None = None

    def space(self, settings: Settings) -> SearchSpace:
        """The space of what is allowed."""
        if self._spaces is None or self._spaces[0] != settings.allowed:
            self._spaces = settings.allowed, space_of(self._space, settings.allowed)
        return self._spaces[1]

    def costs(self, settings: Settings) -> Costs:
        """Costs with the present bounds."""
        if self._costs is None or self._costs[0] != settings.bounds:
            self._costs = settings.bounds, self._make_costs(settings.bounds)
        return self._costs[1]

    def make(self, settings: Settings, seed: int, costs: Costs) -> SearchStrategy:
        """A new strategy; Refused if it cannot be. ``costs`` are then those that it wants, too."""
        chosen = dict(settings.options)
        if settings.weights is not None and settings.strategy == "nsga2" and len(self._objectives) > 1:
            raise Refused(
                "strategy nsga2 looks for the whole front, whatever the weights; set them to null, or choose "
                "another strategy"
            )
        try:
            made = strategies.create(
                settings.strategy,
                self.space(settings),
                seed=seed,
                feasible=costs.feasible,
                objectives=self._objectives if settings.weights is None else (WEIGHTED,),
                **chosen,
            )
        except (UserError, TypeError, AssertionError) as error:
            raise Refused(str(error) or f"strategy {settings.strategy} cannot search this space") from error
        costs.want(made.costs, f"strategy {settings.strategy}: cost")
        return made

    def renew(self) -> None:
        """Make the strategy anew before the next proposal, whatever it was asked before.

        A strategy that said that nothing is left has been asked once more than one that is told so by a
        stored action; only a new one goes on alike in both.
        """
        self._key = None

    def ask(
        self, settings: Settings, generation: int, trials: Sequence[Trial], counts: Callable[[Trial], bool]
    ) -> tuple[Architecture, float]:
        """The next proposal and its fidelity.

        Args:
            settings: The present ones.
            generation: Number of training steps of the weights that score.
            trials: All trials so far.
            counts: Whether a trial was scored with these weights.

        Raises:
            Exhausted: Nothing new is left.
            Infeasible: No architecture meets the constraints.
        """
        key: Key = (
            settings.allowed,
            settings.strategy,
            _frozen(settings.options),
            _frozen(settings.bounds),
            _frozen(settings.weights),
            generation,
        )
        if key != self._key or self.strategy is None:
            seed = self._seed if not trials else seed_of(self._seed, len(trials))
            self.strategy, self._told, self._key = self.make(settings, seed, self.costs(settings)), 0, key
        space, costs = self.space(settings), self.costs(settings)
        for trial in trials[self._told :]:
            arch = trial.architecture
            if (
                counts(trial)
                and (space is self._space or space.is_valid(arch.decisions))
                and costs.feasible(arch)
            ):
                self.strategy.tell(self._seen(trial, settings, costs))
        self._told = len(trials)
        architecture = self.strategy.ask()
        return architecture, self.strategy.fidelity(architecture)

    def _seen(self, trial: Trial, settings: Settings, costs: Costs) -> Trial:
        """A trial as the strategy is told it: with the costs that it wants; weights make one score."""
        evaluation = trial.evaluation
        assert self.strategy is not None
        if any(name not in evaluation.metrics for name in self.strategy.costs):
            evaluation = replace(evaluation, metrics={**costs(trial.architecture), **evaluation.metrics})
        if settings.weights is not None:
            known = evaluation.status is Status.OK
            scores = {WEIGHTED: weighted(evaluation.scores, settings.weights)} if known else {}
            evaluation = replace(evaluation, scores=scores)
        return replace(trial, evaluation=evaluation)


def seed_of(*parts: int | str) -> int:
    """A seed of 63 bits that follows from numbers and names."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _frozen(values: Mapping[str, object] | None) -> object:
    return None if values is None else tuple(sorted(values.items()))
