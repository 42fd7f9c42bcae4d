"""The recurrent policy of the search strategy ``reinforce``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Floats = NDArray[np.float64]


class Policy:
    """An LSTM cell and a linear layer: map the vectors visited so far to the mean of the next action.

    Args:
        width: D, the size of vectors and actions.
        hidden: Units of the cell.
        learning_rate: Learning rate of Adam.
        seed: Seed of the weights; does not change the global random state.
    """

    def __init__(self, width: int, *, hidden: int = 128, learning_rate: float = 0.01, seed: int = 0) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.cell = nn.LSTMCell(width, hidden)
            self.head = nn.Linear(hidden, width)
        self.updates = 0
        self._optimizer = torch.optim.Adam([*self.cell.parameters(), *self.head.parameters()], learning_rate)

    @torch.no_grad()
    def mean(self, inputs: Floats) -> Floats:
        """The mean after reading ``inputs``, ``[T, D]``: float64 ``[D]``."""
        return np.asarray(self._means(inputs)[-1].double().numpy())

    def update(self, inputs: Floats, actions: Sequence[Floats], advantages: Sequence[float]) -> None:
        """Take one step on ``-mean_t advantage_t log N(action_t; mean_t, I)``, up to constants."""
        taken = torch.from_numpy(np.stack(actions)).float()
        log_density = -0.5 * (taken - self._means(inputs)).square().sum(-1)
        loss = -(torch.tensor(advantages) * log_density).mean()
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        self.updates += 1

    def _means(self, inputs: Floats) -> Tensor:
        state: tuple[Tensor, Tensor] | None = None
        means = []
        for vector in torch.from_numpy(inputs).float():
            state = self.cell(vector[None], state)
            means.append(self.head(state[0])[0])
        return torch.stack(means)
