"""Proxies of the sensitivity and Jacobian families against their published formulas in float64."""

from __future__ import annotations

import math

import proxy_references as references
import pytest
import torch
from torch import nn

from pynas import proxies
from pynas.evaluate import ProxyEvaluator, score
from pynas.proxies import Proxy
from pynas.spaces import get
from pynas.stats import Gradients, Statistic, collect

networks = pytest.mark.parametrize("network", references.NETWORKS)
precisions = pytest.mark.parametrize(("precision", "rel"), [("float64", 1e-9), ("float32", 2e-3)])


def close(found: dict[str, float], expected: dict[str, float], rel: float) -> None:
    """Layer by layer; a weight that the loss does not depend on may be left out."""
    scale = max(abs(v) for v in expected.values())
    assert found.keys() <= expected.keys()
    for name, value in expected.items():
        assert found.get(name, 0.0) == pytest.approx(value, rel=rel, abs=rel * scale), name


@pytest.mark.slow
@networks
@precisions
def test_grasp(network: str, precision: str, rel: float) -> None:
    model, (x, y) = references.NETWORKS[network](), references.images()
    expected = references.grasp(model, x, y)
    found = score(model, x, y, ["grasp"], precision=precision)["grasp"]
    close(found.layers, expected, rel)
    assert found.value == pytest.approx(math.fsum(expected.values()), rel=10 * rel)


def test_grasp_of_attention() -> None:
    """Its projections are weights too; dropout and fused attention have no say."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    model = nn.Sequential(layer, nn.Flatten(), nn.Linear(48, 5)).double()
    x, y = torch.randn(4, 6, 8, dtype=torch.float64), torch.arange(4)
    found = score(model, x, y, ["grasp"], precision="float64")["grasp"]
    attention = model[0].self_attn
    weights = [attention.in_proj_weight, *(m.weight for m in references.layers(model).values())]
    names = ["0.self_attn.in_proj_weight", *references.layers(model)]
    with nn.attention.sdpa_kernel(nn.attention.SDPBackend.MATH):
        loss = nn.functional.cross_entropy(model(x), y)
    gradients = torch.autograd.grad(loss, weights, create_graph=True)
    seconds = torch.autograd.grad(sum((g.detach() * g).sum() for g in gradients), weights)
    close(
        found.layers,
        {n: -float((w.detach() * h).sum()) for n, w, h in zip(names, weights, seconds, strict=True)},
        1e-9,
    )


@pytest.mark.slow
def test_grasp_of_a_convolution_before_batch_norm_is_its_gradient_squared() -> None:
    """Batch norm undoes the scale of W, so L(a W) = L(W) and W (H g) = -|g|^2 but for the norm's epsilon."""
    model, (x, y) = references.NETWORKS["cell"](), references.images(16, 16)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-12
    found = score(model, x, y, ["grasp"], precision="float64")["grasp"].layers
    gradients = collect(model.double(), x.double(), y, needs=[Gradients(parameters="weights")], training=True)
    names = [name for name in found if "downsample" not in name and "classifier" not in name]
    assert len(names) > 10
    for name in names:
        assert found[name] == pytest.approx(float(gradients[Gradients][name].square().sum()), rel=1e-5)


@networks
@precisions
def test_fisher(network: str, precision: str, rel: float) -> None:
    model, (x, y) = references.NETWORKS[network](), references.images()
    expected = references.fisher(model, x, y)
    found = score(model, x, y, ["fisher"], precision=precision)["fisher"]
    close(found.layers, expected, rel)
    assert found.value == pytest.approx(math.fsum(expected.values()), rel=rel)


@networks
@pytest.mark.parametrize("name", ["synflow", "synflow_bn"])
def test_synflow(network: str, name: str) -> None:
    model, (x, y) = references.NETWORKS[network](), references.images()
    expected = references.synflow(model, x.shape, batch_norm=name == "synflow_bn")
    found = score(model, x, y, [name])[name]
    assert found.layers == pytest.approx(references.logs(expected), rel=1e-9)
    assert found.value == pytest.approx(math.log(math.fsum(expected.values())), rel=1e-9)


class Deep(nn.Module):
    """Layers without normalisation; shortcuts, concatenation and biases between values of all sizes."""

    def __init__(self, blocks: int, gain: float) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1, bias=i % 2 == 0) for i in range(blocks))
        self.head = nn.Linear(8, 4)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=gain)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.stem(x)
        for i, block in enumerate(self.blocks):
            z = block(y)
            if i % 5 == 1:
                z += y
            z = torch.relu(z)
            if i % 5 == 3:
                z = torch.cat([z.chunk(2, 1)[0], (y + z).chunk(2, 1)[1] / 2], 1)
            y = z
        return self.head(nn.functional.adaptive_avg_pool2d(y, 1).flatten(1))


@pytest.mark.parametrize("gain", [1.0, 1e-9])
def test_synflow_carries_scales(gain: float) -> None:
    """Values beyond 1e19, or below, are carried with a scale, which float64 does not need at this depth."""
    torch.manual_seed(0)
    model, x = Deep(17, gain), torch.randn(2, 3, 6, 6)
    expected = references.logs(references.synflow(model, x.shape))
    found = score(model, x, torch.arange(2), ["synflow"])["synflow"]
    assert found.layers == pytest.approx(expected, rel=1e-9)


def test_synflow_of_a_hundred_layers() -> None:
    """e^800 is out of range; what a factor of the weights adds is known: R is homogeneous in each layer."""
    torch.manual_seed(0)
    body = [nn.Conv2d(8, 8, 3, padding=1, bias=False) for _ in range(140)]
    ends = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.Linear(8, 4, bias=False)
    model = nn.Sequential(ends[0], *body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), ends[1])
    x, y = torch.randn(2, 3, 6, 6), torch.arange(2)
    small = score(model, x, y, ["synflow"])["synflow"]
    with torch.no_grad():
        for weight in model.parameters():
            weight *= 1024
    large = score(model, x, y, ["synflow"])["synflow"]
    assert large.status == "ok", large.message
    assert large.value == pytest.approx(small.value + 142 * math.log(1024), rel=1e-12)
    assert large.value > 800
    flows = list(large.layers.values())
    assert max(flows) == pytest.approx(min(flows), rel=1e-12)  # what flows in flows out


@networks
def test_jacobian_proxies(network: str) -> None:
    model, (x, y) = references.NETWORKS[network](), references.images()
    found = score(model, x, y, ["jacob_cov", "epe_nas"], precision="float64")
    assert found["jacob_cov"].value == pytest.approx(references.jacob_cov(model, x), rel=1e-7)
    assert found["epe_nas"].value == pytest.approx(references.epe_nas(model, x, y, 5), rel=1e-7)
    single = score(model, x, y, ["jacob_cov", "epe_nas"])
    assert single["jacob_cov"].value == pytest.approx(found["jacob_cov"].value, rel=1e-2)
    assert single["epe_nas"].value == pytest.approx(found["epe_nas"].value, rel=1e-2)


def test_epe_nas_of_many_classes() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(400, 101))
    x, y = references.images(12)
    y[-1] = 77  # a class with one sample does not count
    found = score(model, x, y, ["epe_nas"], precision="float64")["epe_nas"].value
    assert found == pytest.approx(references.epe_nas(model, x, y, 101), rel=1e-9)
    probabilities = nn.functional.one_hot(y, 101).double()
    assert score(model, x, probabilities, ["epe_nas"], precision="float64")["epe_nas"].value == found


def test_a_network_without_flow_has_no_score() -> None:
    model = references.cell("|none~0|+|none~0|none~1|+|none~0|none~1|none~2|")()
    found = score(model, *references.images(), ["synflow", "jacob_cov", "fisher", "grasp"])
    assert found["synflow"].status == found["jacob_cov"].status == "non_finite"
    for name in ("fisher", "grasp"):
        assert {k for k, v in found[name].layers.items() if v} == {"classifier.weight"}


def test_one_pass_serves_all_and_gives_what_each_gets_alone() -> None:
    model, (x, y) = references.NETWORKS["cell"](), references.images(8, 16)
    names = ["grad_norm", "snip", "plain", "fisher", "jacob_cov", "epe_nas", "zico_per_sample"]
    together = score(model, x, y, names)
    assert len({found.seconds > 0 for found in together.values()}) == 1
    for name in names:
        assert together[name].value == pytest.approx(score(model, x, y, [name])[name].value, rel=1e-3), name


class Activity(Statistic[torch.Tensor]):
    """The example of the documentation, with totals."""

    watches = "relu"

    def observe_relu(self, x, key, uses, results):  # type: ignore[no-untyped-def]
        results["active"] = results.get("active", 0) + uses * (x > 0).flatten(1).sum(1)


class Active(Proxy):
    """Active units."""

    name = "active"
    needs = (Activity(),)
    whole_network = True

    def layers(self, statistics):  # type: ignore[no-untyped-def]
        return {k: float(v.sum()) for k, v in statistics[Activity].items()}


def active(model: nn.Module, x: torch.Tensor) -> int:
    total = 0

    def count(_: nn.Module, inputs: tuple[torch.Tensor]) -> None:
        nonlocal total
        total += int((inputs[0] > 0).sum())

    model = references.exact(model)
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.register_forward_pre_hook(count)
    model(x.double())
    return total


@pytest.mark.parametrize("text", references.CELLS)
@pytest.mark.parametrize("beside", [(), ("snip",)])
def test_every_relu_is_seen(text: str, beside: tuple[str, ...]) -> None:
    """Within fused cells, with gradients or without, and once for each module that reads a node."""
    model, (x, y) = references.cell(text)(), references.images(8, 16)
    space = get("nasbench201", num_cells=1)
    pruned = space.build(space.parse(text), num_classes=5, prune=True)
    pruned.load_state_dict(model.state_dict(), strict=False)
    for network in (model, pruned):
        found = score(network, x, y, [Active(), *beside])["active"].value
        assert found == pytest.approx(active(network, x), abs=3)  # float32 rounds a few signs otherwise


def test_whole_networks_for_those_who_count_dead_edges() -> None:
    space = get("nasbench201", num_cells=1)
    x, y = references.images(8, 16)
    dead = space.parse("|nor_conv_3x3~0|+|none~0|nor_conv_1x1~1|+|skip_connect~0|none~1|none~2|")
    evaluator = ProxyEvaluator(space, x, y, [Active(), "snip"], num_classes=5)
    found = evaluator(dead).scores
    whole = evaluator.build(dead, prune=False)
    assert found["active"] == pytest.approx(active(whole, x), abs=3)
    assert active(evaluator.build(dead), x) < found["active"] - 1000
    assert found["snip"] == ProxyEvaluator(space, x, y, ["snip"], num_classes=5)(dead).scores["snip"]


def test_relu_watchers_need_no_targets() -> None:
    model, (x, _) = references.NETWORKS["cell"](), references.images()
    assert score(model, x, None, [Active()])["active"].value == pytest.approx(active(model, x), abs=3)


def test_labels_are_asked_for() -> None:
    model = nn.Conv2d(3, 2, 3)
    x = torch.randn(4, 3, 6, 6)
    found = score(model, x, torch.randn(4, 2, 4, 4), ["epe_nas", "jacob_cov"], loss_fn=nn.functional.mse_loss)
    assert found["jacob_cov"].status == "ok"
    assert found["epe_nas"].status == "failed"
    assert "class label" in found["epe_nas"].message
    assert proxies.get("epe_nas").needs_labels


def test_one_that_cannot_be_had_does_not_fail_the_others() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(7, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(nn.functional.one_hot(x, 7).float())

    found = score(Tokens(), torch.arange(6), torch.arange(6) % 5, ["jacob_cov", "snip"])
    assert found["snip"].status == "ok"
    assert found["jacob_cov"].status == "failed"
    assert "no gradient of them" in found["jacob_cov"].message


def test_a_weight_that_is_an_embedding_too() -> None:
    """Tied: the gradient is the sum of both uses, and the weight counts because it multiplies."""
    torch.manual_seed(0)
    table, head = nn.Embedding(5, 4), nn.Linear(4, 5, bias=False)
    head.weight = table.weight
    model = nn.Sequential(table, nn.Linear(4, 4), nn.ReLU(), head).double()
    x, y = torch.tensor([0, 3, 1, 1]), torch.tensor([1, 2, 4, 0])
    names = ["grasp", "snip", "synflow", "jacob_cov"]
    found = score(model, x, y, names, precision="float64")
    weights = {"0.weight": table.weight, "1.weight": model[1].weight}
    loss = nn.functional.cross_entropy(model(x), y)
    gradients = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
    for (name, w), g in zip(weights.items(), gradients, strict=True):
        assert found["snip"].layers[name] == pytest.approx(float((w * g).abs().sum().detach()), rel=1e-9)
    seconds = torch.autograd.grad(sum((g.detach() * g).sum() for g in gradients), list(weights.values()))
    for (name, w), h in zip(weights.items(), seconds, strict=True):
        assert found["grasp"].layers[name] == pytest.approx(-float((w.detach() * h).sum()), rel=1e-9)
    assert found["synflow"].status == "ok"
    embedded = nn.functional.embedding(x, table.weight).detach().requires_grad_()
    (rows,) = torch.autograd.grad(model[1:](embedded).sum(), embedded)
    values = torch.linalg.eigvalsh(torch.corrcoef(rows)) + 1e-5
    assert found["jacob_cov"].value == pytest.approx(-float((values.log() + 1 / values).sum()), rel=1e-6)
