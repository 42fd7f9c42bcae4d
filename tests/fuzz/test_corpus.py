"""Inputs that failed once, and valid ones, are read as they should be; the fuzzer finds what it is for."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pynas._errors import UserError
from pynas.testing import _sandbox
from pynas.testing.fuzz import TARGETS, Target, _campaign, _command, _guided, _random, fuzz, replay
from pynas.testing.fuzz._campaign import inputs_of

pytestmark = pytest.mark.slow

CORPUS = Path(__file__).parent / "corpus"


@pytest.mark.parametrize("name", TARGETS)
def test_kept_inputs(name: str) -> None:
    inputs = inputs_of(TARGETS[name], CORPUS)
    assert replay(TARGETS[name], inputs) == {}


def test_the_corpus_is_small_and_of_targets() -> None:
    files = [path for path in CORPUS.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 300_000
    assert {path.parent.name for path in files} <= TARGETS.keys()


# ---- the fuzzer itself -------------------------------------------------------------------------------


def planted(raw: bytes) -> None:
    if b"\xff" in raw:
        raise KeyError("planted\n1")
    if b"\xfe" in raw:
        os.kill(os.getpid(), signal.SIGSEGV)
    if b"\xfd" in raw:
        while True:
            pass
    if b"\xfc" in raw:
        time.sleep(100)
    if b"\xfb" in raw:
        raise UserError("two\x1blines\r\nof text")
    if b"\xfa" in raw:
        bytearray(1 << 40)
    if b"\xf9" in raw:
        print(raw, flush=True)  # nobody's terminal
        raise UserError("a good reason")


@pytest.fixture
def target(monkeypatch: pytest.MonkeyPatch) -> Target:
    made = Target("planted", planted, lambda: [b"abc" * 9], filename="")
    monkeypatch.setitem(TARGETS, "planted", made)
    return made


def test_failures_are_told_apart(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_sandbox, "SECONDS", 0.1)
    monkeypatch.setattr(_sandbox, "PATIENCE", 1.0)
    found = replay(target, [b"a", b"\xff", b"\xfe", b"b", b"\xfd", b"\xfc", b"\xfb", b"\xfa", b"\xf9"])
    assert found[b"\xff"].startswith(r"KeyError: 'planted\\n1'")
    assert found[b"\xfe"] == "the process died of SIGSEGV"
    assert found[b"\xfd"] == "it took more than 0.1 s"
    assert found[b"\xfc"] == "it took more than 0.1 s, waiting"
    assert found[b"\xfa"].startswith("MemoryError: ")
    assert found.keys() == {b"\xff", b"\xfe", b"\xfd", b"\xfc", b"\xfa"}
    file = Target("file", planted, filename="a.json")
    assert "does not name the file" in replay(file, [b"\xf9"])[b"\xf9"]


def test_an_error_must_be_of_one_line(target: Target) -> None:
    def read(raw: bytes) -> None:
        raise UserError(f"a.json: {raw.decode()}")

    file = Target("file", read, filename="a.json")
    found = replay(file, [b"fine", b"two\nlines", b"x" * 5000])
    assert "is not one line of printable text" in found[b"two\nlines"]
    assert "has 5,008 characters" in found[b"x" * 5000]
    assert b"fine" not in found


def test_the_fuzzer_finds_what_was_planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = Target(
        "planted", lambda raw: planted(raw.translate(None, b"\xfa\xfc\xfd")), lambda: [b"abc" * 9]
    )
    monkeypatch.setitem(TARGETS, "planted", target)
    failures = fuzz(3.0, ["planted"], corpus=tmp_path, guided=False)
    reasons = " ".join(failure.reason for failure in failures)
    assert "KeyError" in reasons
    assert "SIGSEGV" in reasons
    for failure in failures:
        raw = failure.path.read_bytes()
        assert failure.path.parent == tmp_path / "planted"
        assert len(raw) <= 3, "not made smaller"
        assert replay(target, [raw])
    again = fuzz(0.1, ["planted"], corpus=tmp_path, guided=False)  # what is kept fails at once
    assert {failure.path for failure in failures} <= {failure.path for failure in again}


def test_inputs_that_end_in_a_new_way_are_kept_going(tmp_path: Path) -> None:
    """From one step to the next, which random changes of the first input alone would take ages for."""

    def stairs(raw: bytes) -> None:
        for step, byte in enumerate(b"stairs"):
            if raw[step : step + 1] != bytes([byte]):
                raise UserError("abcdefgh"[step] * 9)
        raise ZeroDivisionError

    target = Target("stairs", stairs, lambda: [b"......"], tokens=tuple(bytes([c]) for c in b"stairs"))
    found, count = _random.search(target, [b"......"], 20.0, 0, 1)
    assert [reason.partition(":")[0] for reason in found.values()] == ["ZeroDivisionError"]
    assert count > 10


@pytest.mark.parametrize(
    "arguments", [("--list",), ("--seconds", "0"), ("--only", "nothing"), ("--replay", "x", "y")]
)
def test_the_command(
    arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["fuzz", *arguments])
    code = _command.main()
    out, err = capsys.readouterr()
    if arguments == ("--list",):
        assert (code, out.split()) == (0, [*TARGETS, "operators"])
    else:
        assert code == 2
        assert arguments[0] in err
        assert err.count("\n") == 1


def test_a_failure_is_printed_with_what_repeats_it(
    target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "planted").mkdir()
    path = tmp_path / "planted" / "old"
    path.write_bytes(b"\xff")
    command = ["--seconds", "0.1", "--only", "planted", "--corpus", str(tmp_path), "--engine", "random"]
    monkeypatch.setattr(sys, "argv", ["fuzz", *command])
    assert _command.main() == 1
    out = capsys.readouterr().out
    assert "planted: KeyError" in out
    replayed = next(line.split() for line in out.splitlines() if "--replay" in line)
    assert replayed[:5] == ["python", "-m", "pynas.testing.fuzz", "--replay", "planted"]
    monkeypatch.setattr(sys, "argv", replayed[2:])
    with pytest.raises(KeyError):
        _command.main()


@pytest.mark.skipif(not _guided.available(), reason="needs atheris")
@pytest.mark.parametrize("name", ["objectives", "weights"])  # with and without pieces to make inputs of
def test_atheris_runs(name: str, tmp_path: Path) -> None:
    counts: list[int] = []
    options: dict[str, Any] = {"corpus": tmp_path, "guided": True}
    assert fuzz(3.0, [name], on_target=lambda _, inputs, failures: counts.append(inputs), **options) == []
    assert counts[0] > 0


def test_atheris_is_asked_for_where_it_is_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(_guided, "available", lambda: False)
    with pytest.raises(UserError, match="pip install atheris"):
        fuzz(1.0, ["json"], corpus=tmp_path, guided=True)
    assert not _campaign.inputs_of(Target("none", planted), tmp_path)
