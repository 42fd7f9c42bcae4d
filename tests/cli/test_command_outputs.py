"""What commands write and print: outputs checked before any work, hostile names, streams that are full."""

from __future__ import annotations

import io
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest
import typer
from typer.models import ArgumentInfo

from pynas import cli
from pynas.architecture import Architecture
from pynas.cli import console
from pynas.store import RunConfig, Store
from pynas.trial import Evaluation, Status, Trial

pytestmark = pytest.mark.slow

Run = Callable[..., tuple[int, str, str]]
ESCAPE = "\x1b[31mred\x1b[0m\x9b2J\u202e\x07"
SPELLED = r"\x1b[31mred\x1b[0m\x9b2J\u202e\x07"
CELL = "|nor_conv_1x1~0|+|none~0|skip_connect~1|+|nor_conv_1x1~0|none~1|avg_pool_3x3~2|"

# Everything that a command writes: what to call before its path, and what the messages call it.
FILES = {
    "search --report": ("search", "--report"),
    "search --csv": ("search", "--csv"),
    "search --store": ("search", "--store"),
    "steer --store": ("steer", "--store"),
    "rank --report": ("rank", "--report"),
    "rank --store": ("rank", "--store"),
    "score --report": ("score", CELL, "--report"),
    "embed --report": ("embed", "--report"),
    "embed --save": ("embed", "--save"),
    "bench --save": ("bench", "conv2d", "--save"),
    "report --output": ("report", "absent.db", "--output"),
    "export --output": ("export", "absent.db", "--output"),
    "recurrent --save": ("recurrent", "absent.txt", "--save"),
    "supernet --save": ("supernet", "--save"),
    "analyze weight-sharing --report": ("analyze", "weight-sharing", "--report"),
    "hardware build OUTPUT": ("hardware", "build", "nasbench201"),
    "tables convert OUTPUT": ("tables", "convert", "absent.pickle"),
}
FOLDERS = {
    "supernet --checkpoint": ("supernet", "--checkpoint"),
    "supernet --tensorboard": ("supernet", "--tensorboard"),
    "analyze weight-sharing --folder": ("analyze", "weight-sharing", "--folder"),
}
INPUTS = {
    "search --text",
    "export --state",
    "steer --token-file",
    "score --text",
    "recurrent --test",
    "recurrent TEXT",
    "analyze weight-sharing --text",
    "tables convert SOURCE",
}
MAKES_PARENTS = {"bench --save", "hardware build OUTPUT"}
SUFFIX = {"--save": ".safetensors", "export --output": ".py"}


def test_every_path_of_every_command_is_known_here() -> None:
    """One that is added has to be in a table above, and so in the tests below."""

    def walk(app: typer.Typer, words: str = "") -> Iterator[str]:
        for group in app.registered_groups:
            assert group.typer_instance is not None
            yield from walk(group.typer_instance, f"{group.name} ")
        for command in app.registered_commands:
            for name, kind in get_type_hints(command.callback, include_extras=True).items():
                about = next(iter(getattr(kind, "__metadata__", ())), None)
                if "pathlib.Path" in str(kind) or name == "store":
                    argument = isinstance(about, ArgumentInfo)
                    shown = name.upper() if argument else f"--{name.replace('_', '-')}"
                    yield f"{words}{command.name} {shown}"

    found = set(walk(cli.app))
    assert found == {*FILES, *FOLDERS, *INPUTS, "report STORE", "replay STORE"}


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Nothing that takes time may begin; a folder whose answers are those of one that may not be written."""

    def begin(*arguments: object, **options: object) -> None:
        raise AssertionError("work has begun")

    for place in ("cli.console.progress", "cli.specs.open_space", "cli.specs.load", "data.load_images"):
        monkeypatch.setattr(f"pynas.{place}", begin)
    folder = tmp_path / "forbidden"
    folder.mkdir()
    access = os.access

    def answer(path: Path, mode: int, **options: Any) -> bool:
        below = Path(os.path.realpath(path)).is_relative_to(folder)
        return not (below and mode & os.W_OK) and access(path, mode, **options)

    monkeypatch.setattr(os, "access", answer)
    return tmp_path


@pytest.mark.parametrize("name", [*FILES, *FOLDERS])
def test_outputs_are_checked_before_any_work(run_pynas: Run, no_work: Path, name: str) -> None:
    command = (FILES | FOLDERS)[name]
    called = name.rpartition(" ")[2]
    suffix = "" if name == "bench --save" else SUFFIX.get(name, SUFFIX.get(called, ".html"))
    (no_work / "file").touch()
    (no_work / f"folder{suffix}").mkdir()
    cases = {
        f"forbidden/new{suffix}": "may not be written",
        f"file/new{suffix}": "Not a dir|no such fold",
    }
    cases[f"forbidden/a/b/new{suffix}"] = "may not be written|no such folder"
    if name in FILES:
        cases[f"folder{suffix}"] = "is a folder"
    else:
        cases["file"] = "is no folder"
    if name not in (*MAKES_PARENTS, "supernet --tensorboard", "analyze weight-sharing --folder"):
        cases[f"absent/new{suffix}"] = "no such folder"
    before = sorted(no_work.rglob("*"))
    for path, expected in cases.items():
        code, out, err = run_pynas(*command, no_work / path)
        assert (code, out) == (2, ""), (path, err)
        assert err.startswith(f"pynas: {called}: "), err
        assert any(text in err for text in expected.split("|")), err
        assert err.count("\n") == 1
    assert sorted(no_work.rglob("*")) == before


def test_two_outputs_are_two_files(run_pynas: Run, no_work: Path) -> None:
    path = no_work / "both.safetensors"
    code, _, err = run_pynas("embed", "--save", path, "--report", no_work / "." / "both.safetensors")
    assert code == 2
    assert err == f"pynas: --save, --report: both are {path}; use two names\n"


# ---- names -------------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store full of what a terminal would obey."""
    path = tmp_path / "runs.db"
    config = RunConfig(
        ESCAPE, ESCAPE, 0, (ESCAPE,), {ESCAPE: 1.0}, {"table": {"dataset": ESCAPE}, ESCAPE: ESCAPE}
    )
    with Store(path) as opened:
        run = opened.start(config, {"started": ESCAPE, ESCAPE: [ESCAPE]})
        for number in range(4):
            evaluation = Evaluation(
                Status.OK, {ESCAPE: float(number)}, {"flops": 1e6, "accuracy": 90.0}, ESCAPE
            )
            opened.append(run, Trial(number, Architecture(ESCAPE, (number,)), evaluation))
    return path


def check_shown(text: str) -> None:
    assert SPELLED in text
    for character in "\x1b\x9b\u202e\x07":
        assert character not in text


def test_pages_have_no_control_characters(run_pynas: Run, store: Path, tmp_path: Path) -> None:
    page = tmp_path / f"{ESCAPE}.html"
    code, out, err = run_pynas("report", store, "--output", page)
    assert (code, err) == (0, "")
    check_shown(out)
    html = page.read_text(encoding="utf-8")
    check_shown(html)


def test_errors_have_no_control_characters(run_pynas: Run, tmp_path: Path) -> None:
    source, archive, table = (tmp_path / f"{ESCAPE}.{kind}" for kind in ("pickle", "npz", "json"))
    source.write_bytes(pickle.dumps({ESCAPE: 1}))
    np.savez(archive, **{ESCAPE: np.zeros(3)})
    table.write_text(json.dumps({"format": ESCAPE}))
    hostile: list[tuple[object, ...]] = [
        ("search", "--space", ESCAPE),
        ("search", "--objective", ESCAPE),
        ("search", "--constraint", ESCAPE),
        ("search", "--strategy", ESCAPE, "--objective", "-params"),
        ("report", tmp_path / ESCAPE),
        ("score", ESCAPE),
        ("score", "--model", f"{ESCAPE}:a"),
        ("spaces", ESCAPE),
        ("bench", ESCAPE),
        ("tables", "convert", source, tmp_path / "a.npz"),
        ("tables", "info", archive),
        ("hardware", "show", table),
        (f"--{ESCAPE}",),
        ("search", f"--{ESCAPE}"),
        (ESCAPE,),
    ]
    for arguments in hostile:
        code, out, err = run_pynas(*arguments)
        assert code == 2, arguments
        assert out == ""
        check_shown(err.replace("?[31mred?[0m?2J??", SPELLED))  # under which there is a caret


def test_half_a_name_and_a_poor_terminal(
    store: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Names that are no UTF-8, and a stream that has seven bits."""
    name = os.fsdecode("\u00fc\U0001f600".encode() + b"\xff.db")
    store.rename(tmp_path / name)
    page = os.fsdecode(b"page \xff \xc3\xbc.html")
    for encoding, shown in (("ascii", r"page \udcff \xfc.html"), ("utf-8", r"page \udcff ü.html")):
        raw, errors = io.BytesIO(), io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding))
        monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(errors, encoding))
        for arguments in (
            ("report", tmp_path / name, "--output", tmp_path / page),
            ("report", tmp_path / f"{name}x"),
            ("spaces",),
            ("spaces", "darts_cnn"),
            ("report", tmp_path / name, "--output", tmp_path / page, "--json"),
        ):
            monkeypatch.setattr(sys, "argv", ["pynas", *map(str, arguments)])
            with pytest.raises(SystemExit):
                cli.main()
        sys.stderr.flush()
        text = raw.getvalue().decode(encoding)
        assert f"{shown} (run 1, 4 trials)" in text
        assert json.loads(text[text.rindex("\n{") :])["report"] == str(tmp_path / page)
        assert b"no such file" in errors.getvalue()


def test_progress_and_tables_show_names_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    names = ["[red]x[/red]", "[/]", "[bold", ":cat:", ESCAPE, "a\nb", "{task.id}"]
    with console.progress() as bar:
        for name in names:
            bar.add_task(name, total=1, note=name)
    shown = capsys.readouterr().err
    for name in ("[red]x[/red]", "[/]", "[bold", ":cat:", SPELLED, r"a\x0ab", "{task.id}"):
        assert shown.count(name) >= 2, name
    console.print_table("[/] title", ["[/] column", ESCAPE], [(name, name) for name in names])
    shown = capsys.readouterr().out
    for name in ("[red]x[/red]", "[/] title", "[/] column", ":cat:", SPELLED, r"a\x0ab"):
        assert name in shown


# ---- streams that are full -----------------------------------------------------------------------


def test_standard_output_that_is_full_or_closed() -> None:
    command = [sys.executable, "-m", "pynas.cli", "spaces", "--json"]
    with open("/dev/full", "wb") as full:
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert result.stderr == "pynas: standard output: cannot write: No space left on device\n"
    assert result.returncode == 2
    reader, writer = os.pipe()
    os.close(reader)
    result = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert result.stderr == ""


def test_a_page_that_has_no_room(run_pynas: Run, store: Path) -> None:
    code, out, err = run_pynas("report", store, "--output", "/dev/full")
    assert (code, out) == (2, "")
    assert err == "pynas: /dev/full: cannot write: No space left on device\n"


def test_other_faults_of_the_system_are_one_line(run_pynas: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(5, "Input/output error", f"/mnt/{ESCAPE}")

    monkeypatch.setattr("pynas.cli.specs.open_space", fail)
    code, _, err = run_pynas("spaces", "darts_cnn")
    assert (code, err) == (2, f"pynas: /mnt/{SPELLED}: Input/output error\n")
