from __future__ import annotations

import json
import math
import os
import random
import signal
import subprocess
import sys
import textwrap

import pytest
from counted_latencies import SPACE, Clock, Functional, build

from pynas._errors import UserError
from pynas.hardware import LatencyTable, Timing, load

pytestmark = pytest.mark.usefixtures("one_thread")


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
    monkeypatch.setattr("pynas.hardware._build._SECONDS_BETWEEN_SAVES", 0.0)
    path = tmp_path / "table.json"
    space = Functional()
    with pytest.raises(KeyboardInterrupt):
        build(path=path, clock=Clock(fail_after=40))
    with pytest.raises(UserError, match="its build was cut off; the same 'pynas hardware build' again"):
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
    import pynas.hardware._build as b
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
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"machine": record["machine"] | {"device": "another processor"}}))
    with pytest.raises(UserError, match="with machine another processor, not "):
        build(path=path)


@pytest.mark.parametrize("ms", [math.nan, math.inf, 0.0])
def test_a_time_that_is_no_time(ms, tmp_path):
    class Broken(Clock):
        def measure(self, run):
            timing = super().measure(run)
            return Timing(ms, ms, ms, 1) if self.calls == 3 else timing

    with pytest.raises(UserError, match=f"the time of .* came out as {ms} ms and was not recorded"):
        build(clock=Broken())
    path = tmp_path / "table.json"
    build(path=path)
    record = json.loads(path.read_text())
    next(iter(record["operators"].values()))[0][0] = ms
    path.write_text(json.dumps(record))
    with pytest.raises(UserError, match=r"is .* ms, not a positive finite number"):
        LatencyTable.load(path, Functional())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "not a latency table"),
        ("no json", "not a readable latency table"),
        ('{"format": "pynas latency table", "version": 2}', "version 2 of the format"),
        ('{"format": "pynas latency table", "version": 1}', "not a readable latency table: KeyError"),
    ],
)
def test_damaged_files(tmp_path, text, message):
    path = tmp_path / "table.json"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        LatencyTable.load(path)
    with pytest.raises(UserError, match="no such file; 'pynas hardware build' makes one"):
        LatencyTable.load(tmp_path / "absent.json")
