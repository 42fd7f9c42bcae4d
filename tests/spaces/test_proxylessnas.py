"""ProxylessNAS: the published networks' parameters and FLOPs, names, the network written out, strings."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from pynas._errors import UserError
from pynas.spaces import ProxylessNAS

SPACE = ProxylessNAS()
SMALL = ProxylessNAS(widths=(4, 6, 8, 8, 10, 12), stem_channels=4, first_channels=3, last_channels=16)
# The three published networks: options of the space, then expansion and kernel of each block, - for none.
MOBILE = "35 33 - -|37 33 35 35|67 35 35 35|65 35 35 35|67 67 37 37|67"
GPU = "35 - - -|37 - - 33|67 - - 35|65 - 33 35|67 67 67 65|67"
CPU = "63 33 33 33|63 33 33 35|63 - - 33|65 33 33 33|65 35 35 33|65"
PUBLISHED: list[tuple[dict[str, Any], str, int, float]] = [
    ({"widths": "32-40-80-96-192-320"}, MOBILE, 4_080_512, 320.4),
    (
        {
            "widths": (32, 56, 112, 128, 256, 432),
            "stem_channels": 40,
            "first_channels": 24,
            "last_channels": 1728,
        },
        GPU,
        7_119_848,
        465.3,
    ),
    (
        {
            "widths": (32, 48, 88, 104, 216, 360),
            "stem_channels": 40,
            "first_channels": 24,
            "last_channels": 1432,
        },
        CPU,
        4_361_648,
        439.2,
    ),
]


def long_form(short: str) -> str:
    """The notation of the space."""
    return "|".join(
        ",".join("Zero" if b == "-" else f"{b[1]}x{b[1]}_MBConv{b[0]}" for b in stage.split())
        for stage in short.split("|")
    )


def test_size() -> None:
    assert SPACE.size == 6**6 * 7**15
    assert SPACE.num_choices.count(7) == 15


@pytest.mark.parametrize(("options", "short", "params", "mflops"), PUBLISHED, ids=["mobile", "gpu", "cpu"])
def test_the_published_networks(options: dict[str, Any], short: str, params: int, mflops: float) -> None:
    space = ProxylessNAS(**options)
    arch = space.parse(long_form(short))
    assert space.params(arch, 1000) == params
    assert round(space.macs(arch, 1000) / 1e6, 1) == mflops


def test_a_published_network_runs_at_its_size() -> None:
    options, short, _, _ = PUBLISHED[0]
    space = ProxylessNAS(**options)
    arch = space.parse(long_form(short))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        logits = space.build(arch, 1000).eval()(torch.zeros(1, 3, 224, 224))
    assert logits.shape == (1, 1000)
    assert counter.get_total_flops() == 2 * space.macs(arch, 1000)


def test_parameter_names_are_those_of_the_published_weights() -> None:
    names = set(SMALL.build(SMALL.parse(long_form(MOBILE))).state_dict())
    assert {
        "first_conv.conv.weight",
        "first_conv.bn.running_var",
        "blocks.0.mobile_inverted_conv.depth_conv.conv.weight",
        "blocks.1.mobile_inverted_conv.inverted_bottleneck.bn.weight",
        "blocks.21.mobile_inverted_conv.point_linear.conv.weight",
        "feature_mix_layer.conv.weight",
        "classifier.linear.bias",
    } <= names
    assert not any(name.startswith(("blocks.3.", "blocks.0.mobile_inverted_conv.inv")) for name in names)


def reference_forward(state: dict[str, torch.Tensor], short: str, x: torch.Tensor) -> torch.Tensor:
    """The network in functions, from the paper's figure."""

    def layer(
        y: torch.Tensor, name: str, stride: int = 1, depthwise: bool = False, act: bool = True
    ) -> torch.Tensor:
        weight = state[f"{name}.conv.weight"]
        y = F.conv2d(y, weight, None, stride, weight.shape[-1] // 2, groups=len(weight) if depthwise else 1)
        y = F.batch_norm(
            y, None, None, state[f"{name}.bn.weight"], state[f"{name}.bn.bias"], training=True, eps=1e-3
        )
        return y.clamp(0, 6) if act else y

    y = layer(layer(x, "first_conv", 2), "blocks.0.mobile_inverted_conv.depth_conv", depthwise=True)
    y = layer(y, "blocks.0.mobile_inverted_conv.point_linear", act=False)
    block = 0
    for stage, strides in zip(short.split("|"), (2, 2, 2, 1, 2, 1), strict=True):
        for i, choice in enumerate(stage.split()):
            block += 1
            if choice != "-":
                name = f"blocks.{block}.mobile_inverted_conv"
                z = layer(y, f"{name}.inverted_bottleneck")
                assert z.shape[1] == int(choice[0]) * y.shape[1]
                assert state[f"{name}.depth_conv.conv.weight"].shape[-1] == int(choice[1])
                z = layer(z, f"{name}.depth_conv", 1 if i else strides, depthwise=True)
                z = layer(z, f"{name}.point_linear", act=False)
                y = y + z if i else z
    y = layer(y, "feature_mix_layer").mean((2, 3))
    return y @ state["classifier.linear.weight"].T + state["classifier.linear.bias"]


@pytest.mark.parametrize("short", [MOBILE, GPU])
def test_network_against_the_written_out_form(short: str) -> None:
    torch.manual_seed(0)
    space = ProxylessNAS(widths=(4, 6, 8, 10, 12, 14), stem_channels=4, first_channels=3, last_channels=16)
    model = space.build(space.parse(long_form(short)), num_classes=4, in_channels=2).double()
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    x = torch.randn(3, 2, 40, 56, dtype=torch.float64)
    expected = reference_forward(dict(model.named_parameters()), short, x)
    torch.testing.assert_close(model(x), expected, rtol=1e-9, atol=1e-9)


def test_weights_are_drawn_as_by_the_authors() -> None:
    torch.manual_seed(0)
    model = SPACE.build(SPACE.parse(long_form(MOBILE)))
    last = model.feature_mix_layer.conv.weight
    assert last.std().item() == pytest.approx((2 / 1280) ** 0.5, rel=0.01)
    depthwise = model.blocks[21].mobile_inverted_conv.depth_conv.conv.weight
    assert depthwise.std().item() == pytest.approx((2 / (49 * len(depthwise))) ** 0.5, rel=0.02)
    assert not model.classifier.linear.bias.any()


def test_the_place_of_a_zero_does_not_matter() -> None:
    arch = SPACE.parse(long_form("35 - 33 -|37 33 35 35|67 - - 65|65 - 33 35|67 67 67 65|67"))
    form = SPACE.canonical(arch)
    assert SPACE.format(form) == long_form("35 33 - -|37 33 35 35|67 65 - -|65 33 35 -|67 67 67 65|67")
    assert (SPACE.params(form), SPACE.macs(form)) == (SPACE.params(arch), SPACE.macs(arch))
    # The order of the others does.
    other = SPACE.parse(long_form("35 33 - -|37 35 33 35|67 65 - -|65 33 35 -|67 67 67 65|67"))
    assert SPACE.canonical(other) == other != form


@pytest.mark.slow
@pytest.mark.parametrize("space", [SPACE, SMALL], ids=["widths of the search", "two stages of one width"])
def test_canonical_forms_compute_the_same(space: ProxylessNAS) -> None:
    rng = random.Random(5)
    space = ProxylessNAS(  # one channel of each, to be fast, and the widths that are equal stay so
        widths=tuple(2 + i // 2 if space is SMALL else 2 + i for i in range(6)),
        stem_channels=2, first_channels=2, last_channels=4,
    )  # fmt: skip
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    moved = 0
    for _ in range(6):
        arch = space.sample(rng)
        while arch.decisions.count(6) < 3:
            arch = space.mutate(arch, rng)
        form = space.canonical(arch)
        models = [space.build(a).double() for a in (arch, form)]
        for a, b in zip(*(model.parameters() for model in models), strict=True):
            b.data.copy_(a.data)  # in order of depth
        torch.testing.assert_close(models[0](x), models[1](x), rtol=0, atol=0)
        moved += arch != form
    assert moved


def test_number_of_networks() -> None:
    first = SPACE.size // (6 * 7**3)  # from one first stage to the next
    forms = {SPACE.canonical(SPACE.from_index(i * first)).decisions[:4] for i in range(6 * 7**3)}
    assert len(forms) == 6 * (1 + 6 + 36 + 216)


def test_strings() -> None:
    text = long_form(MOBILE)
    assert text.startswith("5x5_MBConv3,3x3_MBConv3,Zero,Zero|7x7_MBConv3,")
    arch = SPACE.parse(text)
    assert SPACE.format(arch) == text
    assert SPACE.parse(text.replace(",", " , ")) == arch
    for kernel, expansion in itertools.product((3, 5, 7), (3, 6)):
        block = SPACE.blocks(
            SPACE.parse(text.replace("5x5_MBConv3", f"{kernel}x{kernel}_MBConv{expansion}"))
        )[1]
        assert block is not None
        assert (block.kernel_size, block.expansion) == (kernel, expansion)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("5x5_MBConv3,3", "5x5_MBConv4,3", "at position 0 expected an operation out of 3x3_MBConv3, "),
        ("5x5_MBConv3,3", "Zero,3", "at position 0 expected an operation out of 3x3_MBConv3, "),
        ("Zero,Zero|", "Zero|", "at position 28 expected ',' and the next block, found '|'"),
        ("Zero,Zero|", "Zero,Zero,", "at position 33 expected '|' and the next stage, found ','"),
        ("|7x7_MBConv6", "|7x7_MBConv6,Zero", "expected '|' and the next stage"),
    ],
)
def test_malformed_strings(old: str, new: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        SPACE.parse(long_form(MOBILE).replace(old, new, 1))
    assert message in str(error.value)


def test_widths_are_kept_as_text() -> None:
    assert ProxylessNAS(widths=(4, 6, 8, 8, 10, 12)).widths == "4-6-8-8-10-12"
    assert SPACE.widths == "24-40-80-96-192-320"


def test_bad_arguments() -> None:
    with pytest.raises(UserError, match="widths: expected 6 numbers of channels"):
        ProxylessNAS(widths=(24, 40))
    with pytest.raises(UserError, match="widths: expected 6 numbers of channels, got '24-40-0-96-192-320'"):
        ProxylessNAS(widths="24-40-0-96-192-320")
    with pytest.raises(UserError, match="last_channels: expected a positive integer"):
        ProxylessNAS(last_channels=-1)
