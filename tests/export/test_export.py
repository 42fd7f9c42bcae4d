"""Exported networks run without pynas and compute what the network computes."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import pynas
from pynas import spaces
from pynas._errors import UserError
from pynas._generators import seeded
from pynas.export import export, plain_source
from pynas.spaces import NASBench201

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL: dict[str, dict[str, object]] = {
    "darts_cnn": {"channels": 4, "num_cells": 3},
    "nasbench101": {"channels": 8},
    "nasbench201": {"channels": 4, "num_cells": 1},
    "transnas_micro": {"channels": 4},
    "transnas_macro": {"channels": 4},
}
ALONE = """
import importlib.abc, importlib.util, json, sys, torch

torch.set_num_threads(1)

class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "pynas":
            raise ImportError("pynas is blocked")

sys.meta_path.insert(0, Blocked())
for folder in sys.argv[1:]:
    spec = importlib.util.spec_from_file_location("network", f"{folder}/network.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    given = torch.load(f"{folder}/given.pt", weights_only=True)
    network = module.load(f"{folder}/network.pt").to(given["inputs"].dtype)
    network.load_state_dict(given["state"])
    with torch.no_grad():
        found = network.eval()(given["inputs"])
    print(json.dumps([folder, float((found - given["expected"]).abs().max()), list(found.shape)]))
    assert network.train()(given["inputs"]).requires_grad
"""


@pytest.mark.slow
def test_source_runs_where_pynas_cannot_be_imported(tmp_path: Path) -> None:
    """All spaces but that of recurrent cells, at another batch size than the trace, in float64."""
    names = [name for name in spaces.names() if name != "darts_rnn"]
    for name in names:
        folder = tmp_path / name
        folder.mkdir()
        space = spaces.get(name, **SMALL.get(name, {}))
        arch = space.sample(random.Random(1))
        with seeded(2):
            model = space.build(arch, num_classes=5).double()
            for module in model.modules():  # statistics that are not those of a new network
                if isinstance(module, torch.nn.BatchNorm2d) and module.running_mean is not None:
                    module.running_mean.normal_(std=0.1)
            inputs = space.example_inputs(3).double()
        result = export(space, arch, folder / "network.py", num_classes=5, model=model)
        assert [path.name for path in result.files] == ["network.md", "network.pt", "network.py"]
        with torch.no_grad():
            expected = model.eval()(inputs)
        used = torch.load(folder / "network.pt", weights_only=True)
        given = {"inputs": inputs, "expected": expected, "state": used}
        torch.save(given, folder / "given.pt")
        assert set(used) <= set(model.state_dict()), name
    done = subprocess.run(
        [sys.executable, "-c", ALONE, *(str(tmp_path / name) for name in names)],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [Path(folder).name for folder, _, _ in lines] == names
    assert all(difference <= 1e-12 for _, difference, _ in lines), lines


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_what_plain_pytorch_does_not_have_is_refused(tmp_path: Path) -> None:
    space = spaces.get("darts_rnn", features=8)
    model = space.build(space.sample(random.Random(0)))
    with pytest.raises(
        UserError, match="NextWords cannot be written as plain PyTorch: its forward calls an operator"
    ):
        plain_source(model, space.example_inputs(2))

    for to, suffix in (("torch.export", "pt2"), ("script", "ts")):
        with pytest.raises(UserError, match=r"would need pynas where it runs: .* operator pynas::"):
            export(space, space.sample(random.Random(0)), tmp_path / f"a.{suffix}", to=to)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())

    class ByBatch(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.reshape(x.shape[0], -1)

    with pytest.raises(UserError, match="depends on the size of the batch"):
        plain_source(ByBatch(), torch.randn(2, 3))


CELL = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|nor_conv_1x1~0|none~1|nor_conv_3x3~2|"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("to", ["torch.export", "script", "onnx"])
def test_deployed_forms(to: str, tmp_path: Path) -> None:
    if to == "onnx":
        for needed in ("onnx", "onnxruntime", "onnxscript"):
            pytest.importorskip(needed, reason="needs the packages of ONNX")
    space = NASBench201(channels=4, num_cells=1)
    suffix = {"torch.export": ".pt2", "script": ".ts", "onnx": ".onnx"}[to]
    with seeded(0):
        model = space.build(space.parse(CELL), num_classes=5).eval()
        x = torch.randn(7, 3, 32, 32)
    result = export(space, space.parse(CELL), tmp_path / f"a{suffix}", to=to, num_classes=5, model=model)  # type: ignore[arg-type]
    assert result.difference < 1e-4
    with torch.no_grad():
        expected = model(x)
    if to == "torch.export":
        found = torch.export.load(tmp_path / "a.pt2").module()(x)
    elif to == "script":
        found = torch.jit.load(tmp_path / "a.ts")(x)  # type: ignore[no-untyped-call]
    else:
        import onnxruntime  # type: ignore[import-not-found,import-untyped,unused-ignore]

        session = onnxruntime.InferenceSession(tmp_path / "a.onnx")
        found = torch.from_numpy(session.run(None, {"images": x.numpy()})[0])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_a_search_result_and_its_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from pynas.cli import app

    store = tmp_path / "runs.db"
    result = pynas.search(
        NASBench201(channels=4, num_cells=1), objectives=["-flops"], strategy="random", budget=5, store=store
    )
    assert result.best is not None
    result.export(tmp_path / "best.py", weights=False)
    card = (tmp_path / "best.md").read_text()
    text = NASBench201().format(result.best.architecture)
    assert text.replace("|", "\\|") in card
    assert f"number {result.best.number} of 5" in card
    assert "| weights | none |" in card
    assert not (tmp_path / "best.pt").exists()
    app(["export", str(store), "--output", str(tmp_path / "again.py"), "--json"], standalone_mode=False)
    files = json.loads(capsys.readouterr().out)["files"]
    assert [Path(file).name for file in files] == ["again.md", "again.pt", "again.py"]
    assert (tmp_path / "again.py").read_text() == (tmp_path / "best.py").read_text()
    assert "not trained" in (tmp_path / "again.md").read_text()
    for arguments, message in (
        ([str(store), "--to", "caffe"], "--to: expected one of pytorch"),
        ([str(store), "--output", str(tmp_path / "a.txt")], "ends with .py"),
        ([str(store), "--trial", "9"], "has trials 0..4"),
        ([str(store), "--output", str(tmp_path / "no" / "a.py")], "--output"),
        (["|none~0|"], "not a nasbench201 architecture"),
        ([str(store), "--output", "a.py", "--state", "a.pt"], "would replace a.pt, which is read"),
        ([CELL, "--no-weights", "--to", "script"], "always has weights"),
    ):
        with pytest.raises(UserError, match=message.replace("|", r"\|")):
            app(["export", *arguments], standalone_mode=False)


KILLED = """
import sys, torch
from pathlib import Path
torch.set_num_threads(1)
from pynas.export import export
from pynas.spaces import NASBench201

space = NASBench201(channels=4, num_cells=1)
arch = space.parse(sys.argv[2])
print("ready", flush=True)
while True:
    export(space, arch, Path(sys.argv[1]) / "network.py")
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_files_are_whole_or_absent_after_a_kill(tmp_path: Path) -> None:
    space = NASBench201(channels=4, num_cells=1)
    export(space, space.parse(CELL), tmp_path / "network.py")
    whole = {name: (tmp_path / name).read_bytes() for name in ("network.py", "network.md")}
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path), CELL], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(random.Random(os.getpid()).uniform(0.1, 1))
    process.kill()
    process.communicate()
    for name, content in whole.items():
        assert (tmp_path / name).read_bytes() == content
    state = torch.load(tmp_path / "network.pt", weights_only=True)
    model = space.build(space.parse(CELL))
    model.load_state_dict(state)
