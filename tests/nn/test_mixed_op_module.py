from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from torch import nn

from pynas import ops
from pynas.nn import LoopMixedOp, MixedOp

FAMILIES = ("darts", "nasbench201", "transnas")
TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-4}


def pair(
    family: str, channels: int, stride: int, affine: bool = False, dtype: torch.dtype = torch.float64
) -> tuple[MixedOp, LoopMixedOp]:
    torch.manual_seed(channels)
    fused = MixedOp(channels, family, stride, affine=affine).to(dtype)
    for name, tensor in fused.state_dict().items():
        if name.endswith(("running_mean", "running_var")):
            tensor.uniform_(0.5, 2)
    loop = LoopMixedOp(channels, family, stride, affine=affine).to(dtype)
    loop.load_state_dict(fused.state_dict(), strict=True)
    return fused, loop


def gradients(module: nn.Module, x: torch.Tensor, w: torch.Tensor) -> list[torch.Tensor]:
    x, w = x.clone().requires_grad_(), w.clone().requires_grad_()
    y = module(x, w)
    wanted = [x, w, *module.parameters()]
    found = torch.autograd.grad(y, wanted, torch.cos(3 * y.detach()), allow_unused=True)
    # Of one channel, the half that a reduction makes first is empty, and the loop does not use it.
    return [
        y.detach(),
        *(torch.zeros_like(t) if g is None else g for g, t in zip(found, wanted, strict=True)),
    ]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_the_loop(family: str, stride: int, affine: bool, dtype: torch.dtype) -> None:
    for channels, size in ((1, (5, 5)), (5, (7, 5)), (16, (8, 8))):
        fused, loop = pair(family, channels, stride, affine, dtype)
        x = torch.randn(3, channels, *size, dtype=dtype)
        w = torch.rand(len(fused.candidates), dtype=dtype)
        for training in (True, False):
            fused.train(training), loop.train(training)
            for ours, theirs in zip(gradients(fused, x, w), gradients(loop, x, w), strict=True):
                scale = float(theirs.abs().max()) if theirs.numel() else 1.0
                atol = TOLERANCES[dtype] * max(1.0, scale)
                torch.testing.assert_close(ours, theirs, rtol=0, atol=atol)
            for name, theirs in loop.state_dict().items():  # running statistics and counters
                torch.testing.assert_close(
                    fused.state_dict()[name], theirs, rtol=TOLERANCES[dtype], atol=TOLERANCES[dtype]
                )


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("stride", [1, 2])
def test_names_are_those_of_the_operator(family: str, stride: int) -> None:
    fused = MixedOp(4, family, stride, affine=True)
    names = [f"_ops.{name}" for name, _ in ops.mixed_op_parameters(family, 4, stride, True)]
    assert [name for name, _ in fused.named_parameters()] == names
    norms = [f"_ops.{name}.running_mean" for name in ops.mixed_op_norms(family, stride)]
    assert [name for name in fused.state_dict() if name.endswith("running_mean")] == norms


def test_a_weight_of_zero_leaves_its_candidate_alone() -> None:
    fused, loop = pair("darts", 4, 1)
    x, w = torch.randn(2, 4, 6, 6, dtype=torch.float64), torch.rand(8, dtype=torch.float64)
    w[4], w[7] = 0.0, 0.0
    before = copy.deepcopy(fused.state_dict())
    y, _dx, dw, *parameters = gradients(fused, x, w)
    torch.testing.assert_close(y, loop(x, w), rtol=0, atol=1e-9)
    assert dw[4] == dw[7] == 0
    for (name, _), gradient in zip(fused.named_parameters(), parameters, strict=True):
        assert bool(gradient.any()) == (name.split(".")[1] not in "47"), name
    for name, value in fused.state_dict().items():
        moved = name.split(".")[-1] in ("running_mean", "running_var", "num_batches_tracked")
        assert torch.equal(value, before[name]) == (not moved or name.split(".")[1] in "47"), name


def test_zero_weights_cost_no_memory() -> None:
    fused = MixedOp(8, "darts")
    x = torch.randn(2, 8, 8, 8, requires_grad=True)
    kept: list[int] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.untyped_storage().nbytes() if tensor.numel() else 0)
        return tensor

    sizes = []
    one_hot = torch.zeros(8)
    one_hot[3] = 1.0  # the identity
    for w in (torch.full((8,), 0.125), one_hot):
        kept.clear()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            fused(x, w.requires_grad_())
        sizes.append(sum(kept))
    image = 4 * x.numel()
    assert sizes[1] < sizes[0] - 4 * image


def test_extra_modules_are_called_when_their_weight_is_not_zero() -> None:
    class Counted(nn.Conv2d):
        calls = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            return super().forward(x)

    extra = Counted(4, 4, 7, padding=3)
    fused = MixedOp(4, ["none", "sep_conv_3x3"], extra=[extra])
    assert fused.plain == {2: "an extra module"}
    assert "_ops.2.weight" in fused.state_dict()
    x = torch.randn(2, 4, 8, 8)
    plain = fused(x, torch.tensor([0.5, 0.5, 0.0]))
    assert extra.calls == 0
    y = fused(x, torch.tensor([0.5, 0.5, 2.0]))
    assert extra.calls == 1
    torch.testing.assert_close(y, plain + 2 * nn.functional.conv2d(x, extra.weight, extra.bias, padding=3))


def test_copies_are_independent_and_equal() -> None:
    fused, _ = pair("darts", 4, 2, dtype=torch.float32)
    x, w = torch.randn(2, 4, 6, 6), torch.rand(8)
    buffer = io.BytesIO()
    torch.save(fused, buffer)
    buffer.seek(0)
    copies = [
        copy.deepcopy(fused),
        pickle.loads(pickle.dumps(fused)),
        torch.load(buffer, weights_only=False),
    ]
    expected = fused.eval()(x, w)
    with torch.no_grad():
        for parameter in fused.parameters():
            parameter.zero_()
    for other in copies:
        torch.testing.assert_close(other.eval()(x, w), expected, rtol=0, atol=0)
    double = copies[0].double()
    torch.testing.assert_close(double(x.double(), w.double()).float(), expected, rtol=1e-4, atol=1e-5)
    half = copies[1].to(torch.bfloat16)
    y = half(x.bfloat16(), w.bfloat16())
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), expected, rtol=0.1, atol=0.1)


def test_other_tensors_can_be_put_in_the_place_of_parameters() -> None:
    fused, loop = pair("nasbench201", 4, 1)
    tensors = {name: torch.randn_like(p) for name, p in fused.named_parameters()}
    x, w = torch.randn(2, 4, 5, 5, dtype=torch.float64), torch.rand(5, dtype=torch.float64)
    ours, theirs = (torch.func.functional_call(module, tensors, (x, w)) for module in (fused, loop))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)


@pytest.mark.parametrize("momentum", [None, 0.25])
def test_momentum_and_eps_may_be_changed_later(momentum: float | None) -> None:
    fused, loop = pair("darts", 4, 1)
    for module in (fused, loop):
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.momentum, part.eps = momentum, 1e-2
    x, w = torch.randn(2, 4, 6, 6, dtype=torch.float64), torch.rand(8, dtype=torch.float64)
    for _ in range(2):
        torch.testing.assert_close(fused(x, w), loop(x, w), rtol=0, atol=1e-9)
    for ours, theirs in zip(fused.buffers(), loop.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)


def test_without_running_statistics_evaluation_uses_the_batch() -> None:
    fused = MixedOp(4, "darts", track_running_stats=False).double()
    loop = LoopMixedOp(4, "darts", track_running_stats=False).double()
    loop.load_state_dict(fused.state_dict())
    x, w = torch.randn(2, 4, 6, 6, dtype=torch.float64), torch.rand(8, dtype=torch.float64)
    torch.testing.assert_close(fused.eval()(x, w), loop.eval()(x, w), rtol=0, atol=1e-9)
    assert not list(fused.buffers())


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"channels": 0}, "channels"),
        ({"channels": 2.0}, "channels"),
        ({"stride": 3}, "stride"),
        ({"candidates": "dart"}, "candidates"),
        ({"candidates": ["sep_conv_3x3", "nor_conv_1x1"]}, "candidates"),
        ({"candidates": ["none", "avg_pool_3x3"]}, "family"),
        ({"candidates": []}, "candidates"),
        ({"save": "all"}, "save"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, object], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        MixedOp(**{"channels": 4, **arguments})  # type: ignore[arg-type]


def test_bad_calls_are_named() -> None:
    fused = MixedOp(4, "darts")
    x = torch.randn(2, 4, 6, 6)
    with pytest.raises(ValueError, match=r"weights: expected \[8\]"):
        fused(x, torch.rand(7))
    with pytest.raises(ValueError, match="weights"):
        fused(x, torch.full((8,), float("nan")))
    with pytest.raises((ValueError, TypeError), match=r"parameters|channels|x"):
        fused(torch.randn(2, 5, 6, 6), torch.rand(8))
    assert not fused(x, torch.zeros(8)).any()
    torch.testing.assert_close(fused.eval()(x, list(torch.ones(8))), fused(x, torch.ones(8)))


@pytest.mark.slow
def test_it_compiles_once_for_all_architectures() -> None:
    torch._dynamo.reset()
    fused = MixedOp(4, "darts").eval()
    expected = copy.deepcopy(fused)
    compiled = torch.compile(fused, fullgraph=True, backend="aot_eager")
    x = torch.randn(2, 4, 6, 6)
    compiled(x, torch.rand(8))
    with torch._dynamo.config.patch(error_on_recompile=True):
        for k in range(8):
            w = torch.zeros(8)
            w[k] = 1.0
            torch.testing.assert_close(compiled(x, w), expected(x, w))
