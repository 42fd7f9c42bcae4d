from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from rich.console import Console

import pynas
from pynas import _foreign, cli
from pynas.cli import console, info
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


@pytest.mark.slow
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


@pytest.mark.slow
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
    assert page.read_text().endswith("</html>\n\n") or page.read_text().endswith("</html>\n")


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
        ("my_nets", "expected package.module:object"),
        ("no_such_module:f", "there is no module 'no_such_module'"),
        ("my_nets:tini", "'my_nets' has no 'tini'; did you mean 'tiny'?"),
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
    assert page.read_text().endswith("</html>\n\n") or page.read_text().endswith("</html>\n")
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
        (["search", "--batch", "1"], "at least one sample for each of 2 parts"),
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


def test_version_help_and_completion(run: Any) -> None:
    assert run("--version") == (0, f"pynas {pynas.__version__}\n", "")
    for command in ((), ("search",), ("tables", "info")):
        assert run(*command, "-h") == run(*command, "--help")
    _, out, _ = run("-h")
    assert "--install-completion" in out


def test_doctor_looks_at_every_extra(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found = info.extras()
    assert set(found) == set(info.NEEDED_FOR) | info.OF_DEVELOPERS
    version = importlib.metadata.version
    foreign = {"esa-pynas": "1.2"}

    def pretended(name: str) -> str:
        if name == "pymoo":
            raise importlib.metadata.PackageNotFoundError(name)
        return foreign.get(name) or version(name)

    monkeypatch.setattr(importlib.metadata, "version", pretended)
    code, out, _ = run("doctor", "--json")
    assert code == 0
    problems = json.loads(out)["problems"]
    assert "--strategy nsga2 needs pymoo: pip install 'pynas-torch[pymoo]'" in problems
    assert any(text.startswith("esa-pynas 1.2 is installed, another project") for text in problems)
    with pytest.warns(UserWarning, match="pip uninstall esa-pynas"):
        _foreign.warn()


@pytest.mark.filterwarnings("default")
def test_zico_leaves_out_an_odd_sample(run: Any) -> None:
    common = ("score", CELL, "--proxies", "zico,l2_norm", "--images", "digits", "--json", "--threads", 1)
    code, odd, err = run(*common, "--batch", 7)
    assert code == 0
    assert err == "pynas: zico divides a batch into 2 equal parts: it leaves out the last 1 sample of 7\n"
    assert json.loads(odd)["zico"]["status"] == "ok"


def test_a_failed_score_ends_with_exit_code_1(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "zeros.py").write_text(
        "from torch import nn\n"
        "class Broken(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.linear = nn.Linear(3, 2)\n"
        "    def forward(self, x):\n"
        "        raise RuntimeError('no such layer')\n"
    )
    monkeypatch.chdir(tmp_path)
    arguments = ("score", "--model", "zeros:Broken", "--batch", 4, "--proxies", "zico")
    code, out, _ = run(*arguments)
    assert code == 1
    assert "failed: RuntimeError: no such layer" in " ".join(out.split())
    code, out, _ = run(*arguments, "--json")
    assert code == 1
    assert json.loads(out)["zico"]["status"] == "failed"


def test_rank_says_why_a_column_is_empty(run: Any, table: Path) -> None:
    code, out, _ = run("rank", "--proxies", "params", "--sample", 9, "--table", f"npz:{table}")
    assert code == 0
    assert "-: params, flops have scores for 1 in the top 5 %, and a correlation needs 3" in out


@pytest.mark.slow
def test_a_table_in_index_order_needs_no_strings(run: Any, tmp_path: Path, table: Path) -> None:
    space = pynas.spaces.get("nasbench201")
    named = pynas.tables.load(f"npz:{table}", space)
    path = tmp_path / "by_index.npz"
    np.savez(path, test200_cifar10=named.accuracies())
    assert pynas.tables.load(f"npz:{path}", space).values == dict(sorted(named.values.items()))
    for given in (path, f"npz:{path}", f"table:{path}"):
        code, out, err = run("tables", "info", given, "--json")
        assert (code, json.loads(out)["architectures"]) == (0, space.size), err
    code, out, _ = run("tables", "info", "analog", "--json")
    assert code == 0
    assert {column["metric"] for column in json.loads(out)["columns"]} >= {"baseline_accuracy"}
    np.savez(path, test200_cifar10=np.arange(15.0))
    code, _, err = run("tables", "info", f"npz:{path}")
    assert code == 2
    assert "15,625" in err or "15625" in err


@pytest.mark.slow
def test_ctrl_c_says_what_was_kept_and_how_to_go_on(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the resumed search knows the best of what is stored."""
    store = tmp_path / "my runs.db"
    call = pynas.ProxyEvaluator.__call__
    left = 3

    def interrupted(self: Any, architecture: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        return call(self, architecture)

    monkeypatch.setattr(pynas.ProxyEvaluator, "__call__", interrupted)
    arguments = ("search", "--batch", 4, "--budget", 4, "--objective", "l2_norm", "--threads", 1)
    code, _, err = run(*arguments, "--store", store)
    assert code == 130
    assert "pynas: stopped; 3 trials of run 1 kept in" in err
    assert err.splitlines()[-1].endswith(f"--store '{store}' --resume")
    left = 0
    code, _, err = run(*arguments, "--store", store, "--resume")
    assert code == 130
    assert "3/4" in err
    assert "best l2_norm" in err
    code, _, err = run(*arguments)
    assert (code, "nothing was kept: with --store FILE" in err) == (130, True)


def test_progress_reads_well_on_80_columns(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.setattr(console, "console", lambda **_: Console(file=sys.stderr, width=80))
    with console.progress() as bar:
        task = bar.add_task("evolution on nasbench201", total=60, note="")
        bar.begin(task, 40, "best zico 1049.11")
        bar.tasks[0].start_time -= 100
        bar.update(task, completed=50, note="best zico 1049.11, trained accuracy 93.31 %")
    first, second, *_ = capsys.readouterr().err.splitlines()
    assert len(first) <= 80
    assert first.startswith("evolution on nasbench201 ")
    assert first.endswith("50/60 1:40 passed, 1:40 left")
    assert second.strip() == "best zico 1049.11, trained accuracy 93.31 %"
