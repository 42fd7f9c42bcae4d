"""Cases for ``collect``: moments of all gradients of a network against its plain forward and backward."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from pynas import stats
from pynas.bench._harness import CASES, Case, Problem
from pynas.bench.networks import NETWORKS

MOMENTS = stats.GradMoments(("sum", "abs", "square", "sign"))


def data(batch: int) -> tuple[Tensor, Tensor]:
    """Random 32x32 images and labels."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch, 3, 32, 32, generator=generator)
    return images, torch.randint(0, 10, (batch,), generator=generator)


def implementation(name: str, network: str, batch: int) -> Callable[[], object]:
    """``pynas`` (collect in channels_last), or a plain pass in ``nchw`` or ``channels_last``."""
    torch.manual_seed(0)
    model, (x, y) = NETWORKS[network](), data(batch)
    if name != "nchw":
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        x = x.contiguous(memory_format=torch.channels_last)

    def plain() -> None:
        model.zero_grad()
        F.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]

    return plain if name != "pynas" else lambda: stats.collect(model, x, y, needs=[MOMENTS])


def collect_case(network: str, batch: int = 64) -> Problem:
    """Four moments of every parameter's per-sample gradient."""
    runs = {name: implementation(name, network, batch) for name in ("pynas", "nchw", "channels_last")}

    def check() -> None:
        torch.manual_seed(0)
        model, (x, y) = NETWORKS[network](), data(batch)
        F.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]
        statistics = runs["pynas"]()
        assert isinstance(statistics, stats.Statistics)
        found = statistics[stats.GradMoments]
        for name, parameter in model.named_parameters():
            total, gradient = found[name].sum, parameter.grad
            assert total is not None
            assert gradient is not None
            # In float32, two orders of summation flip ReLUs of a deep network.
            assert (total - gradient).norm() < 5e-2 * (gradient.norm() + 1e-6), name

    return Problem(runs, check)


for _network in NETWORKS:
    CASES.register(
        f"collect/{_network}",
        Case(f"collect/{_network}", lambda n=_network: collect_case(n), 1.15, 1.0, slow=True),  # type: ignore[misc]
    )
