"""Every kind of convolution that networks of the spaces have, forward and gradients, on a guarded heap.

    python tests/reliability/convolution_sweep.py --shapes 20000
    python tests/reliability/convolution_sweep.py --form plain --only-1x1     # what PyTorch itself does

Convolutions run in processes of their own, for each instruction set that the processor has, under
``guarded_heap.cpp``: one that reads or writes outside of its memory kills the process, and is named. Results
are compared with those in float64 in PyTorch's default layout.
"""

from __future__ import annotations

import argparse
import ctypes
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, astuple, dataclass
from functools import cache
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
GUARD = "PYNAS_GUARDED_HEAP"
PART = 1500  # convolutions of one process: its guarded heap has addresses for so many
# oneDNN's names, ATen's names and what the processor must have, the weakest first.
INSTRUCTION_SETS = (
    ("SSE41", "default", "sse4_1"),
    ("AVX2", "avx2", "avx2"),
    ("AVX512_CORE", "avx512", "avx512bw"),
    ("AVX512_CORE_BF16", "avx512", "avx512_bf16"),
    ("AVX512_CORE_AMX", "avx512", "amx_bf16"),
)


@dataclass(frozen=True)
class Shape:
    """One convolution and how it is run."""

    batch: int
    channels: int
    out: int
    size: int
    kernel: int
    stride: int
    padding: int
    dilation: int
    groups: int
    layout: str
    dtype: str


def shapes(only_1x1: bool = False) -> Iterator[Shape]:
    """All that are swept: kernels 1 to 7, strides 1 to 4, 1 to 64 channels, batches 1 to 64."""
    channels = (1, 2, 3, 4, 6, 8, 12, 15, 16, 17, 24, 32, 48, 64)
    layouts, dtypes = ("channels_last", "contiguous"), ("float32", "bfloat16")
    sizes = ((1, 7), (2, 16), (16, 14), (64, 8))  # batch and pixels
    kernels = (1,) if only_1x1 else range(1, 8)
    for kernel, stride, dilation in itertools.product(kernels, range(1, 5), (1, 2)):
        if dilation > 1 and kernel < 3:
            continue
        reach = dilation * (kernel - 1) + 1
        for padding, before, after in itertools.product({0, max(1, reach // 2)}, channels, channels):
            for groups, (batch, size) in itertools.product(sorted(_groups(before, after)), sizes):
                if size + 2 * padding < reach:
                    continue
                for layout, dtype in itertools.product(layouts, dtypes):
                    geometry = (batch, before, after, size, kernel, stride, padding, dilation, groups)
                    yield Shape(*geometry, layout, dtype)


@cache
def _all_shapes(only_1x1: bool) -> tuple[Shape, ...]:
    return tuple(shapes(only_1x1))


def _groups(before: int, after: int) -> set[int]:
    """One, two where they divide, and depthwise."""
    return {1, before if before == after else 1, 2 if before % 2 == after % 2 == 0 else 1}


def chosen(count: int, seed: int, only_1x1: bool = False) -> list[Shape]:
    """``count`` of them at random; all that are strided 1x1 and narrow come first."""
    everything = list(_all_shapes(only_1x1))
    random.Random(seed).shuffle(everything)
    narrow = [s for s in everything if s.kernel == 1 and s.stride > 1 and s.channels < 16 and s.groups == 1]
    narrow = narrow[: max(count // 4, 1)]
    known = set(narrow)
    others = (s for s in everything if s not in known)
    return narrow + list(itertools.islice(others, max(0, count - len(narrow))))


def build_guard(folder: Path) -> Path:
    """The heap, compiled."""
    library = folder / "libguarded_heap.so"
    command = ["g++", "-O2", "-std=c++20", "-shared", "-fPIC", "-o", str(library)]
    subprocess.run([*command, str(HERE / "guarded_heap.cpp"), "-ldl"], check=True)
    return library


def instruction_sets() -> list[tuple[str, str]]:
    """Those that this processor has, for oneDNN and for ATen."""
    flags = set(Path("/proc/cpuinfo").read_text().split())
    return [(onednn, aten) for onednn, aten, needed in INSTRUCTION_SETS if needed in flags]


def run_one(shape: Shape, form: str) -> str:
    """Forward and gradients of one convolution; what is wrong with the numbers, or nothing."""
    import torch
    import torch.nn.functional as F

    from pynas import ops

    conv2d = F.conv2d if form == "plain" else ops.subsampling_conv2d
    generator = torch.Generator().manual_seed(hash(astuple(shape)[:9]) % 2**31)
    layout = torch.channels_last if shape.layout == "channels_last" else torch.contiguous_format
    dtype = getattr(torch, shape.dtype)
    x = torch.randn(shape.batch, shape.channels, shape.size, shape.size, generator=generator)
    fan = shape.channels // shape.groups * shape.kernel**2
    w = torch.randn(shape.out, shape.channels // shape.groups, *(shape.kernel,) * 2, generator=generator)
    options = (shape.stride, shape.padding, shape.dilation, shape.groups)
    leaves = [t.to(dtype).to(memory_format=layout).requires_grad_() for t in (x, w / fan**0.5)]
    y = conv2d(*leaves, None, *options)
    grad = torch.randn(y.shape, generator=generator).to(dtype)
    found = (y, *torch.autograd.grad(y, leaves, grad.to(memory_format=layout)))
    exact = [t.detach().double().contiguous().requires_grad_() for t in leaves]
    want = F.conv2d(*exact, None, *options)
    expected = (want, *torch.autograd.grad(want, exact, grad.double()))
    tolerance = 1e-4 if shape.dtype == "float32" else 5e-2
    names = ("output", "input gradient", "weight gradient")
    for name, ours, theirs in zip(names, found, expected, strict=True):
        difference = (ours.detach().double() - theirs.detach()).abs().max()
        error = float(difference / theirs.detach().abs().max().clamp_min(1))
        if not error < tolerance:
            return f"{name} is off by {error:.2g}"
    return ""


def child(form: str, first: int, progress: Path) -> None:
    """Run the shapes that come on stdin from ``first`` on, noting before each which one it is."""
    import torch

    torch.set_num_threads(1)
    todo = [Shape(*fields) for fields in json.load(sys.stdin)]
    run_one(Shape(2, 3, 4, 7, 3, 1, 1, 1, 1, "contiguous", "float32"), form)  # all that is made once
    ctypes.CDLL(os.environ[GUARD]).guarded_heap_enable(1)
    with progress.open("r+b", buffering=0) as note:
        for number in range(first, len(todo)):
            os.pwrite(note.fileno(), b"%12d" % number, 0)
            wrong = run_one(todo[number], form)
            if wrong:
                print(json.dumps([number, wrong]), flush=True)
    os._exit(0)  # how a process ends with such a heap is of no interest


def sweep(
    todo: Sequence[Shape], form: str, isa: tuple[str, str], guard: Path, seconds: float = 300.0
) -> list[dict[str, Any]]:
    """What goes wrong under one instruction set: shape and how, for each that does."""
    names = {"ONEDNN_MAX_CPU_ISA": isa[0], "ATEN_CPU_CAPABILITY": isa[1], GUARD: str(guard)}
    faults: list[dict[str, Any]] = []

    def note(number: int, how: str) -> None:
        faults.append({"shape": asdict(todo[number]), "isa": isa[0], "how": how})

    first = 0
    with tempfile.NamedTemporaryFile() as progress:
        while first < len(todo):
            part = json.dumps([astuple(shape) for shape in todo[: first + PART]])
            Path(progress.name).write_bytes(b" " * 12)
            command = [sys.executable, "-W", "ignore", __file__, "--child", form, str(first), progress.name]
            try:
                process = subprocess.run(
                    ["env", f"LD_PRELOAD={guard}", *command],
                    input=part, text=True, capture_output=True, env={**os.environ, **names}, timeout=seconds,
                )  # fmt: skip
                code, out, err = process.returncode, process.stdout, process.stderr
            except subprocess.TimeoutExpired as error:
                code, out, err = None, (error.stdout or b"").decode(), ""
            for number, wrong in map(json.loads, out.splitlines()):
                note(number, wrong)
            if code == 0:
                first += PART
                continue
            reached = Path(progress.name).read_bytes().strip()
            if not reached:
                raise RuntimeError(f"the sweep did not start: {err[-500:]}")
            lines = [line for line in err.splitlines() if "guarded heap" in line]
            died = f"no end after {seconds:.0f} s" if code is None else f"signal {-code}"
            note(int(reached), lines[-1] if lines else died)
            first = int(reached) + 1
    return faults


def main() -> None:
    """Sweep, print what goes wrong, and exit with 1 if anything does."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", type=int, default=2000, help="how many, for each instruction set")
    parser.add_argument("--form", choices=("pynas", "plain"), default="pynas", help="plain: as torch does")
    parser.add_argument("--only-1x1", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    todo = chosen(options.shapes, options.seed, options.only_1x1)
    with tempfile.TemporaryDirectory() as folder:
        guard = build_guard(Path(folder))
        found = {isa: sweep(todo, options.form, (isa, aten), guard) for isa, aten in instruction_sets()}
    if options.json:
        print(json.dumps({"shapes": len(todo), "form": options.form, "faults": found}))
    else:
        for isa, faults in found.items():
            print(f"{isa}: {len(todo)} convolutions, {len(faults)} faults")
            for fault in faults[:20]:
                print(f"  {fault['how']}: {fault['shape']}")
    sys.exit(any(found.values()))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]))
    main()
