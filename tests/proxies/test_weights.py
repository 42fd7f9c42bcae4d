"""Proxies of the weights alone, and the tangent kernel's condition, against definitions in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pynas.evaluate import ProxyEvaluator, score
from pynas.spaces.nasbench201.space import NASBench201
from pynas.stats import OutputGram, collect

DEAD = "|nor_conv_3x3~0|+|none~0|nor_conv_3x3~1|+|nor_conv_1x1~0|skip_connect~1|none~2|"


def test_l2_norm_counts_dead_edges_and_layers_does_not() -> None:
    """As published: the norm of all modules, the number of those that train."""
    space = NASBench201(num_cells=2)
    architecture = space.parse(DEAD)
    x, y = torch.randn(4, 3, 16, 16), torch.arange(4) % 5
    evaluator = ProxyEvaluator(space, x, y, ["l2_norm", "layers"], seed=1, num_classes=5)
    torch.manual_seed(1)
    whole = space.build(architecture, num_classes=5)
    modules = [m for m in whole.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    found = evaluator(architecture).scores
    assert len(modules) == 6 * 3 + 1 + 6 + 1
    assert found["layers"] == 6 * 2 + 1 + 6 + 1
    assert found["l2_norm"] == pytest.approx(sum(float(m.weight.detach().double().norm()) for m in modules))


def test_a_shared_weight_counts_once() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 5))
    model[2].weight = model[0].weight
    found = score(model, torch.randn(6, 5), torch.arange(6) % 5, ["l2_norm", "layers"])
    assert found["layers"].value == 1
    assert found["l2_norm"].value == pytest.approx(float(model[0].weight.detach().norm()))


def condition(rows: Tensor) -> float:
    values = np.linalg.eigvalsh((rows @ rows.T).numpy())
    return float(values[-1] / values[0])


def test_ntk_condition_without_batch_norm_is_the_published_one() -> None:
    """Rows by one backward pass per sample."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3, stride=2), nn.GroupNorm(2, 4), nn.ReLU(),
        nn.Flatten(), nn.Linear(16, 5),
    ).double()  # fmt: skip
    x, y = torch.randn(7, 3, 8, 8, dtype=torch.float64), torch.arange(7) % 5
    weights = [p for name, p in model.named_parameters() if "weight" in name]
    rows = []
    for logits in model(x):
        gradients = torch.autograd.grad(logits.sum(), weights, retain_graph=True)
        rows.append(torch.cat([g.flatten() for g in gradients]))
    found = score(model, x, y, ["ntk_condition_tenas"], precision="float64")["ntk_condition_tenas"]
    assert found.value == pytest.approx(condition(torch.stack(rows)), rel=1e-9)
    # One pass is the same without batch norm; it leaves out the norms' own weights.
    model[3].weight.requires_grad_(False)
    exact, fast = (
        score(model, x, y, [name], precision="float64")[name].value
        for name in ("ntk_condition_tenas", "ntk_condition")
    )
    assert fast == pytest.approx(exact, rel=1e-9)


def test_ntk_condition_with_batch_norm_is_of_contributions() -> None:
    """Rows from the gradients at the layers' outputs, sample by sample, in one backward pass."""
    torch.manual_seed(0)
    conv, norm, linear = nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6), nn.Linear(6 * 16, 5)
    model = nn.Sequential(conv, norm, nn.ReLU(), nn.Flatten(), linear).double().train()
    x, y = torch.randn(7, 3, 6, 6, dtype=torch.float64), torch.arange(7) % 5
    z = conv(x)
    z.retain_grad()
    a = torch.relu(norm(z)).flatten(1)
    linear(a).sum().backward()
    assert z.grad is not None
    rows = []
    for b in range(7):
        weight = torch.nn.grad.conv2d_weight(x[b : b + 1], list(conv.weight.shape), z.grad[b : b + 1])
        rows.append(torch.cat([weight.flatten(), a[b].repeat(5)]))
    found = score(model, x, y, ["ntk_condition", "snip"], precision="float64")["ntk_condition"]
    assert found.value == pytest.approx(condition(torch.stack(rows).detach()), rel=1e-9)
    grams = collect(model, x, None, needs=[OutputGram()], training=True)[OutputGram]
    assert set(grams) == {"0.weight", "1.weight", "4.weight"}


def test_ntk_condition_tenas_with_batch_norm() -> None:
    """A row is the gradient of one sample's logits, through all samples' activations."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(96, 5)
    ).double()
    x, y = torch.randn(7, 3, 6, 6, dtype=torch.float64), torch.arange(7) % 5
    model.train()
    rows = []
    for i in range(7):
        model.zero_grad()
        model(x)[i].sum().backward()
        rows.append(torch.cat([m.weight.grad.flatten() for m in model if hasattr(m, "weight")]))
    found = score(model, x, y, ["ntk_condition_tenas"], precision="float64")["ntk_condition_tenas"]
    assert found.value == pytest.approx(condition(torch.stack(rows)), rel=1e-9)


def test_ntk_condition_of_equal_samples_is_a_failure() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 5))
    x = torch.randn(6, 4)
    x[3] = x[2]
    found = score(model, x, torch.arange(6) % 5, ["ntk_condition"])["ntk_condition"]
    assert found.status == "failed"
    assert "singular" in found.message
