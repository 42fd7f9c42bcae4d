"""Writes constraints-hashed.txt: make lock. Runs where pip-tools is installed, and asks the package index."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "constraints-hashed.txt"
EXTRAS = (
    "dev",
    "tables",
    "docs",
)  # what continuous integration installs; zoo and peers are gigabytes, and only tests of onnx need it
UNHASHED = ("torch", "torchvision")  # one version of them is many files, for each kind of device
ENTRY = r"^[a-z][^\n]*==[^\n]*\\\n(?:    --hash=[^\n]*\n)+"


def main() -> None:
    """Resolve the extras that ``make`` installs; keep all hashes but torch's."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    wanted = [*project["build-system"]["requires"], "ninja", "cmake", *project["project"]["dependencies"]]
    wanted += [package for name in EXTRAS for package in extras[name]]
    with tempfile.TemporaryDirectory() as folder:
        source, result = Path(folder, "in.txt"), Path(folder, "out.txt")
        source.write_text("\n".join(wanted))
        command = ["pip-compile", "--quiet", "--generate-hashes", "--strip-extras"]
        command += [f"--unsafe-package={name}" for name in UNHASHED]  # left out, and nothing else
        places = ["--constraint", str(ROOT / "constraints.txt"), "--output-file", str(result), str(source)]
        subprocess.run([str(Path(sys.executable).parent / command[0]), *command[1:], *places], check=True)
        entries = re.findall(ENTRY, result.read_text(), re.MULTILINE)
    head = PAGE.read_text().partition("\n\n")[0]
    PAGE.write_text(head + "\n\n" + "".join(sorted(entries)))


if __name__ == "__main__":
    main()
