"""Makes docs/recordings.md: three jobs on one's own data, as commands that it runs and what they print.

Run from the repository root: ``python docs/make_recordings.py``. It takes some minutes. The test of the page
runs the same commands on sizes of a second, so a command that no longer works is found without it.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "docs" / "recordings"
PAGE = ROOT / "docs" / "recordings.md"
COLUMNS = "110"
# Sizes of the page, and those of the test.
FULL = {"photos": "300", "steps": "5 16", "trials": "100", "half": "60", "batch": "16"}
FULL |= {"budget": "20", "rounds": "3", "held": "6", "fit": "6", "seconds": "0.005"}
SMALL = {"photos": "60", "steps": "1 4", "trials": "6", "half": "4", "batch": "8"}
SMALL |= {"budget": "3", "rounds": "2", "held": "3", "fit": "3", "seconds": "0.001"}


@dataclass(frozen=True)
class Job:
    """Somebody's job.

    Attributes:
        title: Heading of its part of the page.
        about: What they have and want.
        files: Files of docs/recordings that they have; the first is shown.
        commands: What they type, with names of sizes in braces, and what is said before it.
    """

    title: str
    about: str
    files: tuple[str, ...]
    commands: tuple[tuple[str, str], ...]


JOBS = (
    Job(
        "A supernet of one's own, faster",
        "A researcher has a supernet whose edges loop over candidates. One line puts an operator in the "
        "place of each loop; parameters, names and logits stay.",
        ("supernet.py",),
        (("", "python supernet.py {steps}"),),
    ),
    Job(
        "Own pictures, two thousand networks",
        "Somebody has a folder of pictures, one subfolder for each class, and a function that makes "
        "networks: which of its 2,250 combinations are worth training?",
        ("my_space.py", "photos.py"),
        (
            ("Pictures, which would be yours:", "python photos.py {photos}"),
            (
                "One network of that function, scored on them:",
                "pynas score --model my_space:small --images folder:photos --image-size 16 --batch {batch} "
                "--proxies zico,naswot,params --threads 1",
            ),
            (
                "Many, each trial kept at once in a store:",
                "pynas search --space my_space:space --images folder:photos --image-size 16 --batch {batch} "
                "--threads 1 --strategy random --objective zico --constraint 'params<20k' --budget {half} "
                "--store runs.db",
            ),
            (
                "More of them later, after a kill or not; what was scored is not scored again:",
                "pynas search --space my_space:space --images folder:photos --image-size 16 --batch {batch} "
                "--threads 1 --strategy random --objective zico --constraint 'params<20k' --budget {trials} "
                "--store runs.db --resume --csv trials.csv",
            ),
            (
                "A page to look at, and the best network as plain PyTorch:",
                "pynas report runs.db --space my_space:space --output report.html",
            ),
            (
                "",
                "pynas export runs.db --space my_space:space --image-size 16 --no-weights --output found.py",
            ),
            ("", "python -c 'import found'"),
        ),
    ),
    Job(
        "A budget of milliseconds",
        "An engineer has a device and a limit. The operators of a space are timed on the device, an error is "
        "reported on networks that were held out, and the search keeps to the limit.",
        ("photos.py",),
        (
            ("", "python photos.py {photos}"),
            (
                "Time the operators, here those of a small NAS-Bench-201:",
                "pynas hardware build nasbench201:channels=8,num_cells=1 device.json --image-size 16 "
                "--rounds {rounds} --seconds {seconds} --fit {fit} --held-out {held} --threads 1",
            ),
            (
                "Search under a limit of 4 ms:",
                "pynas search --space nasbench201:channels=8,num_cells=1 --images folder:photos "
                "--image-size 16 --batch {batch} --threads 1 --latency table:device.json "
                "--constraint 'latency<4' --objective zico --objective=-latency --budget {budget} "
                "--store limit.db",
            ),
            (
                "Take the winner away as a file for a runtime:",
                "pynas export limit.db --image-size 16 --to script --output winner.ts",
            ),
        ),
    ),
)


def commands(job: Job, sizes: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """What is said before each command, and the command."""
    for said, command in job.commands:
        yield said, command.format(**sizes)


def run(command: str, folder: Path) -> str:
    """What a command prints on a terminal that is no terminal, or SystemExit if it fails."""
    environment = {**os.environ, "COLUMNS": COLUMNS, "PYTHONPATH": ".", "OMP_NUM_THREADS": "1"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    done = subprocess.run(
        shlex.split(command),
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{command}\n{done.stdout}\nended with {done.returncode}")
    return "\n".join(line.rstrip() for line in done.stdout.splitlines() if line.strip())


def broken(command: str) -> str:
    """A command over several lines, as people type long ones."""
    lines = [""]
    for word in re.findall(r"'[^']*'|\S+", command):
        if lines[-1] and len(lines[-1]) + len(word) > 96:
            lines.append("   ")
        lines[-1] += f" {word}" if lines[-1] else word
    return " \\\n".join(lines)


def page() -> Iterator[str]:
    """The page, line by line."""
    yield "# Three jobs on own data, recorded"
    yield (
        "What is typed and what is printed, on one thread of a machine with ten others at work. "
        "`python docs/make_recordings.py` runs it all again and writes this page; the files are in "
        "`docs/recordings`."
    )
    for job in JOBS:
        yield f"## {job.title}"
        yield job.about
        name = job.files[0]
        if len(job.commands) == 1 or name != "photos.py":
            yield f"`{name}`:"
            source = (SOURCES / name).read_text(encoding="utf-8")
            yield f"```text\n{source.rstrip()}\n```"
        with tempfile.TemporaryDirectory() as made:
            folder = Path(made)
            for name in job.files:
                shutil.copy(SOURCES / name, folder)
            for said, command in commands(job, FULL):
                if said:
                    yield said
                printed = run(command, folder)
                yield f"```text\n$ {broken(command)}\n{printed}".rstrip() + "\n```"


if __name__ == "__main__":
    PAGE.write_text("\n\n".join(page()) + "\n", encoding="utf-8")
    print(PAGE.relative_to(ROOT))
