"""Policies that generate architectures one decision after another, trained by REINFORCE.

R. J. Williams, "Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning",
Machine Learning 8, 1992.
"""

from __future__ import annotations

import base64
import itertools
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Decisions = tuple[int, ...]


class Policy(ABC):
    """A distribution pi over decisions, with parameters that follow the gradient of the expected reward.

    A step is one of Adam (D. P. Kingma, J. Ba, ICLR 2015) on
    ``mean_k [advantage_k grad log pi(decisions_k)] + entropy_weight * grad H``, H the entropy of each choice.

    Args:
        count: Number of parameters; all are initially zero, which makes every choice equally likely.
        learning_rate: Learning rate of Adam.
        entropy_weight: Weight of the entropy bonus, which keeps the policy from settling early.
    """

    def __init__(self, count: int, learning_rate: float, entropy_weight: float) -> None:
        self.learning_rate = learning_rate
        self.entropy_weight = entropy_weight
        self._weights = np.zeros(count)
        self._first_moment = np.zeros(count)
        self._second_moment = np.zeros(count)
        self._steps = 0

    @abstractmethod
    def gradient(self, decisions: Sequence[Decisions], advantages: Array) -> Array:
        """The gradient above at the current parameters."""

    def learn(self, decisions: Sequence[Decisions], advantages: Sequence[float] | Array) -> None:
        """Take a step towards decisions with a positive advantage, and away from the others."""
        if not decisions:
            return
        slope = self.gradient(decisions, np.asarray(advantages, dtype=np.float64))
        self._steps += 1
        self._first_moment += 0.1 * (slope - self._first_moment)
        self._second_moment += 0.001 * (slope * slope - self._second_moment)
        mean = self._first_moment / (1 - 0.9**self._steps)
        square = self._second_moment / (1 - 0.999**self._steps)
        self._weights += self.learning_rate * mean / (np.sqrt(square) + 1e-8)

    def state(self) -> dict[str, Any]:
        """Parameters and optimiser as a JSON value."""
        arrays = (self._weights, self._first_moment, self._second_moment)
        return {"steps": self._steps, "arrays": [_encoded(array) for array in arrays]}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue from a :meth:`state`."""
        self._steps = int(state["steps"])
        self._weights, self._first_moment, self._second_moment = map(_decoded, state["arrays"])


class DecisionPolicy(Policy):
    """A log-linear chain: decision t given those before it has softmax(b_t + sum_{s<t} W_ts[x_s]).

    Args:
        num_choices: Number of choices of each decision.
        learning_rate: As in :class:`Policy`.
        entropy_weight: As in :class:`Policy`.
    """

    def __init__(self, num_choices: Sequence[int], learning_rate: float, entropy_weight: float) -> None:
        self._num_choices = tuple(num_choices)
        # Column 0 of the one-hot matrix is the bias; the columns of decision s begin at starts[s].
        self._starts = [1, *itertools.accumulate(self._num_choices, initial=1)][1:]
        sizes = [start * choices for start, choices in zip(self._starts, self._num_choices, strict=False)]
        self._blocks = [0, *itertools.accumulate(sizes)]
        super().__init__(self._blocks[-1], learning_rate, entropy_weight)

    def propose(self, rng: np.random.Generator, count: int) -> list[Decisions]:
        """Draw ``count`` tuples of decisions."""
        bits = np.zeros((count, self._starts[-1]))
        bits[:, 0] = 1
        chosen = np.zeros((count, len(self._num_choices)), dtype=np.int64)
        for t, start in enumerate(self._starts[:-1]):
            shares = np.cumsum(_softmax(bits[:, :start] @ self._block(self._weights, t)), axis=1)
            # Rounding may leave the last cumulative share slightly below 1.
            below = (shares[:, :-1] < rng.random((count, 1))).sum(axis=1)
            chosen[:, t] = below
            bits[np.arange(count), start + below] = 1
        return [tuple(row) for row in chosen.tolist()]

    def gradient(self, decisions: Sequence[Decisions], advantages: Array) -> Array:
        count = len(decisions)
        chosen = np.array(decisions)
        bits = np.zeros((count, self._starts[-1]))
        bits[:, 0] = 1
        rows = np.arange(count)
        slope = np.zeros_like(self._weights)
        for t, start in enumerate(self._starts[:-1]):
            share = _softmax(bits[:, :start] @ self._block(self._weights, t))
            towards = _logit_gradient(share, chosen[:, t], advantages, self.entropy_weight)
            self._block(slope, t)[:] = bits[:, :start].T @ towards / count
            bits[rows, start + chosen[:, t]] = 1
        return slope

    def _block(self, flat: Array, t: int) -> Array:
        block: Array = flat[self._blocks[t] : self._blocks[t + 1]].reshape(self._starts[t], -1)
        return block


def _softmax(logits: Array) -> Array:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    shares: Array = powers / powers.sum(axis=-1, keepdims=True)
    return shares


def _logit_gradient(
    shares: Array, chosen: NDArray[np.int64], advantages: Array, entropy_weight: float
) -> Array:
    """Gradient of ``advantage * log pi(chosen) + entropy_weight * H`` with respect to the logits, by row."""
    slope: Array = -shares * advantages[:, None]
    slope[np.arange(len(shares)), chosen] += advantages
    logs = np.log(np.maximum(shares, 1e-300))
    entropy = -(shares * logs).sum(axis=1, keepdims=True)
    slope -= entropy_weight * shares * (logs + entropy)
    return slope


def _encoded(array: Array) -> str:
    return base64.b64encode(array.astype("<f8").tobytes()).decode()


def _decoded(text: str) -> Array:
    return np.frombuffer(base64.b64decode(text), dtype="<f8").astype(np.float64)
