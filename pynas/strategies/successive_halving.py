"""Successive halving: evaluate many architectures cheaply, and the best of them again at higher fidelity.

K. Jamieson, A. Talwalkar: Non-stochastic Best Arm Identification and Hyperparameter Optimization. AISTATS
2016, arXiv 1502.07943. Promotions are asynchronous: L. Li et al.: A System for Massively Parallel
Hyperparameter Tuning. MLSys 2020, arXiv 1810.05934.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pynas._errors import UserError
from pynas.architecture import Architecture
from pynas.strategies._base import Feasible, SearchStrategy
from pynas.strategies._members import Member, from_json, member_of, ranked, to_json
from pynas.trial import FIDELITY, Trial

if TYPE_CHECKING:
    from pynas.spaces import SearchSpace


class SuccessiveHalving(SearchStrategy):
    """Random architectures at the lowest fidelity; the best ``1 / eta`` of each rung move to the next.

    Rung k of ``rungs`` evaluates at fidelity ``eta^(k - rungs + 1)``, the last rung in full. An architecture
    is promoted as soon as it is among the best ``1 / eta`` of those evaluated in its rung, so no proposal
    waits for others; of ``n`` trials about ``n (1 - 1 / eta)`` are at the lowest fidelity. This is the only
    strategy that proposes an architecture more than once: once in each rung that it reaches. A trial without
    a fidelity counts as evaluated in full; if the evaluator ignores fidelities, this is random search.

    Args:
        space: The space to search.
        seed: Seed of the strategy's own random generator.
        feasible: The hard constraints as a predicate; None allows every architecture.
        objectives: Names of the scores to maximise; empty means all scores of each evaluation.
        eta: One of ``eta`` is promoted, and the next rung is ``eta`` times more expensive.
        rungs: Number of fidelities.
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int = 0,
        feasible: Feasible | None = None,
        objectives: Sequence[str] = (),
        eta: int = 3,
        rungs: int = 3,
    ) -> None:
        super().__init__(space, seed=seed, feasible=feasible, objectives=objectives)
        if eta < 2:
            raise UserError(f"eta: expected an integer of at least 2, got {eta}")
        if rungs < 1:
            raise UserError(f"rungs: expected at least 1, got {rungs}")
        self.eta = eta
        self.fidelities = tuple(float(eta) ** (k - rungs + 1) for k in range(rungs))
        self._rungs: list[list[Member]] = [[] for _ in range(rungs)]
        # The highest rung that each architecture was proposed for; unlisted ones are in the lowest.
        self._reached: dict[tuple[int, ...], int] = {}

    def fidelity(self, architecture: Architecture) -> float:  # noqa: D102
        return self.fidelities[self._reached.get(self._key(architecture), 0)]

    def tell(self, trial: Trial) -> None:  # noqa: D102
        super().tell(trial)
        member = member_of(trial, self.objectives)
        if member is None:
            return
        fidelity = trial.evaluation.metrics.get(FIDELITY, 1.0)
        # An evaluator may round, so fidelities up to half a step below a rung count as that rung.
        rung = sum(fidelity * self.eta**0.5 >= each for each in self.fidelities) - 1
        self._rungs[max(rung, 0)].append(member)

    def state(self) -> dict[str, Any]:  # noqa: D102
        return super().state() | {
            "rungs": [to_json(members) for members in self._rungs],
            "reached": [[list(key), rung] for key, rung in self._reached.items()],
        }

    def load_state(self, state: Mapping[str, Any]) -> None:  # noqa: D102
        super().load_state(state)
        self._rungs = [from_json(self.space.name, members) for members in state["rungs"]]
        self._reached = {tuple(key): int(rung) for key, rung in state["reached"]}

    def _propose(self) -> Architecture:
        for rung in reversed(range(len(self._rungs) - 1)):
            members = self._rungs[rung]
            for architecture, _ in ranked(members)[: len(members) // self.eta]:
                key = self._key(architecture)
                if self._reached.get(key, 0) <= rung:
                    self._reached[key] = rung + 1
                    return architecture
        return self._sample()
