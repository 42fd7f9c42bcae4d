"""Every differentiable operator on a GPU: as its definition in float64, the same bits twice, no waiting."""

from __future__ import annotations

import pytest
import torch
from no_waiting import no_waiting

from pynas import _C, ops
from pynas.testing.differentiable import DIFFERENTIABLE, DifferentiableSpec, Run, check_against_definition
from pynas.testing.ops import DTYPES, LAYOUTS, filler

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
    pytest.mark.skipif(not _C.has_cuda, reason="pynas was built without its CUDA kernels"),
]
each_operator = pytest.mark.parametrize("spec", DIFFERENTIABLE.values(), ids=lambda spec: spec.name)


@each_operator
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_against_definition(spec: DifferentiableSpec, dtype: torch.dtype, layout: str) -> None:
    if dtype not in spec.dtypes or layout not in spec.layouts:
        pytest.skip("not for this operator")
    for sample in spec.samples:
        check_against_definition(spec, sample, dtype, layout, device="cuda")


@each_operator
def test_same_bits_twice(spec: DifferentiableSpec) -> None:
    for sample in spec.samples:
        first, second = (
            Run(spec, spec.function, sample.make(filler(torch.float32)), lambda t: t.cuda()) for _ in range(2)
        )
        again = dict(second.results())
        for name, value in first.results():
            assert torch.equal(value, again[name]), f"{sample.name}: {name}"


@pytest.mark.parametrize("shape", [(64, 48, 17, 15), (96, 130, 8, 8), (4096, 512)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_large_normalized_sum(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """Many blocks and splits, 16-byte accesses, an input of weight zero."""
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(shape, generator=generator).to(dtype) for _ in range(6)]
    weights = torch.tensor([0.3, 0.0, -1.0, 0.2, 2.0, 0.1])
    normalized = [True, True, False, True, True, True]
    for layout in (torch.contiguous_format, torch.channels_last):
        if layout == torch.channels_last and len(shape) != 4:
            continue
        zs = [z.cuda().contiguous(memory_format=layout).requires_grad_() for z in inputs]
        w = weights.cuda().requires_grad_()
        wide = [z.double().requires_grad_() for z in inputs]
        wide_weights = weights.double().requires_grad_()
        y = ops.normalized_sum(zs, w, normalized=normalized)
        expected = ops.normalized_sum_reference(wide, wide_weights, normalized=normalized)
        upstream = torch.randn(shape, generator=generator).to(dtype)
        found = torch.autograd.grad(y, [*zs, w], upstream.cuda())
        wanted: tuple[torch.Tensor | None, ...] = torch.autograd.grad(
            expected, [*wide, wide_weights], upstream.double(), allow_unused=True
        )
        rounding = {torch.bfloat16: 1.2e-2, torch.float16: 1.5e-3}.get(dtype, 1e-5)
        for got, want in [(y, expected), *zip(found, wanted, strict=True)]:
            if want is None:
                assert not got.any()
                continue
            error = float((got.detach().cpu().double() - want.detach()).abs().max())
            assert error <= rounding * float(want.detach().abs().max())


def test_normalized_sum_does_not_wait_and_can_be_captured() -> None:
    inputs = [torch.randn(8, 16, 9, 9, device="cuda", requires_grad=True) for _ in range(3)]
    weights = torch.tensor([0.5, 0.0, 0.5], device="cuda", requires_grad=True)
    running = [(torch.zeros(16, device="cuda"), torch.ones(16, device="cuda")) for _ in range(3)]

    def step() -> list[torch.Tensor]:
        y = ops.normalized_sum(inputs, weights, running=running)
        return [y, *torch.autograd.grad(y, [*inputs, weights], torch.ones_like(y))]

    step()
    with no_waiting():
        step()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    with torch.no_grad():
        weights.copy_(torch.tensor([0.0, 1.0, 0.25], device="cuda"))  # another architecture, the same graph
    graph.replay()
    torch.cuda.synchronize()
    for got, want in zip(captured, step(), strict=True):
        assert torch.equal(got, want)


def test_nan_weights_reach_the_output() -> None:
    inputs = [torch.randn(4, 3, device="cuda")]
    weights = torch.full((1,), float("nan"), device="cuda")
    assert bool(ops.normalized_sum(inputs, weights).isnan().all())
