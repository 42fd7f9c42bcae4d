"""NAS-Bench-201 against the published files: order, strings, classes, parameters, multiply-adds, networks."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pynas._errors import UserError
from pynas.architecture import Architecture
from pynas.spaces import Edge, NASBench201
from pynas.spaces.nasbench201.space import live_edges

SPACE = NASBench201()
ALL = list(SPACE.all())
BEST = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_1x1~2|"
EMPTY = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"
FULL = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|nor_conv_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|"


@pytest.fixture(scope="module")
def table(shared_data: Path) -> dict[str, Any]:
    with np.load(shared_data / "nb201_accuracy.npz", allow_pickle=False) as archive:
        return dict(archive)


def test_size() -> None:
    assert SPACE.size == len(ALL) == 15_625


def test_official_order(table: dict[str, Any]) -> None:
    assert [arch.decisions for arch in ALL] == [tuple(row) for row in table["ops"].tolist()]
    assert [SPACE.index(arch) for arch in ALL] == list(range(15_625))


def test_official_order_without_the_files() -> None:
    # Rows that the authors' own code asserts after its shuffle, and the best CIFAR-10 cell.
    assert SPACE.format(ALL[0]) == (
        "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_1x1~0|skip_connect~1|skip_connect~2|"
    )
    assert SPACE.format(ALL[9]) == ("|avg_pool_3x3~0|+|none~0|none~1|+|skip_connect~0|none~1|nor_conv_3x3~2|")
    assert SPACE.index(SPACE.parse(BEST)) == 6111


def test_official_strings(table: dict[str, Any]) -> None:
    strings = [text.decode() for text in table["arch_str"].tolist()]
    assert [SPACE.format(arch) for arch in ALL] == strings
    assert [SPACE.parse(text) for text in strings] == ALL


def test_isomorphism_classes_are_the_published_ones(table: dict[str, Any]) -> None:
    ours = [SPACE.index(SPACE.canonical(arch)) for arch in ALL]
    published = table["unique_id"].tolist()
    assert len(set(ours)) == len(set(published)) == len(set(zip(ours, published, strict=True))) == 6_466


def test_isomorphism_classes_without_the_files() -> None:
    forms = {SPACE.canonical(arch) for arch in ALL}
    assert len(forms) == 6_466
    assert forms == set(SPACE.unique())
    assert all(SPACE.canonical(form) == form for form in forms)


def test_canonical_removes_what_reads_zeros() -> None:
    arch = SPACE.parse("|none~0|+|skip_connect~0|nor_conv_3x3~1|+|nor_conv_1x1~0|avg_pool_3x3~1|none~2|")
    form = "|none~0|+|none~0|none~1|+|nor_conv_1x1~0|none~1|none~2|"
    assert SPACE.format(SPACE.canonical(arch)) == form


@pytest.mark.parametrize(
    ("dataset", "num_classes", "image_size"),
    [("cifar10", 10, 32), ("cifar100", 100, 32), ("imagenet16", 120, 16)],
)
def test_published_params_and_macs(
    table: dict[str, Any], dataset: str, num_classes: int, image_size: int
) -> None:
    params = [SPACE.params(arch, num_classes) for arch in ALL]
    macs = [SPACE.macs(arch, num_classes, image_size) for arch in ALL]
    assert params == np.rint(table[f"params_m_{dataset}"] * 1e6).astype(int).tolist()
    assert macs == np.rint(table[f"macs_m_{dataset}"] * 1e6).astype(int).tolist()


def test_published_flops() -> None:
    """The authors' counter sees the layers of the network; it adds one for each bias of the classifier."""
    flops = [SPACE.published_flops(arch) for arch in ALL]
    assert (min(flops), max(flops)) == (7_783_050, 220_119_690)
    arch, counted = SPACE.parse(BEST), 0
    network = SPACE.build(arch, num_classes=100)

    def count(module: torch.nn.Module, inputs: Any, output: Any) -> None:
        nonlocal counted
        weight, bias = module.weight, module.bias
        positions = output.numel() // len(weight)
        counted += positions * (weight.numel() + (0 if bias is None else bias.numel()))

    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            module.register_forward_hook(count)
    network(torch.zeros(1, 3, 32, 32))
    assert counted == SPACE.published_flops(arch, 100) == SPACE.macs(arch, 100) + 100


def test_extreme_params() -> None:
    counts = [SPACE.params(arch) for arch in ALL]
    assert (min(counts), max(counts)) == (73_306, 1_531_546)
    assert SPACE.params(SPACE.parse(EMPTY)) == 73_306
    assert SPACE.params(SPACE.parse(FULL)) == 1_531_546


def test_graph() -> None:
    graph = SPACE.graph(SPACE.parse(BEST))
    assert graph[3] == Edge(0, 3, "skip_connect")
    assert [(edge.source, edge.target) for edge in graph] == [(0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3)]


def test_dead_cells() -> None:
    assert sum(not any(live_edges(arch.decisions)) for arch in ALL) == 341


@pytest.mark.parametrize(
    ("old", "new", "offset", "width", "message"),
    [
        ("nor_conv_1x1~2", "nor_conv_1x2~2", 0, 12, "found 'nor_conv_1x2' (did you mean 'nor_conv_1x1'?)"),
        ("skip_connect~0", "~0", 0, 1, "expected an operation out of none, skip_connect, nor_conv_1x1"),
        ("nor_conv_1x1~2", "nor_conv_1x1~1", 12, 2, "expected '~2', found '~1'"),
        ("nor_conv_1x1~2", "nor_conv_1x1", 12, 1, "expected '~2', found nothing"),
        ("+|skip_connect~0", "|skip_connect~0", 0, 1, "expected '+|', found '|'"),
        ("conv_1x1~2|", "conv_1x1~2", 10, 1, "expected '|', found the end of the text"),
        ("conv_1x1~2|", "conv_1x1~2|+|none~0|", 11, 9, "expected the end of the text, found '+|none~0|'"),
    ],
)
def test_malformed_strings(old: str, new: str, offset: int, width: int, message: str) -> None:
    position = BEST.index(old) + offset
    text = BEST.replace(old, new)
    with pytest.raises(UserError) as error:
        SPACE.parse(text)
    sentence, shown, caret = str(error.value).split("\n")
    assert sentence.startswith(f"not a nasbench201 architecture: at position {position} ")
    assert message in sentence
    assert shown == f"  {text}"
    assert caret == f"  {' ' * position}{'^' * width}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "at position 0 expected '|', found the end of the text\n  \n  ^"),
        ("nor_conv_3x3~0", "at position 0 expected '|', found 'n'\n  nor_conv_3x3~0\n  ^"),
        ("|none~0|+|\t", "at position 10 expected an operation out of none, skip_connect"),
        ("|\x1b[31m~0|", "found '\\x1b[31m'\n  |?[31m~0|\n   ^^^^^"),
    ],
)
def test_malformed_beginnings(text: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        SPACE.parse(text)
    assert message in str(error.value)


def module_names(model: nn.Module) -> set[str]:
    return {name for name, _ in model.named_parameters()}


def test_parameter_names_are_those_of_the_published_weights() -> None:
    names = module_names(SPACE.build(SPACE.parse(BEST)))
    assert {
        "stem.0.weight",
        "stem.1.bias",
        "cells.0.layers.0.op.1.weight",
        "cells.4.layers.5.op.2.weight",
        "cells.5.conv_a.op.1.weight",
        "cells.5.conv_b.op.2.bias",
        "cells.11.downsample.1.weight",
        "cells.16.layers.2.op.1.weight",
        "lastact.0.weight",
        "classifier.weight",
        "classifier.bias",
    } <= names
    assert "cells.0.layers.3.op.1.weight" not in names  # a skip connection


def reference_forward(state: dict[str, torch.Tensor], arch: Architecture, x: torch.Tensor) -> torch.Tensor:
    """The network written out in functions, from the paper's figure: train-mode batch norm, N = 1."""

    def norm(y: torch.Tensor, name: str) -> torch.Tensor:
        weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
        return F.batch_norm(y, None, None, weight, bias, training=True)

    def block(y: torch.Tensor, name: str, padding: int, stride: int = 1) -> torch.Tensor:
        return norm(F.conv2d(y.relu(), state[f"{name}.op.1.weight"], None, stride, padding), f"{name}.op.2")

    def inner_mean(y: torch.Tensor) -> torch.Tensor:
        kernel = torch.ones(1, 1, 3, 3, dtype=y.dtype)
        flat = y.flatten(0, 1).unsqueeze(1)
        ones = torch.ones_like(flat)
        mean = F.conv2d(flat, kernel, padding=1) / F.conv2d(ones, kernel, padding=1)
        return mean.squeeze(1).view_as(y)

    def cell(y: torch.Tensor, name: str) -> torch.Tensor:
        nodes = [y]
        for t, incoming in enumerate(SPACE.format(arch).split("+"), start=1):
            total = torch.zeros_like(y)
            for s, token in enumerate(incoming.strip("|").split("|")):
                operation, source = token.split("~")
                assert int(source) == s
                layer = f"{name}.layers.{t * (t - 1) // 2 + s}"
                if operation == "skip_connect":
                    total = total + nodes[s]
                elif operation == "avg_pool_3x3":
                    total = total + inner_mean(nodes[s])
                elif operation != "none":
                    total = total + block(nodes[s], layer, 0 if operation == "nor_conv_1x1" else 1)
            nodes.append(total)
        return nodes[3]

    y = norm(F.conv2d(x, state["stem.0.weight"], padding=1), "stem.1")
    for i in range(5):
        name = f"cells.{i}"
        if i % 2 == 0:
            y = cell(y, name)
        else:
            main = block(block(y, f"{name}.conv_a", 1, stride=2), f"{name}.conv_b", 1)
            quarter = y.unfold(2, 2, 2).unfold(3, 2, 2).mean((-1, -2))
            y = main + F.conv2d(quarter, state[f"{name}.downsample.1.weight"])
    pooled = norm(y, "lastact.0").relu().mean((2, 3))
    return pooled @ state["classifier.weight"].T + state["classifier.bias"]


@pytest.mark.parametrize("index", [0, 3, 9, 6111, 123, 4567, 15_624])
def test_network_against_the_written_out_form(index: int) -> None:
    space = NASBench201(channels=4, num_cells=1)
    torch.manual_seed(index)
    model = space.build(ALL[index], num_classes=5).double()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    x = torch.randn(3, 3, 8, 12, dtype=torch.float64)
    expected = reference_forward(dict(model.named_parameters()), ALL[index], x)
    torch.testing.assert_close(model(x), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.slow
def test_pruned_networks_agree_with_whole_ones() -> None:
    space = NASBench201(channels=2, num_cells=1)
    x = torch.randn(3, 3, 4, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([0, 3, 1])
    kinds = Counter[str]()
    dead = [arch for arch in ALL if not any(live_edges(arch.decisions))]
    for arch in [*random.Random(0).sample(ALL, 120), *dead[:5]]:
        whole, pruned = space.build(arch, 4).double(), space.build(arch, 4, prune=True).double()
        assert pruned.load_state_dict(whole.state_dict(), strict=False).missing_keys == []
        outputs = [model(x) for model in (whole, pruned)]
        torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-12, atol=1e-12)
        for output in outputs:
            F.cross_entropy(output, targets).backward()
        kept = dict(pruned.named_parameters())
        for name, parameter in whole.named_parameters():
            if name in kept:
                assert parameter.grad is not None
                torch.testing.assert_close(kept[name].grad, parameter.grad, rtol=1e-10, atol=1e-12)
                kinds["kept"] += 1
            elif not name.endswith("op.2.bias"):  # the shift after zeros is the documented exception
                assert parameter.grad is None or not parameter.grad.any(), name
                kinds["left out"] += 1
    assert kinds["left out"] > 100


def test_initialisation_is_plain_pytorch() -> None:
    """The same draws as making the same layers one after another."""
    space = NASBench201(channels=4, num_cells=1)
    torch.manual_seed(0)
    model = space.build(space.parse(FULL))
    after = torch.rand(())
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            layer: nn.Module = nn.Conv2d(
                module.in_channels,
                module.out_channels,
                module.kernel_size,
                bias=False,
            )
        elif isinstance(module, nn.Linear):
            layer = nn.Linear(module.in_features, module.out_features)
        else:
            continue
        assert torch.equal(layer.weight, module.weight)
    assert torch.equal(torch.rand(()), after)


def test_every_cell_of_a_dead_architecture_stays_connected() -> None:
    model = NASBench201(channels=2, num_cells=1).build(SPACE.parse(EMPTY), prune=True)
    model(torch.randn(2, 3, 8, 8)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_bad_arguments() -> None:
    arch = ALL[0]
    with pytest.raises(UserError, match="num_classes: expected a positive integer, got 0"):
        SPACE.build(arch, num_classes=0)
    with pytest.raises(UserError, match="in_channels: expected a positive integer, got -3"):
        SPACE.params(arch, in_channels=-3)
    with pytest.raises(UserError, match=r"channels: expected a positive integer, got 1\.5"):
        NASBench201(channels=1.5)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="image_size: expected a multiple of 4"):
        SPACE.macs(arch, image_size=30)
    model = NASBench201(channels=2, num_cells=1).build(arch)
    for height, width in ((2, 8), (8, 6), (0, 4)):
        with pytest.raises(
            UserError, match=r"inputs: expected \[B, C, H, W\] with H and W positive multiples"
        ):
            model(torch.zeros(1, 3, height, width))
