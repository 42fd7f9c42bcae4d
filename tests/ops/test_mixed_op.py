"""mixed_op against a loop of plain modules in float64: values, every gradient, running statistics."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from mixed_op_loop import FAMILIES, NASBENCH201, Loop, randomised
from torch import Tensor

from pynas.ops import mixed_op, mixed_op_norms, mixed_op_parameters, mixed_op_reference

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 0.1}
HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def _one_thread(request: pytest.FixtureRequest) -> Iterator[None]:
    """Tiny operators spend their time waiting for a second thread, on a busy machine most of all."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2 if "threads" in request.node.name else 1)
    yield
    torch.set_num_threads(threads)


def call(loop: Loop, x: Tensor, weights: Tensor, **options: Any) -> Tensor:
    """The operator on the tensors of a loop's modules."""
    options = {
        "candidates": loop.names,
        "family": loop.family,
        "stride": loop.stride,
        "affine": loop.affine,
        "running": loop.running(),
        "num_batches_tracked": loop.counts(),
        "training": loop.training,
        **options,
    }
    return mixed_op(x, weights, loop.tensors(), **options)


def compare(name: str, got: Tensor | None, expected: Tensor | None, tolerance: float, scale: float) -> None:
    if got is None or expected is None:
        assert all(t is None or not t.any() for t in (got, expected)), f"{name}: one has no gradient"
        return
    got, expected = got.detach(), expected.detach()
    assert got.shape == expected.shape, name
    if expected.numel() > 0:
        error = (got.double() - expected.double()).abs().max() / max(float(expected.abs().max()), scale)
        assert error <= tolerance, f"{name} is off by {float(error):.1e} of {scale:.1e}"


def check(
    family: str,
    shape: tuple[int, int, int, int],
    stride: int = 1,
    *,
    names: Sequence[str] | None = None,
    affine: bool = False,
    training: bool = True,
    dtype: torch.dtype = torch.float32,
    weights: Sequence[float] | None = None,
    steps: int = 1,
    planes: bool = False,
    **options: Any,
) -> None:
    """Both run `steps` times on different images; outputs, gradients and buffers agree."""
    generator = torch.Generator().manual_seed(sum(shape) + stride)
    names = tuple(names or FAMILIES[family])
    loop = randomised(Loop(names, family, shape[1], stride, affine), 1).to(dtype)
    exact = copy.deepcopy(loop).double().train(training)
    loop.train(training)
    w = torch.rand(len(names), generator=generator) if weights is None else torch.tensor(weights)
    w = w.to(dtype)
    layout = torch.contiguous_format if planes else torch.channels_last
    for _ in range(steps):
        x = torch.randn(shape, generator=generator).to(dtype).contiguous(memory_format=layout)
        ours, theirs = (w.clone().requires_grad_(), w.double().requires_grad_())
        x_ours, x_theirs = x.requires_grad_(), x.detach().double().requires_grad_()
        y, expected = call(loop, x_ours, ours, **options), exact(x_theirs, theirs)
        assert y.dtype == dtype
        assert y.is_contiguous(memory_format=layout)
        g = torch.randn(y.shape, generator=generator).to(dtype)
        loop.zero_grad()
        exact.zero_grad()
        y.backward(g)
        expected.backward(g.double())
        tolerance = TOLERANCE[dtype]
        compare("y", y.detach(), expected.detach(), tolerance, 1.0)
        compare("dL/dx", x_ours.grad, x_theirs.grad, tolerance, 1.0)
        values = y.numel() // max(1, shape[1])
        compare("dL/dw", ours.grad, theirs.grad, tolerance, values**0.5)
        for (name, p), q in zip(loop.named_parameters(), exact.parameters(), strict=True):
            # A weight's gradient is a sum over positions; where it all but cancels, that is its scale.
            compare(name, p.grad, q.grad, tolerance, max(1.0, (values / shape[1]) ** 0.5))
        for (name, p), q in zip(loop.named_buffers(), exact.buffers(), strict=True):
            compare(name, p, q, tolerance, 1.0)


SHAPES = [
    (2, 1, 7, 5),
    (1, 3, 33, 33),
    (64, 3, 5, 4),
    (2, 16, 8, 8),
    (2, 17, 7, 5),
    (1, 64, 6, 6),
    (8, 16, 1, 1),
]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_training(family: str, shape: tuple[int, int, int, int], stride: int, dtype: torch.dtype) -> None:
    check(family, shape, stride, dtype=dtype, affine=shape[1] % 2 == 1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("family", FAMILIES)
def test_evaluation(family: str, stride: int, dtype: torch.dtype) -> None:
    check(family, (2, 17, 7, 6), stride, dtype=dtype, affine=True, training=False)
    check(family, (1, 16, 1, 1), stride, dtype=dtype, training=False)


@pytest.mark.parametrize("family", FAMILIES)
def test_running_statistics_after_three_steps(family: str) -> None:
    check(family, (3, 5, 6, 6), 2, steps=3)


@pytest.mark.parametrize("family", FAMILIES)
def test_single_candidates_and_pairs(family: str) -> None:
    names = FAMILIES[family]
    for k, name in enumerate(names):
        for stride in (1, 2):
            check(family, (2, 4, 7, 6), stride, names=[name], weights=[0.7])
            hard = [float(i == k) for i in range(len(names))]
            check(family, (2, 4, 7, 6), stride, weights=hard, affine=True)
    check(family, (2, 4, 6, 6), names=["skip_connect", "skip_connect", names[2]], dtype=torch.float64)


@pytest.mark.parametrize("save", ["nothing", "products", "everything"])
@pytest.mark.parametrize("family", FAMILIES)
def test_save_modes(family: str, save: str) -> None:
    for dtype in (torch.float32, torch.float64):
        check(family, (2, 6, 9, 7), 1, save=save, dtype=dtype)
        check(family, (2, 6, 9, 7), 2, save=save, dtype=dtype, affine=True)


@pytest.mark.parametrize("family", FAMILIES)
def test_bfloat16_and_planes(family: str) -> None:
    for stride in (1, 2):
        check(family, (4, 16, 8, 8), stride, planes=True)
    # Through one product only: ReLUs of rounded products flip, in the modules too.
    weights = [float(not name.startswith("sep")) for name in FAMILIES[family]]
    check(family, (4, 16, 8, 8), dtype=torch.bfloat16, weights=weights)


def test_float16_on_the_cpu_goes_through_float32() -> None:
    loop = Loop(NASBENCH201, "nasbench201", 8, 1).half()
    x, w = torch.randn(2, 8, 6, 6).half().requires_grad_(), torch.rand(5)
    y = call(loop, x, w)
    y.sum().backward()
    assert y.dtype == torch.float16
    assert x.grad is not None
    assert x.grad.dtype == torch.float16
    torch.testing.assert_close(y.float(), Loop.forward(loop.float(), x.float(), w), rtol=1e-2, atol=1e-2)


def test_cumulative_average_and_skipped_batches() -> None:
    names = ("nor_conv_1x1", "nor_conv_3x3")
    loop = randomised(Loop(names, "nasbench201", 4, 1), 0)
    exact = copy.deepcopy(loop)
    for module in (loop, exact):
        for norm in module.norms():
            norm.reset_running_stats()
            norm.momentum = None
    for step in range(3):
        x = torch.randn(2, 4, 5, 5)
        weights = torch.tensor([1.0, float(step != 1)])
        call(loop, x, weights, momentum=None)
        exact(x, weights)
    assert [int(c) for c in loop.counts()] == [3, 2]
    for got, expected in zip(loop.buffers(), exact.buffers(), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_reference_is_the_loop(family: str) -> None:
    for stride in (1, 2):
        loop = randomised(Loop(FAMILIES[family], family, 5, stride, True), 0).double()
        x, w = torch.randn(2, 5, 7, 6).double(), torch.rand(len(loop.names)).double()
        options: dict[str, Any] = {"candidates": family, "stride": stride, "affine": True}
        torch.testing.assert_close(mixed_op_reference(x, w, loop.tensors(), **options), loop(x, w))
        listed = mixed_op_parameters(family, 5, stride, True)
        assert [shape for _, shape in listed] == [tuple(p.shape) for p in loop.parameters()]
        assert len(mixed_op_norms(family, stride)) == len(list(loop.norms()))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_second_derivatives(family: str, training: bool, stride: int) -> None:
    loop = randomised(Loop(FAMILIES[family], family, 3, stride, True), 0).double().train(training)
    x = torch.randn(2, 3, 6, 5).double().requires_grad_()
    w = torch.rand(len(loop.names)).double()
    w[2] = 0
    w.requires_grad_()
    sources = [x, w, *loop.parameters()]
    results = []
    for y in (call(loop, x, w, running=None if training else loop.running()), loop(x, w)):
        loss = y.square().sum() + y.sum()
        first = torch.autograd.grad(loss, sources, create_graph=True, allow_unused=True)
        known = [g for g in first if g is not None]
        total = sum((g * torch.arange(g.numel()).view(g.shape).cos()).sum() for g in known)
        assert isinstance(total, Tensor)
        results.append([*first, *torch.autograd.grad(total, sources, allow_unused=True)])
    for got, expected in zip(*results, strict=True):
        compare("second derivative", got, expected, 1e-9, 1.0)


def test_deterministic_with_two_threads() -> None:
    for family, names in FAMILIES.items():
        loop = randomised(Loop(names, family, 16, 1), 0)
        x, w = torch.randn(8, 16, 9, 9).requires_grad_(), torch.rand(len(names)).requires_grad_()
        sources = [x, w, *loop.parameters()]
        first, second = (torch.autograd.grad(call(loop, x, w).square().sum(), sources) for _ in range(2))
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.every_isa
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("stride", [1, 2])
def test_awkward_shapes(family: str, stride: int) -> None:
    for shape in ((2, 17, 7, 5), (3, 16, 8, 8), (1, 3, 9, 33)):
        check(family, shape, stride, affine=stride == 2)
