from __future__ import annotations

import json
import math
import os
import random
import signal
import statistics
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pynas import spaces
from pynas._errors import UserError
from pynas.architecture import Architecture
from pynas.hardware import Correction, LatencyTable, Stopwatch, Timing, load
from pynas.hardware._fit import prediction_error
from pynas.hardware._shapes import OperatorMode, tensors
from pynas.spaces import SearchSpace

SPACE = spaces.get("nasbench201", channels=4, num_cells=1)
QUICK = {"image_size": 8, "batch": 2, "rounds": 2, "fit_networks": 4, "held_out": 3}


pytestmark = pytest.mark.usefixtures("one_thread")


class Work(OperatorMode):
    """Elements that operators write: a time that adds up exactly."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def observe(self, func, args, kwargs, outputs):
        if not func.is_view:
            self.elements += sum(t.numel() for t in tensors(outputs))


class Clock:
    """A stopwatch that counts elements: 1 us each, times ``factor``; it counts its calls."""

    def __init__(self, factor=1.0, fail_after=None, kill=False):
        self.factor, self.fail_after, self.calls = factor, fail_after, 0

    def measure(self, run):
        self.calls += 1
        if self.fail_after is not None and self.calls > self.fail_after:
            raise KeyboardInterrupt
        with torch.no_grad(), Work() as work:
            run()
        ms = self.factor * 1e-3 * max(work.elements, 1e-6)
        return Timing(ms, ms, ms, 1)


class Functional(SearchSpace):
    """Networks with work outside of modules, and modules whose text does not tell them apart."""

    name, summary = "functional", "for tests"
    num_choices = (3, 3)

    def params(self, arch, num_classes=10, in_channels=3):
        return 1

    def macs(self, arch, num_classes=10, image_size=16, in_channels=3):
        return sum(arch.decisions) * image_size

    def build(self, arch, num_classes=10, in_channels=3, prune=False):
        return FunctionalNetwork(arch.decisions, num_classes, in_channels)


class Take(nn.Module):
    def __init__(self, stride):
        super().__init__()
        self.stride = stride

    def forward(self, x):
        return x[:, :, :: self.stride].mul(2.0)


class FunctionalNetwork(nn.Module):
    def __init__(self, decisions, num_classes, in_channels):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(in_channels, 2 + d, 3, padding=1) for d in decisions)
        self.takes = nn.ModuleList(Take(1 + d) for d in decisions)
        self.head = nn.Linear(sum(2 + d for d in decisions), num_classes)

    def forward(self, x):
        parts = [take(F.relu(conv(x))) for conv, take in zip(self.convs, self.takes, strict=True)]
        y = torch.cat([part.mean((2, 3)) for part in parts], dim=1)
        return self.head(F.softmax(y, dim=-1))


def build(space=None, clock=None, **changes):
    chosen = Functional() if space is None else space
    return LatencyTable.build(chosen, stopwatch=clock or Clock(), **QUICK | changes)


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
            self.factor = 1.5 if getattr(run, "__name__", "") == "<lambda>" else 1.0
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


def test_file_round_trip(tmp_path):
    path = tmp_path / "folder" / "table.json"
    table = build(SPACE, path=path, name="laptop")
    read = LatencyTable.load(path)
    assert read.space.channels == 4
    assert (read.name, read.unit) == ("latency:laptop", "ms")
    assert read.describe() == table.describe()
    arch = SPACE.sample(random.Random(5))
    assert read.predict(arch) == table.predict(arch)
    assert read.error() == table.error()
    assert [p.name for p in path.parent.iterdir()] == ["table.json"]
    assert load(f"table:{path}", SPACE)[0].predict(arch) == table.predict(arch)
    clock = Clock()
    again = build(SPACE, path=path, name="laptop", clock=clock)
    assert clock.calls == 0
    assert again.error() == table.error()


def test_a_build_that_was_cut_off_continues(tmp_path, monkeypatch):
    monkeypatch.setattr("pynas.hardware._build._SECONDS_BETWEEN_SAVES", 0.0)
    path = tmp_path / "table.json"
    space = Functional()
    with pytest.raises(KeyboardInterrupt):
        build(path=path, clock=Clock(fail_after=40))
    with pytest.raises(UserError, match="its build was cut off; the same 'pynas hardware build' again"):
        LatencyTable.load(path, space)
    kept = LatencyTable.load(path, space, partial=True)
    done = sum(len(t.rounds) for t in kept.operators.values()) + sum(
        len(n.rounds) for n in kept.networks.values()
    )
    assert done == 40
    clock = Clock()
    resumed, whole = build(path=path, clock=clock), build()
    assert clock.calls == 2 * (len(whole.operators) + 7) - 40
    assert resumed.describe()["fit"] == whole.describe()["fit"]
    assert resumed.networks == whole.networks


CHILD = textwrap.dedent("""
    import os, signal, sys
    sys.path.insert(0, sys.argv[2])
    import pynas.hardware._build as b
    import test_latency_table as t
    b._SECONDS_BETWEEN_SAVES = 0.0
    t.torch.set_num_threads(1)
    class Killed(t.Clock):
        def measure(self, run):
            if self.calls == 30:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().measure(run)
    t.build(path=sys.argv[1], clock=Killed())
""")


def test_a_build_that_was_killed_continues(tmp_path):
    path = tmp_path / "table.json"
    command = [sys.executable, "-c", CHILD, str(path), os.path.dirname(__file__)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert not LatencyTable.load(path, Functional(), partial=True).complete
    clock = Clock()
    table = build(path=path, clock=clock)
    assert table.error().mape == pytest.approx(0, abs=1e-6)
    assert clock.calls == 2 * (len(table.operators) + 7) - 30


def test_other_settings_do_not_mix(tmp_path):
    path = tmp_path / "table.json"
    build(path=path)
    with pytest.raises(UserError, match="holds a table with rounds 2, not 3: delete it"):
        build(path=path, rounds=3)
    with pytest.raises(UserError, match=r"a table of functional \{\}, not of this space"):
        build(SPACE, path=path)
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"machine": record["machine"] | {"device": "another processor"}}))
    with pytest.raises(UserError, match="with machine another processor, not "):
        build(path=path)


def test_an_architecture_with_an_unknown_operator_has_no_latency():
    table = build(SPACE)
    arch = SPACE.parse("|nor_conv_3x3~0|+|none~0|none~1|+|nor_conv_3x3~0|none~1|none~2|")
    assert table.explain(arch) == ""
    key = next(key for key in table.counts(arch) if "(3, 3)" in key and "ReLU" in key)
    del table.operators[key]
    assert math.isnan(table.predict(arch))
    assert table.explain(arch).startswith("1 of its operators were never timed on cpu, such as Sequential(")
    assert table.error().missing > 0


@pytest.mark.parametrize("ms", [math.nan, math.inf, 0.0])
def test_a_time_that_is_no_time(ms, tmp_path):
    class Broken(Clock):
        def measure(self, run):
            timing = super().measure(run)
            return Timing(ms, ms, ms, 1) if self.calls == 3 else timing

    with pytest.raises(UserError, match=f"the time of .* came out as {ms} ms and was not recorded"):
        build(clock=Broken())
    path = tmp_path / "table.json"
    build(path=path)
    record = json.loads(path.read_text())
    next(iter(record["operators"].values()))[0][0] = ms
    path.write_text(json.dumps(record))
    with pytest.raises(UserError, match=r"is .* ms, not a positive finite number"):
        LatencyTable.load(path, Functional())


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
    with pytest.raises(UserError, match="there is no CUDA device"):
        build(device="cuda")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "not a latency table"),
        ("no json", "not a readable latency table"),
        ('{"format": "pynas latency table", "version": 2}', "version 2 of the format"),
        ('{"format": "pynas latency table", "version": 1}', "not a readable latency table: KeyError"),
    ],
)
def test_damaged_files(tmp_path, text, message):
    path = tmp_path / "table.json"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        LatencyTable.load(path)
    with pytest.raises(UserError, match="no such file; 'pynas hardware build' makes one"):
        LatencyTable.load(tmp_path / "absent.json")


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
    blocks = [run for run in seen if isinstance(getattr(run, "func", None), nn.Module)]
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
    """On a busy machine not much can be asked for: all is timed, and the order is better than chance."""
    table = LatencyTable.build(SPACE, seconds=0.002, **QUICK | {"fit_networks": 6, "held_out": 8})
    error = table.error()
    assert error.count == 8
    assert error.spearman > 0
    assert all(statistics.median(r[0] for r in t.rounds) == t.ms for t in table.operators.values())
    assert table.predict(Architecture("nasbench201", (3,) * 6)) > table.predict(
        Architecture("nasbench201", (0,) * 6)
    )
