"""``rank --subset``: correlations over the part of a space that published tables are over."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

import pynas
from pynas.ranking import rank_scores

SPACE = pynas.spaces.get("nasbench201")
ACCURACIES = "nb201_accuracy.npz#test200_cifar10"


def without_idle_operations(text: str) -> bool:
    """From the string alone: every operation but none is on one of the four routes from input to output."""
    edges = {}
    for target, node in enumerate(text.split("+"), 1):
        for term in node.strip("|").split("|"):
            operation, source = term.split("~")
            edges[int(source), target] = operation != "none"
    routes = [((0, 3),), ((0, 1), (1, 3)), ((0, 2), (2, 3)), ((0, 1), (1, 2), (2, 3))]
    whole = [route for route in routes if all(edges[step] for step in route)]
    return {edge for edge, there in edges.items() if there} == set(itertools.chain(*whole))


def test_valid_cells() -> None:
    for arch in itertools.islice(SPACE.all(), 0, None, 3):
        assert SPACE.in_subset(arch, "valid") == without_idle_operations(SPACE.format(arch))
    assert sum(SPACE.in_subset(arch, "valid") for arch in SPACE.all()) == 9_445
    with pytest.raises(
        pynas.UserError, match="subset: nasbench201 has no subset 'vlid'; expected one of valid"
    ):
        SPACE.in_subset(SPACE.from_index(0), "vlid")
    darts = pynas.spaces.get("darts_cnn")
    with pytest.raises(pynas.UserError, match="darts_cnn has no subset 'valid'; it has none"):
        darts.in_subset(darts.from_index(0), "valid")


def test_valid_cells_are_those_of_the_published_scores(shared_data: Path) -> None:
    import numpy as np

    with np.load(shared_data / "nb201_proxies.npz", allow_pickle=False) as published:
        rows = set(published["index"].tolist())
    assert rows == {SPACE.index(arch) for arch in SPACE.all() if SPACE.in_subset(arch, "valid")}


def test_published_correlations_of_size(run_pynas: Any, shared_data: Path) -> None:
    """VKDNW's FLOPs over the valid cells, CIFAR-10: Kendall .623, Spearman .799; over all .578 and .753."""
    valid = [arch for arch in SPACE.all() if SPACE.in_subset(arch, "valid")]
    table = pynas.tables.load(f"npz:{shared_data / ACCURACIES}", SPACE)
    accuracies = table.accuracies()[[SPACE.index(arch) for arch in valid]]
    sizes = {"flops": [SPACE.macs(arch) for arch in valid], "params": [SPACE.params(arch) for arch in valid]}
    ranking = rank_scores(sizes, accuracies.tolist(), resamples=2)
    for found in ranking.correlations.values():
        assert found.kendall.value == pytest.approx(0.623, abs=6e-4)
        assert found.spearman.value == pytest.approx(0.799, abs=6e-4)
    common = (
        "rank",
        "--proxies",
        "flops",
        "--table",
        f"npz:{shared_data / ACCURACIES}",
        "--images",
        "digits",
    )
    code, out, err = run_pynas(*common, "--subset", "valid", "--sample", 40, "--json")
    assert code == 0, err
    record = json.loads(out)
    assert (record["subset"], record["population"], record["architectures"]) == ("valid", 9_445, 40)
    code, out, _ = run_pynas(*common, "--sample", 40, "--subset", "valid")
    assert code == 0
    assert "40 architectures of nasbench201, drawn from 9,445 architectures of the subset valid" in " ".join(
        out.split()
    )


def test_a_subset_belongs_to_the_run(run_pynas: Any, tmp_path: Path) -> None:
    import numpy as np

    np.savez(tmp_path / "table.npz", test200_cifar10=np.arange(SPACE.size or 0) / 200)
    common = ("rank", "--proxies", "params", "--table", f"npz:{tmp_path / 'table.npz'}", "--images", "digits")
    common += ("--sample", "5", "--store", str(tmp_path / "a.db"), "--json")
    code, out, err = run_pynas(*common, "--subset", "valid")
    assert code == 0, err
    assert json.loads(out)["subset"] == "valid"
    code, _, err = run_pynas(*common, "--resume")
    assert code == 2
    assert "subset" in err
    assert run_pynas(*common, "--resume", "--subset", "valid")[1] == out


@pytest.mark.parametrize(
    ("space", "reason"),
    [
        ("nasbench201", "nasbench201 has no subset 'vlaid'; expected one of valid"),
        ("darts_cnn", "darts_cnn has no subset 'vlaid'; it has none"),
    ],
)
def test_an_unknown_subset(run_pynas: Any, space: str, reason: str) -> None:
    code, out, err = run_pynas("rank", "--space", space, "--subset", "vlaid")
    assert (code, out) == (2, "")
    assert f"--subset: {reason}" in err
