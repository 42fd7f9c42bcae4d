"""REINFORCE in an embedding: a recurrent policy chooses where to evaluate next.

R. J. Williams, Machine Learning 8, 1992; in a latent space as S. Yan, Y. Zheng, W. Ao, X. Zeng, M. Zhang,
"Does Unsupervised Architecture Representation Learning Help Neural Architecture Search?", NeurIPS 2020,
arXiv:2006.06936.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pynas._errors import UserError
from pynas.architecture import Architecture
from pynas.strategies._base import Feasible
from pynas.strategies._latent import Floats, LatentStrategy, _scalars
from pynas.trial import Trial

if TYPE_CHECKING:
    from pynas.embedding.policy import Policy
    from pynas.spaces import SearchSpace


class Reinforce(LatentStrategy):
    r"""Episodes of ``batch_size`` steps from architecture to architecture; one update after each episode.

    An LSTM cell of 128 units reads the vector z_t of the last architecture and outputs the mean m_t of a
    Gaussian with unit covariance. The next architecture is the feasible, not yet proposed one nearest to a
    sample a_t ~ N(m_t, I). After the episode, Adam takes a step on ``-mean_t advantage_t log N(a_t; m_t,
    I)``. Returns are not discounted.

    As in the paper, an episode starts where the last one ended, with a new LSTM state, and the very first
    architecture is random. The paper's reward is the accuracy minus a fixed baseline. Scores on other scales
    have no such number: without ``baseline``, the advantage is the normal quantile of the score's rank among
    all known ones. A failed trial gets the advantage of the worst in its episode.

    Vectors are scaled to standard deviation ``spread``. Since the policy's noise has standard deviation one,
    this balances exploration against exploitation; the paper does not scale the vectors. Both defaults were
    chosen by the regret after 300 queries on NAS-Bench-201, on CIFAR-10 and CIFAR-100, from spreads between
    0.125 and 3 and episodes of 4, 8 and 16 steps.

    Args:
        space: The space to search.
        seed: Seed of the strategy's own random generator, the policy's weights and its noise.
        feasible: The hard constraints as a predicate; None allows every architecture.
        objectives: Names of the scores to maximise; empty means all scores of each evaluation.
        batch_size: Steps of an episode; 16 in the paper.
        learning_rate: Learning rate of Adam; .01 in the paper.
        baseline: If given, advantages are scores minus this number.
        spread: Standard deviation of the vectors, in units of the policy's noise.
        embedding: A file of ``pynas embed --save``; ``""`` trains an embedding when first needed and keeps it
            in the user's cache folder; ``"encoding"`` uses the space's ``encode`` even if it has graphs.
        pool_size: Number of architectures drawn from a space too large to list.

    Raises:
        UserError: A bad option.
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int = 0,
        feasible: Feasible | None = None,
        objectives: Sequence[str] = (),
        batch_size: int = 8,
        learning_rate: float = 0.01,
        baseline: float | None = None,
        spread: float = 0.25,
        embedding: str = "",
        pool_size: int = 20_000,
    ) -> None:
        super().__init__(
            space,
            seed=seed,
            feasible=feasible,
            objectives=objectives,
            embedding=embedding,
            pool_size=pool_size,
        )
        if batch_size < 1:
            raise UserError(f"batch_size: expected at least 1, got {batch_size}")
        for name, value in (("learning_rate", learning_rate), ("spread", spread)):
            if not (math.isfinite(value) and value > 0):
                raise UserError(f"{name}: expected a positive number, got {value}")
        self.batch_size, self.learning_rate = batch_size, learning_rate
        self.baseline, self.spread = baseline, spread
        self._policy: Policy | None = None
        self._episodes: list[_Episode] = []
        # Numbers and advantages of the completed episodes, in the order of completion.
        self._ended: list[tuple[int, list[float]]] = []
        self._open: dict[tuple[int, ...], tuple[int, int]] = {}  # episode and step of pending proposals

    def tell(self, trial: Trial) -> None:  # noqa: D102
        super().tell(trial)
        place = self._open.pop(self._key(trial.architecture), None)
        if place is None:
            return
        number, step = place
        episode = self._episodes[number]
        known = bool(self._members) and self._members[-1][0] == trial.architecture
        episode.scores[step] = len(self._members) - 1 if known else _FAILED
        if len(episode.scores) == self.batch_size and _OPEN not in episode.scores:
            self._ended.append((number, self._advantages(episode)))

    def state(self) -> dict[str, Any]:  # noqa: D102
        # Weights are not stored: they follow from the seed and these numbers.
        return super().state() | {
            "episodes": [[e.start, e.updates, e.rows, e.scores] for e in self._episodes],
            "ended": [[number, advantages] for number, advantages in self._ended],
            "open": [[list(key), *place] for key, place in self._open.items()],
        }

    def load_state(self, state: Mapping[str, Any]) -> None:  # noqa: D102
        super().load_state(state)
        self._policy = None
        self._episodes = [_Episode(*record) for record in state["episodes"]]
        self._ended = [(number, advantages) for number, advantages in state["ended"]]
        self._open = {tuple(key): (number, step) for key, number, step in state["open"]}
        if self._episodes:
            self._replay()

    def _advantages(self, episode: _Episode) -> list[float]:
        scores = _scalars(self._members)
        if self.baseline is not None:
            worst = min(scores, default=self.baseline)
            return [(worst if i == _FAILED else scores[i]) - self.baseline for i in episode.scores]
        from scipy.stats import norm

        ranked = np.sort(np.array(scores))
        found = []
        for i in episode.scores:
            score = -math.inf if i == _FAILED else scores[i]
            below, up_to = np.searchsorted(ranked, score), np.searchsorted(ranked, score, side="right")
            found.append(float(norm.ppf(min(max((below + up_to) / 2, 0.5) / max(len(ranked), 1), 0.999))))
        return found

    def _propose(self) -> Architecture:
        if not self._seen:
            return self._sample()
        pool = self._pool
        if not self._left.any():
            return self._sample()
        if not self._episodes or len(self._episodes[-1].rows) == self.batch_size:
            self._begin()
        number, episode = len(self._episodes) - 1, self._episodes[-1]
        action = self._action(number)
        distance = ((self._vectors - action) ** 2).sum(axis=1)
        claimed = self._claim_best(-distance)
        key = self._key(claimed)
        # The pool is used up: a random architecture outside it has no vector to continue from.
        row = pool.rows.get(key, episode.rows[-1] if episode.rows else episode.start)
        self._open[key] = (number, len(episode.rows))
        episode.rows.append(row)
        episode.scores.append(_OPEN)
        return claimed

    @property
    def _vectors(self) -> Floats:
        return self._pool.vectors * self.spread

    def _begin(self) -> None:
        """Start a new episode, after learning from all completed ones."""
        if self._episodes:
            start = self._episodes[-1].rows[-1]
        else:
            start = next((row for key in self._seen if (row := self._pool.rows.get(key)) is not None), 0)
        self._episodes.append(_Episode(start, len(self._ended), [], []))
        self._learn(len(self._episodes) - 1)

    def _learn(self, number: int) -> None:
        """Bring the policy to its state at the start of episode ``number``."""
        policy = self._made_policy()
        while policy.updates < self._episodes[number].updates:
            learned, advantages = self._ended[policy.updates]
            policy.update(self._inputs(learned)[:-1], self._episodes[learned].actions, advantages)

    def _replay(self) -> None:
        """Repeat every past update and action, which gives the same numbers again."""
        for number, episode in enumerate(self._episodes):
            self._learn(number)
            rows, episode.rows = episode.rows, []
            for row in rows:
                self._action(number)
                episode.rows.append(row)

    def _action(self, number: int) -> Floats:
        """Sample the next action of episode ``number`` and remember it."""
        episode = self._episodes[number]
        mean = self._made_policy().mean(self._inputs(number))
        noise = np.random.default_rng([self._model_seed & 0xFFFFFFFF, number, len(episode.rows)])
        action = mean + noise.standard_normal(len(mean))
        episode.actions.append(action)
        return np.asarray(action)

    def _inputs(self, number: int) -> Floats:
        """Inputs of the policy in episode ``number``: the start, and each architecture since."""
        episode = self._episodes[number]
        return np.asarray(self._pool.vectors[[episode.start, *episode.rows]] * self.spread)

    def _made_policy(self) -> Policy:
        if self._policy is None:
            from pynas.embedding.policy import Policy

            width = self._pool.vectors.shape[1]
            self._policy = Policy(width, learning_rate=self.learning_rate, seed=self._model_seed)
        return self._policy


_OPEN, _FAILED = -1, -2  # in place of the number of a member


class _Episode:
    """Start row, number of updates before it, rows visited, and members whose scores these have."""

    def __init__(self, start: int, updates: int, rows: Sequence[int], scores: Sequence[int]) -> None:
        self.start, self.updates = int(start), int(updates)
        self.rows, self.scores = list(rows), list(scores)
        self.actions: list[Floats] = []
