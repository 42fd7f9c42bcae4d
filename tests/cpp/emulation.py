"""Builds the CUDA kernels for the CPU emulation: one flavour at a time, objects cached by their content."""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = ROOT / "tests" / "cpp"
BUILD = ROOT / "build" / "cuda_emulation"

FLAVOURS = {
    "plain": ["-O1"],
    "address": ["-O0", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"],  # -O1 triples the build
    "thread": ["-O1", "-fsanitize=thread"],
}
COMMON = [
    "-std=c++17",
    "-g1",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wno-unknown-pragmas",
    "-DPYNAS_CUDA_EMULATION",
]


@cache
def cuda_include() -> Path | None:
    """The folder with CUDA's headers: of CUDA_HOME, of the nvcc on the PATH, or of the usual place."""
    roots = [Path(os.environ[name]) for name in ("CUDA_HOME", "CUDA_PATH") if name in os.environ]
    nvcc = shutil.which("nvcc")
    if nvcc is not None:
        roots.append(Path(nvcc).resolve().parents[1])
        listing = subprocess.run(
            [nvcc, "--dryrun", "-c", "-x", "cu", os.devnull], capture_output=True, text=True
        )
        roots += [Path(match) for match in re.findall(r"^#\$ TOP=(.+)$", listing.stderr, flags=re.MULTILINE)]
    roots.append(Path("/usr/local/cuda"))
    needed = ("cuda_fp16.h", "cuda_bf16.h", "vector_functions.h", "driver_types.h")
    return next((r / "include" for r in roots if all((r / "include" / n).is_file() for n in needed)), None)


def missing() -> str | None:
    """Why the emulation cannot be built here, or None when it can."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return f"the emulation switches stacks in x86-64 assembly, this is {platform.machine()}"
    if shutil.which("g++") is None:
        return "no g++ on the PATH"
    if cuda_include() is None:
        return "CUDA's headers were not found: set CUDA_HOME or put nvcc on the PATH"
    return None


def sources() -> list[Path]:
    return sorted(
        [*ROOT.glob("csrc/ops/*/*_cuda.cu"), *HERE.glob("test_*_cuda.cpp"), HERE / "test_planted_faults.cpp"]
    )


def case_names() -> list[str]:
    return [
        name
        for path in sources()
        for name in re.findall(r"^CASE\((\w+)\)", path.read_text(), flags=re.MULTILINE)
    ]


def build(flavour: str) -> Path:
    """Compiles what changed and returns the test program."""
    operators = [
        h for h in ROOT.glob("csrc/ops/*/*.h") if h.stem == h.parent.name or h.stem.endswith("_cuda")
    ]
    headers = sorted([*ROOT.glob("csrc/common/*.h"), *operators, *HERE.rglob("*.h")])
    flags = [*COMMON, *FLAVOURS[flavour], f"-I{ROOT / 'csrc'}", f"-I{HERE}", "-isystem", str(cuda_include())]
    shared = hashlib.sha256("\0".join([*flags, *(h.read_text() for h in headers)]).encode())
    BUILD.mkdir(parents=True, exist_ok=True)
    with open(BUILD / f"{flavour}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        paths = [*sources(), HERE / "main.cpp"]
        objects = []
        jobs = []
        for path in paths:
            digest = shared.copy()
            digest.update(path.read_bytes())
            target = BUILD / f"{path.stem}-{flavour}-{digest.hexdigest()[:16]}.o"
            objects.append(target)
            if not target.exists():
                for stale in BUILD.glob(f"{path.stem}-{flavour}-*.o"):
                    stale.unlink()
                jobs.append(["g++", *flags, "-x", "c++", "-c", str(path), "-o", str(target)])
        program = BUILD / f"cuda_tests-{flavour}"
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for done in pool.map(lambda job: subprocess.run(job, capture_output=True, text=True), jobs):
                if done.returncode != 0:
                    raise RuntimeError(f"{' '.join(done.args)}\n{done.stderr}")
        if jobs or not program.exists():
            link = ["g++", *flags, *map(str, objects), "-o", str(program)]
            subprocess.run(link, check=True)
    return program
