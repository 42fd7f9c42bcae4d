from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from mixed_op_classes import DropoutMixture, PartialMixture, TwoForwards
from mixed_op_styles import STYLES, run, swapped
from other_code import Chain, DartsMixture, OwnWeightsMixture, conv_edge
from torch import Tensor, nn

from pynas.nn import MixedOp, replace_mixed_ops
from pynas.nn.candidates import FactorizedReduce, NormOptions, ReLUConvBN

TOLERANCES = {torch.float64: 1e-9, torch.float32: 2e-3}
CASES = [(name, stride) for name, style in STYLES.items() for stride in style.strides]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("name", "stride"), CASES)
def test_values_are_those_of_the_loop(name: str, stride: int, dtype: torch.dtype) -> None:
    style, tolerance = STYLES[name], TOLERANCES[dtype]
    original, fused = swapped(style, stride, dtype)
    assert list(fused.state_dict()) == list(original.state_dict())
    for training in (True, False):
        original.train(training), fused.train(training)
        expected, gradients = run(original, style, dtype)
        y, found = run(fused, style, dtype)
        torch.testing.assert_close(y, expected, rtol=tolerance, atol=tolerance)
        for mine, theirs in zip(found, gradients, strict=True):
            scale = float(theirs.abs().max()) if theirs.numel() else 0.0
            torch.testing.assert_close(mine, theirs, rtol=0, atol=tolerance * (1 + scale))
        with torch.no_grad():  # where running means carry biases
            torch.manual_seed(9)
            x = torch.randn(2, style.channels, 8, 8, dtype=dtype)
            arguments = style.arguments(torch.rand(style.shape, dtype=dtype))
            values = []
            for module in (original, fused):
                torch.manual_seed(10)
                values.append(getattr(copy.deepcopy(module), style.method)(x, *arguments))
        torch.testing.assert_close(*values, rtol=tolerance, atol=tolerance)
    for key, tensor in original.state_dict().items():
        torch.testing.assert_close(fused.state_dict()[key], tensor, rtol=tolerance, atol=tolerance)
    original.load_state_dict(fused.state_dict(), strict=True)
    fused.load_state_dict(original.state_dict(), strict=True)


def close(one: nn.Module, other: nn.Module, *arguments: Any, method: str = "forward") -> None:
    values = []
    for module in (one, other):
        torch.manual_seed(3)
        values.append(getattr(module, method)(*arguments))
    torch.testing.assert_close(*values, rtol=1e-9, atol=1e-9)


def test_biases_decay_as_before() -> None:
    original, fused = swapped(STYLES["two forwards"], 2)
    optimizers = [
        torch.optim.SGD(m.parameters(), 0.1, momentum=0.9, weight_decay=0.1) for m in (original, fused)
    ]
    x, w = torch.randn(2, 8, 6, 6, dtype=torch.float64), torch.rand(5, dtype=torch.float64)
    w[3] = 0.0  # its gradients are zeros, not None, in both
    for _ in range(3):
        for module, optimizer in zip((original, fused), optimizers, strict=True):
            optimizer.zero_grad()
            module.forward_darts(x, w).square().mean().backward()
            optimizer.step()
    biases = [name for name, _ in fused.named_parameters() if name.endswith("bias")]
    assert len(biases) == 12
    for name, parameter in fused.named_parameters():
        torch.testing.assert_close(parameter, original.get_parameter(name), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("momentum", [0.3, None])
def test_biases_reach_running_means_only_where_a_candidate_was_computed(momentum: float | None) -> None:
    def prepared() -> nn.Module:
        module = TwoForwards(8, 1).double()
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.momentum = momentum
        return module

    torch.manual_seed(0)
    original = prepared()
    fused = copy.deepcopy(original)
    assert len(replace_mixed_ops(fused).swapped) == 1
    x, w = torch.randn(2, 8, 6, 6, dtype=torch.float64), torch.rand(5, dtype=torch.float64)
    for _ in range(2):
        close(fused, original, x, w, method="forward_darts")
    before = copy.deepcopy(fused.state_dict())
    fused.forward_darts(x + 1, w * torch.tensor([1.0, 1, 0, 1, 1]))
    for name, tensor in fused.state_dict().items():
        torch.testing.assert_close(before[name], original.state_dict()[name], rtol=1e-9, atol=1e-9)
        assert torch.equal(tensor, before[name]) == (
            ("running" not in name and "num" not in name) or "_ops.2" in name
        )


def test_dropout_changes_with_update_p() -> None:
    original, fused = swapped(STYLES["dropout"], 1)
    assert type(fused).__name__ == "DropoutMixture"
    assert isinstance(fused, DropoutMixture)
    x, w = torch.randn(2, 8, 6, 6, dtype=torch.float64), torch.rand(8, dtype=torch.float64)
    for p in (0.3, 0.9, 0.0):
        for module in (original, fused):
            module.p = p
            module.update_p()
        assert fused.m_ops[3][1].p == p
        close(fused, original, x, w)
        other = copy.deepcopy(fused)
        assert torch.allclose(other(x, w), other(x, w)) == (p == 0.0)  # another mask, unless there is none
    fused.eval(), original.eval()
    close(fused, original, x, w)


@pytest.mark.parametrize("stride", [1, 2])
def test_channels_grow(stride: int) -> None:
    original, fused = swapped(STYLES["growing"], stride)
    x, w = torch.randn(2, 12, 6, 6, dtype=torch.float64), torch.rand(8, dtype=torch.float64)
    w[2] = 0.0
    for k in (3, 2, 1):
        for module in (original, fused):
            module.wider(k)
        close(fused, original, x, w)
    for name, tensor in original.state_dict().items():
        torch.testing.assert_close(fused.state_dict()[name], tensor, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["partial", "choice", "primitives"])
def test_copies_and_pickles_are_fused_too(name: str) -> None:
    style = STYLES[name]
    original, fused = swapped(style, 1)
    stream = io.BytesIO()
    torch.save(fused, stream)
    stream.seek(0)
    copies = [
        copy.deepcopy(fused),
        pickle.loads(pickle.dumps(fused)),
        torch.load(stream, weights_only=False),
    ]
    with torch.no_grad():
        for parameter in fused.parameters():
            parameter.zero_()  # of which the copies know nothing
    expected, gradients = run(original, style, torch.float64)
    for other in copies:
        assert isinstance(other, type(original))
        assert not replace_mixed_ops(other).swapped
        calls: list[int] = []
        vars(other)["_pynas_edges"][0].mixture.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        y, found = run(other, style, torch.float64)
        torch.testing.assert_close(y, expected, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(found, gradients, rtol=1e-9, atol=1e-9)
        assert calls == [1]


def test_other_layers_put_into_a_candidate_are_used() -> None:
    _, fused = swapped(STYLES["partial"], 1)
    original = PartialMixture(16, 1).double()
    original.load_state_dict(fused.state_dict())
    x, w = torch.randn(2, 16, 6, 6, dtype=torch.float64), torch.rand(8, dtype=torch.float64)
    for new in (nn.Conv2d(4, 4, 1, bias=True), nn.Conv2d(4, 4, 3, padding=1)):  # a known form, and another
        for module in (original, fused):
            module._ops[6].op[2] = copy.deepcopy(new).double()
        close(fused, original, x, w)
    for module in (original, fused):
        module._ops[7] = nn.Identity()
    close(fused, original, x, w)


def test_every_candidate_left_out_has_a_reason() -> None:
    class Large(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self._ops = nn.ModuleList(
                Chain(nn.Conv2d(8, 8, k, padding=k // 2), nn.GELU(), nn.BatchNorm2d(8)) for k in (3, 5, 7)
            )

        def forward(self, x: Tensor, weights: Tensor) -> Tensor:
            return sum(w * op(x) for w, op in zip(weights, self._ops, strict=True))

    affine = DartsMixture(8, 1)
    affine._ops[1][1] = nn.BatchNorm2d(8)
    model = nn.ModuleDict({"a": Large(), "b": Large(), "c": affine, "d": TwoForwards(8, 1)})
    model["d"].forward_darts = lambda x, w: x  # type: ignore[assignment]
    report = replace_mixed_ops(model)
    text = str(report)
    assert [item.name for item in report.kept] == ["a", "b", "d"]
    assert "candidates 0, 1, 2 (Chain): its layers are Conv2d, GELU, BatchNorm2d" in report.kept[0].reason
    assert text.startswith("1 mixed operation fused, 3 left unchanged")
    assert "a and 1 more: candidates 0, 1, 2 (Chain): " in text
    assert "c: 1: is a pool with an affine batch norm" in text
    assert isinstance(model["c"], MixedOp)


def test_ordinary_blocks_are_no_mixtures() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.preprocess0 = FactorizedReduce(8, 8, NormOptions())
            self.preprocess1 = ReLUConvBN(8, 8, 1, 1, NormOptions())
            self.same = conv_edge(8, 3)

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return torch.cat([self.preprocess0(a), self.preprocess1(b)], 1)

    report = replace_mixed_ops(nn.Sequential(Block(), nn.ModuleList([nn.Conv2d(3, 3, 3)] * 3)))
    assert not report.swapped
    assert "no module holds a list of candidates" in str(replace_mixed_ops(nn.Sequential(nn.ReLU())))


def test_what_the_forward_assigns_is_kept() -> None:
    class Counting(OwnWeightsMixture):
        def __init__(self) -> None:
            super().__init__(8, 1)
            self.calls = 0

        def forward(self, inputs: Tensor) -> Tensor:
            self.calls += 1
            self.last = super().forward(inputs)
            return self.last

    module = Counting()
    assert len(replace_mixed_ops(module).swapped) == 1
    x = torch.randn(2, 8, 6, 6)
    y = module(x), module(x)
    assert module.calls == 2
    assert module.last is y[1]


@pytest.mark.slow
def test_torch_compile_runs_a_kept_forward_as_it_is() -> None:
    original, fused = swapped(STYLES["partial"], 1)
    x, w = torch.randn(2, 16, 6, 6, dtype=torch.float64), torch.rand(8, dtype=torch.float64)
    close(torch.compile(fused, backend="eager"), original, x, w)
