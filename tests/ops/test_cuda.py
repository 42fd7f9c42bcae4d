"""Every operator with CUDA kernels: as on the CPU in float64, the same bits twice, in graphs, on streams."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from pynas import _C, ops
from pynas.testing.ops import DTYPES, LAYOUTS, SPECS, TOLERANCE, OpSpec, Sample, filler, integers, leaves

WITHOUT_KERNELS = {"avg_pool2d", "batch_norm"}  # on a GPU these are ATen's

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
    pytest.mark.skipif(not _C.has_cuda, reason="pynas was built without its CUDA kernels"),
]
each_operator = pytest.mark.parametrize(
    "spec",
    [spec for name, spec in SPECS.items() if not name.startswith(tuple(WITHOUT_KERNELS))],
    ids=lambda spec: spec.name,
)


def to_gpu(value: Any) -> Any:
    """The same tensor on the GPU, with its strides: expanded, channels last or with gaps."""
    if isinstance(value, Tensor):
        flat = torch.empty(0, dtype=value.dtype).set_(value.untyped_storage())
        return flat.cuda().as_strided(value.size(), value.stride(), value.storage_offset())
    return [to_gpu(item) for item in value] if isinstance(value, list | tuple) else value


def widen(value: Any) -> Any:
    if isinstance(value, Tensor) and value.is_floating_point():
        return value.double()
    return [widen(item) for item in value] if isinstance(value, list) else value


def compare(
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    options: dict[str, Any],
    tolerance: float,
    scale: float = 1.0,
    quadratic: bool = False,
) -> None:
    """On the GPU as on the CPU in float64, relative to the larger of the result and its usual `scale`."""
    expected = dict(leaves(function(*(widen(a) for a in arguments), **options)))
    actual = dict(leaves(function(*(to_gpu(a) for a in arguments), **options)))
    assert actual.keys() == expected.keys()
    for name, wanted in expected.items():
        got = actual[name]
        assert got.is_cuda
        assert got.shape == wanted.shape
        if not got.is_floating_point():
            assert torch.equal(got.cpu(), wanted), name
        elif got.numel() and not name.endswith("sign"):  # signs of sums near zero: test_exact_on_integers
            power = 2 if quadratic or name.endswith(("square", "centered", "[2]")) else 1
            largest = max(float(wanted.abs().max()), scale**power)
            error = float((got.cpu().double() - wanted).abs().max()) / largest
            assert error <= tolerance, f"{name}: off by {error:.1e}, allowed {tolerance:.0e}"


@each_operator
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_as_on_the_cpu(spec: OpSpec, dtype: torch.dtype, layout: str) -> None:
    for sample in spec.samples:
        arguments, options = sample.make(filler(dtype, layout))
        compare(spec.function, arguments, options, 2 * TOLERANCE[dtype], sample.scale, spec.quadratic)


@each_operator
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_exact_on_integers(spec: OpSpec, dtype: torch.dtype) -> None:
    for sample in spec.samples:
        arguments, options = sample.make(integers(dtype))
        expected = dict(leaves(spec.function(*(widen(a) for a in arguments), **options)))
        for name, got in leaves(spec.function(*(to_gpu(a) for a in arguments), **options)):
            if spec.name != "moments_update" and name.endswith(("sum", "abs", "sign")):
                assert torch.equal(got.cpu().double(), expected[name]), f"{sample.name}: {name}"


def large_calls() -> dict[str, tuple[Callable[..., Any], tuple[tuple[int, ...], ...], dict[str, Any]]]:
    """Sizes that small samples do not reach: shared tiles, row splits, slabs, many groups."""
    conv = {"kernel_size": 3, "padding": 1}
    all_moments = {"moments": ("sum", "abs", "square", "sign", "centered")}
    return {
        "shared_tiles": (ops.conv2d_grad_moments, ((96, 64, 8, 8), (96, 48, 8, 8)), {**conv, **all_moments}),
        "row_splits": (
            ops.conv2d_grad_moments,
            ((64, 16, 32, 32), (64, 16, 32, 32)),
            {**conv, **all_moments, "group_size": 32, "bias": True},
        ),
        "depthwise": (
            ops.conv2d_grad_moments,
            ((33, 65, 15, 17), (33, 65, 15, 17)),
            {**conv, **all_moments, "groups": 65},
        ),
        "stem": (
            ops.conv2d_grad_moments,
            ((17, 16, 33, 31), (17, 3, 33, 31)),
            {**conv, **all_moments, "bias": True},
        ),
        "norms": (ops.conv2d_grad_norms, ((129, 72, 7, 7), (129, 40, 7, 7)), {**conv, "bias": True}),
        "gram_slabs": (ops.conv2d_grad_gram, ((130, 200, 5, 5), (130, 64, 5, 5)), {**conv, "bias": True}),
        "linear": (ops.linear_grad_moments, ((64, 129, 130), (64, 129, 257)), {**all_moments, "bias": True}),
        "linear_gram": (ops.linear_grad_gram, ((257, 100), (257, 512)), {"bias": True}),
    }


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("name", large_calls())
def test_large(name: str, dtype: torch.dtype, layout: str) -> None:
    function, shapes, options = large_calls()[name]
    fill = filler(dtype, layout)
    arguments = tuple(fill(shape) for shape in shapes)
    options = dict(options)
    if "kernel_size" in options:
        arguments += (options.pop("kernel_size"),)
    compare(function, arguments, options, 2 * TOLERANCE[dtype])


@each_operator
def test_same_bits_twice(spec: OpSpec) -> None:
    for sample in spec.samples:
        first, second = (dict(leaves(call(spec, sample))) for _ in range(2))
        for name, value in first.items():
            assert torch.equal(value, second[name]), f"{sample.name}: {name}"


def call(spec: OpSpec, sample: Sample) -> Any:
    arguments, options = sample.make(filler(torch.bfloat16))
    return spec.function(*(to_gpu(a) for a in arguments), **options)


def test_in_a_graph_and_on_another_stream() -> None:
    grad, activation = (torch.randn(8, 16, 9, 9, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    expected = ops.conv2d_grad_moments(grad, activation, 3, padding=1).weight.square
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        warm = ops.conv2d_grad_moments(grad, activation, 3, padding=1).weight.square
    torch.cuda.synchronize()
    assert expected is not None
    assert warm is not None
    assert torch.equal(warm, expected)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = ops.conv2d_grad_moments(grad, activation, 3, padding=1).weight.square
    assert captured is not None
    grad.copy_(2 * grad)
    graph.replay()
    torch.cuda.synchronize()
    torch.testing.assert_close(captured, 4 * expected)


def test_error_reaches_python() -> None:
    """A wrong device is refused before any kernel runs."""
    grad = torch.randn(2, 3, 4, 4, device="cuda")
    with pytest.raises((ValueError, RuntimeError), match=r"device|cpu|cuda"):
        ops.conv2d_grad_moments(grad, torch.randn(2, 3, 4, 4), 1)


@pytest.mark.parametrize("function", [ops.linear_grad_moments, ops.linear_grad_norms, ops.linear_grad_gram])
def test_tf32_only_where_torch_allows_it(function: Callable[..., Any]) -> None:
    arguments = tuple(torch.randn(32, 65, n, generator=torch.Generator().manual_seed(0)) for n in (70, 90))
    compare(function, arguments, {}, 2 * TOLERANCE[torch.float32])
    allowed = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True  # not by monkeypatch, which cannot take this attribute back
    try:
        compare(function, arguments, {}, 5e-3)
        with pytest.raises(AssertionError, match="off by"):
            compare(function, arguments, {}, 2 * TOLERANCE[torch.float32])
    finally:
        torch.backends.cuda.matmul.allow_tf32 = allowed
