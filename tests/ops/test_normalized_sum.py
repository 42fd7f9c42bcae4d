"""normalized_sum beyond conformance: PyTorch's modules, weights of zero, large means, compilation, errors."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch._dynamo.testing
from torch import Tensor, nn

from pynas import ops
from pynas.testing._normalized_sum_samples import far_from_zero
from pynas.testing.differentiable import DIFFERENTIABLE, check_against_definition


def draw(
    shape: tuple[int, ...] = (4, 6, 5, 3), count: int = 3, dtype: torch.dtype = torch.float32
) -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(shape, dtype=dtype).requires_grad_() for _ in range(count)]


def test_as_a_loop_of_modules() -> None:
    """Outputs, gradients and buffers of BatchNorm2d modules over several steps, then in evaluation."""
    inputs, weights = draw(), torch.tensor([0.2, 0.5, 0.3], requires_grad=True)
    modules = [nn.BatchNorm2d(6, affine=k == 0, momentum=0.3) for k in range(2)]
    running = [(torch.zeros(6), torch.ones(6)) for _ in range(2)]
    gamma, beta = torch.ones(6, requires_grad=True), torch.zeros(6, requires_grad=True)
    for training in (True, True, False):
        terms = [module.train(training)(z) for module, z in zip(modules, inputs[:2], strict=True)]
        expected = sum(w * term for w, term in zip(weights, [*terms, inputs[2]], strict=True))
        actual = ops.normalized_sum(
            inputs,
            weights,
            normalized=[True, True, False],
            gamma=[gamma, None, None],
            beta=[beta, None, None],
            running=[*running, None],
            training=training,
            momentum=0.3,
        )
        assert isinstance(expected, Tensor)
        torch.testing.assert_close(actual, expected)
        leaves = [*inputs, weights]
        upstream = torch.randn_like(actual)
        found = torch.autograd.grad(actual, [*leaves, gamma, beta], upstream)
        wanted = torch.autograd.grad(expected, [*leaves, modules[0].weight, modules[0].bias], upstream)
        for got, want in zip(found, wanted, strict=True):
            torch.testing.assert_close(got, want)
        for module, (mean, var) in zip(modules, running, strict=True):
            torch.testing.assert_close(mean, module.running_mean)
            torch.testing.assert_close(var, module.running_var)


def test_an_input_of_weight_zero_is_not_read() -> None:
    inputs = draw()
    with torch.no_grad():
        inputs[1].fill_(float("nan"))
    weights = torch.tensor([0.4, 0.0, -0.6], requires_grad=True)
    running = [(torch.zeros(6), torch.ones(6)) for _ in range(3)]
    y = ops.normalized_sum(inputs, weights, running=running)
    gradients = torch.autograd.grad(y.square().sum(), [*inputs, weights])
    assert all(bool(t.isfinite().all()) for t in (y, *gradients))
    assert not gradients[1].any()
    assert gradients[3][1] == 0
    assert torch.equal(running[1][0], torch.zeros(6))
    assert torch.equal(running[1][1], torch.ones(6))
    alone = ops.normalized_sum([inputs[0], inputs[2]], weights[[0, 2]])
    torch.testing.assert_close(y, alone, rtol=0, atol=0)


def test_nothing_but_zeros() -> None:
    inputs, weights = draw(), torch.zeros(3, requires_grad=True)
    y = ops.normalized_sum(inputs, weights)
    assert y.shape == inputs[0].shape
    assert not y.any()
    for gradient in torch.autograd.grad(y.sum(), [*inputs, weights]):
        assert not gradient.any()


@pytest.mark.parametrize("shape", [(8, 16, 9, 9), (8, 5, 33), (300, 7)], ids=str)
@pytest.mark.parametrize("distance", [100.0, 1000.0])
def test_large_means_cost_no_accuracy(shape: tuple[int, ...], distance: float) -> None:
    spec = DIFFERENTIABLE["normalized_sum"]
    for layout in ("contiguous", "channels_last"):
        check_against_definition(
            spec, far_from_zero(shape, distance), torch.float32, layout, tolerance=distance * 2e-7
        )


@pytest.mark.parametrize(
    "shape", [(1, 1, 2, 1), (2, 3, 1, 1), (5, 33, 33, 1), (64, 65), (2, 200, 7, 7)], ids=str
)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_shapes(shape: tuple[int, ...], layout: str) -> None:
    spec = DIFFERENTIABLE["normalized_sum"]
    check_against_definition(spec, far_from_zero(shape, 0.0), torch.float64, layout)


def test_64_inputs() -> None:
    inputs, weights = draw((3, 5, 2, 2), 64, torch.float64), torch.randn(64, dtype=torch.float64)
    normalized = [k % 3 != 0 for k in range(63)] + [True]  # the sign bit of the mask
    expected = ops.normalized_sum_reference(inputs, weights, normalized=normalized)
    torch.testing.assert_close(ops.normalized_sum(inputs, weights, normalized=normalized), expected)


def test_memory_format_is_that_of_the_first_input() -> None:
    inputs, weights = draw(), torch.ones(3)
    last = [z.detach().to(memory_format=torch.channels_last).requires_grad_() for z in inputs]
    mixed = [last[0], inputs[1], last[2]]
    y = ops.normalized_sum(mixed, weights)
    assert y.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(y, ops.normalized_sum(inputs, weights))
    assert ops.normalized_sum(inputs, weights).is_contiguous()
    gradients = torch.autograd.grad(y.square().sum(), mixed)
    assert all(g.is_contiguous(memory_format=torch.channels_last) for g in gradients)


def test_autocast_takes_the_widest_dtype() -> None:
    inputs, weights = draw(count=2), torch.ones(2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        same = ops.normalized_sum([z.bfloat16() for z in inputs], weights)
        mixed = ops.normalized_sum([inputs[0], inputs[1].bfloat16()], weights)
    assert same.dtype == torch.bfloat16
    assert mixed.dtype == torch.float32
    with pytest.raises(TypeError, match=re.escape("inputs[1]: expected the dtype of inputs[0]")):
        ops.normalized_sum([inputs[0], inputs[1].bfloat16()], weights)


def test_running_statistics_of_another_dtype() -> None:
    inputs, weights = draw(count=1), torch.ones(1)
    narrow = (torch.zeros(6, dtype=torch.bfloat16), torch.ones(6, dtype=torch.bfloat16))
    wide = (torch.zeros(6), torch.ones(6))
    ops.normalized_sum(inputs, weights, running=[narrow])
    ops.normalized_sum(inputs, weights, running=[wide])
    torch.testing.assert_close(narrow[0].float(), wide[0], rtol=1e-2, atol=1e-3)
    torch.testing.assert_close(narrow[1].float(), wide[1], rtol=1e-2, atol=1e-3)


@pytest.mark.slow
def test_a_hundred_architectures_compile_once() -> None:
    inputs = draw()
    running, expected_running = ([(torch.zeros(6), torch.ones(6)) for _ in range(3)] for _ in range(2))
    frames = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")

    def mix(zs: list[Tensor], weights: Tensor, buffers: list[tuple[Tensor, Tensor]]) -> Tensor:
        return ops.normalized_sum(zs, weights, normalized=[True, True, False], running=buffers)

    compiled = torch.compile(mix, fullgraph=True, backend=frames)
    generator = torch.Generator().manual_seed(1)
    for step in range(100):
        weights = torch.softmax(torch.randn(3, generator=generator), 0)
        if step % 2:  # one path, several, none
            weights = weights * (torch.rand(3, generator=generator) < 0.4)
        weights.requires_grad_()
        results = []
        for function, buffers in ((compiled, running), (mix, expected_running)):
            y = function(inputs, weights, buffers)
            results.append([y, *torch.autograd.grad(y.square().sum(), [*inputs, weights])])
        assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    assert frames.frame_count == 1
    for (mean, var), (other_mean, other_var) in zip(running, expected_running, strict=True):
        assert torch.equal(mean, other_mean)
        assert torch.equal(var, other_var)


def test_only_the_inputs_are_kept_for_backward() -> None:
    inputs, weights = draw((16, 8, 9, 9)), torch.ones(3, requires_grad=True)
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        ops.normalized_sum(inputs, weights)
    of_inputs = sum(z.untyped_storage().nbytes() for z in inputs)
    assert sum(kept.values()) <= of_inputs + 1024


def call(**changes: Any) -> Callable[[], Tensor]:
    inputs, weights = changes.pop("inputs", draw()), changes.pop("weights", torch.ones(3))
    return lambda: ops.normalized_sum(inputs, weights, **changes)


@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        (
            call(weights=torch.ones(2)),
            ValueError,
            "weights: expected [3] on cpu, one for each input, got [2]",
        ),
        (call(weights=torch.ones(3, 1)), ValueError, "weights: expected [3]"),
        (call(weights=torch.ones(3, dtype=torch.int64)), TypeError, "weights: expected float32"),
        (
            call(weights=torch.tensor([1.0, float("nan"), 0.0])),
            ValueError,
            "weights: expected numbers, got NaN at 1",
        ),
        (call(weights=torch.ones(3, device="meta")), ValueError, "weights: expected [3] on cpu"),
        (call(inputs=[]), ValueError, "inputs: expected 1 to 64 tensors, got 0"),
        (
            call(inputs=[torch.ones(2, 3)] * 65, weights=torch.ones(65)),
            ValueError,
            "inputs: expected 1 to 64",
        ),
        (call(inputs=[torch.ones(4, 3, dtype=torch.int32)] * 3), TypeError, "inputs[0]: expected float32"),
        (call(inputs=[torch.ones(4)] * 3), ValueError, "inputs[0]: expected [N, C, ...]"),
        (
            call(inputs=[torch.ones(4, 3), torch.ones(4, 2), torch.ones(4, 3)]),
            ValueError,
            "inputs[1]: expected",
        ),
        (
            call(inputs=[torch.ones(1, 3, 1, 1)] * 3),
            ValueError,
            "Expected more than 1 value per channel when training",
        ),
        (call(normalized=[True]), ValueError, "normalized: expected 3 entries, one for each input, got 1"),
        (call(gamma=[torch.ones(5), None, None]), ValueError, "gamma[0]: expected [6] on cpu"),
        (call(beta=[None, None, torch.ones(7)]), ValueError, "beta[2]: expected [6] on cpu"),
        (
            call(running=[(torch.ones(6), torch.ones(5)), None, None]),
            ValueError,
            "running[0]: expected [6] on cpu",
        ),
        (
            call(running=[(torch.ones(6), torch.ones(6)), None, None], training=False),
            ValueError,
            "running: expected (mean, var) for every normalised input in evaluation, or for none, got",
        ),
    ],
)
def test_errors_name_the_argument(
    function: Callable[[], Tensor], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=re.escape(message)):
        function()
