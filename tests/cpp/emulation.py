"""Builds test programs of the kernels, and of each what changed: CUDA kernels for the CPU emulation."""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
import time
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
COMMON = ["-g1", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", f"-I{ROOT / 'csrc'}", f"-I{HERE}"]


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
    tests = set(HERE.glob("test_*.cpp")) - set(HERE.glob("test_*_cpu.cpp"))
    return sorted([*ROOT.glob("csrc/**/*_cuda.cu"), *tests])


def case_names(sources: list[Path]) -> list[str]:
    return [
        name
        for path in sources
        for name in re.findall(r"^CASE\((\w+)\)", path.read_text(), flags=re.MULTILINE)
    ]


def build(flavour: str) -> Path:
    """Compiles what changed and returns the test program."""
    cuda = ["-DPYNAS_CUDA_EMULATION", "-isystem", str(cuda_include())]
    return build_program(flavour, sources(), ["-std=c++17", *FLAVOURS[flavour], *cuda])


def build_program(flavour: str, sources: list[Path], extra_flags: list[str]) -> Path:
    """Compiles what changed of the sources and main.cpp, and returns the program."""
    flags = [*COMMON, *extra_flags]
    BUILD.mkdir(parents=True, exist_ok=True)
    with open(BUILD / f"{flavour}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        objects = [_Object(path, flavour, flags) for path in [*sources, HERE / "main.cpp"]]
        stale = [o for o in objects if not o.is_current()]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for _ in pool.map(_Object.compile, stale):
                pass
        program = BUILD / f"kernel_tests-{flavour}"
        link = ["g++", *flags, *(str(o.target) for o in objects), "-o", str(program)]
        linked = BUILD / f"kernel_tests-{flavour}.link"
        if stale or not program.exists() or not linked.exists() or linked.read_text() != "\0".join(link):
            linked.unlink(missing_ok=True)
            subprocess.run(link, check=True)
            linked.write_text("\0".join(link))
    return program


class _Object:
    """A source as one flavour compiles it.

    `.d` lists the files that the compiler read, as it says itself, and `.digest` is of their contents and of
    the command: an edit of a header compiles what includes it, and nothing else.
    """

    def __init__(self, source: Path, flavour: str, flags: list[str]) -> None:
        self.target = BUILD / f"{source.stem}-{flavour}.o"
        self._read = self.target.with_suffix(".d")
        self._digest = self.target.with_suffix(".digest")
        cached = ["ccache"] if shutil.which("ccache") else []
        self._command = [
            *cached,
            "g++",
            *flags,
            "-MMD",
            "-MF",
            str(self._read),
            "-x",
            "c++",
            "-c",
            str(source),
        ]
        self._command += ["-o", str(self.target)]

    def is_current(self) -> bool:
        """Whether the object was made by this command of files as they are now."""
        if not (self.target.exists() and self._read.exists() and self._digest.exists()):
            return False
        files = self._files()
        return all(f.exists() for f in files) and self._digest.read_text() == self._digest_of(files)

    def compile(self) -> None:
        """Raises RuntimeError, with the compiler's messages."""
        self._digest.unlink(missing_ok=True)
        start = time.time_ns()
        in_any_clone = {"CCACHE_BASEDIR": str(ROOT), "CCACHE_NOHASHDIR": "1"}
        done = subprocess.run(
            self._command, capture_output=True, text=True, cwd=ROOT, env={**os.environ, **in_any_clone}
        )
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(done.args)}\n{done.stderr}")
        files = self._files()
        # A file that was written meanwhile may not be what the compiler read: compile again next time.
        if all(f.stat().st_mtime_ns < start for f in files):
            self._digest.write_text(self._digest_of(files))

    def _files(self) -> list[Path]:
        _, _, names = self._read.read_text().replace("\\\n", " ").partition(": ")
        return [Path(re.sub(r"\\(.)", r"\1", name)) for name in re.findall(r"(?:\\.|\S)+", names)]

    def _digest_of(self, files: list[Path]) -> str:
        digest = hashlib.sha256("\0".join(self._command).encode())
        for file in files:
            content = file.read_bytes()
            digest.update(f"\0{file}\0{len(content)}\0".encode() + content)
        return digest.hexdigest()
