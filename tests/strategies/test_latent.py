"""Search in an embedding: models against their formulas, the policy's update, and that both find things."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import pytest
import torch

import pynas
from pynas import strategies
from pynas._errors import UserError
from pynas.architecture import Architecture
from pynas.embedding import Arch2Vec, trained
from pynas.embedding.policy import Policy
from pynas.strategies._surrogates import DNGO, GaussianProcess
from pynas.strategies.bayesian import BayesianOptimization, expected_improvement
from pynas.testing.strategies import CHECKS, ToySpace, drive, toy_score
from pynas.trial import Evaluation, Status, Trial

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.slow]


def scored(architecture: Architecture) -> Evaluation:
    return Evaluation(Status.OK, {"toy": toy_score(architecture)})


def dngo(space: Any, **options: Any) -> strategies.SearchStrategy:
    return strategies.create("bayesian", space, model="dngo", initial=4, **options)


@pytest.mark.parametrize(
    "check",
    [c for c in CHECKS if "constraint" in c.__name__ or "overlap" in c.__name__],
    ids=lambda c: c.__name__.removeprefix("check_"),
)
def test_the_other_model_conforms(check: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fit = DNGO.fit.__func__  # type: ignore[attr-defined]
    monkeypatch.setattr(DNGO, "fit", classmethod(lambda cls, x, y, seed: fit(cls, x, y, seed=seed, epochs=2)))
    check(dngo)


def test_the_process_is_the_textbook_formula() -> None:
    rng = np.random.default_rng(0)
    x, points, y = rng.normal(size=(9, 3)), rng.normal(size=(5, 3)), rng.normal(size=9)
    lengths, noise, constant, variance = np.array([0.5, 1.0, 2.0]), 0.1, 0.3, 1.7
    process = GaussianProcess(lengths, noise, constant, variance)

    def k(a: Any, b: Any) -> float:
        r = math.sqrt(5 * sum(((p - q) / s) ** 2 for p, q, s in zip(a, b, lengths, strict=True)))
        return variance * (1 + r + r * r / 3) * math.exp(-r)

    gram = np.array([[k(a, b) for b in x] for a in x]) + (noise + 1e-6) * np.eye(9)
    across = np.array([[k(a, b) for b in points] for a in x])
    found, deviation = process.predict(x, y, points)
    inverse = np.linalg.inv(gram)
    np.testing.assert_allclose(found, constant + across.T @ inverse @ (y - constant), rtol=1e-9)
    np.testing.assert_allclose(deviation**2, variance - np.diag(across.T @ inverse @ across), rtol=1e-8)


def test_a_process_that_grows_is_the_process_of_all() -> None:
    rng = np.random.default_rng(0)
    x, points, y = rng.normal(size=(23, 3)), rng.normal(size=(17, 3)), rng.normal(size=23)

    def process() -> GaussianProcess:
        return GaussianProcess(np.array([0.5, 1.0, 2.0]), 0.1, 0.3, 1.7, fitted=5)

    growing, other = process(), rng.normal(size=(17, 3))
    for count in (5, 6, 7, 12, 23):
        found = growing.predict(x[:count], y[:count], points)
        whole = GaussianProcess(np.array([0.5, 1.0, 2.0]), 0.1, 0.3, 1.7, fitted=count)
        for part, expected in zip(found, whole.predict(x[:count], y[:count], points), strict=True):
            np.testing.assert_allclose(part, expected, rtol=1e-9)
    for part, again in zip(found, process().predict(x, y, points), strict=True):
        np.testing.assert_array_equal(part, again)  # a search that goes on asks only once
    # Neither other points nor other observations are taken for those of before.
    for a, b in ((x, other), (x[::-1].copy(), points)):
        for part, expected in zip(growing.predict(a, y, b), process().predict(a, y, b), strict=True):
            np.testing.assert_array_equal(part, expected)


def test_a_fitted_process_predicts() -> None:
    rng = np.random.default_rng(1)
    x, points = rng.normal(size=(60, 2)), rng.normal(size=(40, 2))

    def truth(z: Any) -> Any:
        return np.sin(z[:, 0])  # the second column does not matter

    process = GaussianProcess.fit(x, truth(x) + 0.05 * rng.normal(size=60))
    assert process.lengths[1] > 2 * process.lengths[0]
    found, deviation = process.predict(x, truth(x), points)
    assert np.corrcoef(found, truth(points))[0, 1] > 0.97
    assert (deviation > 0).all()


def test_dngo_is_bayesian_linear_regression_on_its_features() -> None:
    rng = np.random.default_rng(2)
    x, points = rng.normal(size=(50, 3)), rng.normal(size=(30, 3))
    y = np.tanh(x[:, 0] - x[:, 1]) + 0.1 * rng.normal(size=50)
    state = torch.get_rng_state()
    model = DNGO.fit(x, y, seed=0, units=16)
    assert torch.equal(state, torch.get_rng_state())
    phi, wanted = model.features(x), model.features(points)
    covariance = phi @ phi.T / model.alpha + np.eye(50) / model.beta  # the same regression over samples
    gain = np.linalg.solve(covariance, phi @ wanted.T / model.alpha)
    found, deviation = model.predict(x, y, points)
    np.testing.assert_allclose(found, gain.T @ y, rtol=1e-6, atol=1e-8)
    prior = (wanted**2).sum(1) / model.alpha + 1 / model.beta
    np.testing.assert_allclose(
        deviation**2, prior - np.einsum("nm,nm->m", phi @ wanted.T / model.alpha, gain), rtol=1e-5
    )
    assert np.corrcoef(found, np.tanh(points[:, 0] - points[:, 1]))[0, 1] > 0.9

    def evidence(alpha: float, beta: float) -> float:
        total = phi @ phi.T / alpha + np.eye(50) / beta
        return float(-0.5 * np.linalg.slogdet(total)[1] - 0.5 * y @ np.linalg.solve(total, y))

    for factor in (0.5, 2.0):
        assert evidence(model.alpha, model.beta) >= evidence(model.alpha * factor, model.beta) - 1e-6
        assert evidence(model.alpha, model.beta) >= evidence(model.alpha, model.beta * factor) - 1e-6


def test_expected_improvement_is_the_expectation() -> None:
    generator = np.random.default_rng(0)
    draws = generator.normal(size=200_000)
    for mu, s, best in ((0.0, 1.0, 0.5), (1.0, 0.3, 0.9), (-1.0, 2.0, 1.0)):
        found = math.exp(expected_improvement(np.array([mu]), np.array([s]), best)[0])
        assert math.isclose(found, np.maximum(mu + s * draws - best, 0).mean(), rel_tol=0.03)
    far = expected_improvement(np.linspace(-60, -1, 200), np.ones(200), 0.0)
    assert np.isfinite(far).all()
    assert (np.diff(far) > 0).all()


def test_the_policy_takes_the_step_of_the_formula() -> None:
    rng = np.random.default_rng(0)
    inputs, actions, advantages = rng.normal(size=(3, 4)), list(rng.normal(size=(3, 4))), [1.0, -0.5, 2.0]
    policy, twin = Policy(4, hidden=8, seed=1), Policy(4, hidden=8, seed=1)
    before = policy.mean(inputs[:2])
    optimizer = torch.optim.Adam([*twin.cell.parameters(), *twin.head.parameters()], 0.01)
    h = c = torch.zeros(1, 8)
    loss = torch.zeros(())
    for x, a, advantage in zip(inputs, actions, advantages, strict=True):
        h, c = twin.cell(torch.tensor(x[None]).float(), (h, c))
        density = torch.distributions.MultivariateNormal(twin.head(h)[0], torch.eye(4))
        loss = loss - advantage * density.log_prob(torch.tensor(a).float()) / 3
    loss.backward()
    optimizer.step()
    policy.update(inputs, actions, advantages)
    assert policy.updates == 1
    np.testing.assert_allclose(policy.mean(inputs), twin.mean(inputs), rtol=1e-4, atol=1e-6)
    assert np.abs(policy.mean(inputs[:2]) - before).max() > 1e-3


def test_reinforce_goes_to_the_nearest_left() -> None:
    space = ToySpace()
    search = strategies.create("reinforce", space, seed=0, batch_size=3)
    assert isinstance(search, strategies.Reinforce)
    taken: list[Architecture] = []
    for number in range(20):
        proposed = search.ask()
        if number:
            pool, action = search._pool, search._episodes[-1].actions[-1]
            left = [r for r, a in enumerate(pool.architectures) if a not in taken]
            vectors = pool.vectors * search.spread
            nearest = min(left, key=lambda r: float(((vectors[r] - action) ** 2).sum()))
            assert pool.architectures[nearest] == space.canonical(proposed)
        taken.append(space.canonical(proposed))
        search.tell(Trial(number, proposed, scored(proposed)))


def test_learned_search_beats_random() -> None:
    name, space = "bayesian", ToySpace(length=7, choices=4)
    found = {
        which: mean(
            max(map(toy_score, drive(strategies.create(which, space, seed=s), 40, evaluator=scored)))
            for s in range(2)
        )
        for which in (name, "random")
    }
    assert found[name] > found["random"]


def test_an_embedding_from_a_file_is_used(tmp_path: Path) -> None:
    space = pynas.spaces.get("nasbench201")
    members = list(space.all())[::200]
    part = pynas.spaces.NASBench201()
    path = tmp_path / "e.safetensors"
    model = Arch2Vec(space, seed=3)
    model.save(path)
    search = strategies.create("reinforce", part, embedding=str(path))
    assert isinstance(search, strategies.Reinforce)
    rows = [search._pool.rows[space.canonical(a).decisions] for a in members]
    expected = model.embed([space.canonical(a) for a in members]).double().numpy()
    found = search._pool.vectors[rows]
    scale = np.linalg.norm(expected[0] - expected[1]) / np.linalg.norm(found[0] - found[1])
    np.testing.assert_allclose(found - found[0], (expected - expected[0]) / scale, rtol=1e-4, atol=1e-5)
    assert len(search._pool.architectures) == 6466


def test_the_cache_is_read_and_repaired(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pynas.embedding.cache.ENUMERATED", 100)
    monkeypatch.setattr(
        "pynas.embedding.cache.training_pool", lambda space, seed: list(space.all())[: 10 * 4]
    )
    space = pynas.spaces.get("nasbench201")
    epochs: list[Any] = []
    first = trained(space, epochs=1, folder=tmp_path / "new", on_epoch=epochs.append)
    (path,) = (tmp_path / "new").iterdir()
    again = trained(space, epochs=1, folder=tmp_path / "new", on_epoch=epochs.append)
    assert len(epochs) == 1
    some = [space.from_index(7), space.from_index(4000)]
    assert torch.equal(first.embed(some), again.embed(some))
    path.write_bytes(path.read_bytes()[:50])
    repaired = trained(space, epochs=1, folder=tmp_path / "new", on_epoch=epochs.append)
    assert len(epochs) == 2
    assert torch.equal(first.embed(some), repaired.embed(some))
    assert list((tmp_path / "new").iterdir()) == [path]


def test_bad_options(monkeypatch: pytest.MonkeyPatch) -> None:
    space = ToySpace()
    for options, message in (
        ({"model": "forest"}, "model: expected one of gp, dngo"),
        ({"initial": 1}, "initial, refit_every"),
        ({"pool_size": 1}, "pool_size: expected at least 2"),
        ({"embedding": "/absent"}, "no such file"),
    ):
        with pytest.raises(UserError, match=message):
            strategies.create("bayesian", space, **options)
    for options, message in (({"batch_size": 0}, "batch_size"), ({"spread": math.nan}, "spread")):
        with pytest.raises(UserError, match=message):
            strategies.create("reinforce", space, **options)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'pynas-torch\[botorch\]'"):
        strategies.create("bayesian", space)
    assert isinstance(strategies.create("bayesian", space, model="dngo"), BayesianOptimization)
