"""Runs scripts as `python script` does, without the seconds that each would load torch for.

One process loads torch and pynas, and forks for each script: the script has an interpreter, a folder, an
environment and streams of its own, and ends as a program ends. No thread runs before a fork, for importing
starts none.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

SERVER = """
import json, os, signal, sys, warnings
import numpy, torch, pynas

def requests():
    for line in sys.stdin:
        yield json.loads(line)

def script_of(request):
    if os.fork():
        return None
    os.setsid()
    signal.alarm(request["seconds"])
    if request["ignored"]:
        warnings.filterwarnings("ignore", request["ignored"])
    os.chdir(request["folder"])
    os.environ.update(request["environment"])
    for number, name in ((1, "stdout"), (2, "stderr")):
        to = os.open(request[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(to, number)
        os.close(to)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    sys.argv = [request["script"]]
    sys.path[0] = os.path.dirname(request["script"])
    return request["script"]

for request in requests():
    script = script_of(request)
    if script is not None:
        break
    _, status = os.wait()
    print(os.waitstatus_to_exitcode(status), flush=True)
else:
    sys.exit()

import runpy
del requests, script_of, request, json
runpy.run_path(script, run_name="__main__")
"""


class Preloaded:
    """A Python that has loaded torch and pynas; :func:`preloaded` starts and ends it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(
        self,
        script: Path,
        folder: Path,
        environment: Mapping[str, str] | None = None,
        *,
        seconds: int = 600,
        ignored: str = "",
    ) -> subprocess.CompletedProcess[str]:
        """Run a script in ``folder``; one that takes longer than ``seconds`` is ended by SIGALRM.

        ``ignored`` is a pattern of warnings that are no errors, such as what is said of a busy machine.
        The streams are kept in files beside the folder, so that the folder has what the script wrote alone.
        """
        streams = {name: folder.with_name(f"{folder.name}.{name}") for name in ("stdout", "stderr")}
        request = {
            "script": str(script),
            "folder": str(folder),
            "seconds": seconds,
            "ignored": ignored,
            "environment": dict(environment or {}),
            **{name: str(path) for name, path in streams.items()},
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the process that forks has died"
        out, err = (path.read_text(encoding="utf-8") for path in streams.values())
        return subprocess.CompletedProcess([str(script)], int(answer), out, err)


@contextmanager
def preloaded() -> Iterator[Preloaded]:
    """Start the process that forks, with one thread and warnings that are errors, and end it."""
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as process:
        yield Preloaded(process)
        assert process.stdin is not None
        process.stdin.close()
        process.wait(60)
