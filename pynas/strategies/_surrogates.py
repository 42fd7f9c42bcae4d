"""Models of scores over vectors; imported only when one is fitted, because fitting needs torch."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize
from scipy.spatial.distance import cdist

from pynas.strategies._latent import Floats

_JITTER = 1e-6


class GaussianProcess:
    """A Gaussian process with constant mean and Matern 5/2 kernel, with one length scale per column.

    Args:
        lengths: Length scales, ``[D]``.
        noise: Variance of the observation noise.
        constant: Mean of the process.
        outputscale: Variance of the process.
        fitted: Number of observations in the fit. The model is conditioned on these at once and on later ones
            one by one, so that a search that resumes from its state does so bit for bit.
    """

    def __init__(
        self, lengths: Floats, noise: float, constant: float, outputscale: float, fitted: int = 0
    ) -> None:
        self.fitted = fitted
        self.lengths, self.noise, self.constant, self.outputscale = lengths, noise, constant, outputscale
        self._posterior: _Posterior | None = None

    @classmethod
    def fit(cls, x: Floats, y: Floats) -> GaussianProcess:
        """Fit the hyperparameters by marginal likelihood, with the priors of botorch."""
        import torch

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecation of torch.jit at import; fits that stop early
            from botorch.fit import fit_gpytorch_mll
            from botorch.models import SingleTaskGP
            from gpytorch.kernels import MaternKernel, ScaleKernel
            from gpytorch.mlls import ExactMarginalLogLikelihood
            from gpytorch.priors import GammaPrior, LogNormalPrior

            width = x.shape[1]
            # botorch's dimension-scaled prior: lengths grow with the square root of the number of columns.
            prior = LogNormalPrior(loc=np.sqrt(2.0) + 0.5 * np.log(width), scale=np.sqrt(3.0))
            kernel = ScaleKernel(
                MaternKernel(nu=2.5, ard_num_dims=width, lengthscale_prior=prior),
                outputscale_prior=GammaPrior(2.0, 0.15),
            )
            kernel.base_kernel.lengthscale = prior.mode.expand(1, width)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                model: Any = SingleTaskGP(
                    torch.from_numpy(x),
                    torch.from_numpy(y)[:, None],
                    covar_module=kernel,
                    outcome_transform=None,
                )
                likelihood = ExactMarginalLogLikelihood(model.likelihood, model)
                fit_gpytorch_mll(likelihood, optimizer_kwargs={"options": {"maxiter": 50}})
        return cls(
            kernel.base_kernel.lengthscale.detach().numpy().reshape(-1).astype(np.float64),
            model.likelihood.noise.item(),
            model.mean_module.constant.item(),
            kernel.outputscale.item(),
            len(x),
        )

    def kernel(self, a: Floats, b: Floats) -> Floats:
        """``v (1 + r + r^2 / 3) exp(-r), r = sqrt(5) |(a - b) / lengths|``, [n, m]."""
        r = np.sqrt(5.0) * cdist(a / self.lengths, b / self.lengths)
        return np.asarray(self.outputscale * (1 + r + r**2 / 3) * np.exp(-r))

    def predict(self, x: Floats, y: Floats, points: Floats) -> tuple[Floats, Floats]:
        """Exact posterior mean and standard deviation of the noise-free process at ``points``.

        If ``x`` has only been appended to since the last call and ``points`` is the same array, earlier
        results are reused: one more observation after n costs O(n M) instead of O(n^2 M).
        """
        grown = self._posterior
        if grown is None or not grown.begins(x, points):
            grown = self._posterior = _Posterior(self, points)
        if not grown.count:
            grown.observe(x[: self.fitted])
        for row in range(grown.count, len(x)):
            grown.observe(x[row : row + 1])
        return grown.at_points(y)


class _Posterior:
    """The Cholesky factor L of the observations' covariance and L^-1 K(x, points), grown row by row."""

    def __init__(self, process: GaussianProcess, points: Floats) -> None:
        self.process, self.points = process, points
        self.x: Floats = np.zeros((0, points.shape[1]))
        self.factor: Floats = np.zeros((0, 0))
        self.across: Floats = np.zeros((0, len(points)))  # only the first rows are used: room to grow
        self.explained: Floats = np.zeros(len(points))

    @property
    def count(self) -> int:
        """Observations so far."""
        return len(self.x)

    def begins(self, x: Floats, points: Floats) -> bool:
        """Whether this is the posterior for a prefix of ``x`` at these points."""
        return points is self.points and self.count <= len(x) and np.array_equal(x[: self.count], self.x)

    def observe(self, new: Floats) -> None:
        """Append observations: the factor's next rows are [B, C], B = (L^-1 k)^T, C C^T = K_new - B B^T."""
        if not len(new):
            return
        process, n, k = self.process, self.count, len(new)
        beside = solve_triangular(self.factor, process.kernel(self.x, new), lower=True) if n else None
        covariance = process.kernel(new, new)
        covariance[np.diag_indices(k)] += process.noise + _JITTER
        across = process.kernel(new, self.points)
        if beside is not None:
            covariance -= beside.T @ beside
            across -= beside.T @ self.across[:n]
        corner = cholesky(covariance, lower=True)
        across = solve_triangular(corner, across, lower=True)
        factor = np.zeros((n + k, n + k))
        factor[:n, :n], factor[n:, n:] = self.factor, corner
        if beside is not None:
            factor[n:, :n] = beside.T
        if n + k > len(self.across):
            room = np.empty((max(n + k, 2 * n), across.shape[1]))
            room[:n] = self.across[:n]
            self.across = room
        self.across[n : n + k] = across
        self.explained += np.einsum("km,km->m", across, across)
        self.factor, self.x = factor, np.concatenate([self.x, new])

    def at_points(self, y: Floats) -> tuple[Floats, Floats]:
        """Mean and standard deviation, given ``y``."""
        process = self.process
        weights = solve_triangular(self.factor, y - process.constant, lower=True)
        mean = process.constant + weights @ self.across[: self.count]
        return mean, np.sqrt(np.maximum(process.outputscale - self.explained, 1e-12))


class DNGO:
    """Bayesian linear regression on the learned features of a network's hidden layer.

    Args:
        weight: Weight of the hidden layer, ``[D, H]``.
        bias: Bias of the hidden layer, ``[H]``.
        mean: Column means of the vectors that the network was trained on.
        deviation: Standard deviations of these columns.
        alpha: Precision of the regression weights.
        beta: Precision of the observations.
    """

    def __init__(
        self, weight: Floats, bias: Floats, mean: Floats, deviation: Floats, alpha: float, beta: float
    ) -> None:
        self.weight, self.bias, self.mean, self.deviation = weight, bias, mean, deviation
        self.alpha, self.beta = alpha, beta

    @classmethod
    def fit(
        cls,
        x: Floats,
        y: Floats,
        *,
        seed: int,
        units: int = 128,
        epochs: int = 100,
        batch_size: int = 10,
        learning_rate: float = 0.01,
    ) -> DNGO:
        """Train the network with Adam, then choose both precisions by marginal likelihood."""
        import torch
        from torch import nn

        mean, deviation = x.mean(axis=0), np.maximum(x.std(axis=0), 1e-6)
        inputs = torch.from_numpy((x - mean) / deviation).float()
        targets = torch.from_numpy(y).float()[:, None]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            hidden = nn.Linear(x.shape[1], units)
            model = nn.Sequential(hidden, nn.Tanh(), nn.Linear(units, 1))
            optimizer = torch.optim.Adam(model.parameters(), learning_rate)
            for _ in range(epochs):
                for rows in torch.split(torch.randperm(len(inputs)), batch_size):
                    optimizer.zero_grad()
                    loss = nn.functional.mse_loss(model(inputs[rows]), targets[rows])
                    loss.backward()  # type: ignore[no-untyped-call]
                    optimizer.step()
        made = cls(
            hidden.weight.detach().double().numpy().T.copy(),
            hidden.bias.detach().double().numpy(),
            mean,
            deviation,
            1.0,
            100.0,
        )
        features = made.features(x)
        # In the eigenbasis of the features, the evidence is a sum over H numbers.
        left, singular, _ = np.linalg.svd(features, full_matrices=False)
        energy, projected = singular**2, (left.T @ y) ** 2
        rest = max(float(y @ y - projected.sum()), 0.0)

        def negative_evidence(logarithms: Floats) -> float:
            alpha, beta = np.exp(np.clip(logarithms, -12, 12))
            variance = energy / alpha + 1 / beta  # variance of y along each singular vector
            outside = len(y) - len(energy)
            return float(
                0.5 * (np.log(variance) + projected / variance).sum()
                + 0.5 * (beta * rest - outside * np.log(beta))
            )

        found = minimize(negative_evidence, np.log([made.alpha, made.beta]), method="Nelder-Mead")
        made.alpha, made.beta = (float(v) for v in np.exp(np.clip(found.x, -12, 12)))
        return made

    def features(self, x: Floats) -> Floats:
        """Outputs of the hidden layer with a column of ones, ``[n, H + 1]``."""
        hidden = np.tanh((x - self.mean) / self.deviation @ self.weight + self.bias)
        return np.concatenate([hidden, np.ones((len(x), 1))], axis=1)

    def predict(self, x: Floats, y: Floats, points: Floats) -> tuple[Floats, Floats]:
        """``A = beta Phi^T Phi + alpha, mean = beta phi^T A^-1 Phi^T y, var = phi^T A^-1 phi + 1 / beta``."""
        features, wanted = self.features(x), self.features(points)
        precision = self.beta * features.T @ features + self.alpha * np.eye(features.shape[1])
        factor = cholesky(precision, lower=True)
        mean = wanted @ cho_solve((factor, True), self.beta * features.T @ y)
        explained = solve_triangular(factor, wanted.T, lower=True)
        variance = np.einsum("hm,hm->m", explained, explained) + 1 / self.beta
        return mean, np.sqrt(variance)
