"""TransNAS-Bench-101: the networks and heads written out in functions, zeros, pruning."""

from __future__ import annotations

import math
import random

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from pynas._errors import UserError
from pynas.spaces import TransNASMacro, TransNASMicro
from pynas.spaces.nasbench201.space import live_edges
from pynas.spaces.transnas.space import TASKS, TransNASSpace

TINY = TransNASMicro(channels=2)
TINY_MACRO = TransNASMacro(channels=2)
State = dict[str, torch.Tensor]


def norm(state: State, y: torch.Tensor, name: str, eps: float = 1e-5) -> torch.Tensor:
    return F.batch_norm(y, None, None, state[f"{name}.weight"], state[f"{name}.bias"], training=True, eps=eps)


def relu_conv_bn(state: State, y: torch.Tensor, name: str, stride: int = 1, padding: int = 1) -> torch.Tensor:
    y = F.conv2d(y.relu(), state[f"{name}.ops.1.weight"], None, stride, padding)
    return norm(state, y, f"{name}.ops.2")


def stem(state: State, x: torch.Tensor) -> torch.Tensor:
    y = norm(state, F.conv2d(x, state["encoder.stem.0.weight"], None, 2, 1), "encoder.stem.1")
    return relu_conv_bn(state, y, "encoder.stem.2", 2)


def linear(state: State, y: torch.Tensor) -> torch.Tensor:
    return y.mean((2, 3)) @ state["decoder.fc.weight"].T + state["decoder.fc.bias"]


def micro_forward(state: State, code: str, x: torch.Tensor) -> torch.Tensor:
    y = stem(state, x)
    for module, digit in enumerate("41414"):
        for block in range(2):
            reduces = digit == "4" and block == 0
            nodes = [y]
            size = (y.shape[2] + 1) // 2 if reduces else y.shape[2]
            width = y.shape[1] * 2 if reduces else y.shape[1]
            edge = 0
            for operations in code.split("_"):
                total = torch.zeros(len(y), width, size, size, dtype=y.dtype)
                for source, operation in enumerate(operations):
                    name = f"encoder.layer{module}.{block}.edges.{edge}"
                    stride = 2 if reduces and source == 0 else 1
                    if operation == "1" and stride == 2:
                        z = F.pad(nodes[0].relu(), (0, 1, 0, 1))
                        halves = [
                            F.conv2d(z[:, :, i:, i:], state[f"{name}.convs.{i}.weight"], stride=2)
                            for i in range(2)
                        ]
                        z = torch.cat([h[:, :, :size, :size] for h in halves], dim=1)
                        total = total + norm(state, z, f"{name}.bn")
                    elif operation == "1":
                        total = total + nodes[source]
                    elif operation != "0":
                        padding = 1 if operation == "3" else 0
                        total = total + relu_conv_bn(state, nodes[source], name, stride, padding)
                    edge += 1
                nodes.append(total)
            y = nodes[3]
    return linear(state, y)


def macro_forward(state: State, digits: str, x: torch.Tensor) -> torch.Tensor:
    y = stem(state, x)
    for module, digit in enumerate(digits):
        for block in range(2):
            name = f"encoder.layer{module}.{block}"
            stride = 2 if digit in "34" and block == 0 else 1
            main = relu_conv_bn(state, relu_conv_bn(state, y, f"{name}.conv_a", stride), f"{name}.conv_b")
            if digit != "1" and block == 0:
                shortcut = F.conv2d(y, state[f"{name}.downsample.0.weight"], None, stride)
                y = norm(state, shortcut, f"{name}.downsample.1", eps=1.0)
            y = y + main
    return linear(state, y)


def perturbed(space: TransNASSpace, text: str) -> tuple[nn.Module, State]:
    torch.manual_seed(1)
    model = space.build(space.parse(text), num_classes=5).double()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model, dict(model.named_parameters())


@pytest.mark.parametrize("code", ["3_02_333", "1_11_111", "2_13_201", "0_01_210", "1_02_333", "0_00_001"])
@pytest.mark.parametrize("size", [32, 57])
def test_micro_network_against_the_written_out_form(code: str, size: int) -> None:
    model, state = perturbed(TINY, f"2-41414-{code}")
    x = torch.randn(3, 3, size, size, dtype=torch.float64)
    torch.testing.assert_close(model(x), micro_forward(state, code, x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("digits", ["1234", "43331", "221311"])
def test_macro_network_against_the_written_out_form(digits: str) -> None:
    model, state = perturbed(TINY_MACRO, f"2-{digits}-basic")
    x = torch.randn(3, 3, 40, 40, dtype=torch.float64)
    torch.testing.assert_close(model(x), macro_forward(state, digits, x), rtol=1e-9, atol=1e-9)


def test_parameter_names_are_those_of_the_published_weights() -> None:
    names = set(TINY.build(TINY.parse("2-41414-3_12_310")).state_dict())
    assert {
        "encoder.stem.0.weight",
        "encoder.stem.2.ops.1.weight",
        "encoder.layer0.0.edges.0.ops.2.running_mean",
        "encoder.layer4.0.edges.1.convs.1.weight",
        "encoder.layer4.0.edges.1.bn.bias",
        "encoder.layer4.1.edges.2.ops.1.weight",
        "decoder.fc.weight",
    } <= names
    names = set(TINY_MACRO.build(TINY_MACRO.parse("2-1234-basic")).state_dict())
    assert {"encoder.layer1.0.downsample.1.weight", "encoder.layer3.1.conv_b.ops.1.weight"} <= names


@pytest.mark.slow
def test_the_encoder_is_drawn_by_fan_out() -> None:
    torch.manual_seed(0)
    space = TransNASMicro(channels=32)
    model = space.build(space.parse("32-41414-3_33_333"))
    convolutions = [m for m in model.encoder.modules() if isinstance(m, nn.Conv2d)]
    for convolution in convolutions[5:]:
        expected = math.sqrt(2 / (9 * convolution.out_channels))
        assert convolution.weight.std().item() == pytest.approx(expected, rel=0.05)


# ---- heads -----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("task", [task for task in TASKS if task != "class_scene"])
@pytest.mark.parametrize(
    ("kind", "text"),
    [(TransNASMicro, "4-41414-1_20_013"), (TransNASMacro, "4-4311-basic"), (TransNASMacro, "4-423331-basic")],
)
def test_heads(kind: type[TransNASMicro] | type[TransNASMacro], text: str, task: str) -> None:
    if task == "normal" or (task == "room_layout" and kind is TransNASMacro):
        return  # as autoencoder and class_object
    space = kind(task=task, channels=4)
    arch = space.parse(text)
    model = space.build(arch, num_classes=6)
    assert sum(p.numel() for p in model.parameters()) == space.params(arch, 6)
    inputs = space.example_inputs(2, generator=torch.Generator().manual_seed(0))
    with FlopCounterMode(display=False) as counter:
        outputs = model(inputs)
    assert counter.get_total_flops() == 2 * 2 * space.macs(arch, 6, space.image_size)
    assert outputs.shape == space.output_shape(2, 6)
    assert TASKS[task].head != "generative" or outputs.abs().max() <= 1.0
    outputs.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_a_decoder_doubles_as_often_as_the_encoder_halves() -> None:
    def layers(task: str, text: str) -> list[tuple[str, int, int]]:
        space = TransNASMacro(task=task)
        decoder = space.build(space.parse(text), 17).decoder
        kinds = (nn.Conv2d, nn.ConvTranspose2d)
        found = [m for m in decoder.modules() if isinstance(m, kinds)]
        return [
            ("up" if isinstance(m, nn.ConvTranspose2d) else "conv", m.in_channels, m.out_channels)
            for m in found
        ]

    # Three halvings, as listed in the authors' decoder for an input of 256 and features of 32.
    assert layers("segmentsemantic", "64-1141-basic") == [
        ("conv", 128, 1024), ("conv", 1024, 512), ("conv", 512, 256), ("conv", 256, 128),
        ("up", 128, 64), ("up", 64, 32), ("up", 32, 32), ("conv", 32, 17),
    ]  # fmt: skip
    assert layers("autoencoder", "64-1143-basic") == [
        ("conv", 128, 1024), ("conv", 1024, 1024), ("conv", 1024, 512), ("conv", 512, 512),
        ("conv", 512, 256), ("conv", 256, 128), ("up", 128, 64), ("conv", 64, 64), ("up", 64, 32),
        ("conv", 32, 32), ("up", 32, 16), ("conv", 16, 32), ("up", 32, 16), ("conv", 16, 17),
    ]  # fmt: skip


def test_puzzles_see_one_place_at_a_time() -> None:
    space = TransNASMicro(task="jigsaw", channels=2)
    model = space.build(space.parse("2-41414-3_02_333"), 7).double()
    tiles = torch.randn(4, 9, 3, 32, 32, dtype=torch.float64)
    features = torch.cat([model.encoder(tiles[:, i]) for i in range(9)], dim=1).mean((2, 3))
    expected = features @ model.decoder.fc.weight.T + model.decoder.fc.bias
    torch.testing.assert_close(model(tiles), expected)
    with pytest.raises(UserError, match=r"inputs: expected tiles \[B, 9, C, H, W\]"):
        model(tiles[:, 0])


# ---- zeros and pruning -----------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["0_00_000", "0_03_033", "3_03_000"])
def test_cells_of_zeros_run_and_leave_no_gradient_out(code: str) -> None:
    arch = TINY.parse(f"2-41414-{code}")
    assert not any(live_edges(arch.decisions))
    for prune in (False, True):
        model = TINY.build(arch, 4, prune=prune)
        model(torch.rand(2, 3, 32, 32)).sum().backward()
        gradients = {name: p.grad for name, p in model.named_parameters()}
        stem_gradient = gradients["encoder.stem.0.weight"]
        assert stem_gradient is not None
        assert not stem_gradient.any()
        assert gradients["decoder.fc.bias"] is not None


@pytest.mark.slow
def test_pruned_networks_agree_with_whole_ones() -> None:
    x = torch.randn(3, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    left_out = 0
    for arch in random.Random(0).sample(list(TINY.all()), 25):
        whole, pruned = TINY.build(arch, 4).double(), TINY.build(arch, 4, prune=True).double()
        assert pruned.load_state_dict(whole.state_dict(), strict=False).missing_keys == []
        torch.testing.assert_close(pruned(x), whole(x), rtol=1e-10, atol=1e-12)
        left_out += len(list(whole.parameters())) - len(list(pruned.parameters()))
    assert left_out > 100


@pytest.mark.parametrize("space", [TINY, TINY_MACRO], ids=["micro", "macro"])
def test_published_state_dicts_load_strictly(space: TransNASMicro | TransNASMacro) -> None:
    """The authors wrap the encoder in a module that calls it ``network``."""
    arch = space.parse("2-41414-3_12_310" if space is TINY else "2-1234-basic")
    model, other = space.build(arch), space.build(arch)
    wrapped = {name.replace("encoder.", "encoder.network.", 1): v for name, v in model.state_dict().items()}
    assert any(name.startswith("encoder.network.stem.0.") for name in wrapped)
    other.load_state_dict(wrapped, strict=True)
    for name, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name
    with pytest.raises(RuntimeError, match="Unexpected"):
        other.load_state_dict({**wrapped, "encoder.network.more": torch.zeros(1)}, strict=True)
