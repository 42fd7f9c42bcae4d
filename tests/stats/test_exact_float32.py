"""float32 on a GPU is float32, whichever of PyTorch's two interfaces of TF32 somebody uses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

from pynas.stats import exact_float32
from pynas.stats.exact_float32 import _deterministic, _float32_convolutions

CUDNN: Any = torch.backends.cudnn
PRODUCTS: Any = torch.backends.cuda.matmul


def older_off() -> None:
    CUDNN.allow_tf32 = False


def one_of_two() -> None:
    CUDNN.conv.fp32_precision = "ieee"


def all_float32() -> None:
    torch.backends.fp32_precision = "ieee"


def tf32_everywhere() -> None:
    torch.backends.fp32_precision = "tf32"


def tf32_products() -> None:
    PRODUCTS.fp32_precision = "tf32"


def settings() -> tuple[str, ...]:
    try:
        older = str(CUDNN.allow_tf32)
    except RuntimeError:
        older = "unreadable"
    precisions = CUDNN.conv.fp32_precision, CUDNN.rnn.fp32_precision, PRODUCTS.fp32_precision
    return (older, *precisions, str(CUDNN.deterministic))


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    yield
    torch.backends.fp32_precision = PRODUCTS.fp32_precision = "none"
    CUDNN.conv.fp32_precision = CUDNN.rnn.fp32_precision = "tf32"
    CUDNN.allow_tf32 = True
    assert settings() == ("True", "tf32", "tf32", "none", "False"), "as PyTorch begins"


@pytest.mark.parametrize(
    ("setting", "is_exact"),
    [
        (None, True),
        (older_off, True),
        (one_of_two, True),
        (all_float32, True),
        (tf32_everywhere, False),
        (tf32_products, False),
    ],
)
def test_products_decide_for_convolutions(setting: Callable[[], None] | None, is_exact: bool) -> None:
    if setting is not None:
        setting()
    before = settings()
    with pytest.raises(KeyError), _deterministic(), _float32_convolutions():  # noqa: PT012
        assert CUDNN.deterministic
        assert (CUDNN.conv.fp32_precision != "tf32") == is_exact
        assert (CUDNN.rnn.fp32_precision != "tf32") == is_exact
        raise KeyError
    assert settings() == before


def test_nothing_changes_for_a_model_on_the_cpu() -> None:
    before = settings()
    with exact_float32.exact_float32(nn.Conv2d(3, 4, 3)):
        assert settings() == before


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_moments_on_a_gpu_have_float32s_digits() -> None:
    from pynas.stats import GradMoments, collect

    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(16, 64, 3), nn.ReLU(), nn.Conv2d(64, 10, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    x, y = torch.randn(8, 16, 12, 12), torch.arange(8)
    wanted = collect(network.double(), x.double(), y, needs=[GradMoments()])[GradMoments]
    network = network.float().cuda()
    first, second = (
        collect(network, x.cuda(), y.cuda(), needs=[GradMoments()])[GradMoments] for _ in range(2)
    )
    for name, expected in wanted.items():
        got = first[name].square.cpu().double()
        assert torch.equal(first[name].square, second[name].square)
        assert (got - expected.square).norm() <= 2e-6 * expected.square.norm()
