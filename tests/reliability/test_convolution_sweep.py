"""Convolutions on a guarded heap: a few in every run, ``PYNAS_SWEEP_SHAPES`` of them as evidence."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import convolution_sweep
import pytest
import torch
from convolution_sweep import Shape, chosen, instruction_sets, shapes, sweep

COUNT = int(os.environ.get("PYNAS_SWEEP_SHAPES", "40"))
pytestmark = [
    pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++ to compile the guarded heap"),
    pytest.mark.slow,
]


@pytest.fixture(scope="module")
def guard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convolution_sweep.build_guard(tmp_path_factory.mktemp("guard"))


def under(guard: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Run Python code on the guarded heap."""
    command = ["env", f"LD_PRELOAD={guard}", sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_no_convolution_that_pynas_asks_for_leaves_its_memory(guard: Path) -> None:
    todo = chosen(COUNT, seed=0)
    sets = (
        instruction_sets() if COUNT > 100 else instruction_sets()[-1:]
    )  # the strongest has the most kernels
    assert [fault for isa in sets for fault in sweep(todo, "pynas", isa, guard)] == []


@pytest.mark.long
def test_the_convolutions_that_pytorch_does_not_survive(guard: Path) -> None:
    """Narrow strided 1x1 convolutions in channels_last kill the process, but not as pynas runs them."""
    isa = next((isa for isa in instruction_sets() if isa[0] == "AVX2"), None)
    if isa is None:
        pytest.skip("needs AVX2")
    deadly = [
        Shape(2, channels, out, 16, 1, 2, 0, 1, 1, "channels_last", "float32")
        for channels, out in ((3, 6), (4, 24))
    ]
    assert sweep(deadly, "pynas", isa, guard) == []
    if not torch.__version__.startswith("2.13."):
        pytest.skip(f"whether torch {torch.__version__} survives them is not known")
    died = [fault["shape"]["channels"] for fault in sweep(deadly, "plain", isa, guard)]
    assert died == [3, 4]


def test_what_is_swept() -> None:
    everything = list(shapes())
    assert len(everything) > 100_000
    assert {s.kernel for s in everything} == set(range(1, 8))
    assert {s.stride for s in everything} == {1, 2, 3, 4}
    assert {s.groups for s in everything} >= {1, 2, 3, 64}
    some = chosen(400, 0)
    assert all(s.kernel == 1 and s.stride > 1 and s.channels < 16 for s in some[:100])
    assert len(set(some)) == 400


@pytest.mark.parametrize("where", ["behind", "before", "far behind", "freed"])
def test_the_heap_finds_what_is_written_outside(guard: Path, where: str) -> None:
    code = f"""
import ctypes
heap = ctypes.CDLL({str(guard)!r})
heap.memalign.restype = ctypes.c_void_p
heap.guarded_heap_enable(1)
at = heap.memalign(ctypes.c_size_t(64), ctypes.c_size_t(516))  # 60 bytes before the next multiple of 64
offset = {{"behind": 516, "before": -1, "far behind": 576, "freed": 8}}[{where!r}]
if {where!r} == "freed":
    heap.free(ctypes.c_void_p(at))
ctypes.memset(at + offset, 1, 1)
heap.free(ctypes.c_void_p(at))
print("unnoticed")
"""
    process = under(guard, code)
    assert process.returncode < 0
    assert "unnoticed" not in process.stdout
    if where in ("behind", "before"):
        assert f"written {where} a block of 516 bytes" in process.stderr


def test_a_convolution_that_dies_is_named_and_the_sweep_goes_on(
    guard: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sweep of a child in which two shapes go wrong, one of them for good."""
    broken = tmp_path / "broken_sweep.py"
    text = Path(convolution_sweep.__file__).read_text()
    head, tail = text.split('    """Forward and gradients of one convolution; what is wrong', 1)
    quote, rest = tail.split('"""\n', 1)
    planted = "    if shape.out == 48: ctypes.memset(0, 1, 1)\n    if shape.out == 24: return 'off'\n"
    broken.write_text(head + '    """Broken' + quote + '"""\n' + planted + rest)
    monkeypatch.setattr(convolution_sweep, "__file__", str(broken))
    todo = [Shape(1, 3, out, 7, 3, 1, 1, 1, 1, "contiguous", "float32") for out in (8, 48, 16, 24)]
    found = sweep(todo, "plain", instruction_sets()[-1], guard)
    assert [(fault["shape"]["out"], fault["how"]) for fault in found] == [(48, "signal 11"), (24, "off")]


def test_the_heap_gives_back_what_it_took(guard: Path) -> None:
    """Its functions, called by name: sizes around its limits, growing, and nothing left at the end."""
    code = f"""
import ctypes
heap = ctypes.CDLL({str(guard)!r})
for name in ("malloc", "realloc", "calloc"):
    getattr(heap, name).restype = ctypes.c_void_p
heap.guarded_heap_live.restype = heap.malloc_usable_size.restype = ctypes.c_size_t
heap.guarded_heap_enable(1)
for size in (1, 511, 512, 513, 4095, 4096, 4097, 100_000):
    before = heap.guarded_heap_live()
    p = ctypes.c_void_p(heap.malloc(ctypes.c_size_t(size)))
    assert heap.guarded_heap_live() - before == (size >= 512)
    ctypes.memset(p, 7, size)
    p = ctypes.c_void_p(heap.realloc(p, ctypes.c_size_t(2 * size)))
    assert ctypes.string_at(p, size) == bytes([7]) * size
    assert heap.malloc_usable_size(p) >= 2 * size
    heap.free(p)
    assert heap.guarded_heap_live() == before
zeros = ctypes.c_void_p(heap.calloc(ctypes.c_size_t(3), ctypes.c_size_t(1000)))
assert ctypes.string_at(zeros, 3000) == bytes(3000)
heap.free(zeros)
print("as it should")
"""
    process = under(guard, code)
    assert process.stdout == "as it should\n", process.stderr
