"""SIGKILL of the searching process at twenty moments of a steered search: the same end after each resume.

    python experiments/steering_kills.py [KILLS]

A search on NAS-Bench-201 with a supernet that trains on the embedded digits is steered at fixed trials. It
runs once in peace. Then it runs again in processes that are killed after times drawn at random, each resumed
by the next; what its store holds in the end has to be the same, and a replay of it has to give it once more.
Prints one line a kill and the verdict; exit code 1 if anything differs.
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from pynas.spaces import NASBench201
from pynas.steer import Setup, SteeredSearch, begin, replay, start
from pynas.store import Journal, Store

SPACE = NASBench201(channels=2, num_cells=1)
SETUP = Setup(epochs=1, limit=400, batch=32, seed=1)
PLAN = {
    4: [("forbid", {"blocks": ["0:0", "3:4"]})],
    8: [("train", {"epochs": 3})],
    12: [("add", {"decisions": [1, 1, 1, 2, 1, 1]}), ("strategy", {"name": "random"})],
    16: [("undo", {}), ("train", {"epochs": 2})],
    20: [("fix", {"candidates": [[1, 2, 3, 1, 0, 1], [1, 2, 0, 2, 1, 1]]})],
}
BUDGET = 26


def run(store: Path) -> None:
    """The search, from wherever it is to its end."""
    torch.set_num_threads(1)
    with begin(SPACE, SETUP, store=store, budget=BUDGET, resume=store.exists()) as search:
        while search.is_catching_up and search.advance():
            pass
        start(search, SETUP)
        print("ready", flush=True)
        while True:
            steer(search)
            if not search.advance():
                return


def steer(search: SteeredSearch) -> None:
    """Do what is planned before this trial and was not done."""
    number = len(search.trials)
    done = {(action.trial, action.kind) for action in search.actions}
    for kind, fields in PLAN.get(number, ()):
        if (number, kind) not in done:
            search.act(kind, who="plan", **fields)


def contents(path: Path) -> tuple[object, ...]:
    """What two stores must have in common."""
    with Store(path, read_only=True) as store:
        found = store.run()
        journal = Journal(store, found)
        trials = [
            (t.architecture, dict(t.evaluation.scores), t.evaluation.metrics["steps"])
            for t in store.trials(found)
        ]
        actions = [(a.trial, a.step, a.kind, dict(a.fields), a.who) for a in journal.actions()]
        return trials, actions, journal.points()


def main(kills: int = 20) -> int:
    """Kill and compare."""
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        whole, killed = Path(folder, "whole.db"), Path(folder, "killed.db")
        command = [sys.executable, __file__, "--run"]
        subprocess.run([*command, str(whole)], check=True, stdout=subprocess.DEVNULL)
        for kill in range(kills):
            child = subprocess.Popen([*command, str(killed)], stdout=subprocess.PIPE)
            assert child.stdout is not None
            child.stdout.readline()
            time.sleep(rng.uniform(0.0, 0.9))
            child.kill()
            child.wait()
            trials, actions, points = (len(part) for part in contents(killed))  # type: ignore[arg-type]
            print(
                f"kill {kill + 1}: {trials} trials, {actions} actions, {points} points of the curve",
                flush=True,
            )
        subprocess.run([*command, str(killed)], check=True, stdout=subprocess.DEVNULL)
        same = contents(whole) == contents(killed)
        again = replay(str(killed)).is_same
        print(f"after {kills} kills: {'the same end' if same else 'ANOTHER END'}")
        print(f"replayed: {'the same trials' if again else 'OTHER TRIALS'}")
        return 0 if same and again else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["--run"]:
        run(Path(sys.argv[2]))
    else:
        sys.exit(main(*map(int, sys.argv[1:2])))
