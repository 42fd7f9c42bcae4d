"""Branches of csrc/ops/sample_grad that no suite for any operator knows: layouts, splits, threads, ISAs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from pynas.ops import (
    conv2d_grad_gram,
    conv2d_grad_moments,
    conv2d_grad_norms,
    linear_grad_gram,
    linear_grad_moments,
    linear_grad_norms,
)

pytestmark = pytest.mark.every_isa

ALL = ("sum", "abs", "square", "sign", "centered")
TOLERANCE = {torch.float64: 1e-12, torch.float32: 3e-6, torch.bfloat16: 3e-6, torch.float16: 3e-6}
SPLITS = ("samples", "within", "weights")


class Case(NamedTuple):
    batch: int
    channels: int
    size: tuple[int, int]
    outputs: int
    kernel: tuple[int, int] = (3, 3)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1


CASES = {
    "taps": Case(9, 48, (5, 7), 17),
    "taps-many-blocks": Case(6, 131, (4, 4), 9),
    "taps-one-block": Case(5, 16, (9, 70), 8),
    "taps-stride": Case(4, 33, (9, 8), 24, (3, 2), (2, 3), (1, 0)),
    "taps-dilation": Case(3, 16, (13, 9), 5, (3, 3), (1, 2), (4, 2), (3, 2)),
    "taps-beyond-the-image": Case(3, 16, (2, 2), 8, (3, 3), (1, 1), (3, 4)),
    "one-by-one": Case(7, 32, (6, 5), 16, (1, 1), (1, 1), (0, 0)),
    "stem": Case(5, 3, (11, 67), 16),
    "stem-stride": Case(4, 3, (17, 15), 9, (7, 7), (2, 2), (3, 3)),
    "grouped": Case(6, 20, (6, 6), 30, groups=5),
    "grouped-blocks": Case(4, 64, (5, 5), 16, groups=2),
    "depthwise": Case(8, 37, (7, 9), 37, groups=37),
    "depthwise-direct": Case(8, 32, (8, 8), 32, (5, 5), (1, 1), (2, 2), groups=32),
    "depthwise-multiplier": Case(4, 19, (9, 8), 38, (3, 5), (2, 1), (1, 4), (1, 2), groups=19),
    "one-pixel": Case(64, 40, (1, 1), 23, (1, 1), (1, 1), (0, 0)),
}


@pytest.fixture(params=[1, 2, 3], ids="threads{}".format)
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def operands(case: Case, dtype: torch.dtype = torch.float32, layout: str = "nchw") -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    out = [
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, p, d, k, s in zip(
            case.size, case.padding, case.dilation, case.kernel, case.stride, strict=True
        )
    ]
    result = []
    for shape in ((case.batch, case.outputs, *out), (case.batch, case.channels, *case.size)):
        values = torch.randn(shape, generator=generator).to(dtype)
        if layout == "channels_last":
            values = values.contiguous(memory_format=torch.channels_last)
        if layout == "strided":
            wide = torch.zeros([2 * n for n in shape], dtype=dtype)
            wide[::2, ::2, ::2, ::2] = values
            values = wide[::2, ::2, ::2, ::2]
        result.append(values)
    return result[0], result[1]


def group_gradients(case: Case, grad_output: Tensor, x: Tensor, group_size: int) -> Tensor:
    """[G, weights + biases] in float64, by unfold."""
    patches = functional.unfold(x.double(), case.kernel, case.dilation, case.padding, case.stride)
    batch, groups = case.batch, case.groups
    patches = patches.reshape(batch, groups, -1, patches.shape[-1])
    delta = grad_output.double().flatten(2)
    weight = torch.einsum("bgot,bgct->bgoc", delta.reshape(batch, groups, -1, delta.shape[-1]), patches)
    rows = torch.cat([weight.reshape(batch, -1), delta.sum(2)], 1)
    return rows.reshape(batch // group_size, group_size, -1).sum(1)


def assert_moments(got: dict[str, Tensor], g: Tensor, tolerance: float) -> None:
    certain = (g.abs() > 1e-4 * g.abs().mean()).all(0) | (g == 0).all(0)
    expected = {
        "sum": g.sum(0),
        "abs": g.abs().sum(0),
        "square": g.square().sum(0),
        "centered": (g - g.mean(0)).square().sum(0),
    }
    scale = {"sum": g.abs().sum(0), "abs": g.abs().sum(0)}
    for name, values in got.items():
        if name == "sign":
            assert torch.equal(values.double()[certain], g.sign().sum(0)[certain])
            continue
        error = (values.double() - expected[name]).norm() / scale.get(name, g.square().sum(0)).norm()
        assert error < tolerance, f"{name}: {error}"


def check(case: Case, dtype: torch.dtype = torch.float32, layout: str = "nchw", group_size: int = 1) -> None:
    grad_output, x = operands(case, dtype, layout)
    g = group_gradients(case, grad_output, x, group_size)
    geometry = case.kernel
    options: dict[str, Any] = {
        "stride": case.stride,
        "padding": case.padding,
        "dilation": case.dilation,
        "groups": case.groups,
        "group_size": group_size,
        "bias": True,
    }
    for moments in (ALL, ("sum", "abs", "square", "sign"), ("centered", "abs")):
        result = conv2d_grad_moments(grad_output, x, geometry, moments=moments, **options)
        assert result.bias is not None
        got = {
            name: torch.cat([getattr(result.weight, name).flatten(), getattr(result.bias, name)])
            for name in moments
        }
        assert_moments(got, g, TOLERANCE[dtype])
    norms = conv2d_grad_norms(grad_output, x, geometry, **options)
    torch.testing.assert_close(norms.double(), g.square().sum(1), rtol=1e-5, atol=0)
    gram = conv2d_grad_gram(grad_output, x, geometry, **options).double()
    assert (gram - g @ g.T).norm() < 2 * TOLERANCE[dtype] * (g @ g.T).norm()


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("name", CASES)
def test_every_split_gives_the_definition(
    name: str, split: str, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYNAS_SAMPLE_GRAD_SPLIT", split)
    check(CASES[name])


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("layout", ["nchw", "channels_last", "strided"])
@pytest.mark.parametrize("name", CASES)
def test_every_layout_and_dtype(name: str, layout: str, dtype: torch.dtype) -> None:
    check(CASES[name], dtype, layout)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("group_size", [2, 6, 30])
@pytest.mark.parametrize("name", ["taps", "stem", "depthwise", "one-pixel", "one-by-one"])
def test_sample_groups(
    name: str, group_size: int, split: str, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYNAS_SAMPLE_GRAD_SPLIT", split)
    check(CASES[name]._replace(batch=30), group_size=group_size)


@pytest.mark.parametrize("positions", [1, 2, 65])
@pytest.mark.parametrize("batch", [1, 63, 64, 130])
@pytest.mark.parametrize("group_size", [1, 0], ids=["per-sample", "one-group"])
def test_linear(positions: int, batch: int, group_size: int) -> None:
    generator = torch.Generator().manual_seed(1)
    inputs, outputs = 37, 21
    delta = torch.randn(batch, positions, outputs, generator=generator)
    x = torch.randn(batch, positions, inputs, generator=generator)
    delta[torch.rand(delta.shape, generator=generator) < 0.3] = (
        0  # zeros count neither as positive nor as negative
    )
    size = group_size or batch
    g = torch.einsum("bto,bti->boi", delta.double(), x.double())
    g = g.reshape(batch // size, size, -1).sum(1)
    result = linear_grad_moments(delta, x, moments=ALL, group_size=size)
    assert_moments({name: getattr(result.weight, name).flatten() for name in ALL}, g, 3e-6)
    norms = linear_grad_norms(delta, x, group_size=size).double()
    torch.testing.assert_close(norms, g.square().sum(1), rtol=1e-5, atol=0)
    gram = linear_grad_gram(delta, x, group_size=size).double()
    assert (gram - g @ g.T).norm() < 1e-5 * (g @ g.T).norm()


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("group_size", [1, 2, 7])
@pytest.mark.parametrize("positions", [1, 3])
@pytest.mark.parametrize(("inputs", "outputs"), [(1, 1), (257, 129), (3, 500), (64, 9)])
def test_linear_products_of_few_positions(
    inputs: int, outputs: int, positions: int, group_size: int, dtype: torch.dtype, threads: int
) -> None:
    """Here inner products of the factors' rows take the place of gradients, wherever they are cheaper."""
    generator = torch.Generator().manual_seed(4)
    delta = torch.randn(42, outputs, positions, generator=generator).to(dtype).transpose(1, 2)
    x = torch.randn(42, positions, inputs, generator=generator).to(dtype)
    g = torch.einsum("bto,bti->boi", delta.double(), x.double()).flatten(1)
    g = torch.cat([g, delta.double().sum(1)], 1)
    g = g.reshape(42 // group_size, group_size, -1).sum(1)
    norms = linear_grad_norms(delta, x, group_size=group_size, bias=True).double()
    torch.testing.assert_close(norms, g.square().sum(1), rtol=1e-5, atol=0)
    gram = linear_grad_gram(delta, x, group_size=group_size, bias=True).double()
    assert torch.equal(gram, gram.T)
    assert (gram - g @ g.T).norm() < 2 * TOLERANCE[dtype] * (g @ g.T).norm()


def test_norms_of_cancelling_positions() -> None:
    """Two positions whose gradients cancel but for a thousandth leave a millionth of the norm."""
    generator = torch.Generator().manual_seed(5)
    a, d = torch.randn(8, 300, generator=generator), torch.randn(8, 200, generator=generator)
    x = torch.stack([a, a + 1e-3 * torch.randn(8, 300, generator=generator)], 1)
    delta = torch.stack([d, -d], 1)
    expected = torch.einsum("bto,bti->boi", delta.double(), x.double()).square().sum((1, 2))
    torch.testing.assert_close(linear_grad_norms(delta, x).double(), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("split", SPLITS)
def test_centered_far_from_zero(split: str, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """At |mean| / std = 1000 float32 sums of squares lose everything; Welford's update loses three digits."""
    monkeypatch.setenv("PYNAS_SAMPLE_GRAD_SPLIT", split)
    generator = torch.Generator().manual_seed(2)
    x = 1 + 1e-3 * torch.randn(64, 32, 1, 2, generator=generator)
    delta = torch.ones(64, 8, 1, 2)
    g = torch.einsum("bohw,bchw->boc", delta.double(), x.double()).flatten(1)
    result = conv2d_grad_moments(delta, x, 1, moments=("centered",))
    assert result.weight.centered is not None
    expected = (g - g.mean(0)).square().sum(0)
    torch.testing.assert_close(result.weight.centered.double().flatten(), expected, rtol=1e-3, atol=0)


def test_centered_of_one_position_far_from_zero() -> None:
    x = 1 + 1e-3 * torch.randn(64, 50, generator=torch.Generator().manual_seed(3))
    result = linear_grad_moments(torch.ones(64, 9), x, moments=("centered",))
    assert result.weight.centered is not None
    expected = (x.double() - x.double().mean(0)).square().sum(0).expand(9, 50)
    torch.testing.assert_close(result.weight.centered.double(), expected, rtol=1e-3, atol=0)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("name", CASES)
def test_same_bits_again(name: str, split: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYNAS_SAMPLE_GRAD_SPLIT", split)
    case = CASES[name]
    grad_output, x = operands(case)
    options: dict[str, Any] = case._asdict()
    del options["batch"], options["channels"], options["size"], options["outputs"]
    kernel = options.pop("kernel")
    first, second = (conv2d_grad_moments(grad_output, x, kernel, moments=ALL, **options) for _ in range(2))
    for moment in ALL:
        assert torch.equal(getattr(first.weight, moment), getattr(second.weight, moment))


@pytest.mark.parametrize("name", ["taps", "stem", "depthwise", "grouped"])
def test_infinity_stays_where_it_belongs(name: str) -> None:
    """Slack lanes hold 0 x inf; nothing of that may reach a result."""
    case = CASES[name]
    grad_output, x = operands(case)
    grad_output[1, 0] = float("inf")
    x = x.abs() + 1
    norms = conv2d_grad_norms(grad_output, x, case.kernel, padding=case.padding, groups=case.groups)
    # Patches and depthwise rows hold the padding, as torch's unfold does: there 0 x inf is NaN.
    assert norms[1] == float("inf") if name == "taps" else not norms[1].isfinite()
    assert norms[torch.arange(case.batch) != 1].isfinite().all()
    moments = conv2d_grad_moments(
        grad_output, x, case.kernel, padding=case.padding, groups=case.groups
    ).weight
    assert moments.sum is not None
    assert not moments.sum[0].isfinite().any()
    assert moments.sum[1:].isfinite().all()


@pytest.mark.parametrize("batch", [0, 4])
@pytest.mark.parametrize(("channels", "outputs"), [(0, 5), (5, 0), (5, 7)])
def test_nothing_to_sum_is_zero(batch: int, channels: int, outputs: int) -> None:
    x, delta = torch.randn(batch, channels, 4, 4), torch.randn(batch, outputs, 4, 4)
    result = conv2d_grad_moments(delta, x, 3, padding=1, moments=ALL, bias=True)
    assert result.weight.sum is not None
    assert result.weight.sum.shape == (outputs, channels, 3, 3)
    if batch == 0:
        assert not result.weight.sum.any()
    assert result.bias is not None
    assert result.bias.sum is not None
    torch.testing.assert_close(result.bias.sum, delta.sum((0, 2, 3)))
    assert conv2d_grad_norms(delta, x, 3, padding=1).shape == (batch,)
    assert conv2d_grad_gram(delta, x, 3, padding=1).shape == (batch, batch)
