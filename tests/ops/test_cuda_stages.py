"""The stages of a DARTS edge on a GPU, and the edge: as on the CPU in float64, without waiting, in graphs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from mixed_op_loop import DARTS, Loop, randomised
from no_waiting import no_waiting
from torch import Tensor

from pynas import _C
from pynas.ops import mixed_op

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
    pytest.mark.skipif(not _C.has_cuda, reason="pynas was built without its CUDA kernels"),
]

# Results of a 16-bit dtype are rounded once by a stage and several times by the composition.
TOLERANCE = {torch.float64: 1e-11, torch.float32: 2e-5, torch.bfloat16: 2e-2, torch.float16: 4e-3}
SHAPES = [(1, 1, 1, 1), (2, 3, 7, 5), (3, 16, 33, 33), (2, 17, 9, 8), (2, 36, 16, 16), (2, 64, 8, 8)]
FILTERS = [(3, 1), (5, 1), (3, 2), (5, 2)]
WEIGHTS = (0.1, 0.7, -0.4, 0.3, 0.5, 1.2, 0.2, 0.6)

each_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)
each_stride = pytest.mark.parametrize("stride", [1, 2])
each_dtype = pytest.mark.parametrize("dtype", TOLERANCE, ids=str)


@pytest.fixture(autouse=True)
def _exact_products() -> Iterator[None]:
    allowed = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32 = allowed


def values(shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> Tensor:
    """Normal values of which many are equal, in channels_last where they are images."""
    generator = torch.Generator().manual_seed(seed)
    result = torch.randn(shape, generator=generator, dtype=torch.float64)
    result = torch.where(torch.rand(shape, generator=generator) < 0.3, result.round(), result).to(dtype)
    return result.contiguous(memory_format=torch.channels_last) if len(shape) == 4 else result


def moved(value: Any, device: str, dtype: torch.dtype | None = None) -> Any:
    if isinstance(value, Tensor):
        return value.to(device, dtype if value.is_floating_point() else None)
    return [moved(v, device, dtype) for v in value] if isinstance(value, list) else value


def results(value: Tensor | list[Tensor] | tuple[Tensor, ...]) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else list(value)


def check(op: Any, arguments: tuple[Any, ...], dtype: torch.dtype, factor: float = 1.0) -> list[Tensor]:
    """On the GPU as on the CPU in float64, and the same bits again."""
    wide = results(op(*(moved(a, "cpu", torch.float64) for a in arguments)))
    on_gpu = tuple(moved(a, "cuda") for a in arguments)
    with no_waiting():
        got, again = results(op(*on_gpu)), results(op(*on_gpu))
    for i, (first, second, want) in enumerate(zip(got, again, wide, strict=True)):
        assert first.is_cuda
        assert torch.equal(first, second), f"result {i} differs from one call to the next"
        if want.numel() > 0:
            error = (first.cpu().double() - want).abs().max() / max(1.0, float(want.abs().max()))
            assert error <= factor * TOLERANCE[dtype], f"result {i} is off by {float(error):.1e}"
    return got


def depthwise_call(
    shape: tuple[int, int, int, int], stride: int, dtype: torch.dtype, affine: bool, closed: bool
) -> tuple[tuple[Any, ...], list[Tensor]]:
    sums = torch.float64 if dtype == torch.float64 else torch.float32
    n, c, h, w = shape
    weights = [values((c, 1, k, k), dtype, i) for i, (k, _) in enumerate(FILTERS)]
    scale, offset = (values((c,), sums, s) if affine else None for s in (5, 6))
    gates = torch.tensor([0.5, 0.0, 1.0, 0.0] if closed else [1.0] * 4, dtype=sums)
    out = (n, c, -(-h // stride), -(-w // stride))
    grads = [values(out, dtype, 10 + i) for i in range(4)]
    call = (values(shape, dtype, 4), weights, [d for _, d in FILTERS], stride, scale, offset, gates)
    return call, grads


@each_shape
@each_stride
@each_dtype
@pytest.mark.parametrize("affine", [False, True])
def test_depthwise(shape: tuple[int, int, int, int], stride: int, dtype: torch.dtype, affine: bool) -> None:
    call, grads = depthwise_call(shape, stride, dtype, affine, closed=False)
    check(torch.ops.pynas.depthwise_relu, call, dtype)
    check(torch.ops.pynas.depthwise_relu_backward_weight, (*call, grads), dtype)
    if not affine:  # else float32 and float64 may differ in which side of zero a value lies
        check(torch.ops.pynas.depthwise_relu_backward_input, (*call, grads), dtype)


@each_stride
def test_closed_filters_read_and_give_nothing(stride: int) -> None:
    call, grads = depthwise_call((2, 20, 9, 11), stride, torch.float32, affine=False, closed=True)
    grads = [torch.full_like(g, torch.nan) if i in (1, 3) else g for i, g in enumerate(grads)]
    outputs = check(torch.ops.pynas.depthwise_relu, call, torch.float32)
    gradients = check(torch.ops.pynas.depthwise_relu_backward_weight, (*call, grads), torch.float32)
    for i in (1, 3):
        assert not outputs[i].any()
        assert not gradients[i].any()
    check(torch.ops.pynas.depthwise_relu_backward_input, (*call, grads), torch.float32)


@each_shape
@each_stride
@each_dtype
@pytest.mark.parametrize("gates", [(1.0, 1.0), (0.0, 1.0), (1.0, 0.0)], ids=str)
def test_pools(
    shape: tuple[int, int, int, int], stride: int, dtype: torch.dtype, gates: tuple[float, float]
) -> None:
    x = values(shape, dtype, 0)
    opened = torch.tensor(gates, dtype=torch.float64 if dtype == torch.float64 else torch.float32)
    n, c, h, w = shape
    grads = [values((n, c, -(-h // stride), -(-w // stride)), dtype, s) for s in (1, 2)]
    check(torch.ops.pynas.pool3x3, (x, stride, opened), dtype)
    check(torch.ops.pynas.pool3x3_backward, (x, stride, opened, *grads), dtype)


def edge_call(
    shape: tuple[int, int, int, int], stride: int, dtype: torch.dtype, zeros: tuple[int, ...], training: bool
) -> tuple[Any, ...]:
    sums = torch.float64 if dtype == torch.float64 else torch.float32
    loop = randomised(Loop(DARTS, "darts", shape[1], stride, True), 1)
    parameters = [p.detach().to(sums if p.dim() == 1 else dtype) for p in loop.tensors()]
    running = [t.to(sums) for t in loop.running()]
    weights = torch.tensor([0.0 if k in zeros else w for k, w in enumerate(WEIGHTS)], dtype=sums)
    n, c, h, w = shape
    grad = values((n, c, -(-h // stride), -(-w // stride)), dtype, 9)
    options = (list(range(8)), stride, True, training, 1e-5, 1)
    return (values(shape, dtype, 8), weights, parameters, running, *options, grad)


@each_shape
@each_stride
@pytest.mark.parametrize("zeros", [(), (2, 4), (1, 3, 5, 7)], ids=str)
@pytest.mark.parametrize("training", [True, False])
def test_edge_in_float64(
    shape: tuple[int, int, int, int], stride: int, zeros: tuple[int, ...], training: bool
) -> None:
    training = training and shape[2] > 1
    call = edge_call(shape, stride, torch.float64, zeros, training)
    check(torch.ops.pynas.darts_stages_gated, call, torch.float64, factor=100)


@each_stride
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_edge_in_training_dtypes(stride: int, dtype: torch.dtype) -> None:
    """Value and gradients by their norms: single values pass rectifiers and maxima on either side."""
    call = edge_call((8, 32, 16, 16), stride, dtype, (4,), training=True)
    wide = torch.ops.pynas.darts_stages_gated(*(moved(a, "cpu", torch.float64) for a in call))
    got = torch.ops.pynas.darts_stages_gated(*(moved(a, "cuda") for a in call))
    for i, (ours, want) in enumerate(zip(got, wide, strict=True)):
        error = (ours.cpu().double() - want).norm() / max(1.0, float(want.norm()))
        assert error <= 20 * TOLERANCE[dtype], f"result {i} is off by {float(error):.1e}"


@each_stride
def test_edge_in_a_graph(stride: int) -> None:
    """Captured once, replayed with other weights, some of them zero: nothing is decided on the host."""
    loop = randomised(Loop(DARTS, "darts", 16, stride, False), 1).cuda()
    tensors = loop.tensors()
    x = torch.randn(4, 16, 12, 12, device="cuda").contiguous(memory_format=torch.channels_last)
    weights = torch.tensor(WEIGHTS, device="cuda")
    leaves = [x.requires_grad_(), weights.requires_grad_(), *tensors]

    def step() -> list[Tensor]:
        y = mixed_op(x, weights, tensors, candidates="darts", stride=stride)
        return [y, *torch.autograd.grad(y.square().sum(), leaves)]

    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    for zeros in ((), (1, 4, 7), (3, 5)):
        with torch.no_grad():
            weights.copy_(torch.tensor([0.0 if k in zeros else -w for k, w in enumerate(WEIGHTS)]))
        graph.replay()
        for replayed, expected in zip(captured, step(), strict=True):
            assert torch.equal(replayed, expected)
