"""Bayesian optimisation in an embedding: maximise the expected improvement under a model of the scores.

S. Yan, Y. Zheng, W. Ao, X. Zeng, M. Zhang, "Does Unsupervised Architecture Representation Learning Help
Neural Architecture Search?", NeurIPS 2020, arXiv:2006.06936.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from pynas._errors import UserError
from pynas.architecture import Architecture
from pynas.strategies._base import Feasible
from pynas.strategies._latent import Floats, LatentStrategy

if TYPE_CHECKING:
    from pynas.spaces import SearchSpace

MODELS = ("gp", "dngo")


class Surrogate(Protocol):
    """A model fitted to some scores that can be conditioned on further ones."""

    def predict(self, x: Floats, y: Floats, points: Floats) -> tuple[Floats, Floats]:
        """Mean and standard deviation at ``points`` [M, D], given ``y`` [n] at ``x`` [n, D]."""


class BayesianOptimization(LatentStrategy):
    r"""Proposes the architecture of the pool with the largest expected improvement.

    ``EI(z) = s (u Phi(u) + phi(u)), u = (mu(z) - y_best) / s``, with the model's mean mu and standard
    deviation s. Scores enter as normal quantiles of their ranks, so that neither their scale matters nor
    architectures that hardly learn anything; with several objectives they are ranked by mean rank. The first
    ``initial`` architectures are random.

    ``gp`` is a Gaussian process with a Matern 5/2 kernel, fitted by botorch (one length scale per column,
    marginal likelihood with botorch's priors). ``dngo`` is the paper's model: Bayesian linear regression on
    the features of a network with one hidden layer of 128 tanh units (J. Snoek et al., ICML 2015), trained
    for 100 epochs with batches of 10. The paper's code uses a fixed incumbent and the variance in place of
    the standard deviation; this strategy uses the best score so far and the standard deviation. The model is
    fitted again after every ``refit_every`` new scores; in between it is conditioned exactly on every new
    score.

    Args:
        space: The space to search.
        seed: Seed of the strategy's own random generator.
        feasible: The hard constraints as a predicate; None allows every architecture.
        objectives: Names of the scores to maximise; empty means all scores of each evaluation.
        model: ``gp`` or ``dngo``.
        initial: Number of random architectures at the start.
        refit_every: Number of scores between fits.
        embedding: A file of ``pynas embed --save``; ``""`` trains an embedding when first needed and keeps it
            in the user's cache folder; ``"encoding"`` uses the space's ``encode`` even if it has graphs.
        pool_size: Number of architectures drawn from a space too large to list.

    Raises:
        UserError: botorch is not installed (the message has the command to install it), or a bad option.
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int = 0,
        feasible: Feasible | None = None,
        objectives: Sequence[str] = (),
        model: str = "gp",
        initial: int = 16,
        refit_every: int = 50,
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
        if model not in MODELS:
            raise UserError(f"model: expected one of {', '.join(MODELS)}, got {model!r}")
        if initial < 2 or refit_every < 1:
            raise UserError(
                f"initial, refit_every: expected at least 2 and 1, got {initial} and {refit_every}"
            )
        if model == "gp" and importlib.util.find_spec("botorch") is None:
            raise UserError(
                "strategy bayesian needs botorch: pip install 'pynas-torch[botorch]', or choose model=dngo"
            )
        self.model, self.initial, self.refit_every = model, initial, refit_every
        self._fitted = 0  # number of members in the current fit
        self._surrogate: Surrogate | None = None

    def state(self) -> dict[str, Any]:  # noqa: D102
        # The fit itself is not stored: it follows from the first members and the seed.
        return super().state() | {"fitted": self._fitted}

    def load_state(self, state: Mapping[str, Any]) -> None:  # noqa: D102
        super().load_state(state)
        self._fitted = int(state["fitted"])
        self._surrogate = None

    def _propose(self) -> Architecture:
        # Initial architectures include failed ones; without any success, proposals remain random.
        if len(self._seen) < self.initial or len(self._members) < 2:
            return self._sample()
        pool = self._pool
        if not self._left.any():
            return self._sample()
        x, values = self._located()
        if len(values) < 2:
            return self._sample()
        if not self._fitted or len(self._members) >= self._fitted + self.refit_every:
            self._fitted, self._surrogate = len(self._members), None
        if self._surrogate is None:
            self._surrogate = self._fit()
        y = _quantiles(values)
        mean, deviation = self._surrogate.predict(x, y, pool.vectors)
        return self._claim_best(expected_improvement(mean, deviation, float(y.max())))

    def _fit(self) -> Surrogate:
        """Fit to the first ``_fitted`` members."""
        from pynas.strategies import _surrogates

        everything, self._members = self._members, self._members[: self._fitted]
        try:
            x, values = self._located()
        finally:
            self._members = everything
        y = _quantiles(values)
        if self.model == "gp":
            return _surrogates.GaussianProcess.fit(x, y)
        return _surrogates.DNGO.fit(x, y, seed=self._model_seed + self._fitted)


def expected_improvement(mean: Floats, deviation: Floats, best: float) -> Floats:
    """``log E[max(0, f - best)]`` for f ~ N(mean, deviation^2); the logarithm also orders tiny values."""
    from scipy.stats import norm

    u = (mean - best) / deviation
    # log(phi(u) + u Phi(u)): for u << 0 it is log phi(u) - 2 log |u| up to O(u^-2).
    far = u < -25
    inner = np.where(far, 0.0, u)
    near = np.log(np.maximum(norm.pdf(inner) + inner * norm.cdf(inner), 1e-300))
    tail = -0.5 * u**2 - 0.5 * np.log(2 * np.pi) - 2 * np.log(np.maximum(np.abs(u), 1.0))
    return np.asarray(np.where(far, tail, near) + np.log(deviation))


def _quantiles(values: Floats) -> Floats:
    """Normal quantiles of mid-ranks: ``Phi^-1((r - 1/2) / n)``."""
    from scipy.stats import norm, rankdata

    return np.asarray(norm.ppf((rankdata(values) - 0.5) / len(values)))
