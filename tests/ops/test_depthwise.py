"""The depthwise and pooling stages against PyTorch's float64 modules, values and gradients."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import pynas.ops  # noqa: F401  (registers the operators)

SHAPES = [(2, 16, 7, 5), (1, 1, 1, 1), (3, 17, 2, 9), (1, 3, 33, 33), (1, 66, 2, 3)]
FILTERS = [(3, 1), (5, 1), (3, 2), (5, 2)]  # kernel and dilation
TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-5, torch.bfloat16: 2e-2}

each_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)
each_stride = pytest.mark.parametrize("stride", [1, 2])
each_dtype = pytest.mark.parametrize("dtype", TOLERANCE, ids=str)


pytestmark = pytest.mark.usefixtures("one_thread")


def images(shape: tuple[int, ...], dtype: torch.dtype, seed: int = 0) -> Tensor:
    """Normal values, some of them equal and some zero, so that ties and the rectifier's edge occur."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(shape, generator=generator, dtype=torch.float64)
    values = torch.where(torch.rand(shape, generator=generator) < 0.3, values.round(), values)
    return values.to(dtype).contiguous(memory_format=torch.channels_last)


def check(actual: Tensor, expected: Tensor, name: str) -> None:
    expected = expected.detach()
    assert actual.shape == expected.shape, name
    scale = max(1.0, float(expected.abs().max()) if expected.numel() else 1.0)
    dtype = torch.bfloat16 if actual.dtype == torch.bfloat16 else actual.dtype
    error = float((actual.double() - expected).abs().max()) / scale if expected.numel() else 0.0
    assert error <= TOLERANCE[dtype], f"{name}: off by {error:.1e}"


def depthwise_reference(x: Tensor, weights: list[Tensor], stride: int) -> list[Tensor]:
    h = F.relu(x)
    return [
        F.conv2d(h, w, stride=stride, padding=d * (k - 1) // 2, dilation=d, groups=x.shape[1])
        for w, (k, d) in zip(weights, FILTERS, strict=True)
    ]


@each_shape
@each_stride
@each_dtype
@pytest.mark.parametrize("affine", [False, True])
def test_depthwise(shape: tuple[int, ...], stride: int, dtype: torch.dtype, affine: bool) -> None:
    channels = shape[1]
    x = images(shape, dtype)
    weights = [images((channels, 1, k, k), dtype, seed=i) for i, (k, _) in enumerate(FILTERS)]
    dilations = [d for _, d in FILTERS]
    wide = [w.double().clone().requires_grad_() for w in weights]
    v = x.double().clone().requires_grad_()
    scale = offset = None
    if affine:
        statistics = torch.float64 if dtype == torch.float64 else torch.float32
        scale, offset = (images((1, channels, 1, 1), statistics, seed=s).flatten() for s in (7, 8))
        v = (x.double() * scale.double()[:, None, None] + offset.double()[:, None, None]).detach()
        v.requires_grad_()
    expected = depthwise_reference(v, wide, stride)
    call = (x, weights, dilations, stride, scale, offset, None)
    outputs = torch.ops.pynas.depthwise_relu(*call)
    for actual, want in zip(outputs, expected, strict=True):
        check(actual, want, "output")
        assert actual.is_contiguous(memory_format=torch.channels_last)

    grads = [images(tuple(want.shape), dtype, seed=20 + i) for i, want in enumerate(expected)]
    wanted = torch.autograd.grad(expected, [v, *wide], [g.double() for g in grads])
    check(torch.ops.pynas.depthwise_relu_backward_input(*call, grads), wanted[0], "input gradient")
    for actual, want in zip(
        torch.ops.pynas.depthwise_relu_backward_weight(*call, grads), wanted[1:], strict=True
    ):
        assert actual.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        check(actual, want, "weight gradient")


@pytest.mark.parametrize("closed", list(itertools.product([False, True], repeat=4))[1:], ids=str)
def test_closed_gates(closed: tuple[bool, ...]) -> None:
    """A filter whose gate is zero gives zeros and reads nothing, the others what they give alone."""
    x = images((2, 5, 6, 7), torch.float64)
    weights = [images((5, 1, k, k), torch.float64, seed=i) for i, (k, _) in enumerate(FILTERS)]
    gates = torch.tensor([0.0 if c else 0.5 for c in closed], dtype=torch.float64)
    dilations = [d for _, d in FILTERS]
    open_call = (x, weights, dilations, 1, None, None, None)
    call = (x, weights, dilations, 1, None, None, gates)
    outputs = torch.ops.pynas.depthwise_relu(*open_call)
    for shut, actual, want in zip(closed, torch.ops.pynas.depthwise_relu(*call), outputs, strict=True):
        assert torch.equal(actual, torch.zeros_like(want) if shut else want)
    grads = [images(tuple(o.shape), torch.float64, seed=i) for i, o in enumerate(outputs)]
    zeros = [torch.zeros_like(g) if shut else g for shut, g in zip(closed, grads, strict=True)]
    unread = [torch.full_like(g, torch.nan) if shut else g for shut, g in zip(closed, grads, strict=True)]
    for name in ("depthwise_relu_backward_input", "depthwise_relu_backward_weight"):
        op = getattr(torch.ops.pynas, name)
        actual, want = op(*call, unread), op(*open_call, zeros)
        for got, wanted in zip(
            [actual] if isinstance(actual, Tensor) else actual,
            [want] if isinstance(want, Tensor) else want,
            strict=True,
        ):
            assert torch.equal(got, wanted), name


def test_depthwise_nan_and_empty() -> None:
    """As in PyTorch a NaN passes the rectifier; empty batches give empty results and zero gradients."""
    x = torch.full((1, 2, 3, 3), torch.nan)
    weights = [torch.ones(2, 1, 3, 3)]
    assert torch.ops.pynas.depthwise_relu(x, weights, [1], 1, None, None, None)[0].isnan().all()
    gradient = torch.ops.pynas.depthwise_relu_backward_input(
        x, weights, [1], 1, None, None, None, [torch.ones(1, 2, 3, 3)]
    )
    assert (gradient > 0).all()
    empty = torch.zeros(0, 2, 3, 3)
    call = (empty, weights, [1], 1, None, None, None)
    assert torch.ops.pynas.depthwise_relu(*call)[0].shape == (0, 2, 3, 3)
    assert not torch.ops.pynas.depthwise_relu_backward_weight(*call, [empty])[0].any()


def test_depthwise_errors() -> None:
    x, weight = torch.randn(1, 2, 3, 3), torch.ones(2, 1, 3, 3)
    op = torch.ops.pynas.depthwise_relu
    with pytest.raises(ValueError, match=r"weight: expected Float \[2, 1, k, k\]"):
        op(x, [torch.ones(2, 1, 4, 4)], [1], 1, None, None, None)
    with pytest.raises(ValueError, match="dilation: expected 1 or 2, got 3"):
        op(x, [weight], [3], 1, None, None, None)
    with pytest.raises(ValueError, match="stride: expected 1 or 2, got 3"):
        op(x, [weight], [1], 3, None, None, None)
    with pytest.raises(ValueError, match="scale"):
        op(x, [weight], [1], 1, torch.ones(3), torch.ones(3), None)
    with pytest.raises(TypeError, match="float16"):
        op(x.half(), [weight.half()], [1], 1, None, None, None)


@each_shape
@each_stride
@each_dtype
def test_pools(shape: tuple[int, ...], stride: int, dtype: torch.dtype) -> None:
    x = images(shape, dtype)
    wide = x.double().clone().requires_grad_()
    largest = F.max_pool2d(wide, 3, stride, 1)
    average = F.avg_pool2d(wide, 3, stride, 1, count_include_pad=False)
    outputs = torch.ops.pynas.pool3x3(x, stride, None)
    for actual, want in zip(outputs, (largest, average), strict=True):
        check(actual, want, "output")
    grads = [images(tuple(average.shape), dtype, seed=s) for s in (1, 2)]
    (want,) = torch.autograd.grad([largest, average], wide, [g.double() for g in grads])
    check(torch.ops.pynas.pool3x3_backward(x, stride, None, *grads), want, "gradient")


@each_stride
def test_pools_of_equal_and_of_no_numbers(stride: int) -> None:
    """Among equals the first pixel gets the gradient; a NaN is larger than anything."""
    x = torch.zeros(1, 2, 5, 6, dtype=torch.float64)
    x[0, 1, 2, 3] = torch.nan
    x[0, 1, 4, 4] = torch.inf
    wide = x.clone().requires_grad_()
    largest = F.max_pool2d(wide, 3, stride, 1)
    actual, _ = torch.ops.pynas.pool3x3(x, stride, None)
    assert torch.equal(actual.nan_to_num(7.0), largest.detach().nan_to_num(7.0))
    grad = images(tuple(largest.shape), torch.float64)
    (want,) = torch.autograd.grad(largest, wide, grad)
    got = torch.ops.pynas.pool3x3_backward(x, stride, None, grad, torch.zeros_like(grad))
    torch.testing.assert_close(got, want, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("gates", [(0.0, 1.0), (1.0, 0.0), (0.0, 0.0)], ids=str)
def test_pool_gates(gates: tuple[float, float]) -> None:
    x = images((2, 3, 5, 4), torch.float32)
    grads = [images((2, 3, 5, 4), torch.float32, seed=s) for s in (1, 2)]
    outputs = torch.ops.pynas.pool3x3(x, 1, torch.tensor(gates))
    for gate, actual, want in zip(gates, outputs, torch.ops.pynas.pool3x3(x, 1, None), strict=True):
        assert torch.equal(actual, want if gate else torch.zeros_like(want))
    unread = [g if gate else torch.full_like(g, torch.nan) for gate, g in zip(gates, grads, strict=True)]
    zeros = [g if gate else torch.zeros_like(g) for gate, g in zip(gates, grads, strict=True)]
    got = torch.ops.pynas.pool3x3_backward(x, 1, torch.tensor(gates), *unread)
    assert torch.equal(got, torch.ops.pynas.pool3x3_backward(x, 1, None, *zeros))


def test_same_bits_and_any_number_of_threads() -> None:
    x = images((4, 24, 9, 9), torch.float32)
    weights = [images((24, 1, k, k), torch.float32, seed=i) for i, (k, _) in enumerate(FILTERS)]
    call = (x, weights, [d for _, d in FILTERS], 1, None, None, None)
    grads = [images((4, 24, 9, 9), torch.float32, seed=i) for i in range(4)]
    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 2, 2, 3):
            torch.set_num_threads(count)
            results.append(torch.ops.pynas.depthwise_relu_backward_weight(*call, grads))
    finally:
        torch.set_num_threads(threads)
    for one, two, again, three in zip(*results, strict=True):
        assert torch.equal(two, again)
        torch.testing.assert_close(one, two, rtol=1e-6, atol=1e-5)
        torch.testing.assert_close(one, three, rtol=1e-6, atol=1e-5)
