from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pynas import ops

# batch, input channels, output channels, height, width
CASES = [(1, 1, 1, 1, 1), (2, 3, 16, 2, 3), (2, 17, 33, 7, 5), (3, 16, 16, 8, 8), (2, 64, 17, 9, 13)]
TOLERANCE = {torch.float32: 1e-6, torch.bfloat16: 4e-3}


def make(case: tuple[int, ...], dtype: torch.dtype) -> list[Tensor]:
    n, c, o, h, w = case
    generator = torch.Generator().manual_seed(0)
    shapes = ((n, c, h, w), (o, c, 1, 1), (n, o, h, w), (n, c, h, w))
    images = [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]
    return [t.contiguous(memory_format=torch.channels_last) for t in images]


def off(found: Tensor, expected: Tensor) -> float:
    """Relative error in the norm."""
    assert found.shape == expected.shape
    return float((found.double() - expected).norm() / (expected.norm() + 1e-30))


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("relu", [False, True])
def test_matches_float64(case: tuple[int, ...], dtype: torch.dtype, relu: bool) -> None:
    x, weight, grad, addend = make(case, dtype)
    a, w = x.double().requires_grad_(), weight.double().requires_grad_()
    y = ops.conv1x1_reference(a, w, relu)
    grad_x, grad_weight = torch.autograd.grad(y, (a, w), grad.double())
    found = ops.conv1x1(x, weight, relu)
    assert found.dtype == dtype
    assert off(found, y.detach()) < TOLERANCE[dtype]
    seen = x if relu else None
    assert off(ops.conv1x1_backward_input(grad, weight, seen, relu), grad_x) < TOLERANCE[dtype]
    both = ops.conv1x1_backward_input(grad, weight, seen, relu, addend)
    assert off(both, grad_x + addend.double()) < TOLERANCE[dtype]
    summed = ops.conv1x1_backward_weight(grad, x, relu)
    assert summed.dtype == torch.float32
    assert off(summed, grad_weight) < TOLERANCE[torch.float32]


def test_same_numbers_for_any_threads() -> None:
    x, weight, grad, _ = make((5, 17, 20, 7, 9), torch.float32)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 2):
            torch.set_num_threads(threads)
            results.append((ops.conv1x1(x, weight), ops.conv1x1_backward_weight(grad, x)))
    finally:
        torch.set_num_threads(before)
    for alone, first, second in zip(*results, strict=True):
        assert torch.equal(first, second)
        torch.testing.assert_close(alone, first, rtol=1e-5, atol=1e-5)


def test_nan_is_seen() -> None:
    x, weight, _, _ = make((1, 16, 16, 3, 3), torch.float32)
    x[0, 2, 1, 1] = float("nan")
    y = ops.conv1x1(x, weight, True)
    assert y[0, :, 1, 1].isnan().all()
    assert int(y.isnan().sum()) == 16


def test_errors_name_the_argument() -> None:
    x, weight, grad, _ = make((2, 4, 3, 5, 5), torch.float32)
    with pytest.raises(ValueError, match="weight: expected \\[O, C, 1, 1\\] with 4 input channels"):
        ops.conv1x1(x, weight[:, :2])
    with pytest.raises(ValueError, match="input: expected a channels_last"):
        ops.conv1x1(x.contiguous(), weight)
    with pytest.raises(TypeError, match="input: expected float32 or bfloat16"):
        ops.conv1x1(x.double(), weight.double())
    with pytest.raises(ValueError, match="relu=True needs the input"):
        ops.conv1x1_backward_input(grad, weight, None, True)
    with pytest.raises(ValueError, match="addend: expected"):
        ops.conv1x1_backward_input(grad, weight, None, False, grad)


@pytest.mark.slow
def test_opcheck() -> None:
    x, weight, grad, addend = make((2, 3, 5, 4, 4), torch.float32)
    check, op = torch.library.opcheck, torch.ops.pynas
    check(op.conv1x1.default, (x, weight, True))
    check(op.conv1x1_backward_input.default, (grad, weight, x, True, addend))
    check(op.conv1x1_backward_weight.default, (grad, x, False))
