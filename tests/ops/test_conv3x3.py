from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pynas import ops

# batch, input channels, output channels, height, width
CASES = [
    (1, 1, 1, 1, 1),
    (2, 3, 16, 2, 3),
    (5, 16, 3, 7, 5),
    (2, 16, 16, 8, 8),
    (1, 17, 33, 8, 8),
    (2, 64, 17, 33, 33),
    (5, 64, 64, 4, 4),
    (3, 48, 130, 5, 6),
    (40, 20, 24, 9, 12),  # more tiles than are worked on at a time
]
TOLERANCE = {torch.float32: 3e-6, torch.bfloat16: 4e-3}


def make(case: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    n, c, o, h, w = case
    generator = torch.Generator().manual_seed(0)
    return tuple(  # type: ignore[return-value]
        torch.randn(shape, generator=generator).to(dtype)
        for shape in ((n, c, h, w), (o, c, 3, 3), (n, o, h, w))
    )


def exact(x: Tensor, weight: Tensor, grad: Tensor, relu: bool) -> tuple[Tensor, Tensor, Tensor]:
    x, weight = x.double().requires_grad_(), weight.double().requires_grad_()
    y = ops.conv3x3_reference(x, weight, relu)
    grad_x, grad_weight = torch.autograd.grad(y, (x, weight), grad.double())
    return y.detach(), grad_x, grad_weight


def off(found: Tensor, expected: Tensor) -> float:
    """Relative error in the norm."""
    assert found.shape == expected.shape
    return float((found.double() - expected).norm() / (expected.norm() + 1e-30))


@pytest.mark.every_isa
@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("relu", [False, True])
def test_matches_float64(case: tuple[int, ...], dtype: torch.dtype, relu: bool) -> None:
    x, weight, grad = make(case, dtype)
    y, grad_x, grad_weight = exact(x, weight, grad, relu)
    for layout in (torch.contiguous_format, torch.channels_last):
        a, w, g = (t.contiguous(memory_format=layout) for t in (x, weight, grad))
        found = ops.conv3x3(a, w, relu)
        assert found.dtype == dtype
        assert found.is_contiguous(memory_format=torch.channels_last)
        assert off(found, y) < TOLERANCE[dtype]
        assert off(ops.conv3x3_backward_input(g, w, a if relu else None, relu), grad_x) < TOLERANCE[dtype]
        summed = ops.conv3x3_backward_weight(g, a, relu)
        assert summed.dtype == torch.float32
        assert off(summed[0], grad_weight) < TOLERANCE[torch.float32]


@pytest.mark.every_isa
@pytest.mark.parametrize("groups", [1, 2, 3, 6])
@pytest.mark.parametrize("threads", [1, 2])
def test_groups_of_samples(groups: int, threads: int) -> None:
    x, weight, grad = make((6, 5, 18, 9, 7), torch.float32)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        found = ops.conv3x3_backward_weight(grad, x, True, groups)
    finally:
        torch.set_num_threads(before)
    for k, (part, delta) in enumerate(zip(x.chunk(groups), grad.chunk(groups), strict=True)):
        assert off(found[k], exact(part, weight, delta, True)[2]) < TOLERANCE[torch.float32]


@pytest.mark.parametrize("relu", [False, True])
def test_autograd(relu: bool) -> None:
    x, weight, grad = make((2, 16, 17, 7, 5), torch.float32)
    _, grad_x, grad_weight = exact(x, weight, grad, relu)
    x.requires_grad_()
    weight.requires_grad_()
    found = torch.autograd.grad(ops.conv3x3(x, weight, relu), (x, weight), grad)
    assert off(found[0], grad_x) < 3e-6
    assert off(found[1], grad_weight) < 3e-6


def test_same_bits_each_time_and_same_numbers_for_any_threads() -> None:
    x, weight, grad = make((9, 24, 33, 13, 10), torch.float32)

    def run() -> list[Tensor]:
        return [
            ops.conv3x3(x, weight),
            ops.conv3x3_backward_input(grad, weight, x, True),
            ops.conv3x3_backward_weight(grad, x, True),
        ]

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        first, second = run(), run()
        torch.set_num_threads(1)
        alone = run()
    finally:
        torch.set_num_threads(before)
    for a, b, c in zip(first, second, alone, strict=True):
        assert torch.equal(a, b)
        torch.testing.assert_close(a, c, rtol=1e-4, atol=1e-4)


@pytest.mark.every_isa
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("relu", [False, True])
def test_nan_is_seen(dtype: torch.dtype, relu: bool) -> None:
    x, weight, grad = make((1, 16, 16, 12, 12), dtype)
    x[0, 3, 6, 6] = float("nan")
    y = ops.conv3x3(x, weight, relu)
    assert y[0, :, 5:8, 5:8].isnan().all()
    assert y[0, :, 9:, 9:].isfinite().all()
    assert ops.conv3x3_backward_weight(grad, x, relu)[0, :, 3].isnan().any()


def test_nothing_to_convolve() -> None:
    y = ops.conv3x3(torch.randn(0, 16, 8, 8), torch.randn(4, 16, 3, 3))
    assert y.shape == (0, 4, 8, 8)
    found = ops.conv3x3_backward_weight(torch.randn(0, 4, 8, 8), torch.randn(0, 16, 8, 8))
    assert torch.equal(found, torch.zeros(1, 4, 16, 3, 3))
    assert torch.equal(ops.conv3x3(torch.randn(2, 0, 3, 3), torch.randn(4, 0, 3, 3)), torch.zeros(2, 4, 3, 3))


def test_supports() -> None:
    x, w = torch.randn(4, 16, 8, 8).to(memory_format=torch.channels_last), torch.randn(16, 16, 3, 3)
    assert ops.supports_conv3x3(x, w)
    assert not ops.supports_conv3x3(x.contiguous(), w)
    assert not ops.supports_conv3x3(x.double(), w.double())
    assert not ops.supports_conv3x3(x, w[:, :, :1, :1])
    assert not ops.supports_conv3x3(x[:, :3], w[:, :3])
    assert not ops.supports_conv3x3(x[:2], w)
    assert not ops.supports_conv3x3(x.repeat(1, 32, 1, 1), torch.empty(512, 512, 3, 3))
    assert not ops.supports_conv3x3(x[..., :2, :2].contiguous(memory_format=torch.channels_last), w)


def test_errors_name_the_argument() -> None:
    x, w = torch.randn(2, 4, 5, 5), torch.randn(3, 4, 3, 3)
    with pytest.raises(ValueError, match="weight: expected 4 input channels, got \\[3, 5, 3, 3\\]"):
        ops.conv3x3(x, torch.randn(3, 5, 3, 3))
    with pytest.raises(ValueError, match="weight: expected \\[O, C, 3, 3\\], got \\[3, 4, 1, 1\\]"):
        ops.conv3x3(x, w[:, :, :1, :1])
    with pytest.raises(ValueError, match="input: expected \\[N, C, H, W\\], got \\[4, 5, 5\\]"):
        ops.conv3x3(x[0], w)
    with pytest.raises(TypeError, match="input: expected float32 or bfloat16"):
        ops.conv3x3(x.double(), w.double())
    with pytest.raises(TypeError, match="weight: expected Float like the images, got BFloat16"):
        ops.conv3x3(x, w.bfloat16())
    with pytest.raises(ValueError, match="input: relu=True needs the input"):
        ops.conv3x3_backward_input(torch.randn(2, 3, 5, 5), w, None, True)
    with pytest.raises(ValueError, match="grad_output: expected \\[2, 3, 5, 5\\], got \\[2, 3, 4, 5\\]"):
        ops.conv3x3_backward_weight(torch.randn(2, 3, 4, 5), x)
    with pytest.raises(ValueError, match="groups: expected a divisor of the 2 samples, got 3"):
        ops.conv3x3_backward_weight(torch.randn(2, 3, 5, 5), x, False, 3)


@pytest.mark.slow
def test_opcheck() -> None:
    x, weight, grad = make((2, 3, 5, 4, 4), torch.float32)
    x.requires_grad_()
    weight.requires_grad_()
    check, op = torch.library.opcheck, torch.ops.pynas
    check(op.conv3x3.default, (x, weight, True))
    check(op.conv3x3_backward_input.default, (grad, weight.detach(), x.detach(), True))
    check(op.conv3x3_backward_weight.default, (grad, x.detach(), False, 2))


def test_compiles_whole() -> None:
    x, weight, _ = make((2, 3, 5, 4, 4), torch.float32)
    compiled = torch.compile(ops.conv3x3, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x, weight, True), ops.conv3x3(x, weight, True))
