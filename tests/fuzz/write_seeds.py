"""Writes a small valid file of each format into the corpus: ``python tests/fuzz/write_seeds.py``.

They are committed; run it again when a format has changed.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent.parent), str(HERE.parent / "benchmarks")]

from pynas.testing.fuzz._readers import READERS  # noqa: E402
from tests.file_formats import FORMATS  # noqa: E402

LARGEST = 7000  # bytes; larger ones would soon be most of the repository


def main() -> None:
    for form in (form for form in FORMATS if READERS[form.name].alone):
        with tempfile.TemporaryDirectory() as name:
            path = Path(name) / form.filename
            path.parent.mkdir(parents=True, exist_ok=True)
            form.write(path)
            raw = path.read_bytes()
        keep(form.name, raw)
        if form.name == "unfinished-latency-table":
            keep("signed-latency-table", raw)
        if form.name == "nasbench101-records":
            keep("nasbench101-record", raw[12 : 12 + int.from_bytes(raw[:8], "little")])


def keep(name: str, raw: bytes) -> None:
    if len(raw) <= LARGEST:
        path = HERE / "corpus" / name / "valid"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(raw)
    print(f"{name}: {len(raw)} bytes{'' if len(raw) <= LARGEST else ', not kept'}")


if __name__ == "__main__":
    main()
