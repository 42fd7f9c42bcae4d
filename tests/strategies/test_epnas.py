"""EPNAS: its policies against finite differences, its predictor against a formula, rewards and targets."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest

from pynas import spaces, strategies
from pynas._errors import UserError
from pynas.architecture import Architecture
from pynas.strategies._growth import GrowthPolicy
from pynas.strategies._policies import DecisionPolicy, _softmax
from pynas.strategies._predictor import RIDGE, Predictor, normal_scores
from pynas.strategies._targets import read_targets
from pynas.testing.strategies import ToySpace, drive, toy_score
from pynas.trial import Evaluation, Status, Trial


def test_decision_policy_gradient_is_that_of_the_log_likelihood() -> None:
    policy = DecisionPolicy((2, 3, 4), learning_rate=0.1, entropy_weight=0.0)
    rng = np.random.default_rng(0)
    policy._weights = rng.normal(size=policy._weights.shape)
    rows, advantages = policy.propose(rng, 5), rng.normal(size=5)

    def mean_log_likelihood(weights: np.ndarray) -> float:
        blocks, total = np.split(weights, [2, 2 + 9]), 0.0
        for row, advantage in zip(rows, advantages, strict=True):
            for t, (block, choices) in enumerate(zip(blocks, (2, 3, 4), strict=True)):
                seen = [0, 1 + row[0]][: 1 + (t > 0)] + ([3 + row[1]] if t > 1 else [])
                logits = block.reshape(-1, choices)[seen].sum(axis=0)
                total += advantage * (logits[row[t]] - np.log(np.exp(logits).sum()))
        return total / len(rows)

    slope = policy.gradient(rows, advantages)
    for i in range(len(slope)):
        step = np.zeros_like(slope)
        step[i] = 1e-6
        up, down = (mean_log_likelihood(policy._weights + s) for s in (step, -step))
        assert slope[i] == pytest.approx((up - down) / 2e-6, abs=1e-7)


def test_decision_policy_draws_what_it_was_rewarded_for() -> None:
    policy = DecisionPolicy((3, 3), learning_rate=0.1, entropy_weight=0.0)
    rng = np.random.default_rng(1)
    assert len(set(policy.propose(rng, 400))) == 9
    for _ in range(100):  # the reward needs both decisions to agree: neither alone says anything
        rows = policy.propose(rng, 32)
        rewards = np.array([float(row[0] == row[1]) for row in rows])
        policy.learn(rows, rewards - rewards.mean())
    assert np.mean([row[0] == row[1] for row in policy.propose(rng, 400)]) > 0.9


@pytest.mark.slow
def test_growth_policy_learns_a_layer() -> None:
    space = spaces.get("epnas")
    policy = GrowthPolicy(space, learning_rate=0.1, entropy_weight=0.0)
    rng = np.random.default_rng(2)
    wanted = space.parse("conv_3x3:32|sep_conv_5x5:64").decisions[3:]
    for _ in range(60):
        rows = [policy.propose(rng, (), 3) for _ in range(16)]
        assert all(space.is_valid(row) and 3 <= len(row) <= 9 for row in rows)
        rewards = np.array([sum(row[i] == wanted[0] for i in range(0, len(row), 3)) / 3 for row in rows])
        policy.learn(rows, rewards - rewards.mean())
    rows = [policy.propose(rng, (), 3) for _ in range(50)]
    assert np.mean([len(row) == 9 and row[6] == wanted[0] for row in rows]) > 0.8


def test_growth_policy_shares_add_up_over_all_networks() -> None:
    space = spaces.get("epnas", max_layers=2)
    policy = GrowthPolicy(space, 0.1, 0.0)
    policy._weights[:-1] = np.random.default_rng(3).normal(size=len(policy._weights) - 1)
    total = 0.0
    first = policy._step(())
    for root, share in zip(first.options, _softmax(policy._logits(first)), strict=True):
        second = policy._step(root)
        assert second.options[-1] == root
        assert [Architecture("epnas", d) for d in second.options[:-1]] == list(
            space.grow(Architecture("epnas", root))
        )
        total += share * _softmax(policy._logits(second)).sum()
    assert total == pytest.approx(1)
    assert set(first.options) == {arch.decisions for arch in _one_layer(space)}


def _one_layer(space: spaces.SearchSpace) -> set[Architecture]:
    rng, found = random.Random(5), set()
    for _ in range(2000):
        arch = Architecture("epnas", space.sample(rng).decisions[:3])
        found.add(arch)
    return found


def test_predictor_is_kernel_ridge_regression() -> None:
    rng = np.random.default_rng(4)
    points = rng.integers(0, 2, size=(12, 6)).astype(float)
    points[:, 5] = 1  # says nothing
    targets = rng.normal(size=(12, 2))
    targets[3, 1] = np.nan
    scaled = points[:, :5] / points[:, :5].std(axis=0)
    distances = ((scaled[:, None] - scaled[None]) ** 2).sum(axis=2)
    kernel = np.exp(-distances / np.median(distances[distances > 1e-9]))
    filled = np.where(np.isnan(targets), np.nanmean(targets, axis=0), targets)
    mean = filled.mean(axis=0)
    expected = mean + kernel @ np.linalg.inv(kernel + RIDGE * np.eye(12)) @ (filled - mean)
    np.testing.assert_allclose(Predictor(points.tolist(), targets)(points.tolist()), expected, atol=1e-9)


def test_predictor_takes_points_of_several_lengths() -> None:
    predict = Predictor([[1.0], [1.0, 2.0], [0.0, 1.0, 3.0]], np.array([[1.0], [2.0], [3.0]]))
    np.testing.assert_array_equal(predict([[1.0]]), predict([[1.0, 0.0, 0.0, 9.0]]))
    assert predict([[0.0, 1.0, 3.0]])[0, 0] > predict([[1.0]])[0, 0]


def test_normal_scores() -> None:
    scores = normal_scores([(5.0,), (-1e9,), (7.0,)])
    np.testing.assert_allclose(scores, [0, -0.967421566, 0.967421566], atol=1e-9)


def test_rewards_follow_the_formula() -> None:
    first, second, free = read_targets("params<=100, intensity>=20; params < 1e3;")
    assert first.factor({"params": 100, "intensity": 20}, 0.1) == 1
    assert first.factor({"params": 200, "intensity": 25}, 0.1) == pytest.approx(0.1)
    assert first.factor({"params": 150, "intensity": 10}, 0.1) == pytest.approx(0.1**1.5)
    assert second.factor({"params": 150}, 0.5) == 1
    assert second.factor({"latency": 150}, 0.5) == 1  # not known
    assert free.conditions == ()


@pytest.mark.parametrize("text", ["params", "params=3", "params<=x", "params<=0", "params<=1;latency<=-1"])
def test_bad_targets(text: str) -> None:
    with pytest.raises(UserError, match="targets: expected conditions such as"):
        strategies.create("epnas", ToySpace(), targets=text)


@pytest.mark.parametrize(
    "options",
    [{"first": 0}, {"pool_size": 0}, {"top": 0}, {"penalty": 0.0}, {"edits": 1.5}, {"learning_rate": -1.0}],
)
def test_bad_options(options: dict[str, float]) -> None:
    with pytest.raises(UserError, match=next(iter(options))):
        strategies.create("epnas", ToySpace(), **options)


def with_costs(architecture: Architecture) -> Evaluation:
    metrics = {"params": 10.0 * sum(architecture.decisions) + 10}
    return Evaluation(Status.OK, scores={"toy": toy_score(architecture)}, metrics=metrics)


@pytest.mark.slow
def test_each_target_is_searched_for_and_the_state_holds_all() -> None:
    """The score grows with the parameters: without bounds the search goes to the largest."""
    space = ToySpace(length=10, choices=6)
    options = {"targets": ("params<=160", "params<=260", ""), "pool_size": 32, "penalty": 1e-3}
    whole = drive(strategies.create("epnas", space, seed=1, **options), 120, evaluator=with_costs)
    late = [with_costs(arch).metrics["params"] for arch in whole[60:]]
    small, middle, large = (np.mean(late[i::3]) for i in range(3))
    assert small < 185 < middle < 300 < large
    first = strategies.create("epnas", space, seed=1, **options)
    begun = drive(first, 40, evaluator=with_costs)
    second = strategies.create("epnas", space, seed=9, **options)
    second.load_state(json.loads(json.dumps(first.state())))
    assert begun + drive(second, 80, first=40, evaluator=with_costs) == whole


@pytest.mark.slow
@pytest.mark.parametrize("name", ["epnas", "mbv2_zico"])
def test_open_ended_spaces(name: str) -> None:
    """A score that wants few parameters in many layers: far better than random, resumed to the same."""
    space = spaces.get(name)

    def evaluate(architecture: Architecture) -> Evaluation:
        return Evaluation(Status.OK, scores={"small": -np.log(space.params(architecture))})

    first = strategies.create("epnas", space, seed=2, first=10, pool_size=16)
    begun = drive(first, 20, evaluator=evaluate)
    second = strategies.create("epnas", space, seed=7, first=10, pool_size=16)
    second.load_state(json.loads(json.dumps(first.state())))
    rest = drive(second, 15, evaluator=evaluate)
    assert drive(first, 15, evaluator=evaluate) == rest
    random_search = strategies.create("random", space, seed=2)
    drawn = drive(random_search, 35, evaluator=evaluate)
    assert np.mean([space.params(a) for a in rest]) < 0.5 * np.mean([space.params(a) for a in drawn])
    if name == "epnas":
        longest = 1
        for architecture in begun + rest:  # never more than one layer beyond the longest before it
            assert len(space.layers(architecture)) <= longest
            longest = max(longest, len(space.layers(architecture)) + 1)


@pytest.mark.slow
def test_beats_random_search_on_nasbench201(shared_data) -> None:
    table = np.load(shared_data / "nb201_accuracy.npz", allow_pickle=False)
    space = spaces.get("nasbench201")
    index = {space.parse(text.decode()): i for i, text in enumerate(table["arch_str"])}
    found = {}
    for name in ("epnas", "random"):
        best = []
        for seed in range(2):
            strategy = strategies.create(name, space, seed=seed)
            seen = []
            for number in range(100):
                architecture = strategy.ask()
                seen.append(index[architecture])
                accuracy = float(table["val12_cifar10"][seen[-1]])
                strategy.tell(Trial(number, architecture, Evaluation(Status.OK, {"val": accuracy})))
            best.append(table["test200_cifar10"][max(seen, key=table["val12_cifar10"].__getitem__)])
        found[name] = np.mean(best)
    assert found["epnas"] > max(94.1, found["random"])
