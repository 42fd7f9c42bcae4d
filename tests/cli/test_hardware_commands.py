"""Latencies on the command line: ``hardware``, and the options of ``search`` and ``rank`` that use them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pynas
from pynas.cli.hardware_specs import human, parse_constraints

pytestmark = pytest.mark.slow

SMALL = "nasbench201:channels=4,num_cells=1"
CELL = "|nor_conv_3x3~0|+|none~0|none~1|+|nor_conv_3x3~0|none~1|none~2|"


@pytest.fixture
def run(run_pynas: Any, one_thread: None) -> Any:
    return run_pynas


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Accuracies and latencies of the whole space, both made of its parameters, in the official order."""
    space = pynas.spaces.get("nasbench201")
    archs = list(space.all())
    folder = tmp_path_factory.mktemp("tables")
    params = np.array([space.params(a) for a in archs], dtype=np.float64)
    macs = np.array([space.macs(a) for a in archs], dtype=np.float64)
    rng = np.random.default_rng(0)
    accuracy = 50 + 40 * params / params.max() + rng.uniform(0, 5, len(params))
    np.savez(
        folder / "accuracy.npz",
        arch_str=np.array([space.format(a) for a in archs]),
        test200_cifar10=accuracy,
    )
    np.savez(
        folder / "partial.npz",
        arch_str=np.array([space.format(a) for a in archs[100:130]]),
        test200_cifar10=accuracy[100:130],
    )
    latency = 1 + macs / 1e7
    unsupported = np.full(len(archs), -1.0)
    np.savez(
        folder / "hw.npz",
        **{"cifar10/raspi4_latency": latency, "cifar10/edgetpu_latency": unsupported},
    )
    return folder / "accuracy.npz", folder / "hw.npz"


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("measured") / "here.json"
    pynas.hardware.LatencyTable.build(
        pynas.spaces.get("nasbench201", channels=4, num_cells=1),
        path=path,
        name="here",
        image_size=8,
        rounds=1,
        seconds=0.001,
        fit_networks=4,
        held_out=4,
        threads=1,
    )
    return path


def test_build_shows_and_predicts(run: Any, tmp_path: Path) -> None:
    path = tmp_path / "here.json"
    options = ("--image-size", 8, "--rounds", 1, "--seconds", 0.001, "--fit", 4, "--held-out", 4)
    code, out, err = run("hardware", "build", SMALL, path, *options, "--name", "here", "--json")
    assert (code, err) == (0, "")
    built = json.loads(out)
    assert built["name"] == "latency:here"
    assert built["error"]["count"] == 4
    assert built["settings"]["task"]["image_size"] == 8
    code, out, _ = run("hardware", "build", SMALL, path, *options, "--name", "here")  # nothing left to do
    assert code == 0
    assert "error on 4 held-out networks" in out
    code, out, _ = run("hardware", "build", SMALL, path, "--batch", 2)
    assert code == 2


def test_show_and_predict(run: Any, measured: Path, tables: tuple[Path, Path]) -> None:
    code, out, _ = run("hardware", "show", measured, "--json")
    assert code == 0
    assert len(json.loads(out)["operators"]) == 26
    code, out, _ = run("hardware", "show", measured)
    assert "Conv2d(3, 4" in out
    code, out, _ = run("hardware", "predict", measured, CELL, "--json")
    assert code == 0
    (record,) = json.loads(out)
    assert record["value"] > 0
    assert record["name"] == "latency:here"
    code, out, _ = run("hardware", "show", f"hw:{tables[1]}", "--space", "nasbench201", "--json")
    assert [column["unsupported"] for column in json.loads(out)] == [0, 15625]
    code, out, _ = run("hardware", "predict", f"hw:{tables[1]}:raspi4", CELL, "--space", "nasbench201")
    assert code == 0
    assert " ms" in out


def test_search_for_a_proxy_and_a_latency(run: Any, tables: tuple[Path, Path], tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    code, out, _ = run(
        *("search", "--strategy", "nsga2", "--objective", "naswot", "--objective=-latency", "--budget", 12),
        *("--latency", f"hw:{tables[1]}:raspi4", "--batch", 8, "--constraint", "latency:raspi4<9"),
        *("--option", "population_size=6", "--report", page, "--json"),
    )
    assert code == 0
    record = json.loads(out)
    assert 0 < record["hypervolume"] <= 1
    assert record["pareto"]
    for trial in record["trials"]:
        assert trial["metrics"]["latency"] == trial["metrics"]["latency:raspi4"] < 9
        assert trial["scores"]["-latency"] == -trial["metrics"]["latency"]
    assert "latency" in page.read_text()


def test_search_for_costs_alone_needs_no_images(run: Any, measured: Path) -> None:
    code, out, _ = run(
        *("search", "--space", SMALL, "--objective=-latency", "--objective", "flops", "--budget", 6),
        *("--latency", f"table:{measured}", "--images", "/no/such/folder"),
    )
    assert code == 0
    assert "Pareto front: " in out
    assert " ms" in out


def test_rank_under_a_constraint(run: Any, tables: tuple[Path, Path], tmp_path: Path) -> None:
    page = tmp_path / "ranking.html"
    arguments = (
        *("rank", "--proxies", "params,flops", "--sample", 30, "--batch", 8, "--table", f"npz:{tables[0]}"),
        *("--latency", f"hw:{tables[1]}", "--constraint", "latency:raspi4<7", "--cost", "flops"),
    )
    code, out, _ = run(*arguments, "--report", page, "--json")
    assert code == 0
    record = json.loads(out)
    within = record["correlations"]["params"]
    assert 3 < within["count_within"] < 30
    assert within["kendall_within"]["value"] > 0.5
    assert [front["cost"] for front in record["fronts"]] == ["flops", "latency:raspi4"]
    assert 0.9 < record["fronts"][1]["scores"]["params"]["hypervolume_ratio"] <= 1
    assert "Pareto fronts: accuracy and latency:raspi4" in page.read_text()
    code, out, _ = run(*arguments)
    assert code == 0
    assert "judged by accuracy" in out


def test_rank_samples_what_the_table_knows(run: Any, tables: tuple[Path, Path]) -> None:
    partial = tables[0].with_name("partial.npz")
    code, out, _ = run(
        "rank", "--proxies", "params", "--sample", 100, "--batch", 8, "--table", f"npz:{partial}", "--json"
    )
    assert code == 0
    assert json.loads(out)["architectures"] == 30


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["search", "--objective=-latency"],
            "objective 'latency': no device is known; give its",
        ),
        (["search", "--constraint", "latency<3"], "such as hw:FILE:DEVICE or table:FILE"),
        (["search", "--latency", "hw:HW:phone"], "no device 'phone'; it has: edgetpu, raspi4"),
        (["search", "--latency", "hw:HW", "--constraint", "latency<3"], "latency:raspi4, latency:edgetpu"),
        (
            ["search", "--latency", "hw:HW", "--constraint", "latency:edgetpu<3"],
            "edgetpu <= 3 (not known for 15,825: edgetpu does not support it). Relax the constraints",
        ),
        (
            ["search", "--latency", "hw:HW:raspi4", "--constraint", "latency<0.5"],
            "latency <= 0.5 (smallest met: 1.778)",
        ),
        (["search", "--latency", "hw:HW", "--latency", "hw:HW"], "latency:raspi4 is given twice"),
        (["search", "--latency", "table:/no/such.json"], "'pynas hardware build' makes one"),
        (["search", "--latency", "table:HERE"], "a table of nasbench201 {'channels': 4, 'num_cells': 1}"),
        (["rank", "--latency", "hw:HW", "--cost", "latency:phone"], "--cost 'latency:phone': unknown"),
        (
            ["rank", "--latency", "hw:HW", "--constraint", "latency:raspi4<1", "--proxies", "params"],
            "constraint latency:raspi4 <= 1: none of 5 architectures meets it; the smallest is",
        ),
        (
            ["rank", "--latency", "hw:HW", "--constraint", "latency:edgetpu<1", "--proxies", "params"],
            "none of 5 architectures meets it; it is not known for any",
        ),
        (["hardware", "show", "/no/such.json"], "no such file; 'pynas hardware build' makes one"),
        (["hardware", "show", "hw:HW"], "give the space of these architectures: --space NAME"),
        (["hardware", "predict", "HERE", "|none~0|"], "not a nasbench201 architecture"),
        (
            ["hardware", "predict", "hw:HW:edgetpu", CELL, "--space", "nasbench201"],
            "latency:edgetpu is not known: edgetpu does not support it",
        ),
        (["hardware", "build", "nasbench202", "x.json"], "unknown search space 'nasbench202'"),
        (["hardware", "build", SMALL, "/proc/x.json", "--device", "npu"], "device: expected cpu or cuda"),
    ],
    ids=lambda value: " ".join(value)[:50] if isinstance(value, list) else "",
)
def test_bad_input_is_one_line(
    run: Any, tables: tuple[Path, Path], measured: Path, arguments: list[str], message: str
) -> None:
    filled = [text.replace("HW", str(tables[1])).replace("HERE", str(measured)) for text in arguments]
    if filled[0] == "search":
        filled += ["--batch", "8", "--budget", "2", "--objective", "params"]
    if filled[0] == "rank":
        filled += ["--batch", "8", "--sample", "5", "--table", f"npz:{tables[0]}"]
    code, out, err = run(*filled)
    assert code == 2, out
    assert message in err
    assert "Traceback" not in out + err


def test_constraints_and_units() -> None:
    assert parse_constraints(["latency:raspi4<20", "memory<=1.5M"]) == {"latency:raspi4": 20, "memory": 1.5e6}
    assert human("latency:a", 1.23456) == "1.235 ms"
    assert human("energy", 3) == "3 mJ"
    assert human("memory", 2**20) == "1.000 MiB"
    assert human("latency", float("nan")) == "not known"


def test_latencies_are_of_the_tables_data_set(run: Any, tmp_path: Path) -> None:
    space = pynas.spaces.get("nasbench201")
    accuracy, fast = np.random.default_rng(0).uniform(10, 90, space.size), np.arange(space.size) < 3000
    np.savez(tmp_path / "t.npz", **{f"{d}/test_accuracy@200": accuracy for d in ("cifar10", "cifar100")})
    np.savez(
        tmp_path / "hw.npz",
        **{
            "cifar10/raspi4_latency": np.where(fast, 1.0, 9.0),
            "cifar100/raspi4_latency": np.where(fast, 9.0, 1.0),
        },
    )

    def within(dataset: str, device: str) -> int:
        code, out, _ = run(
            "rank", "--proxies", "params", "--table", f"table:{tmp_path}/t.npz", "--dataset", dataset,
            "--sample", "40", "--latency", f"hw:{tmp_path}/hw.npz:{device}",
            "--constraint", "latency:raspi4<5", "--json",
        )  # fmt: skip
        assert code == 0
        found = json.loads(out)
        named = device.rpartition("/")[0] or dataset
        said = {
            "name": "latency:raspi4",
            "device": "raspi4",
            "unit": "ms",
            "dataset": named,
            "source": "hw.npz",
        }
        assert found["latencies"] == [said | {"doubts": []}]
        return next(c["count_within"] for c in found["correlations"].values())

    assert within("cifar10", "raspi4") + within("cifar100", "raspi4") == 40
    assert within("cifar100", "cifar10/raspi4") == within("cifar10", "raspi4")
