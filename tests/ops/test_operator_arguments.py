"""What the fuzzer and others found: each wrong argument of a compiled operator has its exception."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, randn

from pynas import _C, ops

CORE = torch.ops.pynas


def image(*shape: int) -> Tensor:
    return randn(shape).to(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("kernel", "options"),
    [
        (3, {"stride": []}),
        (3, {"stride": ()}),
        ((3,), {"stride": (2,)}),
        ([2, 3], {"stride": [2], "padding": (1,)}),
        ((3,), {"padding": [1]}),
        (np.int64(3), {"stride": np.array([2, 1]), "padding": (np.int32(1), 0)}),
    ],
)
def test_windows_as_torch_takes_them(kernel: Any, options: dict[str, Any]) -> None:
    x = image(1, 8, 6, 7)
    plain = {name: np.array(value).tolist() for name, value in options.items()}
    expected = F.avg_pool2d(x, np.array(kernel).tolist(), **plain)
    torch.testing.assert_close(ops.avg_pool2d(x, kernel, **options), expected)
    torch.testing.assert_close(ops.avg_pool2d_reference(x, kernel, **options), expected)
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(
        F.avg_pool2d(leaf, np.array(kernel).tolist(), **plain), leaf, torch.ones_like(expected)
    )
    found = ops.avg_pool2d_backward(torch.ones_like(expected), x, kernel, **options)
    torch.testing.assert_close(found, gradient)


@pytest.mark.parametrize(
    ("kernel", "options", "error", "message"),
    [
        ((), {}, ValueError, r"kernel_size: expected an int or two ints .*, got \(\)"),
        (3, {"padding": ()}, ValueError, r"padding: expected an int or two ints .*, got \(\)"),
        ((3, 3, 3), {}, ValueError, "kernel_size: expected an int or two"),
        (2.5, {}, TypeError, "kernel_size: expected an int or two ints .*, got 2.5"),
        ((2, 2.5), {}, TypeError, "kernel_size: expected an int or two"),
        (3, {"stride": 0}, ValueError, r"stride: expected two integers from 1 to 2147483647, got \(0, 0\)"),
        (
            3,
            {"padding": -1},
            ValueError,
            r"padding: expected two integers from 0 to 2147483647, got \(-1, -1\)",
        ),
        (2**40, {}, ValueError, "kernel_size: expected two integers from 1 to 2147483647"),
        (3, {"stride": 2**62}, ValueError, "stride: expected two integers from 1 to 2147483647"),
    ],
)
def test_windows_that_are_none(
    kernel: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    x = image(1, 8, 6, 6)
    with pytest.raises(error, match=f"avg_pool2d: {message}"):
        ops.avg_pool2d(x, kernel, **options)
    with pytest.raises(error, match=f"avg_pool2d_backward: {message}"):
        ops.avg_pool2d_backward(x, x, kernel, **options)


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("values", [[], [1, 1, 1], [-1, 1]])
def test_windows_of_the_compiled_operator(device: str, place: int, values: list[int]) -> None:
    x = image(1, 8, 6, 6).to(device)
    window = [[3, 3], [1, 1], [1, 1]]
    window[place] = values
    with pytest.raises(ValueError, match=r"avg_pool2d: (kernel_size|stride|padding): expected"):
        CORE.avg_pool2d(x, *window, True)


def test_agreement_stays_within_64_bits() -> None:
    x = randn(3, 130)
    for times in (2**62, 2**63 - 1, -1, -(2**63)):
        agreement = torch.zeros(3, 3, dtype=torch.int64)
        with pytest.raises(ValueError, match=rf"times: expected 0 to {(2**63 - 1) // 130}, got {times}"):
            ops.code_agreement_update(x, agreement, times)
        assert not agreement.any()
    full = torch.full((3, 3), 2**63 - 200)
    ops.code_agreement_update(x, full)
    with pytest.raises(ValueError, match=r"agreement: expected sums that stay below 2\^63"):
        ops.code_agreement_update(x, full)
    with pytest.raises(ValueError, match="agreement: expected memory of its own"):
        CORE.code_agreement(full, 180, full)
    most = (2**63 - 1) // 130
    agreement = torch.zeros(3, 3, dtype=torch.int64)
    ops.code_agreement_update(x, agreement, most)
    assert agreement.diagonal().tolist() == [130 * most] * 3


def tracking(**changed: Any) -> None:
    arguments = {
        "running": [torch.zeros(4) for _ in range(4)],
        "counts": [torch.zeros((), dtype=torch.int64) for _ in range(2)],
        "statistics": randn(2, 3, 4),
        "weights": torch.ones(3),
        "owners": [0, 2],
        "momentum": 0.1,
        "values": 9,
    }
    CORE.track_statistics(**{**arguments, **changed})


SHARED = torch.zeros(4)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"owners": [0, 3]}, "owners: expected positions among the 3 weights, got 3"),
        ({"owners": [-1, 0]}, "owners: expected positions among the 3 weights, got -1"),
        ({"owners": [0, 2**62]}, "owners: expected positions"),
        ({"owners": [0]}, "running: expected mean and variance of 1"),
        ({"statistics": randn(2, 2, 4)}, "statistics: expected"),
        ({"statistics": randn(2, 3, 4).half()}, "statistics: expected float32 or float64"),
        ({"weights": torch.ones(())}, "weights: expected a floating vector"),
        ({"weights": torch.ones(0)}, "owners: expected positions among the 0"),
        ({"values": -1}, "values: expected"),
        ({"running": [SHARED, SHARED, torch.zeros(4), torch.zeros(4)]}, "memory of its own"),
        ({"running": [torch.zeros(1).expand(4) for _ in range(4)]}, "expected memory for each element"),
        ({"counts": [torch.full((), 2**63 - 1)] * 2}, "memory of its own"),
        ({"counts": [torch.full((), 2**63 - 1), torch.zeros((), dtype=torch.int64)]}, "a number of batches"),
        ({"running": [torch.zeros(4, requires_grad=True), *[torch.zeros(4)] * 3]}, "without gradient"),
    ],
)
def test_track_statistics(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tracking(**changed)


def edge(backward: bool, **changed: Any) -> Any:
    names, x = ["sep_conv_3x3", "max_pool_3x3"], image(2, 4, 5, 5)
    parameters = [randn(shape) for _, shape in ops.mixed_op_parameters(names, 4, family="darts")]
    call = {
        "x": x,
        "weights": torch.tensor([0.5, 0.5]),
        "parameters": parameters,
        "running": [],
        "candidates": [4, 1],
        "family": 0,
        "stride": 1,
        "affine": False,
        "training": True,
        "eps": 1e-5,
        "save": 1,
    }
    if not backward:
        return CORE.mixed_op(**{**call, **changed})
    _, statistics, saved = CORE.mixed_op(**call)
    more = {"grad_output": x, "statistics": statistics, "saved": saved}
    wanted = {"needs_x": True, "needs_weights": True, "needs_parameters": True}
    return CORE.mixed_op_backward(**{**call, **more, **wanted, **changed})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"statistics": torch.zeros(1, 3, 4)}, r"statistics: expected .*\[3, 3, 4\], got Float \[1, 3, 4\]"),
        ({"statistics": torch.zeros(3, 3, 4).double()}, "statistics: expected"),
        ({"saved": []}, "saved: expected 3 tensors, got 0"),
        ({"saved": [torch.zeros(49, 4)] * 3}, r"saved\[0\]: expected"),
        ({"saved": [torch.zeros(50, 3)] * 3}, r"saved\[0\]: expected"),
        ({"saved": [torch.zeros(50, 4).double()] * 3}, r"saved\[0\]: expected"),
        ({"grad_output": randn(2, 4, 5, 4)}, "grad_output: expected"),
        ({"candidates": [1] * 70}, "candidates: expected at most 64, got 70"),
        ({"save": 2**62}, "save: expected 0, 1 or 2"),
    ],
)
def test_mixed_op_backward(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        edge(True, **changed)


def test_mixed_op_backward_computes_again_what_is_not_saved() -> None:
    torch.manual_seed(0)
    whole = edge(True)
    torch.manual_seed(0)
    again = edge(True, saved=[torch.zeros(0, 4)] * 3)
    for found, expected in zip((*again[:2], *again[2]), (*whole[:2], *whole[2]), strict=True):
        torch.testing.assert_close(found, expected)


def test_mixed_op_of_meta_tensors_keeps_no_countless_slots() -> None:
    with pytest.raises(ValueError, match="save: expected 0, 1 or 2"):
        edge(False, x=torch.zeros(2, 4, 5, 5, device="meta"), parameters=[], save=2**62)


def sums(**changed: Any) -> Any:
    call = {
        "inputs": [randn(3, 4) for _ in range(2)],
        "weights": torch.ones(2),
        "normalized": 3,
        "gamma": [torch.ones(4)],
        "gamma_of": 2,
        "beta": [],
        "beta_of": 0,
        "running_mean": [],
        "running_var": [],
        "batch_statistics": True,
        "eps": 1e-5,
    }
    return CORE.normalized_sum(**{**call, **changed})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"gamma_of": 3}, "gamma: expected a bit of its mask for each of the 1 tensors, got the mask 3"),
        ({"gamma_of": 0}, "gamma: expected a bit"),
        ({"gamma_of": 4}, "gamma: expected a mask of the 2 inputs, got 4"),
        ({"beta_of": 1}, "beta: expected a bit"),
        ({"normalized": -1}, "normalized: expected a mask of the 2 inputs"),
        ({"inputs": [randn(3, 4)] * 70}, "inputs: expected at most 64, got 70"),
        ({"inputs": []}, "expected a mask of the 0 inputs"),
        ({"running_mean": [torch.ones(4)], "batch_statistics": False}, "running_mean: expected a bit"),
        ({"weights": torch.ones(2).to(torch.float8_e4m3fn)}, "weights: expected 2 floating values"),
    ],
)
def test_normalized_sum(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sums(**changed)


def update(**changed: Any) -> None:
    call = {
        "running_mean": [torch.zeros(4)],
        "running_var": [torch.ones(4)],
        "weights": torch.ones(2),
        "mean": randn(2, 4),
        "var": randn(2, 4).abs(),
        "which": 2,
        "momentum": 0.1,
        "values": 9,
    }
    CORE.normalized_sum_update_running(**{**call, **changed})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"mean": randn(4)}, "mean: expected float32 or float64"),
        ({"mean": randn(2, 4).long()}, "mean: expected float32 or float64"),
        ({"mean": randn(900, 4), "var": randn(900, 4), "which": 2**62}, "of at most 64 inputs"),
        ({"var": randn(1, 4)}, "var: expected"),
        ({"var": randn(2, 4).double()}, "var: expected"),
        ({"weights": torch.ones(1)}, "weights: expected 2 floating values"),
        ({"which": 3}, "running: expected 2 means and variances, got 1 and 1"),
        ({"which": 4}, "which: expected a mask of the 2 inputs"),
        ({"values": -1}, "values: expected"),
        ({"running_mean": [SHARED], "running_var": [SHARED]}, "memory of its own"),
        ({"running_mean": [torch.zeros(1).expand(4)]}, "expected memory for each element"),
    ],
)
def test_normalized_sum_update_running(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        update(**changed)


def test_updates_are_known_to_autograd() -> None:
    """A backward pass that saved what an operator updates refuses to use it."""
    mean, factor = torch.ones(3), torch.ones(3, requires_grad=True)
    y = (mean * factor).sum()
    ops.moments_update(randn(3), mean, torch.zeros(3), torch.zeros(3), 1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()


@pytest.mark.parametrize("place", [1, 2, 3])
def test_updated_tensors_have_memory_of_their_own(place: int) -> None:
    states = [randn(6)[:3], *(torch.zeros(3) for _ in range(3))]
    states[place] = states[place - 1].as_strided((3,), (1,), 0)
    with pytest.raises(ValueError, match="expected memory of its own"):
        CORE.moments_update(*states, 1)


@pytest.mark.parametrize("place", range(4))
def test_updates_refuse_lazily_negated_tensors(place: int) -> None:
    """Torch's own resolution of them reads beyond the results of an operator that has none."""
    states = [torch.ones(3) for _ in range(4)]
    states[place] = torch._neg_view(torch.ones(3))
    with pytest.raises(ValueError, match="expected numbers as they lie in memory"):
        CORE.moments_update(*states, 1)
    with pytest.raises(ValueError, match="agreement: expected numbers as they lie in memory"):
        CORE.code_agreement_update(randn(2, 3), torch._neg_view(torch.zeros(2, 2, dtype=torch.int64)))
    gradient = torch._neg_view(torch.tensor([[1.0, -2.0]]))
    assert CORE.activation_codes(gradient).tolist() == [[2]]  # others are given what it stands for


def test_tensors_without_memory_or_on_another_device() -> None:
    freed = image(2, 4, 5, 5)
    freed.untyped_storage().resize_(16)
    with pytest.raises(ValueError, match=r"pool3x3: x: expected memory behind the shape \(2, 4, 5, 5\)"):
        CORE.pool3x3(freed, 1, None)
    with pytest.raises(ValueError, match=r"activation_codes: x: expected at most 2\^40 elements"):
        CORE.activation_codes(torch.empty(0, 2**41))
    meta = torch.zeros(3, device="meta")
    for place, name in enumerate(("mean", "abs_mean", "m2"), start=1):
        states = [torch.zeros(3) for _ in range(4)]
        states[place] = meta
        message = (
            rf"moments_update: {name}: expected the device of grad, cpu, got meta; move it with {name}\.to"
        )
        with pytest.raises(ValueError, match=message):
            CORE.moments_update(*states, 1)


def test_empty_batches_beside_many_channels() -> None:
    """Sizes that no memory could hold, of tensors without elements."""
    x = torch.empty(0, 2**30, 1, 1).to(memory_format=torch.channels_last)
    with pytest.raises(ValueError, match="input: expected at least one value per channel"):
        CORE.batch_norm(x, None, None, 1e-5)
    wide = torch.empty(2, 0, 2**31, 7)
    small = torch.empty(2, 0, 2**30, 4)
    assert CORE.avg_pool2d_backward(small, wide, [3, 3], [2, 2], [1, 1], True).shape == wide.shape
    assert CORE.linear_grad_norms(torch.empty(2, 0, 2**18), torch.empty(2, 0, 2**18), 1, True).tolist() == [
        0,
        0,
    ]
    with pytest.raises(ValueError, match="weight: expected fewer than 2"):
        CORE.linear_grad_norms(torch.empty(2, 0, 2**38), torch.empty(2, 0, 2**38), 1, True)


def test_bias_gradients_where_the_input_is_empty() -> None:
    grad = randn(4, 3, 5)
    _, bias = CORE.linear_grad_moments(grad, torch.empty(4, 3, 0), 1, 1, True)
    torch.testing.assert_close(bias[0], grad.sum((0, 1)))


@pytest.mark.parametrize("last", [2**63 - 2, 2**62])
def test_rows_of_embeddings_up_to_the_last(last: int) -> None:
    delta, indices = randn(1, 2, 3), torch.tensor([[0, last]])
    rows, values = CORE.embedding_grad_moments(delta, indices, last + 1, None, 1, 1)
    assert rows.tolist() == [0, last]
    assert values.shape == (1, 2, 3)
    with pytest.raises(
        ValueError, match=f"indices: expected rows 0 to {last - 1}, got {last}; num_embeddings"
    ):
        CORE.embedding_grad_moments(delta, indices, last, None, 1, 1)
    for op in (CORE.embedding_grad_norms, CORE.embedding_grad_gram):  # these number rows and groups together
        with pytest.raises(ValueError, match=r"num_embeddings: expected at most 2\^62 rows in all 1 sample"):
            op(delta, indices, last + 1, None, 1)


def test_columns_of_an_activation_once() -> None:
    states, products, weights = randn(2, 3, 4), randn(2, 3, 8), randn(2, 5)
    with pytest.raises(ValueError, match="columns: expected each column once"):
        CORE.mixed_activation(states, products, weights, [1, 1, 2, -1], 0, None, None, 1e-5)


# ---- functions that are no operators -------------------------------------------------------------

VALID = 0b000001 << 10 + 15  # the input alone feeds the output


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: _C.multiply_adds(2**62), ValueError),
        (lambda: _C.multiply_adds(-1), ValueError),
        (lambda: _C.read_memory(np.zeros((4, 4), np.float32)[:, ::2]), TypeError),
        (lambda: _C.read_memory(np.zeros(4)), TypeError),
        (lambda: _C.read_memory(12345), TypeError),
        (lambda: _C.nasbench101_hash(np.array([-1])), TypeError),
        (lambda: _C.nasbench101_hash(np.array([0.5])), TypeError),
        (lambda: _C.nasbench101_hash(np.array([[VALID]], np.uint32)), ValueError),
        (lambda: _C.nasbench101_hash(np.array([VALID, 2**31], np.uint32)), ValueError),
        (lambda: _C.nasbench101_hash(np.array([VALID | 3], np.uint32)), ValueError),
        (lambda: _C.nasbench101_prune(VALID | 3), ValueError),
        (lambda: _C.nasbench101_prune(-1), TypeError),
        (lambda: _C.nasbench101_prune(2**40), TypeError),
        (lambda: _C.nasbench101_channels(VALID, 0, 1), ValueError),
        (lambda: _C.nasbench101_cost(VALID, 1, 2**62), ValueError),
        (lambda: _C.nasbench101_cost(VALID, -5, 8), ValueError),
        (lambda: _C.nasbench101_canonical(VALID, [(2**40, 8, 1)]), ValueError),
        (lambda: _C.nasbench101_canonical(VALID, [(8, 8, 2**62)]), ValueError),
        (lambda: _C.nasbench101_canonical(VALID, [(8, 8, -1)]), ValueError),
        (lambda: _C.nasbench101_canonical(VALID, [(8, 8)]), TypeError),
        (lambda: _C.nasbench101_unique([(2**20, 2**20, 2**40)]), ValueError),
        (lambda: _C.md5([1]), TypeError),
    ],
)
def test_functions_of_cells_and_machines(call: Callable[[], Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        call()


def test_what_is_no_code_is_no_valid_cell() -> None:
    assert _C.nasbench101_is_valid(VALID)
    assert not _C.nasbench101_is_valid(VALID | 3)
    assert not _C.nasbench101_is_valid(VALID | 1 << 31)
    every_other = np.array([VALID, 0, VALID, 0], np.uint32)[::2]
    assert _C.nasbench101_hash(every_other).tolist() == _C.nasbench101_hash(every_other.copy()).tolist()
    assert _C.read_memory(np.ones(100_000, np.float32)) > 300_000
