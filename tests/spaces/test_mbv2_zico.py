"""The Zen-NAS/ZiCo space against published networks, and the rules of its moves."""

from __future__ import annotations

import itertools
import random
import re
from collections import Counter

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from pynas._errors import UserError
from pynas.architecture import Architecture
from pynas.spaces import MBV2ZiCo
from pynas.spaces.mbv2_zico.blocks import TYPES, Block
from pynas.spaces.mbv2_zico.space import START
from pynas.testing.spaces import CHECKS, Check

SPACE = MBV2ZiCo()

ZENNETS = {  # structure strings of the published networks, and their table: parameters, FLOPs budget
    400: "SuperConvK3BNRELU(3,16,2,1)SuperResIDWE1K7(16,40,2,40,1)SuperResIDWE1K7(40,64,2,64,1)"
    "SuperResIDWE4K7(64,96,2,96,5)SuperResIDWE2K7(96,224,2,224,5)SuperConvK1BNRELU(224,2048,1,1)",
    600: "SuperConvK3BNRELU(3,24,2,1)SuperResIDWE1K7(24,48,2,48,1)SuperResIDWE2K7(48,72,2,72,1)"
    "SuperResIDWE6K7(72,96,2,88,5)SuperResIDWE4K7(96,192,2,168,5)SuperConvK1BNRELU(192,2048,1,1)",
    900: "SuperConvK3BNRELU(3,16,2,1)SuperResIDWE1K7(16,48,2,72,1)SuperResIDWE2K7(48,72,2,64,3)"
    "SuperResIDWE2K7(72,152,2,144,3)SuperResIDWE2K7(152,360,2,352,4)SuperResIDWE4K7(360,288,1,264,3)"
    "SuperConvK1BNRELU(288,2048,1,1)",
}


def net(stem: int, *blocks: tuple[str, int, int, int]) -> Architecture:
    """A network of (type, width, stride, sub-layers), each bottleneck as wide as its block."""
    decisions = [stem, 2048]
    for kind, width, stride, layers in blocks:
        decisions += [TYPES.index(kind), width, stride, width, layers]
    return Architecture("mbv2_zico", tuple(decisions))


# Stem, types, widths and sub-layers of the networks that ZiCo found.
ZICO_450 = net(16, ("E1K7", 40, 2, 1), ("E2K7", 80, 2, 1), ("E4K7", 96, 2, 5), ("E2K7", 224, 2, 5))
ZICO_600 = net(
    24, ("E1K7", 48, 2, 1), ("E2K7", 72, 2, 1), ("E6K5", 160, 2, 1), ("E6K7", 200, 2, 5), ("E6K7", 168, 1, 4)
)
ZICO_1G = net(
    48,
    ("E1K7", 48, 2, 1),
    ("E1K7", 80, 2, 1),
    ("E2K7", 160, 2, 3),
    ("E4K7", 288, 2, 4),
    ("E6K5", 232, 1, 5),
)


@pytest.mark.slow
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_conformance_without_links_within_the_published_limits(check: Check) -> None:
    options = {"max_layers": 14, "max_flops": 450e6, "residual": False, "replacements": 1}
    check(MBV2ZiCo(**options))  # type: ignore[arg-type]


def test_parameters_and_multiply_adds_with_squeeze_excite() -> None:
    space = MBV2ZiCo(squeeze_excite=True)
    network = space.build(space.start(), num_classes=7, in_channels=1).eval()
    assert sum(p.numel() for p in network.parameters()) == space.params(space.start(), 7, 1)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 1, 64, 64))
    assert counter.get_total_flops() == 2 * space.macs(space.start(), 7, 64, 1)


def test_the_start_network() -> None:
    start = SPACE.start()
    assert SPACE.format(start) == START
    e6k3 = TYPES.index("E6K3")
    assert SPACE.blocks(start) == (
        Block(e6k3, 32, 2, 8, 1),
        Block(e6k3, 48, 2, 32, 1),
        Block(e6k3, 96, 2, 48, 1),
        Block(e6k3, 128, 2, 96, 1),
    )
    assert (SPACE.blocks(start)[0].expansion, SPACE.blocks(start)[0].kernel) == (6, 3)
    assert SPACE.depth(start) == 6


@pytest.mark.parametrize(
    ("budget", "squeeze_excite", "millions"), [(400, False, 5.7), (600, False, 7.1), (900, True, 19.4)]
)
def test_published_parameters(budget: int, squeeze_excite: bool, millions: float) -> None:
    # The published table counts SE for the largest only.
    space = MBV2ZiCo(squeeze_excite=squeeze_excite)
    assert round(space.params(space.parse(ZENNETS[budget]), num_classes=1000) / 1e6, 1) == millions


def test_published_budgets_are_kept_by_the_authors_count() -> None:
    flops = {budget: SPACE.published_flops(SPACE.parse(text)) / 1e6 for budget, text in ZENNETS.items()}
    assert 399.9 < flops[400] <= 400  # searched for under 400 MFLOPs
    assert 595 < flops[600] <= 600


def test_networks_found_by_zico() -> None:
    assert [SPACE.depth(arch) for arch in (ZICO_450, ZICO_600, ZICO_1G)] == [14, 14, 16]
    weights = SPACE.params(ZICO_450, 1000) - parameters_besides_weights(ZICO_450)
    assert round(weights / 1e6, 1) == 5.7
    with_se = MBV2ZiCo(squeeze_excite=True)
    assert round(with_se.macs(ZICO_450, 1000) / 1e6) in (447, 448)  # published: 448
    assert MBV2ZiCo(max_layers=14, max_flops=450e6).is_valid(ZICO_450.decisions)


def parameters_besides_weights(arch: Architecture) -> int:
    network = SPACE.build(arch, num_classes=1000)
    return sum(p.numel() for p in network.parameters() if p.dim() == 1)


def test_the_bottlenecks_of_the_larger_networks_are_narrower_than_their_blocks() -> None:
    """Published 9.4 and 14.2 million weights lie between bottlenecks of 8 channels and of the full width."""
    for arch, millions in ((ZICO_600, 9.4), (ZICO_1G, 14.2)):
        narrow = list(arch.decisions)
        narrow[5::5] = [8] * len(narrow[5::5])
        low = SPACE.params(Architecture(SPACE.name, tuple(narrow)), 1000)
        assert low < millions * 1e6 < SPACE.params(arch, 1000)


def test_published_flops_written_out() -> None:
    """The start network at 64 pixels, layer by layer; links of stride 2 count a quarter."""
    text = "SuperConvK3BNRELU(3,8,2,1)SuperResIDWE1K5(8,16,2,24,1)SuperConvK1BNRELU(16,32,1,1)"
    stem = 27 * 8 * 32**2 + 8 * 32**2
    first = (8 * 24 + 24) * 32**2 + (25 * 24 + 24 + 24 * 24 + 24) * 16**2 + (8 * 24 + 24) * 8**2
    second = (24 * 16 + 16 + 25 * 16 + 16 + 16 * 16 + 16 + 24 * 16 + 16) * 16**2
    last = (16 * 32 + 32) * 16**2 + 32 * 10
    arch = SPACE.parse(text)
    assert SPACE.published_flops(arch, num_classes=10, image_size=64) == stem + first + second + last
    bare = stem - 8 * 32**2 + (8 * 24) * 32**2 + (25 + 24) * 24 * 16**2 + (24 + 25 + 16) * 16 * 16**2
    bare += 16 * 32 * 16**2 + 320
    assert MBV2ZiCo(residual=False).macs(arch, 10, 64) == bare
    assert SPACE.macs(arch, 10, 64) == bare + (8 * 24 + 24 * 16) * 16**2


@pytest.mark.slow
def test_parameter_names_are_those_of_the_published_weights() -> None:
    arch = SPACE.parse(ZENNETS[400])
    names = set(SPACE.build(arch).state_dict())
    assert {
        "module_list.0.module_list.0.netblock.weight",
        "module_list.1.module_list.0.module_list.3.netblock.weight",
        "module_list.1.module_list.0.proj.0.bias",
        "module_list.3.module_list.18.module_list.7.netblock.running_var",
        "module_list.5.module_list.1.netblock.bias",
        "fc_linear.netblock.weight",
    } <= names
    assert not any(name.startswith("module_list.3.module_list.18.proj") for name in names)
    scoring = set(MBV2ZiCo(residual=False).build(arch).state_dict())
    assert "module_list.1.module_list.3.netblock.weight" in scoring
    assert not any("proj" in name for name in scoring)


def reference_forward(
    state: dict[str, torch.Tensor], blocks: tuple[Block, ...], x: torch.Tensor
) -> torch.Tensor:
    """The network written out in functions: train-mode batch norm, residual links, no SE."""

    def norm(y: torch.Tensor, name: str) -> torch.Tensor:
        return F.batch_norm(
            y, None, None, state[f"{name}.weight"], state[f"{name}.bias"], training=True, eps=1e-3
        )

    def unit(y: torch.Tensor, name: str, kernel: int, stride: int) -> torch.Tensor:
        def weight(i: int) -> torch.Tensor:
            return state[f"{name}.module_list.{i}.netblock.weight"]

        z = norm(F.conv2d(y, weight(0)), f"{name}.module_list.1.netblock").relu()
        groups = weight(3).shape[0]
        z = F.conv2d(z, weight(3), None, stride, kernel // 2, 1, groups)
        z = norm(z, f"{name}.module_list.4.netblock").relu()
        z = norm(F.conv2d(z, weight(6)), f"{name}.module_list.7.netblock")
        if f"{name}.proj.0.weight" in state:
            link = F.conv2d(y, state[f"{name}.proj.0.weight"], state[f"{name}.proj.0.bias"], stride)
            y = norm(link, f"{name}.proj.1")
        return (z + y).relu()

    y = F.conv2d(x, state["module_list.0.module_list.0.netblock.weight"], None, 2, 1)
    y = norm(y, "module_list.0.module_list.1.netblock").relu()
    for i, block in enumerate(blocks, start=1):
        for j in range(2 * block.layers):
            y = unit(y, f"module_list.{i}.module_list.{2 * j}", block.kernel, block.stride if j == 0 else 1)
    last = f"module_list.{len(blocks) + 1}.module_list"
    y = norm(F.conv2d(y, state[f"{last}.0.netblock.weight"]), f"{last}.1.netblock").relu()
    return F.linear(y.mean((2, 3)), state["fc_linear.netblock.weight"], state["fc_linear.netblock.bias"])


def test_network_against_the_written_out_form() -> None:
    text = (
        "SuperConvK3BNRELU(3,8,2,1)SuperResIDWE2K3(8,16,2,8,2)SuperResIDWE1K7(16,16,1,16,1)"
        "SuperResIDWE4K5(16,24,2,16,1)SuperConvK1BNRELU(24,40,1,1)"
    )
    arch = SPACE.parse(text)
    torch.manual_seed(0)
    model = SPACE.build(arch, num_classes=5).double()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    x = torch.randn(3, 3, 24, 36, dtype=torch.float64)
    expected = reference_forward(dict(model.named_parameters()), SPACE.blocks(arch), x)
    torch.testing.assert_close(model(x), expected, rtol=1e-10, atol=1e-10)


def test_published_networks_really_multiply_what_macs_says() -> None:
    network = SPACE.build(SPACE.parse(ZENNETS[600]), num_classes=1000).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 3, 96, 96))
    assert counter.get_total_flops() == 2 * SPACE.macs(SPACE.parse(ZENNETS[600]), 1000, image_size=96)
    assert all(m.eps == 1e-3 for m in network.modules() if isinstance(m, nn.BatchNorm2d))


def test_a_replacement_changes_one_block_and_links_the_next() -> None:
    start = SPACE.start()
    kinds = Counter[int]()
    for seed in range(200):
        mutant = MBV2ZiCo(replacements=1).mutate(start, random.Random(seed))
        changed = [
            i
            for i, (x, y) in enumerate(zip(SPACE.blocks(start), SPACE.blocks(mutant), strict=True))
            if x != y
        ]
        assert len(changed) + (mutant.decisions[0] != 8) == 1
        kinds[changed[0] if changed else -1] += 1
        parts = re.findall(r"\((\d+),(\d+)", SPACE.format(mutant))
        assert all(before[1] == after[0] for before, after in itertools.pairwise(parts))
        assert mutant.decisions[1] == 2048
    assert set(kinds) == {-1, 0, 1, 2, 3}


def test_neighbours_of_the_start_network() -> None:
    """12 types, widths and bottlenecks by nine ratios each in multiples of 8, one to three sub-layers."""
    start = SPACE.start()
    neighbours = set(SPACE.neighbours(start))
    widths = {width: {max(8, 8 * round(width * r / 8)) for r in RATIOS} for width in (8, 32, 48, 96, 128)}
    expected = len(widths[8]) - 1  # the stem
    for width, bottleneck in ((32, 8), (48, 32), (96, 48), (128, 96)):
        expected += 12 * len(widths[width]) * len(widths[bottleneck]) * 3 - 1
    assert len(neighbours) == expected
    assert widths[8] == {8, 16}
    assert widths[128] == {320, 256, 192, 160, 128, 104, 88, 64, 48}


RATIOS = (2.5, 2, 1.5, 1.25, 1, 0.8, 1 / 1.5, 0.5, 0.4)


def test_long_blocks_split() -> None:
    space = MBV2ZiCo(replacements=1, max_layers=None)
    block = Block(TYPES.index("E4K7"), 96, 2, 64, 5)
    arch = Architecture(space.name, (16, 2048, *block))
    split = {
        (first.layers, second.layers): (first.stride, second.stride, first[1:2] == second[1:2])
        for neighbour in space.neighbours(arch)
        if len(space.blocks(neighbour)) == 2
        for first, second in [space.blocks(neighbour)]
    }
    assert split == {(3, 3): (2, 1, True), (3, 4): (2, 1, True)}


def test_limits() -> None:
    space = MBV2ZiCo(max_layers=8, max_flops=170e6)
    rng = random.Random(0)
    arch = space.start()
    for _ in range(300):
        arch = space.mutate(arch, rng)
        assert space.depth(arch) <= 8
        assert space.published_flops(arch) <= 170e6
    with pytest.raises(UserError, match="expected at most max_layers=8, got 14"):
        space.check(ZICO_450)
    with pytest.raises(UserError, match="expected at most max_flops=170,000,000, got"):
        MBV2ZiCo(max_flops=170e6).check(ZICO_450)
    with pytest.raises(UserError, match="they exclude the start network"):
        MBV2ZiCo(max_layers=5)
    with pytest.raises(UserError, match="replacements: expected a positive integer"):
        MBV2ZiCo(replacements=0)
    with pytest.raises(UserError, match="max_flops: expected a positive number"):
        MBV2ZiCo(max_flops=-1)


def test_crossover_takes_stages() -> None:
    a, b = SPACE.parse(ZENNETS[400]), ZICO_450
    children = {SPACE.crossover(a, b, random.Random(seed)) for seed in range(60)}
    assert len(children) == 2  # they differ in the second stage only
    unmatched = Architecture(SPACE.name, a.decisions[:-5])
    assert SPACE.crossover(a, unmatched, random.Random(0)) == a


def test_distance() -> None:
    start = SPACE.start()
    assert SPACE.distance(start, start) == 0
    assert SPACE.distance(ZICO_450, SPACE.parse(ZENNETS[400])) == 1
    arch = Architecture(
        SPACE.name, (*start.decisions[:2], 8, 32, 2, 8, 3, 8, 32, 1, 8, 3, *start.decisions[7:])
    )
    assert SPACE.distance(start, arch) == 1
    assert SPACE.distance(arch, start) == 8  # blocks are never joined: one more than arch has parts
    assert SPACE.distance(start, Architecture(SPACE.name, (16, 1024, *start.decisions[2:]))) == 2


@pytest.mark.parametrize(
    ("old", "new", "offset", "width", "message"),
    [
        ("SuperResIDWE6K3(8,32", "SuperResDWE6K3(8,32", 0, 14, "(did you mean 'SuperResIDWE6K3'?)"),
        ("(8,32,2,8,1)", "(16,32,2,8,1)", 1, 2, "expected 8 (the previous part has 8 output channels)"),
        ("(3,8,2,1)", "(3,8,1,1)", 5, 1, "expected 2 (the input has 3 channels"),
        ("(8,32,2,8,1)", "(8,32,2,8,1,1)", 11, 1, "expected ')', found ','"),
        ("(8,32,2,8,1)", "(8,32,2,8)", 9, 1, "expected ',', found ')'"),
        ("(8,32,2,8,1)", "(8,32,2,,1)", 8, 1, "expected a positive integer"),
        ("(128,2048,1,1)", "(128,2048,1,1)x", 14, 1, "expected the end of the text, found 'x'"),
        ("SuperConvK1BNRELU(128,2048,1,1)", "", 0, 1, "found the end of the text"),
    ],
)
def test_malformed_strings(old: str, new: str, offset: int, width: int, message: str) -> None:
    position = START.index(old) + offset
    text = START.replace(old, new, 1)
    with pytest.raises(UserError) as error:
        SPACE.parse(text)
    sentence, shown, caret = str(error.value).split("\n")
    assert f"at position {position} " in sentence
    assert message in sentence
    assert shown == f"  {text}"
    assert caret == f"  {' ' * position}{'^' * width}"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("(8,32,2,8,1)", "(8,32,3,8,1)", "the stride of super-block 0 must be 1 or 2, not 3"),
        ("(8,32,2,8,1)", "(8,32,2,9,1)", "the bottleneck of super-block 0 must be a multiple of 8"),
        ("(8,32,2,8,1)", "(8,32,2,8,6)", "super-block 0 must have 1..5 sub-layers, not 6"),
        ("(128,2048,1,1)", "(128,2047,1,1)", "the width of the last convolution must be a multiple of 8"),
    ],
)
def test_strings_of_other_networks(old: str, new: str, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        SPACE.parse(START.replace(old, new))
