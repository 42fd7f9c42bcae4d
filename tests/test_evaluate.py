"""score() and ProxyEvaluator: statuses, precisions, shared passes, seeds."""

from __future__ import annotations

import copy
import math
import random
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats as scipy_stats
from torch import Tensor, nn

from pynas import proxies, spaces
from pynas._errors import UserError
from pynas.evaluate import ProxyEvaluator, Score, score
from pynas.trial import Status

SPACE = spaces.get("nasbench201")


pytestmark = pytest.mark.usefixtures("one_thread")


def data(n: int = 8, size: int = 8) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, 3, size, size, generator=generator), torch.arange(n) % 5


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 5))


def test_failure_is_a_status() -> None:
    class Broken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x)

    found = score(Broken(), *data(), ["zico", "params"])
    assert found["zico"].status == "failed"
    assert "RuntimeError" in found["zico"].message
    assert math.isnan(found["zico"].value)
    assert found["params"].status == "failed" or found["params"].value == 20


def test_non_finite_is_a_status() -> None:
    network = model()
    with torch.no_grad():
        network[4].weight[0, 0] = math.inf
    found = score(network, *data(), ["grad_norm"])["grad_norm"]
    assert found.status == "non_finite"
    assert math.isnan(found.value)


def test_a_network_without_weights_for_the_proxy() -> None:
    found = score(nn.Sequential(nn.Flatten(), nn.LayerNorm(192)), *data(), ["grad_norm"])["grad_norm"]
    assert found.status == "ok"
    assert found.value == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"proxies": ["zicco"]}, "unknown proxy 'zicco'.*Did you mean 'zico'"),
        ({"precision": "half"}, "precision: expected one of float32, bfloat16, float64"),
        (
            {"micro_batches": 9},
            "inputs: expected at least one sample for each of 9 parts",
        ),
        ({"inputs": data()[0] * math.nan}, "inputs: .* NaN"),
        ({"inputs": data(0)[0], "targets": data(0)[1]}, "inputs: the batch is empty"),
    ],
)
def test_bad_input(change: dict[str, object], message: str) -> None:
    x, y = data()
    arguments = {"inputs": x, "targets": y, "proxies": ["zico"], **change}
    with pytest.raises(UserError, match=message):
        score(model(), **arguments)


def test_one_pass_for_proxies_that_share_a_probe() -> None:
    class Counting(nn.Sequential):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            type(self).calls += 1
            return super().forward(x)

    network = Counting(*model().children())
    score(network, *data(), ["grad_norm", "snip", "plain", "zico_per_sample", "params"], precision="float32")
    assert Counting.calls == 1
    score(network, *data(), ["zico"])
    assert Counting.calls == 3


def test_precisions_agree() -> None:
    scores = {
        p: score(model(), *data(), ["grad_norm", "snip"], precision=p)
        for p in ("float64", "float32", "bfloat16")
    }
    for name, exact in scores["float64"].items():
        assert scores["float32"][name].value == pytest.approx(exact.value, rel=1e-4)
        assert scores["bfloat16"][name].value == pytest.approx(exact.value, rel=0.05)


def test_evaluator() -> None:
    x, y = data(8, 16)
    evaluator = ProxyEvaluator(SPACE, x, y, ["zico", "params", "flops"], num_classes=5)
    rng = random.Random(0)
    state = torch.get_rng_state()
    for arch in (SPACE.sample(rng) for _ in range(3)):
        found, again = evaluator(arch), evaluator(arch)
        assert found.status == Status.OK
        assert found.scores == again.scores
        assert found.scores["params"] == SPACE.params(arch, 5)
        assert found.metrics["flops"] == found.scores["flops"] == SPACE.macs(arch, 5, 16)
    assert torch.equal(state, torch.get_rng_state())
    with pytest.raises(UserError, match="targets: labels go from 0 to 4, but networks have 3 outputs"):
        ProxyEvaluator(SPACE, x, y, ["zico"], num_classes=3)


@pytest.mark.slow
def test_evaluator_on_a_network_without_a_live_path() -> None:
    x, y = data(8, 16)
    dead = SPACE.parse("|none~0|+|none~0|none~1|+|none~0|none~1|none~2|")
    sums = ["zico", "zico_per_sample", "grad_norm", "snip", "plain", "fisher", "grasp", "params", "flops"]
    found = ProxyEvaluator(SPACE, x, y, sums)(dead)
    assert found.status == Status.OK, found.message
    others = ["synflow", "jacob_cov", "epe_nas", "naswot"]  # of no flow, of equal samples
    found = ProxyEvaluator(SPACE, x, y, others)(dead)
    assert found.status == Status.FAILED
    assert all(f"{name}: " in found.message for name in others)


def test_evaluator_reports_failures() -> None:
    x, y = data(8, 16)
    evaluator = ProxyEvaluator(SPACE, x * 1e30, y, ["grad_norm", "params"])
    found = evaluator(SPACE.from_index(100))
    assert (found.status == Status.OK) == math.isfinite(found.scores["grad_norm"])
    x, y = data(8, 6)
    with pytest.raises(UserError, match="multiple of 4"):
        ProxyEvaluator(SPACE, x, y, ["zico"])(SPACE.from_index(100))


@pytest.mark.slow
def test_bfloat16_ranks_like_float32() -> None:
    x, y = data(16, 8)
    rng = random.Random(1)
    architectures = [SPACE.sample(rng) for _ in range(10)]
    ranks = [
        [
            ProxyEvaluator(SPACE, x, y, ["zico"], precision=p, num_classes=10)(a).scores["zico"]
            for a in architectures
        ]
        for p in ("float32", "bfloat16")
    ]
    assert scipy_stats.spearmanr(*ranks).statistic > 0.9


def test_a_search_is_identified_by_what_its_scores_depend_on() -> None:
    space = spaces.get("nasbench201")
    x, y = torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 2, 3])
    config = ProxyEvaluator(space, x, y, ["zico"], num_classes=10).config
    assert config == ProxyEvaluator(space, x.clone(), y, ["zico"], num_classes=10).config
    for other in (
        ProxyEvaluator(space, x + 1, y, ["zico"], num_classes=10),
        ProxyEvaluator(space, x, y.flip(0), ["zico"], num_classes=10),
        ProxyEvaluator(space, x, y, ["zico"], precision="bfloat16", num_classes=10),
        ProxyEvaluator(space, x, y, ["zico"], seed=1, num_classes=10),
    ):
        assert other.config != config


NAMES = proxies.names()


@pytest.fixture(scope="module")
def wanted() -> dict[str, Score]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the tests: scores depend on it by rounding
    scores = score(model(), *data(16), NAMES)
    torch.set_num_threads(threads)
    return scores


def values(scores: Mapping[str, Score]) -> dict[str, tuple[str, float]]:
    return {name: (s.status, 0.0 if math.isnan(s.value) else s.value) for name, s in scores.items()}


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_the_callers_autograd_mode_does_not_matter(wanted: dict[str, Score], mode: type) -> None:
    """A validation step switches autograd off, and makes tensors there that autograd may not save."""
    network = model()
    with mode():
        inputs, targets = data(16)
        assert values(score(network, inputs, targets, NAMES)) == values(wanted)
        assert not torch.is_grad_enabled()
    with mode():
        born_there = model()
        assert values(score(born_there, inputs, targets, NAMES)) == values(wanted)


@pytest.mark.slow
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_an_evaluator_in_any_autograd_mode(mode: type) -> None:
    arch = SPACE.sample(random.Random(0))
    inputs, targets = data(8)
    names = ["zico", "synflow", "zen", "grad_norm_zennas", "grasp"]
    want = ProxyEvaluator(SPACE, inputs, targets, names)(arch)
    assert want.status is Status.OK
    with mode():
        evaluator = ProxyEvaluator(SPACE, inputs.clone(), targets.clone(), names)
        assert evaluator(arch).scores == want.scores


class Uncopied(nn.Module):
    """A network with a lock, which nothing copies."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()
        self.layers = nn.Sequential(*model(), nn.Identity())
        self.wide = nn.Conv2d(8, 8, 1)  # not used; asks for channels_last

    def forward(self, x: Tensor) -> Tensor:
        with self.lock:
            return self.layers(x)


def test_what_needs_no_copy_scores_a_model_that_cannot_be_copied(wanted: dict[str, Score]) -> None:
    found = score(Uncopied(), *data(16), NAMES)
    copying = {"zen", "zen_zennas", "grad_norm_zennas"}
    for name in (
        set(NAMES) - copying - {"params", "l2_norm", "layers"}
    ):  # they count the layer that is not used
        assert (found[name].status, found[name].value) == (
            wanted[name].status,
            pytest.approx(wanted[name].value, rel=1e-3, abs=1e-5, nan_ok=True),
        ), name
    for name in copying:
        assert found[name].status == "failed"
        assert "cannot be copied" in found[name].message
        assert "lock" in found[name].message


def test_any_precision_needs_no_copy() -> None:
    torch.manual_seed(0)
    network = Uncopied()
    before = {k: (v, v.clone(), v._version) for k, v in network.state_dict(keep_vars=True).items()}
    found = score(network, *data(16), NAMES, precision="float64")
    able = {name for name in NAMES if found[name].status in ("ok", "non_finite")}
    assert set(NAMES) - able == {"zen", "zen_zennas", "grad_norm_zennas"}
    twin = Uncopied()
    twin.load_state_dict(network.state_dict())
    wide = score(twin.double(), *data(16), sorted(able), precision="float64")
    assert {n: wide[n].value for n in able} == pytest.approx({n: found[n].value for n in able}, nan_ok=True)
    for key, t in network.state_dict(keep_vars=True).items():
        same, values, version = before[key]
        assert t is same
        assert (t.dtype, t.stride(), t._version) == (values.dtype, values.stride(), version)
        assert torch.equal(t, values)


def test_the_layout_is_the_callers_again_after_a_failure() -> None:
    network = model()
    strides = [p.stride() for p in network.parameters()]
    network.append(nn.Conv2d(8, 8, 3)).append(nn.Linear(7, 7))  # these fit nothing
    found = score(network, *data(8), ["zico"])["zico"]
    assert found.status == "failed"
    assert [p.stride() for p in network.parameters()][: len(strides)] == strides


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_weights_made_in_inference_mode(precision: Any) -> None:
    torch.manual_seed(0)
    usual = model()
    with torch.inference_mode():
        network = copy.deepcopy(usual)
    assert next(network.parameters()).is_inference()
    want = score(usual, *data(8), ["zico"], precision=precision)["zico"]
    found = score(network, *data(8), ["zico"], precision=precision)["zico"]
    assert (found.status, found.value) == ("ok", want.value)
    assert next(network.parameters()).is_inference()


@pytest.mark.slow
def test_data_that_somebody_changes_behind_torchs_back_is_seen() -> None:
    """An array of NumPy's that a tensor shares counts no versions: what was fine a moment ago may not be."""
    shared = np.random.default_rng(0).normal(size=(8, 3, 16, 16)).astype(np.float32)
    x, y = torch.from_numpy(shared), torch.arange(8) % 5
    evaluator = ProxyEvaluator(SPACE, x, y, ["naswot"], num_classes=10)
    arch = SPACE.sample(random.Random(1))
    before = evaluator(arch).scores["naswot"]
    shared *= np.linspace(-1, 2, shared.size, dtype=np.float32).reshape(shared.shape)
    fresh = ProxyEvaluator(SPACE, x.clone(), y, ["naswot"], num_classes=10)
    assert evaluator(arch).scores == fresh(arch).scores != {"naswot": before}
    shared[:] = np.nan
    assert "NaN" in evaluator(arch).message
    flat = nn.Sequential(nn.Flatten(), nn.Linear(768, 5), nn.ReLU())
    with pytest.raises(UserError, match=r"inputs: 6,144 of 6,144 values are NaN"):
        score(flat, x, y, ["naswot"])
