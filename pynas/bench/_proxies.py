"""Cases for proxies: all together, against one plain forward and backward and against baselines."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pynas import proxies, spaces
from pynas.bench._baseline_proxies import BASELINES
from pynas.bench._harness import CASES, Case, Problem
from pynas.bench.collecting import data
from pynas.bench.networks import ALL_3X3
from pynas.evaluate import ProxyEvaluator, score

MIXED = "|nor_conv_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|avg_pool_3x3~0|nor_conv_1x1~1|nor_conv_3x3~2|"
CELLS = {"convolutions": ALL_3X3, "mixed": MIXED}
# Other published forms of a proxy, which need passes of their own; ntk_condition_tenas one per sample.
VARIANTS = ("grad_norm_zennas", "ntk_condition_tenas", "synflow_bn", "zen_zennas")
TOGETHER = ("zico", "naswot", "synflow", "snip", "params", "flops")
# Relative; scores that hinge on small differences are sensitive to rounding. Tests in float64 check formulas.
TOLERANCE = {"zico": 0.05, "grad_sign": 0.02, "plain": 1.0, "grasp": 0.05, "jacob_cov": 0.05, "fisher": 0.02}


def network(cell: str) -> nn.Module:
    """A seeded network of NAS-Bench-201."""
    space = spaces.get("nasbench201")
    torch.manual_seed(0)
    return space.build(space.parse(CELLS[cell]), prune=True).train()


def everything() -> list[str]:
    """Names of all proxies, each in one form."""
    return [name for name in proxies.names() if name not in VARIANTS]


def check(cell: str, names: Sequence[str], batch: int = 8) -> None:
    """Assert that scores agree with the baselines."""
    x, y = data(batch)
    found = score(network(cell), x, y, names)
    for name in names:
        assert found[name].status == "ok", f"{name}: {found[name].message}"
        if name in BASELINES:
            expected = BASELINES[name](network(cell), x, y)
            tolerance = TOLERANCE.get(name, 2e-3)
            error = abs(found[name].value - expected)
            assert error <= tolerance * max(abs(expected), 1e-3), f"{name}: {found[name].value}, {expected}"


def passes(cell: str, batch: int) -> Mapping[str, Callable[[], object]]:
    """A plain forward and backward, in both layouts."""
    runs: dict[str, Callable[[], object]] = {}
    for layout in ("nchw", "channels_last"):
        model, (x, y) = network(cell), data(batch)
        if layout == "channels_last":
            model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            x = x.contiguous(memory_format=torch.channels_last)

        def plain(model: nn.Module = model, x: Tensor = x, y: Tensor = y) -> None:
            model.zero_grad()
            F.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]

        runs[layout] = plain
    return runs


def all_case(cell: str, batch: int) -> Problem:
    """All proxies of one network, against one forward and backward."""
    model, (x, y) = network(cell), data(batch)
    names = everything()
    return Problem(
        {"pynas": lambda: score(model, x, y, names), **passes(cell, batch)},
        lambda: check(cell, [n for n in names if n in BASELINES and n != "grad_sign"]),
    )


def one_at_a_time_case(cell: str, batch: int) -> Problem:
    """All proxies that have a baseline, in one call, against their baselines one at a time."""
    model, (x, y) = network(cell), data(batch)
    names = list(BASELINES)
    return Problem(
        {
            "pynas": lambda: score(model, x, y, names),
            "one at a time": lambda: [run(model, x, y) for run in BASELINES.values()],
        },
        lambda: check(cell, names),
    )


def throughput_case(batch: int) -> Problem:
    """Six proxies of an architecture in one evaluator, including the build, against an evaluator for each."""
    space, (x, y) = spaces.get("nasbench201"), data(batch)
    architecture = space.parse(MIXED)
    together = ProxyEvaluator(space, x, y, TOGETHER, num_classes=10)
    alone = [ProxyEvaluator(space, x, y, [name], num_classes=10) for name in TOGETHER]

    def same() -> None:
        found = together(architecture).scores
        for name, evaluator in zip(TOGETHER, alone, strict=True):
            assert math.isclose(found[name], evaluator(architecture).scores[name], rel_tol=1e-3), name

    return Problem(
        {
            "pynas": lambda: together(architecture),
            "one at a time": lambda: [evaluator(architecture) for evaluator in alone],
        },
        same,
    )


for _cell in CELLS:
    for _batch in (64, 128):
        CASES.register(
            f"proxies/all-{_cell}-{_batch}",
            Case(
                f"proxies/all-{_cell}-{_batch}",
                lambda c=_cell, b=_batch: all_case(c, b),  # type: ignore[misc]
                slow=True,
                targets={"nchw": (4.0, 2.5)},
            ),
        )
CASES.register(
    "proxies/usual-code",
    Case("proxies/usual-code", lambda: one_at_a_time_case("mixed", 64), 0.4, 0.25, slow=True),
)
CASES.register(
    "proxies/throughput", Case("proxies/throughput", lambda: throughput_case(64), 1.0, 0.8, slow=True)
)
