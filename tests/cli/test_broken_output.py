"""Commands whose stdout is closed, a pipe that nobody reads, or a full disk; and without memory."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from pynas.cli import main


def code_of(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["pynas", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is printed does not fit into the buffer of stdout, so that printing itself fails."""
    from pynas.cli import info

    monkeypatch.setattr(info.console, "printable", lambda text, **_: text * 1000)
    monkeypatch.setattr(info.console.json, "dumps", lambda value, **_: "0" * 100_000)


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--json",)], ids=["table", "json"])
@pytest.mark.usefixtures("large")
def test_a_pipe_that_nobody_reads(
    options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        assert code_of(monkeypatch, "proxies", *options) == 0
        stdout.flush()  # what was left to print goes nowhere
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("options", [(), ("--json",)], ids=["table", "json"])
def test_closed(options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    try:
        assert code_of(monkeypatch, "proxies", *options) == 0
        assert code_of(monkeypatch, "report", "/absent/runs.db") == 2
    finally:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_full(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with open("/dev/full", "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        assert code_of(monkeypatch, "proxies", "--json") == 2
    assert capsys.readouterr().err == "pynas: standard output: cannot write: No space left on device\n"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "not enough memory (no more of it)"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes\nmore"),
            "not enough memory (DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes)",
        ),
        (
            ImportError("libx.so: failed to map segment from shared object: Cannot allocate memory"),
            "not enough memory (libx.so: failed to map segment from shared object: Cannot allocate memory)",
        ),
        (
            OSError("libgomp.so.1: failed to map segment from shared object"),
            "not enough memory (libgomp.so.1: failed to map segment from shared object)",
        ),
    ],
)
def test_no_memory(
    error: Exception, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr("pynas.spaces.base.SPACES", SimpleNamespace(working=fail))
    assert code_of(monkeypatch, "spaces") == 2
    assert capsys.readouterr().err == f"pynas: {said}; what was stored so far can be resumed\n"


def test_other_errors_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("pynas.spaces.base.SPACES", SimpleNamespace(working=fail))
    monkeypatch.setattr(sys, "argv", ["pynas", "spaces"])
    with pytest.raises(RuntimeError, match="a bug"):
        main()
