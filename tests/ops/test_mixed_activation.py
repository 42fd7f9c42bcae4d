from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch._dynamo.testing
from torch import Tensor

import pynas._C
from pynas.ops.mixed_activation import ACTIVATIONS, mixed_activation, mixed_activation_reference

SIZES = [(1, 1, 1), (2, 3, 5), (3, 2, 16), (4, 17, 33), (8, 65, 129), (5, 300, 64), (2, 5, 300)]
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2}
SETTINGS = {
    "plain": {},
    "batch": {"normalized": True},
    "given": {"normalized": True, "training": False},
}


def inputs(
    sizes: tuple[int, int, int], dtype: torch.dtype = torch.float32, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    predecessors, batch, features = sizes
    states = torch.randn(predecessors, batch, features, generator=generator)
    products = 2 * torch.randn(predecessors, batch, 2 * features, generator=generator)
    weights = torch.randn(predecessors, len(ACTIVATIONS), generator=generator).softmax(-1)
    return states.to(dtype), products.to(dtype), weights.double() if dtype == torch.float64 else weights


def running(features: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(9)
    mean = torch.randn(features, generator=generator)
    return mean.to(dtype), (torch.rand(features, generator=generator) + 0.5).to(dtype)


def with_gradients(
    function: Callable[..., Tensor], tensors: tuple[Tensor, ...], seed: int = 1, **options: Any
) -> list[Tensor]:
    """The result, and the gradients of a random linear function of it."""
    tensors = tuple(tensor.detach().clone().requires_grad_() for tensor in tensors)
    y = function(*tensors, **options)
    cotangent = torch.randn(y.shape, generator=torch.Generator().manual_seed(seed)).to(y.dtype)
    return [y.detach(), *torch.autograd.grad(y, tensors, cotangent)]


def compare(got: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    for name, actual, wanted in zip(("y", "states", "products", "weights"), got, expected, strict=True):
        scale = max(1.0, float(wanted.abs().max()))
        error = float((actual.double() - wanted.double()).abs().max()) / scale
        assert error <= tolerance, f"{name}: off by {error:.1e}, allowed {tolerance:.0e}"


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_matches_float64(sizes: tuple[int, int, int], dtype: torch.dtype, setting: str) -> None:
    options = SETTINGS[setting]
    if setting == "batch" and sizes[1] < 3:
        pytest.skip("two rows normalise to plus and minus one whatever they are: everything cancels")
    tensors = inputs(sizes, dtype)
    own, exact = running(sizes[2]), running(sizes[2], torch.float64)
    normalized = "normalized" in options
    got = with_gradients(mixed_activation, tensors, running=own if normalized else None, **options)
    expected = with_gradients(
        mixed_activation_reference,
        tuple(tensor.double() for tensor in tensors),
        running=exact if normalized else None,
        **options,
    )
    assert [tensor.dtype for tensor in got] == [dtype, dtype, dtype, tensors[2].dtype]
    # Few rows amplify rounding where they nearly agree.
    compare(got, expected, TOLERANCE[dtype] * (20 if setting == "batch" and sizes[1] < 10 else 1))
    for actual, wanted in zip(own, exact, strict=True):
        assert torch.allclose(actual.double(), wanted, rtol=1e-2 if dtype == torch.bfloat16 else 1e-6)


def test_definition_by_hand() -> None:
    """One number, written out: s_0 = 1, c = 0.5, h = -2, s_1 = 3, c = -1, h = 0.25."""
    states = torch.tensor([[[1.0]], [[3.0]]], dtype=torch.float64)
    products = torch.tensor([[[0.5, -2.0]], [[-1.0, 0.25]]], dtype=torch.float64)
    weights = torch.tensor([[0.1, 0.2, 0.3, 0.15, 0.25], [0.5, 0.05, 0.1, 0.2, 0.15]], dtype=torch.float64)
    expected = 0.0
    for s, (c, h), (_, *w) in zip((1.0, 3.0), ((0.5, -2.0), (-1.0, 0.25)), weights.tolist(), strict=True):
        for weight, f in zip(w, (np.tanh(h), max(h, 0.0), 1 / (1 + np.exp(-h)), h), strict=True):
            expected += weight * (s + (f - s) / (1 + np.exp(-c)))
    assert mixed_activation(states, products, weights).item() == pytest.approx(expected, rel=1e-14)


def ulps(got: Tensor, exact: np.ndarray[Any, Any]) -> float:
    """The largest error in units in the last place of the exact value."""
    spacing = np.spacing(np.abs(exact).astype(got.numpy().dtype)).astype(np.longdouble)
    return float(np.max(np.abs(got.numpy().astype(np.longdouble) - exact) / spacing))


@pytest.mark.every_isa
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", ["tanh", "sigmoid"])
def test_activations_within_a_few_ulp(name: str, dtype: torch.dtype) -> None:
    """An open gate (sigmoid(c) = 1) passes f(h) itself; from tiny to large arguments of both signs."""
    sizes = torch.cat([torch.logspace(-20, -1, 20_000), torch.linspace(0.1, 80, 60_000)]).to(dtype)
    h = torch.cat([sizes, -sizes])
    products = torch.cat([torch.full_like(h, 200.0), h]).view(1, 1, -1)
    one = torch.ones(1, 1, dtype=dtype)
    got = mixed_activation(torch.zeros(1, 1, h.numel(), dtype=dtype), products, one, [name])[0]
    exact = h.numpy().astype(np.longdouble)
    exact = np.tanh(exact) if name == "tanh" else 1 / (1 + np.exp(-exact))
    assert ulps(got, exact) < 6


@pytest.mark.every_isa
def test_extreme_arguments() -> None:
    infinity = float("inf")
    h = torch.tensor([0.0, -0.0, 1e-40, 100.0, -100.0, 1e30, -1e30, infinity, -infinity, float("nan")])
    for c, gate in ((1e30, 1.0), (-1e30, 0.0), (infinity, 1.0), (-infinity, 0.0)):
        products = torch.cat([torch.full_like(h, c), h]).view(1, 1, -1)
        states = torch.full((1, 1, h.numel()), 3.0)
        for name, function in (("tanh", torch.tanh), ("sigmoid", torch.sigmoid)):
            y = mixed_activation(states, products, torch.ones(1, 1), [name])[0]
            wanted = torch.where(h.isnan(), h, function(h) if gate else torch.full_like(h, 3.0))
            torch.testing.assert_close(y, wanted, equal_nan=True)


def test_nan_stays_where_it_is() -> None:
    states, products, weights = inputs((3, 6, 40))
    products[1, 2, 45] = float("nan")
    y = mixed_activation(states, products, weights)
    bad = torch.zeros_like(y, dtype=torch.bool)
    bad[2, 5] = True
    assert torch.equal(y.isnan(), bad)


@pytest.mark.parametrize("sizes", [(3, 7, 5), (3, 7, 40)], ids=str)
def test_a_zero_weight_is_not_evaluated(sizes: tuple[int, int, int]) -> None:
    """Infinite products behind weights of zero change nothing, and the weights' gradients are zero."""
    states, products, weights = inputs(sizes)
    weights[0, 1:] = 0  # a whole predecessor
    weights[1, 2] = weights[1, 4] = 0  # relu and identity of another
    features = sizes[2]
    products[0] = float("inf")
    products[1, :, features:] = float("-inf")
    got = with_gradients(mixed_activation, (states, products, weights))
    assert all(tensor.isfinite().all() for tensor in got)
    assert not got[1][0].any()
    assert not got[2][0].any()
    assert not got[3][0].any()
    assert not got[3][:, 0].any()
    assert not got[3][1, [2, 4]].any()
    assert got[3][1, 1] != 0


def test_all_zero_weights() -> None:
    states, products, _ = inputs((2, 9, 33))
    for normalized in (False, True):
        got = with_gradients(mixed_activation, (states, products, torch.zeros(2, 5)), normalized=normalized)
        assert got[0].shape == (9, 33)
        assert not any(tensor.any() for tensor in got)


def test_activations_in_any_order_and_number() -> None:
    states, products, weights = inputs((3, 5, 20))
    full = mixed_activation(states, products, weights)
    order = ["identity", "none", "relu", "tanh", "sigmoid"]
    columns = [ACTIVATIONS.index(name) for name in order]
    assert torch.equal(mixed_activation(states, products, weights[:, columns], order), full)
    few = torch.zeros_like(weights)
    few[:, [2, 1]] = weights[:, [2, 1]]
    two = mixed_activation(states, products, weights[:, [2, 1]], ("relu", "tanh"))
    assert torch.equal(two, mixed_activation(states, products, few))


@pytest.mark.parametrize("training", [True, False])
def test_normalized_as_batch_norm_1d(training: bool) -> None:
    states, products, weights = inputs((3, 21, 50))
    norm = torch.nn.BatchNorm1d(50, affine=False, momentum=0.3).train(training)
    norm.running_mean, norm.running_var = (tensor.clone() for tensor in running(50))
    own = tuple(tensor.clone() for tensor in running(50))
    for seed in range(3):
        states, products, weights = inputs((3, 21, 50), seed=seed)
        expected = norm(mixed_activation(states, products, weights))
        got = mixed_activation(
            states, products, weights, normalized=True, running=own, training=training, momentum=0.3
        )
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(own[0], norm.running_mean)
        torch.testing.assert_close(own[1], norm.running_var)


def test_variance_is_right_far_from_zero() -> None:
    states, products, _ = inputs((1, 300, 20))
    weights = torch.tensor([[1.0]])
    y = mixed_activation(states + 1000, products, weights, ["identity"], normalized=True)
    exact = mixed_activation_reference(
        (states + 1000).double(), products.double(), weights, ["identity"], normalized=True
    )
    torch.testing.assert_close(y.double(), exact, rtol=1e-3, atol=1e-3)


def test_layouts() -> None:
    states, products, weights = inputs((3, 6, 34))
    expected = with_gradients(mixed_activation, (states, products, weights))
    strided = torch.empty(3, 34, 6).transpose(1, 2).copy_(states)
    gaps = torch.full((3, 6, 140), float("nan"))[..., 2:138:2].copy_(products)
    got = with_gradients(mixed_activation, (strided, gaps, weights.t().contiguous().t()))
    for actual, wanted in zip(got, expected, strict=True):
        assert torch.equal(actual, wanted)


@pytest.mark.parametrize("setting", ["plain", "batch"])
def test_same_bits_twice_and_with_any_number_of_threads(setting: str) -> None:
    tensors, before = inputs((6, 130, 77)), torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 2):
            torch.set_num_threads(threads)
            results.append(with_gradients(mixed_activation, tensors, **SETTINGS[setting]))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def smooth_inputs() -> tuple[Tensor, ...]:
    """No product of h near relu's corner."""
    states, products, weights = inputs((2, 4, 3), torch.float64)
    products = torch.where(products.abs() < 0.1, products + 0.3, products)
    return tuple(tensor.requires_grad_() for tensor in (states, products, weights))


@pytest.mark.slow
@pytest.mark.parametrize("setting", SETTINGS)
def test_gradients_of_first_and_second_order(setting: str) -> None:
    statistics = running(3, torch.float64) if setting == "given" else None

    def function(*tensors: Tensor) -> Tensor:
        return mixed_activation(*tensors, running=statistics, **SETTINGS[setting])  # type: ignore[arg-type]

    assert torch.autograd.gradcheck(function, smooth_inputs())
    assert torch.autograd.gradgradcheck(function, smooth_inputs())


def test_gradients_of_gradients_pass_through_the_states() -> None:
    """As GraSP needs it: the gradient of a gradient's norm."""

    def norm_of_gradient(function: Callable[..., Tensor]) -> tuple[Tensor, ...]:
        tensors = smooth_inputs()
        loss = function(*tensors, normalized=True).pow(3).sum()
        norm = sum(g.square().sum() for g in torch.autograd.grad(loss, tensors, create_graph=True))
        return torch.autograd.grad(norm, tensors)  # type: ignore[arg-type]

    got, expected = norm_of_gradient(mixed_activation), norm_of_gradient(mixed_activation_reference)
    for actual, wanted in zip(got, expected, strict=True):
        torch.testing.assert_close(actual, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("normalized", [False, True])
def test_compiles_once_for_a_hundred_architectures(normalized: bool) -> None:
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    torch._dynamo.reset()
    statistics = [running(24) if normalized else None for _ in range(2)]

    def step(states: Tensor, products: Tensor, weights: Tensor, own: Any) -> Tensor:
        return mixed_activation(states, products, weights, normalized=normalized, running=own).square().sum()

    compiled = torch.compile(step, fullgraph=True, backend=counter)
    generator = torch.Generator().manual_seed(0)
    for number in range(100):
        states, products, weights = (tensor.requires_grad_() for tensor in inputs((3, 6, 24), seed=number))
        with torch.no_grad():  # soft, one-hot, or with whole predecessors at zero
            if number % 3 == 1:
                weights.copy_(torch.eye(5)[torch.randint(5, (3,), generator=generator)])
            elif number % 3 == 2:
                weights[number % 3] = 0
        gradients = [
            torch.autograd.grad(f(states, products, weights, own), (states, products, weights))
            for f, own in zip((compiled, step), statistics, strict=True)
        ]
        for got, expected in zip(*gradients, strict=True):
            assert torch.equal(got, expected)
    assert counter.frame_count == 1
    if normalized:
        assert torch.equal(statistics[0][0], statistics[1][0])  # type: ignore[index]


def test_autocast_promotes() -> None:
    states, products, weights = inputs((2, 5, 20))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = mixed_activation(states, products.bfloat16(), weights.bfloat16())
    assert y.dtype == torch.float32
    expected = mixed_activation(states, products.bfloat16().float(), weights.bfloat16().float())
    assert torch.equal(y, expected)


def test_empty_batch() -> None:
    got = with_gradients(mixed_activation, (torch.empty(2, 0, 7), torch.empty(2, 0, 14), torch.rand(2, 5)))
    assert [tuple(tensor.shape) for tensor in got] == [(0, 7), (2, 0, 7), (2, 0, 14), (2, 5)]
    assert not got[3].any()


def test_meta_tensors_give_shapes() -> None:
    y = mixed_activation(*(tensor.to("meta") for tensor in inputs((3, 6, 20))), normalized=True)
    assert y.is_meta
    assert y.shape == (6, 20)


BAD: dict[str, tuple[type[Exception], str, dict[str, Any]]] = {
    "integers": (TypeError, "states: expected float32", {"states": torch.zeros(2, 4, 3, dtype=torch.int64)}),
    "no tensor": (TypeError, "weights: expected a torch.Tensor", {"weights": [[1.0] * 5] * 2}),
    "dtypes": (
        TypeError,
        "products: expected the dtype of states",
        {"products": torch.zeros(2, 4, 6).double()},
    ),
    "devices": (
        ValueError,
        "products: expected the device of",
        {"products": torch.zeros(2, 4, 6, device="meta")},
    ),
    "two axes": (
        ValueError,
        "states: expected .predecessors, batch, features",
        {"states": torch.zeros(4, 3)},
    ),
    "nobody": (ValueError, "at least one predecessor", {"states": torch.zeros(0, 4, 3)}),
    "features": (
        ValueError,
        r"products: expected .* \(2, 4, 6\), got \(2, 4, 8\)",
        {"products": torch.zeros(2, 4, 8)},
    ),
    "too few weights": (
        ValueError,
        r"weights: expected .* \(2, 5\), got \(2, 4\)",
        {"weights": torch.ones(2, 4)},
    ),
    "NaN": (
        ValueError,
        "weights: expected numbers, got NaN for predecessor 1",
        {"weights": torch.tensor([[1.0] * 5, [float("nan")] * 5])},
    ),
    "unknown": (
        ValueError,
        "activations: expected names out of none, tanh.*'gelu'",
        {"activations": ["gelu"]},
    ),
    "twice": (ValueError, "each once, got 'tanh' twice", {"activations": ["tanh", "tanh"]}),
    "a string": (ValueError, "activations: expected a sequence of names", {"activations": "tanh"}),
    "no statistics": (
        ValueError,
        "running: expected the running mean",
        {"normalized": True, "training": False},
    ),
    "one statistic": (
        ValueError,
        "running: expected .mean, var.",
        {"normalized": True, "running": [torch.zeros(3)]},
    ),
    "statistics' size": (
        ValueError,
        r"running\[1\]: expected 3 values",
        {"normalized": True, "running": [torch.zeros(3), torch.ones(2)]},
    ),
    "spare statistics": (ValueError, "not normalized", {"running": [torch.zeros(3), torch.ones(3)]}),
    "half": (
        TypeError,
        "float16 needs a CUDA device",
        {"states": torch.zeros(2, 4, 3).half(), "products": torch.zeros(2, 4, 6).half()},
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case: str) -> None:
    error, message, wrong = BAD[case]
    right = {"states": torch.zeros(2, 4, 3), "products": torch.zeros(2, 4, 6), "weights": torch.ones(2, 5)}
    with pytest.raises(error, match=message):
        mixed_activation(**{**right, **wrong})


@pytest.mark.parametrize("function", [mixed_activation, mixed_activation_reference])
def test_one_row_cannot_be_normalised_in_training(function: Callable[..., Tensor]) -> None:
    with pytest.raises(ValueError, match="more than 1 value per channel when training"):
        function(torch.zeros(2, 1, 3), torch.zeros(2, 1, 6), torch.ones(2, 5), normalized=True)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.skipif(not pynas._C.has_cuda, reason="pynas was built without its CUDA kernels")
@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("dtype", [*TOLERANCE, torch.float16], ids=str)
def test_on_a_gpu_as_on_the_cpu(dtype: torch.dtype, setting: str) -> None:
    for sizes in SIZES[3:]:
        tensors = tuple(tensor.cuda() for tensor in inputs(sizes, dtype))
        options: dict[str, Any] = dict(SETTINGS[setting])
        exact = dict(options)
        if setting == "given":
            options["running"] = [tensor.cuda() for tensor in running(sizes[2])]
            exact["running"] = running(sizes[2], torch.float64)
        wide = tuple(tensor.cpu().double() for tensor in tensors)
        expected = with_gradients(mixed_activation_reference, wide, **exact)
        tolerance = TOLERANCE.get(dtype, 4e-3) * 20
        got, again = (gpu_gradients(tensors, options) for _ in range(2))
        compare([tensor.cpu() for tensor in got], expected, tolerance)
        assert all(torch.equal(a, b) for a, b in zip(got, again, strict=True))


def gpu_gradients(tensors: tuple[Tensor, ...], options: dict[str, Any]) -> list[Tensor]:
    tensors = tuple(tensor.detach().clone().requires_grad_() for tensor in tensors)
    y = mixed_activation(*tensors, **options)
    cotangent = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y)
    return [y.detach(), *torch.autograd.grad(y, tensors, cotangent)]
