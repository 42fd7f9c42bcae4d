"""mixed_op as a citizen of PyTorch: opcheck, torch.compile, autocast, memory, errors."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from mixed_op_loop import DARTS, FAMILIES, NASBENCH201, Loop
from torch import Tensor, nn

from pynas.ops import mixed_op, mixed_op_norms, mixed_op_parameters
from pynas.ops.candidates import CODES, FAMILY_CODES, resolve

Architecture = Callable[[int, int], Tensor]


pytestmark = pytest.mark.usefixtures("one_thread")


def parameters(candidates: Any = "nasbench201", channels: int = 4, stride: int = 1) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = mixed_op_parameters(candidates, channels, stride)
    return [torch.randn(shape, generator=generator).requires_grad_() for _, shape in shapes]


def buffers(candidates: Any, channels: int, stride: int = 1) -> list[Tensor]:
    count = len(mixed_op_norms(candidates, stride))
    return [make(channels) for _ in range(count) for make in (torch.zeros, torch.ones)]


@pytest.mark.slow
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("family", FAMILIES)
def test_opcheck(family: str, stride: int, training: bool) -> None:
    names = FAMILIES[family]
    x = torch.randn(2, 4, 6, 5).contiguous(memory_format=torch.channels_last).requires_grad_()
    weights = torch.rand(len(names))
    weights[2] = 0
    weights.requires_grad_()
    given, running = parameters(family, 4, stride), buffers(family, 4, stride)
    read = [] if training else running
    static = ([CODES[name] for name in names], FAMILY_CODES[family], stride, False, training, 1e-5, 1)
    ops = torch.ops.pynas
    torch.library.opcheck(ops.mixed_op.default, (x, weights, given, read, *static))
    y, statistics, saved = (
        [t.detach() for t in result] if isinstance(result, list) else result.detach()
        for result in ops.mixed_op.default(x, weights, given, read, *static)
    )
    # Its own derivative is the definition's and is not made for tracing: it looks at the weights.
    plain = (torch.randn_like(y), x.detach(), weights.detach(), [p.detach() for p in given])
    backward = (*plain, read, statistics, saved, *static, True, True, True)
    torch.library.opcheck(ops.mixed_op_backward.default, backward)
    owners = [int(name.split(".")[0]) for name in mixed_op_norms(family, stride)]
    counts = [torch.zeros((), dtype=torch.int64) for _ in owners]
    tracked = (running, counts, statistics, weights.detach(), owners, 0.1, y.numel() // 4)
    torch.library.opcheck(ops.track_statistics.default, tracked)


def soft(step: int, count: int) -> Tensor:
    return torch.softmax(torch.randn(count, generator=torch.Generator().manual_seed(step)), 0)


def hard(step: int, count: int) -> Tensor:
    """A one-hot sample that passes gradients to its logits, as GDAS makes it."""
    probabilities = soft(step, count).requires_grad_()
    return torch.eye(count)[step % count] - probabilities.detach() + probabilities


def discrete(step: int, count: int) -> Tensor:
    return torch.eye(count)[step % count]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*script_method.*:DeprecationWarning")  # of torch's own
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.long)])
@pytest.mark.parametrize("family", ["darts", "nasbench201"])
def test_hundred_architectures_compile_once(family: str, backend: str) -> None:
    torch._dynamo.reset()
    count = len(FAMILIES[family])
    given, running = parameters(family), buffers(family, 4)
    counts = [torch.zeros((), dtype=torch.int64) for _ in running[::2]]
    compilations = 0

    def counting(graph: Any, inputs: Any) -> Any:
        nonlocal compilations
        compilations += 1
        return torch._dynamo.lookup_backend(backend)(graph, inputs)

    def edge(x: Tensor, weights: Tensor, given: list[Tensor]) -> Tensor:
        y = mixed_op(x.sin(), weights, given, candidates=family, running=running, num_batches_tracked=counts)
        return y.cos()

    compile_whole: Any = torch.compile
    compiled = compile_whole(edge, fullgraph=True, backend=counting)
    makers: list[Architecture] = [soft, hard, discrete]
    x = torch.randn(2, 4, 6, 6).contiguous(memory_format=torch.channels_last).requires_grad_()
    for step in range(100):
        sample = makers[step % 3](step, count).detach().requires_grad_()
        sources = [x, sample, *given]
        y = compiled(x, sample, given)
        gradients = torch.autograd.grad(y.square().sum(), sources)
        if step % 20 < 3:
            before = [t.clone() for t in running]
            expected = edge(x, sample, given)
            # The compiled sine rounds otherwise, which batch norms of a small variance enlarge.
            torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-4)
            wanted = torch.autograd.grad(expected.square().sum(), sources)
            for got, want in zip(gradients, wanted, strict=True):
                torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
            for t, old in zip(running, before, strict=True):
                t.copy_(old)
    assert compilations == 1


@pytest.mark.slow
def test_compiled_updates_running_statistics() -> None:
    torch._dynamo.reset()
    given, x, weights = parameters(), torch.randn(2, 4, 6, 6), torch.rand(5)
    results = []
    compile_whole: Any = torch.compile
    for function in (mixed_op, compile_whole(mixed_op, fullgraph=True, backend="aot_eager")):
        running = buffers("nasbench201", 4)
        y = function(x, weights, given, candidates="nasbench201", running=running)
        results.append([y, *running])
    for eager, compiled in zip(*results, strict=True):
        torch.testing.assert_close(eager, compiled)
    assert results[0][1].any()


def kept(function: Callable[[], Tensor]) -> int:
    """Bytes that autograd keeps, each storage once, parameters not counted."""
    storages: dict[int, int] = {}

    def note(t: Tensor) -> Tensor:
        if not isinstance(t, nn.Parameter):
            storages[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        y = function()
        storages.pop(y.untyped_storage().data_ptr(), None)
    return sum(storages.values())


@pytest.mark.parametrize("family", FAMILIES)
def test_keeps_a_quarter_of_what_the_loop_keeps(family: str) -> None:
    loop = Loop(FAMILIES[family], family, 16, 1)
    x = torch.randn(16, 16, 16, 16).contiguous(memory_format=torch.channels_last).requires_grad_()
    image = x.numel() * 4
    weights = torch.full((len(loop.names),), 0.2).requires_grad_()

    def edge(save: str, weights: Tensor = weights) -> int:
        given = [nn.Parameter(p) for p in loop.tensors()]
        return kept(lambda: mixed_op(x, weights, given, candidates=family, save=save))

    theirs = kept(lambda: loop(x, weights))
    small = 0.05 * image
    assert edge("products") <= theirs / 4 + 1024  # the images; statistics of channels come on top
    assert edge("products") <= edge("everything")
    if family == "darts":
        assert theirs >= 28 * image
        assert edge("products") <= 7 * image + small
    else:
        assert edge("products") <= 2 * image + small
        assert edge("everything") <= 3 * image + small
    assert edge("nothing") <= image + small
    one = torch.zeros_like(weights)
    one[FAMILIES[family].index("skip_connect")] = 1
    assert edge("products", one.requires_grad_()) <= image + small


def test_nan_pixels_in_evaluation_spoil_no_more_than_in_the_loop() -> None:
    names = ("max_pool_3x3", "avg_pool_3x3", "skip_connect")
    loop = Loop(names, "darts", 5, 1).eval()
    x = torch.randn(2, 5, 6, 7)
    x[1, 2, 3, 3] = torch.nan
    weights, running = torch.tensor([0.3, 0.5, 0.2]), buffers(names, 5)
    gradients = []
    for function in (
        lambda image: mixed_op(
            image, weights, [], candidates=names, family="darts", running=running, training=False
        ),
        lambda image: loop(image, weights),
    ):
        image = x.clone().requires_grad_()
        gradients += torch.autograd.grad(function(image).nansum(), image)
    assert torch.equal(gradients[0].isnan(), gradients[1].isnan())


def test_autocast() -> None:
    given, weights = parameters("nasbench201", 8), torch.rand(5)
    x = torch.randn(2, 8, 6, 6).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = mixed_op(x, weights, given, candidates="nasbench201")
    assert y.dtype == torch.bfloat16
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.dtype == torch.float32
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in given)
    expected = mixed_op(x.bfloat16(), weights, given, candidates="nasbench201")
    torch.testing.assert_close(y, expected, rtol=0, atol=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        wide = mixed_op(x.double(), weights, given, candidates="nasbench201")
    assert wide.dtype == torch.float64


def test_zero_mixture_and_empty_batch() -> None:
    for family in FAMILIES:
        given, running = parameters(family), buffers(family, 4)
        weights = torch.zeros(len(FAMILIES[family])).requires_grad_()
        x = torch.randn(2, 4, 5, 5).requires_grad_()
        y = mixed_op(x, weights, given, candidates=family, running=running)
        assert y.shape == x.shape
        assert not y.any()
        y.sum().backward()
        for t in (x, weights, *given):
            assert t.grad is not None
            assert not t.grad.any()
        assert not any(mean.any() for mean in running[::2])
        assert mixed_op(x[:0], torch.ones(len(weights)), given, candidates=family).shape == (0, 4, 5, 5)


def test_extra_candidates() -> None:
    calls = 0
    blur = nn.AvgPool2d(5, 1, 2)

    def counted(x: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return blur(x)

    given, x = parameters(), torch.randn(2, 4, 6, 6).requires_grad_()
    weights = torch.rand(6).requires_grad_()
    y = mixed_op(x, weights, given, candidates="nasbench201", extra=[counted])
    expected = mixed_op(x, weights[:5], given, candidates="nasbench201") + weights[5] * blur(x)
    torch.testing.assert_close(y, expected)
    (gradient,) = torch.autograd.grad(y.sum(), weights)
    torch.testing.assert_close(gradient[5], blur(x).sum().detach(), rtol=1e-4, atol=1e-4)
    off = torch.cat([weights.detach()[:5], torch.zeros(1)])
    mixed_op(x, off, given, candidates="nasbench201", extra=[counted])
    assert calls == 1
    with pytest.raises(ValueError, match=r"weights: expected shape \(6,\), 5 candidates and 1 extra"):
        mixed_op(x, weights[:5], given, candidates="nasbench201", extra=[counted])
    with pytest.raises(ValueError, match="extra: expected results of shape"):
        mixed_op(x, weights, given, candidates="nasbench201", extra=[nn.AvgPool2d(2)])


def bad(**changes: Any) -> None:
    arguments: dict[str, Any] = {
        "x": torch.randn(2, 4, 6, 6),
        "weights": torch.rand(5),
        "parameters": parameters(),
        "candidates": "nasbench201",
        **changes,
    }
    mixed_op(**arguments)


NAN = torch.tensor([0.1, float("nan"), 0.1, 0.1, 0.1])
ERRORS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"weights": torch.rand(4)}, ValueError, "weights: expected shape [5]"),
    ({"weights": torch.rand(5, 1)}, ValueError, "weights: expected shape [5]"),
    ({"weights": NAN}, ValueError, "weights: expected numbers, got NaN for skip_connect (entry 1)"),
    (
        {"weights": torch.ones(5, dtype=torch.int64)},
        TypeError,
        "weights: expected a floating tensor, got Long",
    ),
    (
        {"x": torch.randn(2, 3, 6, 6)},
        ValueError,
        "parameters[0] of nor_conv_1x1: expected shape [3, 3, 1, 1]",
    ),
    ({"x": torch.zeros(2, 4, 6, 6, dtype=torch.uint8)}, TypeError, "x: expected float32"),
    ({"x": torch.randn(4, 6, 6)}, ValueError, "x: expected [N, C, H, W], got shape (4, 6, 6)"),
    ({"x": [1.0]}, TypeError, "x: expected a torch.Tensor, got list"),
    ({"x": torch.randn(1, 4, 1, 1)}, ValueError, "Expected more than 1 value per channel when training"),
    (
        {"x": torch.randn(1, 4, 2, 2, device="meta")},
        ValueError,
        "parameters[0]: expected the device of x, meta",
    ),
    (
        {"weights": torch.rand(5, device="meta")},
        ValueError,
        "weights: expected the device of x, cpu, got meta",
    ),
    ({"stride": 3}, ValueError, "stride: expected 1 or 2, got 3"),
    ({"save": "all"}, ValueError, "save: expected one of nothing, products, everything, got 'all'"),
    ({"parameters": []}, ValueError, "parameters: expected 2 tensors (pynas.ops.mixed_op_parameters"),
    ({"candidates": "dart"}, ValueError, "candidates: expected one of the families darts"),
    (
        {"candidates": ["sep_conv_3x3", "nor_conv_1x1"]},
        ValueError,
        "candidates: expected at least one, all of",
    ),
    ({"candidates": ["skip_connect", "avg_pool_3x3"]}, ValueError, "family: avg_pool_3x3 is normalised in"),
    ({"family": "imagenet"}, ValueError, "family: expected one of darts, nasbench201, transnas"),
    ({"running": [torch.zeros(4)]}, ValueError, "running: expected mean and variance of 2 batch norms"),
    ({"running": [torch.zeros(3)] * 4}, ValueError, "running[0]: expected shape [4]"),
    ({"running": [torch.zeros(4)] * 4, "momentum": None}, ValueError, "num_batches_tracked: expected"),
    ({"running": [torch.zeros(4)] * 3, "training": False}, ValueError, "running: expected mean and variance"),
]


@pytest.mark.parametrize(("changes", "error", "message"), ERRORS, ids=[m[:40] for _, _, m in ERRORS])
def test_bad_argument(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"mixed_op: .*{re.escape(message)}"):
        bad(**changes)


def test_one_value_per_channel_is_fine_where_nothing_is_normalised() -> None:
    x, weights = torch.randn(1, 4, 1, 1), torch.tensor([0.3, 0.5, 0.0, 0.0, 0.2])
    y = mixed_op(x, weights, parameters(), candidates="nasbench201")
    torch.testing.assert_close(y, 0.7 * x)


def test_families_are_told_by_their_candidates() -> None:
    assert resolve(["none", "sep_conv_5x5"]) == (("none", "sep_conv_5x5"), "darts")
    assert resolve(["nor_conv_1x1", "avg_pool_3x3"])[1] == "nasbench201"
    assert resolve(["avg_pool_3x3"], "nasbench201")[1] == "nasbench201"
    assert resolve("darts") == (DARTS, "darts")
    assert resolve(NASBENCH201)[1] == "nasbench201"


def test_state_dict_names() -> None:
    names = [name for name, _ in mixed_op_parameters("darts", 16, 2, affine=True)]
    assert names[:4] == ["3.conv_1.weight", "3.conv_2.weight", "3.bn.weight", "3.bn.bias"]
    assert "4.op.5.weight" in names
    assert mixed_op_norms("darts")[:4] == ["1.1", "2.1", "4.op.3", "4.op.7"]
