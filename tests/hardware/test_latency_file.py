from __future__ import annotations

import json
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from counted_latencies import SPACE, Clock, Functional, build

from pynas._errors import UserError
from pynas._io.strict_json import signed
from pynas.hardware import LatencyTable, Timing, load
from pynas.hardware._fit import Correction

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.slow]


def test_file_round_trip(tmp_path):
    path = tmp_path / "folder" / "table.json"
    table = build(SPACE, path=path, name="laptop")
    read = LatencyTable.load(path)
    assert read.space.channels == 4
    assert (read.name, read.unit) == ("latency:laptop", "ms")
    assert read.describe() == table.describe()
    arch = SPACE.sample(random.Random(5))
    assert read.predict(arch) == table.predict(arch)
    assert read.error() == table.error()
    assert [p.name for p in path.parent.iterdir()] == ["table.json"]
    assert load(f"table:{path}", SPACE)[0].predict(arch) == table.predict(arch)
    clock = Clock()
    again = build(SPACE, path=path, name="laptop", clock=clock)
    assert clock.calls == 0
    assert again.error() == table.error()


def test_a_build_that_was_cut_off_continues(tmp_path, monkeypatch):
    monkeypatch.setattr("pynas.hardware.build._SECONDS_BETWEEN_SAVES", 0.0)
    path = tmp_path / "table.json"
    space = Functional()
    with pytest.raises(KeyboardInterrupt):
        build(path=path, clock=Clock(fail_after=40))
    with pytest.raises(UserError, match="its build was interrupted; repeat the same 'pynas hardware build'"):
        LatencyTable.load(path, space)
    kept = LatencyTable.load(path, space, partial=True)
    done = sum(len(t.rounds) for t in kept.operators.values()) + sum(
        len(n.rounds) for n in kept.networks.values()
    )
    assert done == 40
    clock = Clock()
    resumed, whole = build(path=path, clock=clock), build()
    assert clock.calls == 2 * (len(whole.operators) + 7) - 40
    assert resumed.describe()["fit"] == whole.describe()["fit"]
    assert resumed.networks == whole.networks


CHILD = textwrap.dedent("""
    import os, signal, sys
    sys.path.insert(0, sys.argv[2])
    import pynas.hardware.build as b
    import counted_latencies as t
    b._SECONDS_BETWEEN_SAVES = 0.0
    t.torch.set_num_threads(1)
    class Killed(t.Clock):
        def measure(self, run):
            if self.calls == 30:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().measure(run)
    t.build(path=sys.argv[1], clock=Killed())
""")


def test_a_build_that_was_killed_continues(tmp_path):
    path = tmp_path / "table.json"
    command = [sys.executable, "-c", CHILD, str(path), os.path.dirname(__file__)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert not LatencyTable.load(path, Functional(), partial=True).complete
    clock = Clock()
    table = build(path=path, clock=clock)
    assert table.error().mape == pytest.approx(0, abs=1e-6)
    assert clock.calls == 2 * (len(table.operators) + 7) - 30


def test_other_settings_do_not_mix(tmp_path):
    path = tmp_path / "table.json"
    build(path=path)
    with pytest.raises(UserError, match="holds a table with rounds 2, not 3: delete it"):
        build(path=path, rounds=3)
    with pytest.raises(UserError, match=r"a table of functional \{\}, not of this space"):
        build(SPACE, path=path)
    change(path, lambda record: record["machine"].update(device="another processor"))
    with pytest.raises(UserError, match="with machine another processor, not "):
        build(path=path)


@pytest.mark.parametrize("ms", [math.nan, math.inf, 0.0])
def test_a_time_that_is_no_time(ms, tmp_path):
    class Broken(Clock):
        def measure(self, run):
            timing = super().measure(run)
            return Timing(ms, ms, ms, 1) if self.calls == 3 else timing

    with pytest.raises(UserError, match=f"the time of .* was measured as {ms} ms and not recorded"):
        build(clock=Broken())


# ---- damaged and strange files -----------------------------------------------------------------------


def change(path: Path, how: Callable[[Any], object]) -> None:
    """Change what a file says, and its sum with it."""
    record = json.loads(path.read_text())
    how(record)
    path.write_text(json.dumps(signed(record)))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("built") / "table.json"
    build(path=path)
    return path


@pytest.fixture
def path(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(built, tmp_path))


def setting(name: str, value: object) -> Callable[[Any], object]:
    return lambda record: record["settings"].update({name: value})


def task(name: str, value: object) -> Callable[[Any], object]:
    return lambda record: record["settings"]["task"].update({name: value})


def first_time(record: Any) -> Any:
    return next(iter(record["operators"].values()))[0]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (lambda r: r.update(correction=[-1.0, 0.0, 2.0]), r"its correction is \[-1.0, 0.0, 2.0\], not three"),
        (lambda r: r.update(correction=[1e308, 0.0, 0.0]), r"its correction is \[1e\+308, 0.0, 0.0\], not"),
        (lambda r: r.update(correction=[0, 0, 0]), "its correction is .* one above 0"),
        (lambda r: r.update(correction=[1.0, 0.0]), "its correction is .*, not three numbers"),
        (lambda r: r.update(correction=[True, 0.0, 0.0]), "its correction is True, not a number"),
        (lambda r: r.update(correction="abc"), "its correction is 'abc', expected a list"),
        (lambda r: r.update(complete=1), "complete is 1, expected true or false"),
        (lambda r: r.update(device=None), "its device is None, expected a text"),
        (lambda r: r.update(operators=[]), r"its operators is \[\], expected an object"),
        (
            lambda r: first_time(r).__setitem__(0, 0.0),
            "the time of operator .* is 0.0, not a positive finite",
        ),
        (
            lambda r: first_time(r).__setitem__(1, -1),
            "the time of operator .* is -1.0, not a positive finite",
        ),
        (lambda r: first_time(r).__setitem__(2, "1"), "the time of operator .* is '1', not a number"),
        (lambda r: first_time(r).__setitem__(3, 0), "the samples of operator .* is 0, expected 1 to"),
        (lambda r: first_time(r).append(1), "is not median, 20th and 80th percentile, and samples"),
        (lambda r: next(iter(r["operators"].values())).pop(), "has timings of 1 round, its settings say 2"),
        (lambda r: next(iter(r["operators"].values())).clear(), "there is no time of operator"),
        (
            lambda r: r["networks"][0]["rounds"].append(1.0),
            "network 0 has timings of 3 rounds, its settings say 2",
        ),
        (lambda r: r["networks"][0].update(use="both"), "the use of network 0 is 'both', not 'fit' or"),
        (lambda r: r["networks"][0].update(decisions=[0, 9]), "damaged: arch: "),
        (
            lambda r: r["networks"][0].update(decisions=[0.0, 1]),
            "a decision of network 0 is 0.0, expected an",
        ),
        (lambda r: r["networks"].append(r["networks"][0]), "network [0-9]+ comes twice"),
        (lambda r: r["networks"][0].pop("use"), "network 0 lacks decisions, use or rounds"),
        (setting("fit_networks", 1), "it has more networks than its settings say"),
        (setting("rounds", 3), "has timings of 2 rounds, its settings say 3"),
        (setting("rounds", 10**30), "its rounds is 10+, expected 1 to"),
        (setting("threads", True), "its threads is True, expected an integer"),
        (setting("seconds", None), "its seconds is None, not a number"),
        (lambda r: r["settings"].pop("dtype"), "its settings lack dtype"),
        (lambda r: r["settings"].pop("task"), "its settings lack task"),
        (task("batch", 0), "its batch is 0, expected 1 to"),
        (task("batch", None), "its batch is None, expected an integer"),
        (task("image_size", 2**40), "its image_size is"),
        (task("prune", "yes"), "its prune is 'yes', expected true or false"),
        (task("depth", 3), "its task does not have"),
        (setting("runtime", 3), "its runtime is 3, expected a text"),
        (lambda r: r.update(doubts=[3]), "a doubt is 3, expected a text"),
        (lambda r: r["machine"].update(versions="2.0"), "its versions is '2.0', expected an object"),
        (lambda r: r.update(more=1), "its fields are not those of a latency table"),
        (lambda r: r.pop("machine"), "its fields are not those of a latency table"),
        (lambda r: r["space"].pop("name"), "its space does not have a name and options"),
        (lambda r: r["space"].update(name="x\x1b[31m"), r"a table of x\\x1b\[31m"),
        (lambda r: r.update(version=4), "version 4 of the format; this is 3"),
        (lambda r: r.update(version=True), "version True of the format; this is 3"),
    ],
)
def test_a_table_that_no_build_writes(path: Path, how: Callable[[Any], object], message: str) -> None:
    change(path, how)
    with pytest.raises(UserError, match=message) as caught:
        LatencyTable.load(path, Functional())
    assert str(caught.value).startswith(f"{path}: ")
    assert len(str(caught.value).removeprefix(str(path))) < 400
    assert "\n" not in str(caught.value)


def test_every_digit_counts(path: Path) -> None:
    before = path.read_text()
    ms = LatencyTable.load(path, Functional()).operators
    digit = next(
        match for match in re.finditer(r"\d(?=\d*,)", before) if match.start() > before.index("operators")
    )
    other = str((int(digit[0]) + 1) % 10)
    path.write_text(before[: digit.start()] + other + before[digit.end() :])
    with pytest.raises(UserError, match="damaged: its contents do not have the sum that it was written with"):
        LatencyTable.load(path, Functional())
    assert ms


def test_tables_of_before_have_no_sum(path: Path) -> None:
    table = LatencyTable.load(path, Functional())
    record = json.loads(path.read_text())
    del record["sha256"], record["doubts"], record["settings"]["runtime"]
    path.write_text(json.dumps(signed(record | {"version": 2})))
    second = LatencyTable.load(path, Functional())
    assert (second.runtime, second.doubts) == (table.runtime, table.doubts) == ("torch", ())
    record["space"]["options"] = {}
    path.write_text(json.dumps(record | {"version": 1}))
    first = LatencyTable.load(path, Functional())
    assert first.describe() == second.describe()
    assert {**table.settings, "runtime": "torch"} == {**first.settings, "runtime": "torch"}
    path.write_text(json.dumps(record))  # of version 3
    with pytest.raises(UserError, match="its fields are not those of a latency table"):
        LatencyTable.load(path, Functional())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{}", "not a latency table; 'pynas hardware build' makes one"),
        (b"", "not a latency table: Expecting value"),
        (b"no json", "not a latency table: Expecting value"),
        (b"[1", "not a latency table: Expecting"),
        (b"\xef\xbb\xbf{}", "not a latency table: Unexpected UTF-8 BOM"),
        (b'{"a": "\xff"}', r"not a latency table: it is not UTF-8 text \(byte 7\)"),
        (b'{"a": 1e999}', "the number 1e999 is beyond the range of floats"),
        (b'{"a": NaN}', "NaN is no number in JSON"),
        (b'{"a": -Infinity}', "-Infinity is no number in JSON"),
        (b'{"a": ' + b"9" * 400 + b"}", "an integer of 400 digits"),
        (b'{"a": ' + b"9" * 1_000_000 + b"}", "an integer of 1000000 digits"),
        (b'{"a": 1, "a": 2}', "the name 'a' comes twice"),
        (b'{"a": "\\ud800"}', "half of a surrogate pair"),
        (b"[" * 100_000, "it is nested too deeply"),
        (b'{"a":' * 100_000, "it is nested too deeply"),
        (b'{"format": "pynas latency table", "version": 4}', "version 4 of the format; this is 3"),
        (b'{"format": "pynas latency table", "version": 1}', "damaged: its fields are not those"),
        (b'{"format": ["pynas latency table"]}', "not a latency table; 'pynas hardware build' makes one"),
    ],
    ids=lambda value: repr(value[:20]) if isinstance(value, bytes) else "",
)
def test_damaged_files(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "table.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        LatencyTable.load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert len(str(caught.value)) < 300


def test_a_file_that_is_larger_than_any_table(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(UserError, match="1099511627776 bytes are more than one ever has"):
        LatencyTable.load(path)
    with pytest.raises(UserError, match="no such file; 'pynas hardware build' makes one"):
        LatencyTable.load(tmp_path / "absent.json")


def test_a_damaged_file_is_not_built_over(path: Path) -> None:
    """Not continued, and not lost either: what is in it may have taken hours."""
    raw = path.read_bytes()[:-100]
    path.write_bytes(raw)
    with pytest.raises(UserError, match=r"table\.json: not a latency table: "):
        build(path=path)
    assert path.read_bytes() == raw


def test_a_table_that_could_not_be_read_again_is_not_written(path: Path) -> None:
    raw, table = path.read_bytes(), LatencyTable.load(path, Functional())
    table.correction = Correction(math.nan, 0.0, 0.0)
    with pytest.raises(UserError, match="was not written: "):
        table.save(path)
    table.correction = Correction()
    del table.settings["task"]
    with pytest.raises(UserError, match="was not written: its settings lack task"):
        table.save(path)
    assert path.read_bytes() == raw


def test_spaces_that_are_not_here(path: Path) -> None:
    with pytest.raises(UserError, match="a table of the space functional, which is not known here; known: "):
        LatencyTable.load(path)
    build(SPACE, path=path.with_name("other.json"))
    change(path.with_name("other.json"), lambda record: record["space"]["options"].update(colour=3))
    with pytest.raises(UserError, match="a table of nasbench201 with options that it does not take: "):
        LatencyTable.load(path.with_name("other.json"))
