"""SIGKILL of the searching process at twenty moments of a steered search: the same end after each resume.

    python experiments/steering_kills.py [--kills 20] [--record benches/results/steering-kills.json]

A search on NAS-Bench-201 with a supernet that trains on the embedded digits is steered at fixed trials. It
runs once in peace. Then it runs again in processes that are killed, each resumed by the next: the moments are
spread over all that the search keeps (trials, actions, points of the training's curve), each some random
milliseconds after the process has said that one more is in the store. What the store holds in the end has to
be what the undisturbed one holds, and ``pynas replay`` has to give it once more. Exit code 1 if anything
differs.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from records import write

from pynas.spaces import NASBench201
from pynas.steer import Setup, SteeredSearch, begin, start
from pynas.store import Journal, Store

SPACE = NASBench201(channels=2, num_cells=1)
SETUP = Setup(epochs=2, limit=400, batch=32, seed=1)
PLAN = {
    4: [("forbid", {"blocks": ["0:0", "3:4"]})],
    8: [("train", {"epochs": 3})],
    12: [("add", {"decisions": [1, 1, 1, 2, 1, 1]}), ("strategy", {"name": "random"})],
    16: [("undo", {}), ("train", {"epochs": 2})],
    20: [("fix", {"candidates": [[1, 2, 3, 1, 0, 1], [1, 2, 0, 2, 1, 1]]}), ("budget", {"trials": 32})],
    24: [("undo", {}), ("undo", {}), ("train", {"epochs": 1})],
}
BUDGET = 28
LATEST = 0.03  # seconds between what a process says and its end


def run(store: Path) -> None:
    """The search, from wherever it is to its end; a line for everything new that is in the store.

    It waits for a line on its standard input after each, so that it is not far ahead on a busy machine.
    """
    torch.set_num_threads(1)

    def heard(kind: str, value: Any) -> None:
        if kind in ("trial", "action", "point"):
            print(kind, flush=True)
            sys.stdin.readline()

    with begin(SPACE, SETUP, store=store, budget=BUDGET, resume=store.exists()) as search:
        search.do_due()  # a kill between two actions before one trial leaves the second to be done
        while search.is_catching_up and search.advance():
            search.do_due()
        search.listen(heard)
        start(search, SETUP)
        while True:
            steer(search)
            if not search.advance():
                break
    print("end", flush=True)


def steer(search: SteeredSearch) -> None:
    """Do what is planned before this trial and was not done."""
    number = len(search.trials)
    done = [action.kind for action in search.actions if (action.trial, action.who) == (number, "plan")]
    for kind, fields in PLAN.get(number, ())[len(done) :]:
        search.act(kind, who="plan", **fields)


def contents(path: Path) -> tuple[list[Any], list[Any], list[Any]]:
    """What two stores must have in common: trials, actions, curve."""
    with Store(path, read_only=True) as store:
        found = store.run()
        journal = Journal(store, found)
        trials = [
            (t.architecture, t.evaluation.status, dict(t.evaluation.scores), dict(t.evaluation.metrics))
            for t in store.trials(found)
        ]
        actions = [(a.number, a.trial, a.step, a.kind, dict(a.fields), a.who) for a in journal.actions()]
        return trials, actions, list(journal.points())


def counted(path: Path) -> dict[str, int]:
    """How much a store holds; nothing before the first process has made it."""
    parts = contents(path) if path.exists() else ([], [], [])
    return dict(zip(("trials", "actions", "points"), map(len, parts), strict=True))


def kill_after(command: list[str], lines: int, delay: float) -> str:
    """Start the search, and kill it some time after so many lines; the last one."""
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
    assert child.stdin is not None
    assert child.stdout is not None
    last = ""
    for _ in range(lines):
        last = child.stdout.readline().strip()
        if last in ("", "end"):
            break
        child.stdin.write("\n")
    time.sleep(delay)
    child.kill()
    child.communicate()
    return last


def main(kills: int = 20) -> dict[str, Any]:
    """Kill and compare; the record."""
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        whole, killed = Path(folder, "whole.db"), Path(folder, "killed.db")
        command = [sys.executable, __file__, "--run"]
        subprocess.run(
            [*command, str(whole)], check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        expected = contents(whole)
        total = sum(map(len, expected))
        told = []
        for number in range(kills):
            wanted = round((number + rng.random()) * total / kills)
            lines = max(1, wanted - sum(counted(killed).values()))
            after = kill_after([*command, str(killed)], lines, rng.uniform(0, LATEST))
            told.append({"after": after, **counted(killed)})
            print(f"kill {number + 1}, after {after}: {told[-1]}", flush=True)
        last = subprocess.run(
            [*command, str(killed)],
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        replayed = subprocess.run(
            [sys.executable, "-m", "pynas.cli", "replay", str(killed), "--threads", "1", "--json"],
            stdout=subprocess.PIPE,
            text=True,
        )
        again = json.loads(replayed.stdout)
        return {
            "search": dict(zip(("trials", "actions", "points"), map(len, expected), strict=True)),
            "kills": told,
            "left_for_the_last": len(last.stdout.splitlines()) - 1,
            "same_end": contents(killed) == expected,
            "same_replay": again["same"]
            and (again["trials"], again["actions"])
            == (
                len(expected[0]),
                len(expected[1]),
            ),
        }


if __name__ == "__main__":
    if sys.argv[1:2] == ["--run"]:
        run(Path(sys.argv[2]))
    else:
        parser = argparse.ArgumentParser()
        parser.add_argument("--kills", type=int, default=20)
        parser.add_argument("--record", type=Path)
        given = parser.parse_args()
        found = main(given.kills)
        print(f"the same end: {found['same_end']}; the same replay: {found['same_replay']}")
        if given.record is not None:
            write(given.record, found)
        sys.exit(not (found["same_end"] and found["same_replay"]))
