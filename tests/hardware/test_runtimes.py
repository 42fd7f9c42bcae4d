"""Latency in the runtime that is deployed."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from counted_latencies import SPACE, Clock, build
from torch import nn

from pynas._errors import UserError
from pynas.hardware import LatencyTable, runtimes
from pynas.hardware._trace import Call, Setting, trace

pytestmark = pytest.mark.usefixtures("one_thread")
MISSING = [name for name in ("onnx", "onnxruntime", "onnxscript") if importlib.util.find_spec(name) is None]
needs_onnx = pytest.mark.skipif(
    bool(MISSING), reason=f"needs the extra onnx ({', '.join(MISSING)} not installed)"
)


class Counting(runtimes.Runtime):
    """Torch under another name, which counts."""

    compiles = True
    prepared: ClassVar[list[tuple[Call, int]]] = []

    def check(self, setting: Setting) -> None:
        if setting.dtype != torch.float32:
            raise UserError("dtype: counting is of float32")

    def versions(self) -> dict[str, str]:
        return {"counting": "1.2"}

    def prepare(self, call: Call, threads: int) -> Callable[[], object]:
        self.prepared.append((call, threads))
        return call


def test_a_runtime_of_ones_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Counting, "prepared", [])
    monkeypatch.setattr(runtimes.REGISTRY, "_objects", {**runtimes.REGISTRY._objects, "counting": Counting})
    path, clock = tmp_path / "table.json", Clock()
    table = build(SPACE, clock=clock, path=path, runtime="counting", threads=1)
    assert table.name == "latency:cpu-counting"
    things = len(table.operators) + len(table.networks)
    assert (len(Counting.prepared), clock.calls) == (things, 2 * things)  # prepared once, timed in 2 rounds
    assert {threads for _, threads in Counting.prepared} == {1}
    read = LatencyTable.load(path)
    assert (read.runtime, read.facts()["runtime"]) == ("counting", "counting 1.2")
    with pytest.raises(UserError, match="holds a table with runtime counting, not torch"):
        build(SPACE, path=path, name="cpu-counting", threads=1)
    with pytest.raises(UserError, match="dtype: counting is of float32"):
        build(SPACE, runtime="counting", dtype="float64")


def test_unknown_and_absent_runtimes(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"unknown runtime 'onnx'.*known: onnxruntime, torch"):
        build(SPACE, runtime="onnx")
    if MISSING:
        with pytest.raises(UserError, match=r"onnxruntime needs onnx, which is not installed: pip install"):
            build(SPACE, runtime="onnxruntime")


@needs_onnx
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dtype": "bfloat16"}, "dtype: the runtime onnxruntime is timed with float32 only, got bfloat16"),
        (
            {"channels_last": True},
            "channels_last: the runtime onnxruntime is timed with False only, got True",
        ),
    ],
)
def test_what_onnxruntime_is_not_timed_with(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(SPACE, runtime="onnxruntime", **changes)


class Sums(nn.Module):
    """Layers, and operators outside of layers."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.ReLU(), nn.Conv2d(3, 5, 3, padding=1), nn.BatchNorm2d(5))
        self.pool = nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.block(x)
        return torch.cat([y + 2 * self.pool(y), y], dim=1).mean((2, 3))


@needs_onnx
def test_onnxruntime_computes_what_torch_does() -> None:
    runtime, setting = runtimes.get("onnxruntime"), Setting()
    with torch.device("meta"):
        model, inputs = Sums().eval(), torch.empty(2, 3, 7, 5)
    _, operators = trace(model, inputs)
    assert len(operators) >= 5
    for operator in operators.values():
        call = operator.make(setting)
        with torch.inference_mode():
            expected = call()
        assert isinstance(expected, torch.Tensor)
        (found,) = runtime.prepare(call, 1)()  # type: ignore[misc]
        torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-4, atol=1e-5)


@needs_onnx
def test_what_onnxruntime_cannot_run() -> None:
    with pytest.raises(UserError, match="onnxruntime cannot run "):
        runtimes.get("onnxruntime").prepare(Call(torch.linalg.eigvals, (torch.eye(3),)), 1)


@needs_onnx
def test_a_table_of_onnxruntime(tmp_path: Path) -> None:
    import onnxruntime

    table = LatencyTable.build(
        SPACE, path=tmp_path / "ort.json", runtime="onnxruntime", threads=1, rounds=1, seconds=1e-3,
        fit_networks=1, held_out=3, image_size=8,
    )  # fmt: skip
    assert table.name == "latency:cpu-onnxruntime"
    assert table.machine["versions"]["onnxruntime"] == onnxruntime.__version__
    error = table.error()
    assert error.count == 3
    assert -1 <= error.kendall <= 1
    assert all(timing.ms > 0 for timing in table.operators.values())
