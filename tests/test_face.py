"""The face of the package: the names that ``dir`` shows, and what an import costs."""

from __future__ import annotations

import subprocess
import sys
import types

import numpy as np
import pytest

import pynas
from pynas.hardware import TabularLatency

CHILD = """
import sys
import pynas
loaded = {name for name in sys.modules if name.startswith("pynas")} - {"pynas", "pynas._foreign"}
assert not loaded, loaded
assert not {"torch", "numpy", "scipy", "sqlalchemy", "sklearn"} & set(sys.modules)
before = dir(pynas)
assert pynas.Architecture.__module__ == "pynas.architecture"
assert "torch" not in sys.modules and "numpy" not in sys.modules
assert pynas.spaces.get("nasbench201").name == "nasbench201"
assert "torch" not in sys.modules
assert pynas.run.search is pynas.search
assert dir(pynas) == before
"""


def test_an_import_loads_nothing_and_parts_load_on_first_use() -> None:
    subprocess.run([sys.executable, "-c", CHILD], check=True)


def test_dir_is_the_public_names() -> None:
    names = dir(pynas)
    assert names == sorted([*pynas.__all__, "__version__"])
    for name in names:
        found = getattr(pynas, name)
        assert not isinstance(found, types.ModuleType) or found.__name__ == f"pynas.{name}"
    with pytest.raises(AttributeError, match="module 'pynas' has no attribute 'serach'"):
        _ = pynas.serach  # type: ignore[attr-defined]


def test_reprs_are_short() -> None:
    images = pynas.data.load_images("digits", limit=40)
    result = pynas.search("nasbench201", objectives=["params"], strategy="random", budget=3)
    space = pynas.spaces.get("nasbench201")
    table = pynas.tables.Table("mine", "accuracy", "cifar10", space, dict.fromkeys(range(15_625), 50.0))
    ranking = pynas.ranking.rank_scores({"a": [*range(500)]}, [*range(500)], resamples=2)
    latency = TabularLatency(space, np.ones(15_625), "raspi4", dataset="cifar10", source="hw.npz")
    drawn = pynas.data.draw("digits", batch=8)
    for found, said in (
        (images, "Images('digits', [40, 3, 32, 32] float32, 10 classes)"),
        (drawn, "Drawn('digits', [8, 3, 32, 32], 10 classes)"),
        (table, "Table('mine', accuracy of cifar10 in %, 15,625 values of nasbench201)"),
        (ranking, "Ranking(500 architectures; Spearman: a 1.000)"),
        (latency, "TabularLatency(latency:raspi4, raspi4, ms, cifar10, hw.npz)"),
    ):
        assert repr(found) == said
    assert repr(result).startswith("SearchResult: 3 trials of nasbench201 by random, 1 trial on the front")
    assert len(repr(result)) < 400
