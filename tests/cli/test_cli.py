from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

import pynas
from pynas import cli
from pynas.cli.search import parse_constraints, parse_option

CELL = "|nor_conv_1x1~0|+|none~0|skip_connect~1|+|nor_conv_1x1~0|none~1|avg_pool_3x3~2|"


@pytest.fixture
def run(run_pynas: Callable[..., Any]) -> Callable[..., Any]:
    return run_pynas


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of the whole space whose accuracy is the number of parameters, so correlations are known."""
    space = pynas.spaces.get("nasbench201")
    archs = list(space.all())
    path = tmp_path_factory.mktemp("table") / "accuracy.npz"
    params = np.array([space.params(a) for a in archs], dtype=np.float64)
    np.savez(
        path, arch_str=np.array([space.format(a) for a in archs]), test200_cifar10=params / params.max() * 90
    )
    return path


def test_help_names_every_command_and_shows_examples(run: Any) -> None:
    code, out, _ = run("--help")
    assert code == 0
    for command in ("search", "score", "rank", "report", "bench", "spaces", "proxies", "doctor"):
        assert command in out
        code, text, _ = run(command, "--help")
        assert code == 0
        assert "xample" in text
        assert "--json" in text


def test_every_example_is_a_line_of_its_own(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The examples in the source are lines of the help, however narrow the terminal."""
    monkeypatch.setenv("COLUMNS", "60")
    pages = 0

    def look(app: typer.Typer, *path: str) -> None:
        nonlocal pages
        texts = {(*path, command.name): command.callback.__doc__ for command in app.registered_commands}
        for group in app.registered_groups:
            texts[(*path, group.name)] = group.typer_instance.info.help
            look(group.typer_instance, *path, group.name)
        for command, text in texts.items():
            examples = {
                line for line in map(str.strip, text.splitlines()) if line.startswith(("pynas ", "Example: "))
            }
            code, out, _ = run(*command, "--help")
            assert code == 0
            assert examples, command
            assert examples <= set(map(str.strip, out.splitlines())), command
            pages += 1

    look(cli.app)
    assert pages > 15


@pytest.mark.parametrize("command", ["spaces", "proxies", "doctor"])
def test_info_commands_print_text_and_json(run: Any, command: str) -> None:
    code, out, _ = run(command)
    assert code == 0
    assert len(out.splitlines()) > 3
    code, out, _ = run(command, "--json")
    assert code == 0
    assert json.loads(out)


def test_search_store_resume_and_report(run: Any, tmp_path: Path, table: Path) -> None:
    store, page = tmp_path / "runs.db", tmp_path / "report.html"
    common = ("--strategy", "random", "--batch", 8, "--table", f"npz:{table}", "--store", store, "--json")
    code, out, _ = run("search", "--budget", 2, *common)
    assert code == 0
    first = json.loads(out)
    code, out, _ = run("search", "--budget", 3, "--resume", "--report", page, *common)
    assert code == 0
    second = json.loads(out)
    assert second["trials"][:2] == first["trials"]
    assert [trial["number"] for trial in second["trials"]] == [0, 1, 2]
    assert all(trial["metrics"]["accuracy"] > 0 for trial in second["trials"])
    assert second["best"]["scores"]["zico"] == max(t["scores"]["zico"] for t in second["trials"])
    assert "plotly" in page.read_text().lower()
    page.unlink()
    code, out, _ = run("report", store, "--output", page)
    assert code == 0
    assert "3 trials" in out
    assert page.stat().st_size > 100_000


@pytest.mark.slow
def test_search_prints_the_best_with_its_known_accuracy(run: Any, table: Path) -> None:
    code, out, _ = run(
        "search", "--budget", 2, "--batch", 8, "--table", f"npz:{table}", "--constraint", "flops<60e6"
    )
    assert code == 0
    assert "best: |" in out
    assert "accuracy" in out
    assert "ms a trial outside scoring" in out


@pytest.mark.slow
def test_score_an_architecture_with_layers(run: Any) -> None:
    code, out, _ = run("score", CELL, "--batch", 8, "--proxies", "zico,params", "--json")
    assert code == 0
    scores = json.loads(out)
    assert scores["zico"]["status"] == "ok"
    assert scores["zico"]["value"] == pytest.approx(sum(scores["zico"]["layers"].values()))
    space = pynas.spaces.get("nasbench201")
    assert scores["params"]["value"] == space.params(space.parse(CELL))
    code, out, _ = run("score", CELL, "--batch", 8, "--layers")
    assert code == 0
    assert "stem" in out


def test_score_a_model_of_the_users(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_nets.py").write_text(
        "from torch import nn\n"
        "def tiny():\n"
        "    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(3600, 10))\n"
        "def wrong():\n"
        "    return 3\n"
    )
    monkeypatch.chdir(tmp_path)
    code, out, _ = run("score", "--model", "my_nets:tiny", "--batch", 8, "--proxies", "zico,snip", "--json")
    assert code == 0
    assert {s["status"] for s in json.loads(out).values()} == {"ok"}
    for argument, message in (
        ("my_nets", "expected package.module:factory"),
        ("no_such_module:f", "cannot import 'no_such_module'"),
        ("my_nets:tini", "has no function 'tini'; it has: "),
        ("my_nets:wrong", "expected a function that returns a torch.nn.Module, got int"),
    ):
        code, _, err = run("score", "--model", argument, "--batch", 8)
        assert code == 2
        assert message in err


@pytest.mark.slow
def test_rank_against_a_table(run: Any, tmp_path: Path, table: Path) -> None:
    page = tmp_path / "ranking.html"
    arguments = ("--table", f"npz:{table}", "--sample", 6, "--batch", 8)
    code, out, _ = run("rank", *arguments, "--proxies", "params,flops", "--report", page, "--json")
    assert code == 0
    correlations = json.loads(out)["correlations"]
    assert correlations["params"]["spearman"]["value"] == pytest.approx(1.0)
    assert page.stat().st_size > 100_000
    code, out, _ = run("rank", *arguments, "--proxies", "zico")
    assert code == 0
    assert "Spearman" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["search", "--space", "nasbench20"], "unknown search space 'nasbench20'; known: "),
        (["search", "--strategy", "evolutoin"], "Did you mean 'evolution'?"),
        (["search", "--objective", "zicko"], "unknown proxy 'zicko'"),
        (["search", "--images", "imagenet"], "unknown source of images 'imagenet'"),
        (["search", "--images", "npz:/no/such.npz"], "/no/such.npz"),
        (["search", "--table", "npz:/no/such.npz"], "/no/such.npz"),
        (["search", "--constraint", "flops>3"], "--constraint: expected NAME<NUMBER"),
        (["search", "--constraint", "flops<1e6", "--batch", "8"], "smallest met"),
        (["search", "--constraint", "flops<1e9", "--constraint", "flops<2e9"], "flops has two bounds"),
        (["search", "--option", "population"], "--option: expected NAME=VALUE"),
        (["search", "--option", "popsize=3", "--batch", "8"], "unknown option 'popsize'"),
        (["search", "--resume"], "--resume needs --store"),
        (["search", "--precision", "float8", "--batch", "8"], "precision: expected one of"),
        (["search", "--batch", "7"], "micro_batches"),
        (["score"], "give either an architecture string or --model"),
        (["score", CELL.replace("skip_connect", "skip_conect")], "did you mean 'skip_connect'?"),
        (["score", CELL, "--proxies", "zicko"], "unknown proxy 'zicko'"),
        (["score", CELL, "--batch", "100000"], "100,000"),
        (["rank", "--proxies", "zico,snap"], "unknown proxy 'snap'"),
        (["report", "/no/such.db"], "/no/such.db"),
        (["bench", "no-such-case"], "no benchmark has 'no-such-case' in its name"),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else "",
)
def test_bad_input_is_one_clear_message_and_exit_code_2(run: Any, arguments: list[str], message: str) -> None:
    code, out, err = run(*arguments)
    assert code == 2
    assert message in err
    assert "Traceback" not in out + err


def test_constraints_and_options_are_read_as_written() -> None:
    assert parse_constraints(["flops<100e6", " params <= 1.5M"]) == {"flops": 100e6, "params": 1.5e6}
    assert parse_option("a=3") == ("a", 3)
    assert parse_option("b=0.5") == ("b", 0.5)
    assert parse_option("c=true") == ("c", True)
    assert parse_option("d=x") == ("d", "x")


@pytest.mark.slow
def test_bench_lists_and_times(run: Any, tmp_path: Path) -> None:
    code, out, _ = run("bench", "list")
    assert code == 0
    assert "conv2d_grad_moments/64@8_k1" in out
    save = tmp_path / "results" / "here.jsonl"
    code, out, _ = run("bench", "conv2d_grad_moments/64@8_k1", "--seconds", 0.05, "--json", "--save", save)
    assert code == 0
    (record,) = json.loads(out)
    assert record["timings"]["pynas"]["p50"] > 0
    assert record["machine"]["isa"] in ("generic", "avx2", "avx512")
    assert json.loads(save.read_text()) == record


@pytest.mark.slow
def test_the_command_runs_as_a_module() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "pynas.cli", "spaces", "--json"], capture_output=True, text=True, check=True
    )
    assert "nasbench201" in [space["name"] for space in json.loads(result.stdout)]
