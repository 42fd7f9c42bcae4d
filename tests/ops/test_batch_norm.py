from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pynas.ops.batch_norm import (
    batch_norm,
    batch_norm_backward,
    batch_norm_double_backward,
    batch_norm_reference,
    supports_batch_norm,
)

SHAPES = [(2, 1, 1, 1), (3, 5, 7, 1), (2, 17, 3, 5), (9, 16, 8, 8), (5, 64, 33, 2), (129, 33), (1030, 3)]
TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 1e-2}


def rows(shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 2 + 3
    return (x.to(memory_format=torch.channels_last) if len(shape) == 4 else x).to(dtype)


def error(got: Tensor, expected: Tensor) -> float:
    return ((got.double() - expected).norm() / (expected.norm() + 1e-12)).item()


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("affine", [True, False], ids=["affine", "plain"])
def test_matches_float64(shape: tuple[int, ...], dtype: torch.dtype, affine: bool) -> None:
    x, grad = rows(shape, dtype, 0), rows(shape, dtype, 1)
    weight = torch.rand(shape[1]) + 0.5 if affine else None
    bias = torch.randn(shape[1]) if affine else None
    y, mean, rstd = batch_norm(x, weight, bias, 1e-3)
    exact = x.double().requires_grad_()
    wide = [None if t is None else t.double() for t in (weight, bias)]
    expected, expected_mean, expected_rstd = batch_norm_reference(exact, *wide, 1e-3)
    assert error(y, expected.detach()) < TOLERANCE[dtype]
    assert error(mean, expected_mean.detach()) < 1e-6
    assert error(rstd, expected_rstd.detach()) < 1e-5
    (expected_grad,) = torch.autograd.grad(expected, exact, grad.double())
    assert y.stride() == x.stride()
    got = batch_norm_backward(grad, x, weight, mean, rstd)
    # With two rows nearly everything cancels: then what counts is the error beside what was cancelled.
    scale = torch.maximum(expected_grad.norm(), 0.1 * grad.double().norm())
    assert ((got.double() - expected_grad).norm() / scale).item() < TOLERANCE[dtype] * 10


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("shape", [*SHAPES[1:], (700, 16, 2, 2)], ids=str)
@pytest.mark.parametrize("affine", [True, False], ids=["affine", "plain"])
def test_double_backward_matches_float64(shape: tuple[int, ...], dtype: torch.dtype, affine: bool) -> None:
    x, grad, adjoint = (rows(shape, dtype, seed) for seed in range(3))
    weight = torch.rand(shape[1]) + 0.5 if affine else None
    _, mean, rstd = batch_norm(x, weight, None, 0.1)
    exact, exact_grad = x.double().requires_grad_(), grad.double().requires_grad_()
    y, _, _ = batch_norm_reference(exact, None if weight is None else weight.double(), None, 0.1)
    (first,) = torch.autograd.grad(y, exact, exact_grad, create_graph=True)
    expected = torch.autograd.grad(first, (exact_grad, exact), adjoint.double())
    got = batch_norm_double_backward(adjoint, grad, x, weight, mean, rstd)
    scale = grad.double().norm()
    for found, wanted in zip(got, expected, strict=True):
        assert found.stride() == x.stride()
        wanted_scale = torch.maximum(wanted.norm(), 0.1 * scale)
        assert ((found.double() - wanted).norm() / wanted_scale).item() < TOLERANCE[dtype] * 20
    with pytest.raises(ValueError, match="expected adjoint and grad_output as"):
        batch_norm_double_backward(adjoint[1:], grad, x, weight, mean, rstd)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize(
    ("shape", "groups"),
    [((6, 5, 7, 1), 3), ((8, 17, 3, 5), 8), ((10, 64, 33, 2), 2), ((129, 33), 3)],
    ids=str,
)
def test_groups_match_float64(shape: tuple[int, ...], groups: int, dtype: torch.dtype) -> None:
    x, grad = rows(shape, dtype, 0), rows(shape, dtype, 1)
    weight, bias = torch.rand(shape[1]) + 0.5, torch.randn(shape[1])
    y, mean, rstd = batch_norm(x, weight, bias, 1e-3, groups)
    exact = x.double().requires_grad_()
    expected, *statistics = batch_norm_reference(exact, weight.double(), bias.double(), 1e-3, groups)
    (expected_grad,) = torch.autograd.grad(expected, exact, grad.double())
    assert error(y, expected.detach()) < TOLERANCE[dtype]
    for got, of in zip((mean, rstd), statistics, strict=True):
        assert got.shape == (groups, shape[1])
        assert error(got, of.detach()) < 1e-5
    got = batch_norm_backward(grad, x, weight, mean, rstd)
    scale = torch.maximum(expected_grad.norm(), 0.1 * grad.double().norm())
    assert ((got.double() - expected_grad).norm() / scale).item() < TOLERANCE[dtype] * 10
    parts = [batch_norm(part, weight, bias, 1e-3)[0] for part in x.chunk(groups)]
    assert torch.equal(y, torch.cat(parts))
    with pytest.raises(ValueError, match=f"groups: expected a divisor of the {shape[0]} samples"):
        batch_norm(x, weight, bias, 1e-3, 4 if shape[0] % 4 else 3)


def test_variance_is_right_far_from_zero() -> None:
    x = (torch.randn(64, 16, 8, 8) + 1000).to(memory_format=torch.channels_last)
    _, _, rstd = batch_norm(x, None, None, 0.0)
    _, _, expected = batch_norm_reference(x.double(), None, None, 0.0)
    assert error(rstd, expected) < 1e-5


def test_nan_stays_in_its_channel() -> None:
    x = rows((4, 20, 3, 3), torch.float32, 0)
    x[1, 7, 0, 0] = float("nan")
    y, _, _ = batch_norm(x, None, None)
    assert y[:, 7].isnan().all()
    assert y[:, torch.arange(20) != 7].isfinite().all()


def test_layouts_it_does_not_take_are_named() -> None:
    x = torch.randn(2, 3, 4, 4)
    assert not supports_batch_norm(x)
    with pytest.raises(ValueError, match="batch_norm: input: expected a contiguous"):
        batch_norm(x, None, None)
    with pytest.raises(TypeError, match="expected float32 or bfloat16"):
        batch_norm(x.double().to(memory_format=torch.channels_last), None, None)
    with pytest.raises(ValueError, match="weight: expected 3 contiguous float32 values"):
        batch_norm(x.to(memory_format=torch.channels_last), torch.ones(4), None)


@pytest.mark.slow
def test_opcheck() -> None:
    x = rows((3, 5, 4, 4), torch.float32, 0)
    y, mean, rstd = batch_norm(x, None, None)
    torch.library.opcheck(torch.ops.pynas.batch_norm.default, (x, None, None, 1e-5))
    torch.library.opcheck(torch.ops.pynas.batch_norm.default, (x, None, None, 1e-5, 3))
    torch.library.opcheck(torch.ops.pynas.batch_norm_backward.default, (y, x, None, mean, rstd))
