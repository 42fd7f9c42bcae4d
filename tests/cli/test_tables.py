"""``pynas tables``, and tables in the other commands."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from official_layouts import hw_file, nats_folder

import pynas

pytestmark = pytest.mark.slow

SPACE = pynas.spaces.get("nasbench201")
ARCHS = [SPACE.format(SPACE.from_index(i)) for i in range(15)]
Run = Callable[..., tuple[int, str, str]]


def test_convert_and_info(run_pynas: Run, tmp_path: Path) -> None:
    source = nats_folder(tmp_path / "NATS-tss-v1_0-3ffb9-simple", ARCHS, [0, 4], {"12": 12})
    target = tmp_path / "nats.npz"
    code, out, err = run_pynas("tables", "convert", source, target)
    assert (code, out.split("(")[0]) == (
        0,
        f"NAS-Bench-201 / NATS-Bench TSS: 15 architectures, 51 columns in {target} ",
    )
    assert "reading NATS-tss-v1_0-3ffb9-simple" in err
    code, out, err = run_pynas("tables", "convert", source, target)
    assert code == 2
    assert err.splitlines()[-1] == f"pynas: {target}: exists already; --overwrite replaces it"
    code, out, err = run_pynas("tables", "convert", source, target, "--overwrite", "--json")
    record = json.loads(out)
    assert (code, err) == (0, "")
    assert record["architectures"] == 15
    assert record["bytes"] == target.stat().st_size

    code, out, _ = run_pynas("tables", "info", target, "--json")
    record = json.loads(out)
    assert record["benchmark"] == "NAS-Bench-201 / NATS-Bench TSS"
    assert (record["spaces"], record["architectures"]) == (["nasbench201"], 15)
    (column,) = (
        c for c in record["columns"] if (c["dataset"], c["metric"]) == ("cifar100", "x-test_accuracy")
    )
    assert column | {} == {
        "dataset": "cifar100",
        "metric": "x-test_accuracy",
        "epochs": 12,
        "runs": [777, 888],
        "unit": "%",
        "known": 2,
        "values": 4,
    }
    code, out, _ = run_pynas("tables", "info", target)
    assert code == 0
    assert "15 architectures of nasbench201" in out
    (line,) = (line for line in out.splitlines() if "cifar100" in line and "x-test_accuracy" in line)
    assert [cell.strip() for cell in line.split("│")[3:9]] == ["12", "%", "777, 888", "2", "13", "4"]


def test_the_examples_of_the_documentation_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    documentation = Path(__file__).resolve().parents[2] / "docs" / "tables.md"
    (example,) = re.findall(r"```python\n(.*?)```", documentation.read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    source = nats_folder(tmp_path / "nats", ARCHS, [0, 4], {"12": 12, "200": 200})
    pynas.tables.convert(source, "nats-tss.npz")
    names: dict[str, Any] = {}
    exec(example, names)
    assert all(isinstance(names[name], float) for name in ("mean", "single", "seconds", "value"))
    assert len(names["unknown"]) == 13


def test_bad_input_is_one_line(run_pynas: Run, tmp_path: Path) -> None:
    (tmp_path / "a.pickle").write_bytes(b"cos\nsystem\n(X\x04\x00\x00\x00truetR.")
    for arguments, message in (
        (("convert", tmp_path / "a.pickle", tmp_path / "a.npz"), "it names os.system, which has no place"),
        (("convert", tmp_path / "absent", tmp_path / "a.npz"), "no such file or folder"),
        (("info", tmp_path / "absent.npz"), "no such file"),
        (("info", tmp_path / "a.pickle"), "not an .npz archive"),
    ):
        code, out, err = run_pynas("tables", *arguments)
        assert (code, out) == (2, "")
        assert message in err
        assert [line.startswith("pynas: ") for line in err.splitlines()].count(True) == 1
        assert err.splitlines()[-1].startswith("pynas: ")


@pytest.mark.parametrize("kind", ["text", "other pickle", "folder"])
def test_a_file_of_no_benchmark_is_told_what_is_read(run_pynas: Run, tmp_path: Path, kind: str) -> None:
    source = tmp_path / "results"
    if kind == "folder":
        source.mkdir()
    else:
        source.write_bytes(b"arch,accuracy\n" if kind == "text" else pickle.dumps({"accuracy": [1.0]}))
    code, out, err = run_pynas("tables", "convert", source, tmp_path / "a.npz")
    assert (code, out) == (2, "")
    (line,) = (line for line in err.splitlines() if line.startswith("pynas: "))
    assert str(source) in line
    documented = (Path(__file__).resolve().parents[2] / "docs" / "tables.md").read_text()
    rows = re.findall(r"^\| .* \| (.*`.*) \| .* \| `.*` \| `\w+:FILE` \|$", documented, re.MULTILINE)
    names = [name for row in rows for name in re.findall(r"`([\w.-]+)`", row) if len(name) > 10]
    assert len(names) >= 8
    assert [name for name in names if name not in line and name != "v1_0-e61699"] == []


def test_info_of_other_archives(run_pynas: Run, tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, **{"cifar10/raspi4_latency": np.ones(15_625)})
    code, out, _ = run_pynas("tables", "info", path)
    assert code == 0
    assert "raspi4_latency" in out
    assert "HW-NAS-Bench from a.npz" in out


@pytest.fixture(scope="module")
def latencies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Accuracies of the whole space that are known functions of the parameters, on two data sets."""
    path = tmp_path_factory.mktemp("table") / "mine.npz"
    params = np.array([SPACE.params(arch) for arch in SPACE.all()], dtype=np.float64) / 1e5
    np.savez(
        path,
        **{"cifar10/test_accuracy@200": 90 - params, "cifar100/test_accuracy@12": params},
    )
    return path


def test_rank_by_metric_and_data_set(run_pynas: Run, latencies: Path) -> None:
    common = ("rank", "--proxies", "params", "--sample", 5, "--batch", 4, "--images", "digits")
    common += ("--table", f"table:{latencies}")
    for options, sign in (((), -1), (("--dataset", "cifar100", "--metric", "test_accuracy@12"), 1)):
        code, out, err = run_pynas(*common, *options, "--json")
        assert (code, err) == (0, "")
        assert json.loads(out)["correlations"]["params"]["spearman"]["value"] == sign
    code, _, err = run_pynas(*common, "--dataset", "cifar100", "--metric", "test_accuracy@200")
    assert code == 2
    assert "expected epochs 12, got 200" in err


def test_search_with_a_table_of_costs(run_pynas: Run, tmp_path: Path) -> None:
    archs = [SPACE.format(arch) for arch in SPACE.all()]
    source = tmp_path / "HW-NAS-Bench-v1_0.pickle"
    source.write_bytes(pickle.dumps(hw_file(archs)))
    run_pynas("tables", "convert", source, tmp_path / "hw.npz")
    common: tuple[Any, ...] = (
        "search", "--strategy", "random", "--objective", "params", "--budget", 3, "--batch", 4,
    )  # fmt: skip
    code, out, err = run_pynas(*common, "--table", f"hw:{tmp_path / 'hw.npz'}", "--metric", "raspi4_latency")
    assert code == 0, err
    assert "(the best raspi4_latency of all 15,625 has 21.00 ms)" in out
    code, _, err = run_pynas(*common, "--metric", "raspi4_latency")
    assert (code, err) == (2, "pynas: --metric and --dataset choose from a table: give --table\n")
