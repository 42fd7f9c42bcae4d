"""Single Path One-Shot: the published network's cost, its names, the blocks written out, strings."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from pynas._errors import UserError
from pynas.spaces import SPOSShuffleNet

SPACE = SPOSShuffleNet()
SEARCHED = "(2, 1, 0, 1, 2, 0, 2, 0, 2, 0, 2, 3, 0, 0, 0, 0, 3, 2, 3, 3)"
MIXED = "(3, 0, 1, 2, 0, 3, 2, 1, 1, 3, 0, 2, 3, 1, 2, 0, 2, 3, 0, 1)"


def test_size() -> None:
    assert SPACE.size == 4**20 == 1_099_511_627_776


def test_the_published_network() -> None:
    # "323M" FLOPs and "3.5M" parameters in the authors' table, which cuts off.
    arch = SPACE.parse(SEARCHED)
    assert round(SPACE.macs(arch, 1000) / 1e6) == 323
    assert int(SPACE.params(arch, 1000) / 1e5) == 35


def test_costs_by_hand() -> None:
    # All blocks 3x3: pointwise at the input's resolution, depthwise and pointwise at the output's.
    total = 9 * 3 * 16 * 112**2
    c = 16
    for out, size, count in ((64, 56, 4), (160, 28, 4), (320, 14, 8), (640, 7, 4)):
        m = out // 2
        total += c * m * (2 * size) ** 2 + (9 * m + m * (out - c) + 9 * c + c * c) * size**2
        total += (count - 1) * (m * m + 9 * m + m * m) * size**2
        c = out
    total += 640 * 1024 * 49 + 1024 * 1000
    arch = SPACE.from_index(0)
    assert SPACE.macs(arch, 1000) == total
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        SPACE.build(arch, 1000).eval()(torch.zeros(1, 3, 224, 224))
    assert counter.get_total_flops() == 2 * total


def test_parameter_names_are_those_of_the_published_weights() -> None:
    names = set(SPACE.build(SPACE.parse(SEARCHED)).state_dict())
    assert {
        "first_conv.0.weight",
        "first_conv.1.running_mean",
        "features.0.branch_main.0.weight",
        "features.0.branch_proj.2.weight",
        "features.1.branch_main.3.weight",
        "features.19.branch_main.10.weight",
        "features.19.branch_main.13.weight",
        "conv_last.0.weight",
        "classifier.0.weight",
    } <= names
    assert "features.1.branch_proj.0.weight" not in names
    assert "classifier.0.bias" not in names


def reference_forward(state: dict[str, torch.Tensor], text: str, x: torch.Tensor) -> torch.Tensor:
    """The network in functions: the sequence of layers of each choice, from the paper's figure."""

    def norm(y: torch.Tensor, name: str) -> torch.Tensor:
        return F.batch_norm(y, None, None, state[f"{name}.weight"], state[f"{name}.bias"], training=True)

    def branch(y: torch.Tensor, name: str, layers: str, kernel: int, stride: int) -> torch.Tensor:
        position = 0
        for layer in layers:
            weight = state[f"{name}.{position}.weight"]
            if layer == "d":
                y = F.conv2d(y, weight, None, stride, kernel // 2, groups=y.shape[1])
                y, stride, position = norm(y, f"{name}.{position + 1}"), 1, position + 2
            else:
                y = norm(F.conv2d(y, weight), f"{name}.{position + 1}").relu()
                position += 3
        return y

    y = norm(F.conv2d(x, state["first_conv.0.weight"], None, 2, 1), "first_conv.1").relu()
    for i, choice in enumerate(map(int, text.strip("()").split(","))):
        kernel, layers = (3, "dpdpdp") if choice == 3 else (3 + 2 * choice, "pdp")
        name = f"features.{i}.branch"
        if i in (0, 4, 8, 16):
            other = branch(y, f"{name}_proj", "dp", kernel, 2)
            y = torch.cat([other, branch(y, f"{name}_main", layers, kernel, 2)], dim=1)
        else:
            pairs = y.view(len(y), -1, 2, *y.shape[2:])
            main = branch(pairs[:, :, 1], f"{name}_main", layers, kernel, 1)
            y = torch.cat([pairs[:, :, 0], main], dim=1)
    y = norm(F.conv2d(y, state["conv_last.0.weight"]), "conv_last.1").relu()
    return y.mean((2, 3)) @ state["classifier.0.weight"].T


def test_network_against_the_written_out_form() -> None:
    torch.manual_seed(0)
    space = SPOSShuffleNet(dropout=0)
    model = space.build(space.parse(MIXED), num_classes=4, in_channels=2).double()
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    x = torch.randn(3, 2, 40, 56, dtype=torch.float64)
    expected = reference_forward(dict(model.named_parameters()), MIXED, x)
    torch.testing.assert_close(model(x), expected, rtol=1e-9, atol=1e-9)


def test_weights_are_drawn_as_by_the_authors() -> None:
    torch.manual_seed(0)
    model = SPACE.build(SPACE.parse(SEARCHED))
    assert model.first_conv[0].weight.std().item() == pytest.approx(0.01, rel=0.1)
    assert model.conv_last[0].weight.std().item() == pytest.approx(1 / 640, rel=0.01)
    assert model.features[18].branch_main[0].weight.std().item() == pytest.approx(1.0, rel=0.05)  # depthwise
    assert model.classifier[0].weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert (model.conv_last[1].bias == 0.0001).all()


def test_strings() -> None:
    arch = SPACE.parse(SEARCHED)
    assert arch.decisions[:5] == (2, 1, 0, 1, 2)
    assert SPACE.format(arch) == SEARCHED
    assert SPACE.parse("2,1,0,1,2,0,2,0,2,0,2,3,0,0,0,0,3,2,3,3") == arch


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SEARCHED.replace("2, 1,", "2, 4,"), "at position 4 expected a choice out of 0 shuffle_3x3, 1"),
        (SEARCHED.replace("2, 1,", "2 1,"), "at position 3 expected ',' and choice 1 of 20, found '1'"),
        ("(2, 1)", "at position 5 expected ',' and choice 2 of 20, found ')'"),
        (SEARCHED[:-1], "at position 59 expected ')', found the end of the text"),
        (SEARCHED[1:-1] + ", 0", "expected the end of the text after 20 choices, found ', 0'"),
        ("(2,,1)", "at position 3 expected a choice out of"),
    ],
)
def test_malformed_strings(text: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        SPACE.parse(text)
    assert message in str(error.value)


def test_bad_arguments() -> None:
    with pytest.raises(UserError, match=r"dropout: expected a probability below 1, got 1\.5"):
        SPOSShuffleNet(dropout=1.5)
    with pytest.raises(UserError, match="image_size: expected a positive integer"):
        SPACE.macs(SPACE.from_index(0), image_size=0)
