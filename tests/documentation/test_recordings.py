"""The commands of docs/recordings.md still work, on sizes of a moment, and are those of the page."""

from __future__ import annotations

import runpy
import shlex
import shutil
import sys
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
from pages import ROOT

_SPEC = spec_from_file_location("make_recordings", ROOT / "docs" / "make_recordings.py")
assert _SPEC is not None
assert _SPEC.loader is not None
recordings = module_from_spec(_SPEC)
sys.modules["make_recordings"] = recordings  # its dataclass looks for its module
_SPEC.loader.exec_module(recordings)


def run(words: list[str], run_pynas: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A command in this process, which has loaded torch."""
    match words:
        case ["pynas", *arguments]:
            code, out, err = run_pynas(*arguments)
            assert code == 0, (words, out, err)
        case ["python", "-c", code]:
            exec(code, {})
        case ["python", script, *arguments]:
            monkeypatch.setattr(sys, "argv", [script, *arguments])
            runpy.run_path(script, run_name="__main__")
        case _:
            raise AssertionError(words)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    "job",
    [  # the longest is for `make evidence`
        pytest.param(job, id=job.files[0], marks=[pytest.mark.long] if len(job.commands) > 5 else [])
        for job in recordings.JOBS
    ],
)
def test_the_commands_work(
    job: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_pynas: Callable[..., Any]
) -> None:
    for name in job.files:
        shutil.copy(recordings.SOURCES / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    for _, command in recordings.commands(job, recordings.SMALL):
        run(shlex.split(command), run_pynas, monkeypatch)
    for name in set(sys.modules) - before:
        if name in ("my_space", "found"):
            del sys.modules[name]


def test_the_page_shows_these_commands() -> None:
    page = recordings.PAGE.read_text(encoding="utf-8")
    for job in recordings.JOBS:
        assert f"## {job.title}\n" in page
        for said, command in recordings.commands(job, recordings.FULL):
            assert said in page
            assert f"$ {recordings.broken(command)}\n" in page
    source = (recordings.SOURCES / "my_space.py").read_text(encoding="utf-8")
    assert source.rstrip() in page
