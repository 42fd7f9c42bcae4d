"""The evolutionary search of Zen-NAS and ZiCo: a pool that drops only its worst member.

M. Lin et al.: Zen-NAS: A Zero-Shot NAS for High-Performance Image Recognition. ICCV 2021, arXiv 2102.01063.
G. Li, Y. Yang, K. Bhardwaj, R. Marculescu: ZiCo: Zero-shot NAS via Inverse Coefficient of Variation on
Gradients. ICLR 2023, arXiv 2301.11300; the steps are those of the authors' code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

from pynas._errors import UserError
from pynas.architecture import Architecture
from pynas.strategies._base import Feasible, SearchStrategy
from pynas.strategies._members import Member, from_json, member_of, ranked, to_json
from pynas.trial import Trial

if TYPE_CHECKING:
    from pynas.spaces import SearchSpace

Procedure = Literal["published", "moves"]

# Children that are bred until a random architecture takes their place. The published search counts those that
# break a limit among its 100,000 iterations and never gives up.
ATTEMPTS: Mapping[str, int] = {"published": 4096, "moves": 256}


class ZiCoEvolution(SearchStrategy):
    """Mutates a random member of the pool; the child joins the pool, and the worst leaves it if it is full.

    While the pool has at most ``first`` members, children are bred from the initial architecture; afterwards
    from a member drawn uniformly, which is drawn anew for every attempt. There is no crossover and no ageing.
    With several objectives, the worst has the lowest mean rank.

    ``procedure`` says how a child is made:

    - ``published``: by :meth:`SearchSpace.replace`, with one replacement in the first phase and ``mutations``
      after it. On ``mbv2_zico`` that is the authors' code: places are drawn with repetition, one of them is
      the last convolution, and a block may be replaced by itself. So two replacements change 0, 1 and 2
      places of the start network with probability .07, .49 and .44 (its stem has only two widths to draw
      from), of networks in the pool with about .05, .45 and .50. On other spaces these are moves.
    - ``moves``: by :meth:`SearchSpace.mutate`, one move in the first phase and ``mutations`` after it. On
      ``mbv2_zico`` a move has ``replacements`` of its own, so that four places can change. Stores of versions
      without this option hold such searches.

    Children outside the limits or proposed before are bred again without costing a trial; the authors count
    the former among their 100,000 iterations and score the latter again.

    Args:
        space: The space to search.
        seed: Seed of the strategy's own random generator.
        feasible: The hard constraints as a predicate; None allows every architecture.
        objectives: Names of the scores to maximise; empty means all scores of each evaluation.
        pool_size: Maximum size of the pool (512).
        first: Number of members bred from the initial architecture (10).
        mutations: Number of replacements or moves from a member to its child (2).
        initial: Text of the initial architecture. By default that of the published search if the space has
            one (``space.start()``), which is not scored, as there; else, and with ``moves``, a random
            feasible one, which is the first trial.
        procedure: ``published`` or ``moves``.
    """

    added: ClassVar[Mapping[str, Any]] = {"procedure": "moves"}

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int = 0,
        feasible: Feasible | None = None,
        objectives: Sequence[str] = (),
        pool_size: int = 512,
        first: int = 10,
        mutations: int = 2,
        initial: str | None = None,
        procedure: Procedure = "published",
    ) -> None:
        super().__init__(space, seed=seed, feasible=feasible, objectives=objectives)
        for name, value in (("pool_size", pool_size), ("first", first), ("mutations", mutations)):
            if value < 1:
                raise UserError(f"{name}: expected at least 1, got {value}")
        if procedure not in get_args(Procedure):
            raise UserError(f"procedure: expected one of {', '.join(get_args(Procedure))}, got {procedure!r}")
        self.pool_size = pool_size
        self.first = first
        self.mutations = mutations
        self.initial = initial
        self.procedure = procedure
        start = getattr(space, "start", None) if procedure == "published" else None
        self._initial = space.parse(initial) if initial is not None else None if start is None else start()
        self._pool: list[Member] = []

    def tell(self, trial: Trial) -> None:  # noqa: D102
        super().tell(trial)
        member = member_of(trial, self.objectives)
        if member is None:
            return
        self._pool.append(member)
        if len(self._pool) > self.pool_size:
            self._pool.remove(ranked(self._pool)[-1])

    def state(self) -> dict[str, Any]:  # noqa: D102
        initial = None if self._initial is None else list(self._initial.decisions)
        return super().state() | {"pool": to_json(self._pool), "initial": initial}

    def load_state(self, state: Mapping[str, Any]) -> None:  # noqa: D102
        super().load_state(state)
        self._pool = from_json(self.space.name, state["pool"])
        initial = state["initial"]
        self._initial = None if initial is None else Architecture(self.space.name, tuple(initial))

    def _propose(self) -> Architecture:
        if self._initial is None:
            self._initial = self._sample()
            return self._initial
        if self.space.size != 1:
            for _ in range(ATTEMPTS[self.procedure]):
                child = self._child(self._initial)
                if child is not None and self._claim(child):
                    return child
        return self._sample()

    def _child(self, initial: Architecture) -> Architecture | None:
        grown = len(self._pool) > self.first
        child = self._rng.choice(self._pool)[0] if grown else initial
        count = self.mutations if grown else 1
        if self.procedure == "published":
            return self.space.replace(child, count, self._rng)
        for _ in range(count):
            child = self.space.mutate(child, self._rng)
        return child
