"""Statistics of whole models against per-sample gradients by autograd in float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import stats_models as models
import torch
from torch import Tensor, nn

from pynas._errors import UserError
from pynas.stats import (
    GradGram,
    Gradients,
    GradMoments,
    GradNorms,
    RunningGradMoments,
    UnsupportedLayerError,
    collect,
)

ALL = ("sum", "abs", "square", "sign", "centered")
IMAGES: dict[str, Callable[[], nn.Module]] = {
    "convnet": models.convnet,
    "normnet": models.normnet,
    "mlp": models.mlp,
    "twice": models.Twice,
    "mixed": models.Mixed,
}


def images(n: int = 6, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 3, 8, 8, generator=generator, dtype=torch.float64)
    return x, torch.randint(0, models.CLASSES, (n,), generator=generator)


def tokens(n: int = 4, length: int = 7) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 11, (n, length), generator=generator), torch.randint(
        0, 11, (n,), generator=generator
    )


def check(model: nn.Module, x: Tensor, y: Tensor, group_size: int = 1, **options: object) -> None:
    """Every statistic of every parameter equals what explicit gradients give."""
    model.double()
    torch.manual_seed(1)
    needs = [GradMoments(ALL), GradNorms(), GradGram(), Gradients()]
    found = collect(model, x, y, needs=needs, group_size=group_size, **options)
    expected = models.per_sample(model, x, y, group_size)
    reached = {name for name, g in expected.items() if g.abs().max() > 0}
    assert reached <= set(found[GradMoments])
    for name in found[GradMoments]:
        g = expected[name]
        m = found[GradMoments][name]
        assert m.count == len(g)
        for value, reference in (
            (m.sum, g.sum(0)),
            (m.abs, g.abs().sum(0)),
            (m.square, g.square().sum(0)),
            (m.centered, (g - g.mean(0)).square().sum(0)),
            (found[Gradients][name], g.sum(0)),
            (found[GradNorms][name], g.flatten(1).square().sum(1)),
            (found[GradGram][name], g.flatten(1) @ g.flatten(1).T),
        ):
            torch.testing.assert_close(
                value, reference, rtol=1e-9, atol=1e-13, msg=lambda s, n=name: f"{n}: {s}"
            )
        clear = (g.abs() > 1e-12).all(0)
        assert torch.equal(m.sign[clear], g.sign().sum(0)[clear]), name


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("group_size", [1, 3])
@pytest.mark.parametrize("name", IMAGES)
def test_images(name: str, group_size: int) -> None:
    check(IMAGES[name](), *images(), group_size)


def test_frozen_batch_norm() -> None:
    model = models.frozen_batch_norm().eval()
    check(model, *images(), batch_norm="frozen")


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("tied", [True, False])
def test_transformer(tied: bool, batch_first: bool) -> None:
    check(models.Language(tied, batch_first), *tokens())


@pytest.mark.parametrize("batch_first", [True, False])
def test_as_many_positions_as_samples(batch_first: bool) -> None:
    """Sizes alone do not tell samples from positions; how shapes change with the batch does."""
    check(models.Language(False, batch_first), *tokens(5, 5))
    check(models.Language(True, batch_first), *tokens(2, 2))


@pytest.mark.parametrize("batch_first", [True, False])
def test_recurrent_layer_by_fallback(batch_first: bool) -> None:
    check(models.Recurrent(batch_first), *images(), fallback=("rnn",))


@pytest.mark.parametrize("group_size", [1, 2])
def test_bare_parameters_by_fallback(group_size: int) -> None:
    check(models.Patches(), *images(), group_size, fallback=("tokens",))


def test_whole_model_by_fallback() -> None:
    check(models.convnet(), *images(), fallback=("",))


def test_fallback_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pynas.stats._products.ROW_BYTES", 1000)
    check(models.Patches(), *images(), fallback=("tokens",))
    check(models.Mixed(), *images())


@pytest.mark.parametrize(("group_size", "n"), [(2, 6), (2, 20), (3, 6)])
def test_group_batch_norm_equals_each_group_alone(group_size: int, n: int) -> None:
    """Train-mode batch norm: each group normalised by itself is the group forwarded by itself."""
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.BatchNorm2d(6, affine=False), nn.Conv2d(6, 4, 3),
        models.Head(4),
    ).double()  # fmt: skip
    x, y = images(n)
    found = collect(model, x, y, needs=[GradMoments(ALL)], group_size=group_size, batch_norm="group")
    expected = models.per_sample(model, x, y, group_size)
    for name, m in found[GradMoments].items():
        g = expected[name] * (n / group_size)
        for kind, reference in (("sum", g.sum(0)), ("abs", g.abs().sum(0)), ("square", g.square().sum(0))):
            torch.testing.assert_close(getattr(m, kind), reference, rtol=1e-8, atol=1e-12)


def test_batch_norm_rows_sum_to_the_batch_gradient() -> None:
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), models.Head(6)).double()
    x, y = images()
    found = collect(model, x, y, needs=[GradMoments(("sum",)), Gradients()])
    expected = models.per_sample(model, x, y, group_size=len(x))
    for name, g in expected.items():
        torch.testing.assert_close(found[GradMoments][name].sum, g[0])
        torch.testing.assert_close(found[Gradients][name], g[0])


def test_running_moments_over_micro_batches() -> None:
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), models.Head(6)).double()
    x, y = images(9)
    found = collect(model, x, y, needs=[RunningGradMoments()], micro_batches=3)
    expected = models.per_sample(model, x, y, group_size=3)
    for name, m in found[RunningGradMoments].items():
        g = expected[name] * 3
        assert m.count == 3
        torch.testing.assert_close(m.mean, g.mean(0))
        torch.testing.assert_close(m.abs_mean, g.abs().mean(0))
        torch.testing.assert_close(m.m2, (g - g.mean(0)).square().sum(0))


def test_weights_only() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 5))
    x, y = images()
    found = collect(model, x.float(), y, needs=[GradMoments(parameters="weights")])
    assert list(found[GradMoments]) == ["3.weight", "0.weight"]


def test_weights_only_lets_other_parameters_through() -> None:
    found = collect(models.Patches().double(), *images(), needs=[GradNorms(parameters="weights")])
    assert set(found[GradNorms]) == {"patch.weight", "head.weight"}
    x, y = tokens()
    found = collect(models.Language().double(), x, y, needs=[Gradients(parameters="weights")])
    assert "embedding.weight" in found[Gradients]  # tied with a linear layer: both uses count


def test_statistics_merge() -> None:
    x, y = images()
    found = collect(
        models.mlp().double(),
        x,
        y,
        needs=[GradMoments(("sum",), parameters="weights"), GradMoments(("abs",))],
    )
    m = found[GradMoments]["1.bias"]
    assert m.sum is not None
    assert m.abs is not None
    with pytest.raises(UserError, match="GradNorms was not collected"):
        found[GradNorms]


def test_unsupported_layers_are_named_together_with_what_works() -> None:
    class Sorted(nn.Module):
        """Sorts all rows of the batch, so that nobody knows whose they are."""

        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(192, 6), nn.Linear(6, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x.flatten(1)).sort(0).values)

    x, y = images()
    with pytest.raises(UnsupportedLayerError, match=r"'b\.weight', 'b\.bias' of layer 'b' \(Linear\)"):
        collect(Sorted().double(), x, y, needs=[GradNorms()])


class _Hidden(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: Tensor, w: Tensor) -> Tensor:
        ctx.save_for_backward(x, w)  # type: ignore[attr-defined]
        return x @ w

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, w = ctx.saved_tensors  # type: ignore[attr-defined]
        return grad @ w.T, x.T @ grad


class CustomFunction(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(192, 5))

    def forward(self, x: Tensor) -> Tensor:
        return _Hidden.apply(x.flatten(1), self.w)


def test_paths_that_cannot_be_intercepted_are_found() -> None:
    x, y = images()
    model = nn.Sequential(CustomFunction(), nn.Linear(5, 5)).double()
    with pytest.raises(UnsupportedLayerError, match=r"'0\.w' of layer '0'.*fallback=\('0',\).* works"):
        collect(model, x, y, needs=[GradNorms()])
    check(model, x, y, fallback=("0",))


def test_fallback_refuses_coupled_samples() -> None:
    class Coupled(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x - x.mean(0)) * x.std()

    x, y = images()
    model = nn.Sequential(nn.Flatten(), Coupled(192, 5)).double()
    with pytest.raises(UserError, match="depend on each other"):
        collect(model, x, y, needs=[GradNorms()], fallback=("1",))


def test_custom_loss_and_containers() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 3)

        def forward(self, a: Tensor, b: Tensor) -> dict[str, Tensor]:
            return {"y": self.linear(a) + b}

    model = Two().double()
    a, b = torch.randn(5, 4).double(), torch.randn(5, 3).double()
    for inputs in ((a, b), {"a": a, "b": b}):
        found = collect(
            model, inputs, None, lambda out, _: out["y"].square().sum(), needs=[Gradients()], group_size=5
        )
        expected = 2 * (model.linear(a) + b).T @ a
        torch.testing.assert_close(found[Gradients]["linear.weight"], expected.detach())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_low_precision(dtype: torch.dtype) -> None:
    x, y = images()
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)
    ).double()
    exact = collect(model, x, y, needs=[GradMoments()])[GradMoments]
    rough = collect(
        model.to(dtype), x.to(dtype), y, needs=[GradMoments(), GradNorms(), GradGram(), Gradients()]
    )
    for name, m in rough[GradMoments].items():
        assert m.abs.dtype == torch.float32
        error = (m.abs.double() - exact[name].abs).norm() / exact[name].abs.norm()
        assert error < {torch.float32: 1e-4}.get(dtype, 0.1), name


def test_under_no_grad_inference_mode_and_autocast() -> None:
    x, y = images()
    model, x = models.convnet(), x.float()
    expected = collect(model, x, y, needs=[GradNorms()])[GradNorms]
    with torch.no_grad():
        torch.testing.assert_close(collect(model, x, y, needs=[GradNorms()])[GradNorms], expected)
    with torch.inference_mode():
        torch.testing.assert_close(collect(model, x.clone(), y, needs=[GradNorms()])[GradNorms], expected)
    with torch.autocast("cpu", torch.bfloat16):
        rough = collect(model, x, y, needs=[GradNorms()])[GradNorms]
    for name, value in rough.items():
        torch.testing.assert_close(value, expected[name], rtol=0.3, atol=1e-3)
