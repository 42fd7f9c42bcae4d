"""Strided 1x1 convolutions: values, gradients, and that none reaches oneDNN in channels_last."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import pynas
from pynas import ops, stats
from pynas.analysis import standalone, tasks
from pynas.data import CropAndFlip
from pynas.supernet import TrainingOptions

pytestmark = pytest.mark.usefixtures("one_thread")
LAST = torch.channels_last


class Watch(TorchDispatchMode):
    """Counts the weight gradients in which oneDNN may corrupt memory, and what was subsampled instead."""

    def __init__(self) -> None:
        super().__init__()
        self.dangerous, self.pooled = 0, 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        name = func.overloadpacket
        if name is torch.ops.aten.convolution_backward and args[10][1]:  # which writes a weight's gradient
            _, x, weight, _, stride, padding = args[:6]
            innermost = any(torch._prims_common.suggest_memory_format(t) == LAST for t in (x, weight))
            is_1x1 = weight.dim() == 4 and tuple(weight.shape[2:]) == (1, 1)
            self.dangerous += is_1x1 and max(stride) > 1 and not any(padding) and innermost
        if name in (torch.ops.aten.avg_pool2d, torch.ops.pynas.avg_pool2d):
            self.pooled += list(args[1]) in ([1], [1, 1])
        return func(*args, **(kwargs or {}))


@contextmanager
def nothing_dangerous() -> Iterator[Watch]:
    with Watch() as watch:
        yield watch
    assert watch.dangerous == 0
    assert watch.pooled > 0


class Functional(nn.Module):
    """A narrow strided shortcut that no module announces, beside one that a module does."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.down = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 1, stride=2, bias=False)
        self.shortcut = nn.Parameter(torch.randn(8, 8, 1, 1) / 3)
        self.norm, self.head = nn.BatchNorm2d(8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        x = self.norm(self.down(x) + F.conv2d(x, self.shortcut, stride=(2, 2)))
        return self.head(x.relu().mean((2, 3)))


def batch(n: int = 6, size: int = 9) -> tuple[Tensor, Tensor]:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(1)), torch.arange(n) % 5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("stride", [2, (3,), [1, 2], (4, 3)])
@pytest.mark.parametrize(
    ("channels", "out", "groups"), [(1, 1, 1), (3, 5, 1), (17, 4, 1), (6, 9, 3), (8, 8, 8)]
)
@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 7), (9, 5)])
def test_equals_the_convolution(
    dtype: torch.dtype, stride: Any, channels: int, out: int, groups: int, height: int, width: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, channels, height, width, generator=generator).to(dtype).to(memory_format=LAST)
    weight, bias = torch.randn(out, channels // groups, 1, 1, generator=generator), torch.randn(out)
    leaves = [t.to(dtype).requires_grad_() for t in (x, weight, bias)]
    exact = [t.detach().double().contiguous().requires_grad_() for t in leaves]
    y = ops.subsampling_conv2d(*leaves, stride, 0, 1, groups)
    want = F.conv2d(*exact, torch.nn.modules.utils._pair(stride) if stride != (3,) else (3, 3), groups=groups)
    grad = torch.randn(want.shape, generator=generator, dtype=torch.float64)
    found = torch.autograd.grad(y, leaves, grad.to(dtype))
    expected = torch.autograd.grad(want, exact, grad.to(dtype).double())
    tolerance = {torch.float32: 1e-5, torch.float64: 1e-12, torch.bfloat16: 5e-2}[dtype]
    for ours, theirs in zip((y, *found), (want, *expected), strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=tolerance, atol=tolerance * channels)
        assert ours.dtype == dtype


def test_what_is_left_alone() -> None:
    x, last = torch.randn(2, 8, 6, 6), torch.randn(2, 8, 6, 6).to(memory_format=LAST)
    w = torch.randn(4, 8, 1, 1)
    assert ops.subsamples(x, w, 2) is None  # PyTorch's default layout
    assert ops.subsamples(last, w, 1) is None
    assert ops.subsamples(last, w, 2, 1) is None
    assert ops.subsamples(last, torch.randn(4, 8, 3, 3), 2) is None
    assert ops.subsamples(last.to("meta"), w, 2) is None
    assert ops.subsamples(last, w, (1, 2), "valid") == (1, 2)
    assert ops.subsamples(x, w.to(memory_format=LAST), 2) == (2, 2)  # the weight alone makes it channels_last
    assert ops.subsamples(last[:, :, :1, :1], w, 2) == (2, 2)  # either layout
    with pytest.raises(RuntimeError):
        ops.subsampling_conv2d(last, w, None, (2, 2, 2))  # PyTorch says what it says of it
    with pytest.raises(RuntimeError):
        ops.subsampling_conv2d(last, w, None, 0)


def test_second_derivatives_vmap_and_single_images() -> None:
    x = torch.randn(2, 3, 5, 4, dtype=torch.float64).to(memory_format=LAST).requires_grad_()
    w = torch.randn(2, 3, 1, 1, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x, w: ops.subsampling_conv2d(x, w, None, 2), (x, w))
    one = ops.subsampling_conv2d(x[0], w, None, 2)
    torch.testing.assert_close(one, F.conv2d(x[0].contiguous(), w, None, 2))

    def loss(w: Tensor, x: Tensor) -> Tensor:
        return ops.subsampling_conv2d(x[None], w, None, 2).square().sum()

    rows = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(w.detach(), x.detach())
    each = [torch.func.grad(loss)(w.detach(), image) for image in x.detach()]
    torch.testing.assert_close(rows, torch.stack(each))


@pytest.mark.slow
def test_a_model_under_the_mode_compiles_as_one_graph() -> None:
    torch._dynamo.reset()
    network = Functional()

    def run(x: Tensor) -> Tensor:
        with ops.strided_convolutions_of(network):
            return network(x)

    x = batch()[0].to(memory_format=LAST)
    compiled = torch.compile(run, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), run(x))


@pytest.mark.parametrize("fallback", [(), ("down",)])
@pytest.mark.parametrize("batch_norm", ["batch", "group", "frozen"])
def test_statistics(batch_norm: Any, fallback: tuple[str, ...]) -> None:
    x, y = batch()
    needs = [stats.GradMoments(("abs", "sum")), stats.GradNorms(), stats.ChannelSaliency()]
    options: dict[str, Any] = {"needs": needs, "batch_norm": batch_norm, "group_size": 2}
    want = stats.collect(Functional().double(), x.double(), y, **options)
    network = Functional().to(memory_format=LAST)
    with nothing_dangerous():
        found = stats.collect(network, x.to(memory_format=LAST), y, fallback=fallback, **options)
    for name in ("down.weight", "shortcut", "stem.weight"):
        for kind in (stats.GradNorms, stats.ChannelSaliency)[: 1 if fallback else 2]:
            torch.testing.assert_close(found[kind][name].double(), want[kind][name], rtol=1e-4, atol=1e-5)
        ours, theirs = found[stats.GradMoments][name], want[stats.GradMoments][name]
        assert ours.abs is not None
        torch.testing.assert_close(ours.abs.double(), theirs.abs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float64"])
def test_scores(precision: Any) -> None:
    left_out = ("ntk", "naswot_published")  # the second is of modules called ReLU, of which there are none
    names = [name for name in pynas.proxies.names() if not name.startswith(left_out)]
    x, y = batch(8, 12)
    with nothing_dangerous():
        found = pynas.score(Functional(), x, y, names, precision=precision)
    assert {s.status for s in found.values()} <= {"ok", "non_finite"}
    if precision == "bfloat16":
        return
    wide = copy.deepcopy(Functional()).double()
    for module in wide.modules():
        if isinstance(module, nn.Conv2d):
            module.in_channels = 4  # so that the layout stays PyTorch's own
    want = pynas.score(wide, x, y, names, precision="float64")
    for name in set(names) - {"zen", "zen_zennas", "grad_norm_zennas"}:  # which draw other noise in float64
        assert found[name].value == pytest.approx(want[name].value, rel=2e-3, abs=2e-3), name


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_compiled_and_scripted_models_keep_their_layout() -> None:
    x, y = batch()
    model = nn.Sequential(torch.jit.trace(nn.Conv2d(3, 8, 1, stride=2), x), nn.Conv2d(8, 8, 3), nn.Flatten())
    with Watch() as watch:
        pynas.score(model, x, y, ["plain"], loss_fn=lambda out, _: out.sum())
    assert watch.dangerous == 0


def _train(model: nn.Module, forward: Callable[[Tensor], Tensor], images: Tensor) -> None:
    for _ in range(2):
        model.zero_grad()
        forward(images).square().sum().backward()


@pytest.mark.slow
def test_supernets_and_networks_trained_from_scratch() -> None:
    images = torch.randn(4, 3, 16, 16)
    torch.manual_seed(0)
    supernet = pynas.nn.DARTSSupernet(channels=4, num_cells=3)
    space = pynas.spaces.get("darts_cnn", channels=4, num_cells=3)
    arch = space.parse("DARTS_V2")
    with nothing_dangerous():
        _train(supernet, supernet, images)
    with nothing_dangerous():
        shared = pynas.supernet.build(space)
        _train(shared, lambda x: shared(x, arch), images)
    with nothing_dangerous():
        task = tasks.ImageTask(
            images, torch.arange(4) % 2, images, torch.arange(4) % 2, 2, "noise", CropAndFlip(1)
        )
        standalone.train_alone(space, arch, task, TrainingOptions(steps=2, batch_size=2))
