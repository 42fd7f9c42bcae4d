from __future__ import annotations

import math
import random
import statistics

import numpy as np
import pytest
import torch
from counted_latencies import QUICK, SPACE, Clock, Functional, FunctionalNetwork, build
from torch import nn

from pynas._errors import UserError
from pynas.architecture import Architecture
from pynas.hardware import Correction, LatencyTable, Stopwatch
from pynas.hardware._fit import prediction_error

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.slow]


@pytest.mark.parametrize("space", [SPACE, Functional()], ids=lambda space: space.name)
def test_everything_that_a_network_runs_is_in_the_sum(space):
    """With times that add up the sum of the operators is exact, and the correction does nothing."""
    table = build(space, held_out=4)
    assert table.complete
    fit = table.correction
    assert (fit.slope, fit.per_operator, fit.constant) == pytest.approx((1, 0, 0), abs=1e-6)
    error = table.error()
    assert error.mape == pytest.approx(0, abs=1e-6)
    assert error.mape_of_sums == pytest.approx(0, abs=1e-6)
    assert error.count == 4
    assert error.missing == 0
    arch = space.sample(random.Random(99))
    model = space.build(arch, prune=True).eval()
    images = torch.rand(2, 3, 8, 8)
    assert table.predict(arch) == pytest.approx(Clock().measure(lambda: model(images)).ms)


def test_operators_are_blocks_and_each_is_timed_once():
    clock = Clock()
    table = build(SPACE, clock)
    keys = list(table.operators)
    assert len(keys) == 26  # skips and the zeroed cells of each stage included
    assert clock.calls == 2 * (len(keys) + 4 + 3)
    assert any("Sequential( (0): ReLU() (1): Conv2d(4, 4" in key for key in keys)  # ReLU-conv-BN as a whole
    assert not any(key.startswith(("ReLU", "BatchNorm2d")) for key in keys)
    leaves = build(SPACE, block=lambda module: not list(module.children()))
    assert any(key.startswith("BatchNorm2d") for key in leaves.operators)
    assert leaves.error().mape == pytest.approx(0, abs=1e-6)


def test_a_correction_is_fitted():
    """Whole networks 1.5 times as slow as their parts: the slope says so."""

    class Slower(Clock):
        def measure(self, run):
            self.factor = 1.5 if isinstance(run.function, FunctionalNetwork) else 1.0
            return super().measure(run)

    table = build(clock=Slower())
    assert table.correction.slope == pytest.approx(1.5, rel=1e-6)
    error = table.error()
    assert error.mape < 1e-4
    assert error.mape_of_sums == pytest.approx(100 / 3, rel=1e-6)
    assert error.spearman == pytest.approx(1)


def test_fit_and_error_against_plain_formulas():
    rng = np.random.default_rng(0)
    totals, counts = rng.uniform(1, 9, 30), rng.integers(20, 90, 30)
    measured = 1.2 * totals + 0.01 * counts + 0.3
    fit = Correction.fit(totals, counts, measured)
    assert (fit.slope, fit.per_operator, fit.constant) == pytest.approx((1.2, 0.01, 0.3), rel=1e-6)
    assert Correction.fit([2.0, 4.0], [1, 1], [3.0, 6.0]).slope == pytest.approx(1.5)
    assert Correction.fit([], [], []) == Correction()
    error = prediction_error([1.1, 2.0, math.nan, 3.0], [1, 1, 1, 1], [[1, 1], [2, 4], [9, 9], [2, 2]])
    assert error.mape == pytest.approx(100 * np.mean([0.1, 1 / 3, 0.5]))
    assert (error.count, error.missing) == (3, 1)
    assert error.kendall == pytest.approx(1 / 3)
    assert error.repeatability == pytest.approx(100 * np.std([2, 4], ddof=1) / 3 / 4)
    assert math.isnan(prediction_error([1.0], [1.0], [[1.0]]).spearman)


def test_an_architecture_with_an_unknown_operator_has_no_latency():
    table = build(SPACE)
    arch = SPACE.parse("|nor_conv_3x3~0|+|none~0|none~1|+|nor_conv_3x3~0|none~1|none~2|")
    assert table.explain(arch) == ""
    key = next(key for key in table.counts(arch) if "(3, 3)" in key and "ReLU" in key)
    del table.operators[key]
    assert math.isnan(table.predict(arch))
    assert table.explain(arch).startswith("1 operator was never timed on cpu, such as Sequential(")
    assert table.error().missing > 0


def test_an_operator_that_does_not_run():
    class OutOfMemory(Clock):
        def measure(self, run):
            raise RuntimeError("out of memory\nTried to allocate")

    with pytest.raises(UserError, match=r"does not run on cpu: out of memory$"):
        build(clock=OutOfMemory())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"device": "tpu"}, "device: expected cpu or cuda, got 'tpu'"),
        ({"dtype": "int8"}, "dtype: expected one of float32"),
        ({"rounds": 0}, "rounds, seconds: expected positive numbers"),
        ({"space": "nasbench20"}, "unknown search space"),
    ],
)
def test_bad_arguments(changes, message):
    with pytest.raises(UserError, match=message):
        build(**changes)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu():
    with pytest.raises(UserError, match="torch finds no CUDA device"):
        build(device="cuda")


def test_threads_and_modes_are_put_back():
    threads = torch.get_num_threads()

    class Looks(Clock):
        def measure(self, run):
            assert torch.get_num_threads() == 1
            return super().measure(run)

    build(threads=1, clock=Looks())
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
def test_dtypes_and_layouts(dtype):
    seen = []

    class Looks(Clock):
        def measure(self, run):
            seen.append(run)
            return super().measure(run)

    table = build(dtype=dtype, channels_last=True, clock=Looks(), held_out=2)
    assert table.error().mape == pytest.approx(0, abs=1e-6)
    blocks = [run for run in seen if isinstance(run.function, nn.Module)]
    assert {run.args[0].dtype for run in blocks} == {getattr(torch, dtype)}
    assert all(
        run.args[0].is_contiguous(memory_format=torch.channels_last)
        for run in blocks
        if run.args[0].dim() == 4
    )


def test_a_real_stopwatch():
    """Twice the work takes longer, and quantiles are in order."""
    a, b = torch.rand(128, 128), torch.rand(512, 512)
    watch = Stopwatch(seconds=0.01)
    small, large = watch.measure(lambda: a @ a), watch.measure(lambda: b @ b)
    assert 0 < small.low <= small.ms <= small.high
    assert large.ms > 4 * small.ms
    assert large.runs >= 5


def test_a_real_build():
    """On a busy machine not much can be asked for: all is timed, and more work takes longer."""
    table = LatencyTable.build(SPACE, seconds=0.002, **QUICK | {"fit_networks": 6, "held_out": 8})
    error = table.error()
    assert error.count == 8
    assert all(statistics.median(r[0] for r in t.rounds) == t.ms for t in table.operators.values())
    assert table.predict(Architecture("nasbench201", (3,) * 6)) > table.predict(
        Architecture("nasbench201", (0,) * 6)
    )
