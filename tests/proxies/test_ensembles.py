"""Ensembles of scores against their definitions, pair by pair."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from pynas import spaces
from pynas._errors import UserError
from pynas.proxies.ensembles import ENSEMBLES
from pynas.ranking import ensembles


def population(n: int = 23) -> dict[str, list[float]]:
    rng = random.Random(0)
    scores = {name: [float(rng.randint(0, 9)) for _ in range(n)] for name in ("a", "b", "c")}
    scores["a"][4] = math.nan
    scores["b"][7] = -math.inf
    return scores


def test_vote_counts_pairwise_majorities(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = population()
    n = len(scores["a"])
    rows = [[-math.inf if math.isnan(v) else v for v in values] for values in scores.values()]
    expected = []
    for i in range(n):
        wins = 0.0
        for j in range(n):
            balance = sum((r[i] > r[j]) - (r[i] < r[j]) for r in rows)
            wins += 0 if i == j else 1 if balance > 0 else 0.5 if balance == 0 else 0
        expected.append(wins / (n - 1))
    assert ensembles.vote(scores) == pytest.approx(expected)
    monkeypatch.setattr(ensembles, "_PAIRS", 200)  # in chunks
    assert ensembles.vote(scores) == pytest.approx(expected)


def test_the_published_vote_is_the_majority_of_each_pair() -> None:
    scores = {"synflow": [3.0, 1.0], "jacob_cov": [2.0, 5.0], "snip": [9.0, 8.0]}
    assert ensembles.vote(scores) == [1.0, 0.0]


def test_rank_sum_orders_as_the_sum_of_ranks() -> None:
    scores = population()
    ranks = sum(
        stats.rankdata([-math.inf if math.isnan(v) else v for v in values]) for values in scores.values()
    )
    found = ensembles.rank_sum(scores)
    assert stats.rankdata(found).tolist() == stats.rankdata(ranks).tolist()
    assert all(0 <= value <= 1 for value in found)
    assert ensembles.rank_sum({"a": [1.0, 2.0, 3.0]}) == [0.0, 0.5, 1.0]


@pytest.mark.parametrize("ensemble", ENSEMBLES.values())
def test_what_is_no_population(ensemble) -> None:  # type: ignore[no-untyped-def]
    assert ensemble({"a": [1.0], "b": [2.0]}) == [0.5]
    with pytest.raises(
        UserError, match=r"expected one or more lists of the same length, got lengths \[1, 2\]"
    ):
        ensemble({"a": [1.0], "b": [2.0, 3.0]})
    with pytest.raises(UserError, match="at least one list"):
        ensemble({})


def test_names() -> None:
    names = ensembles.split("zico, vote(synflow, jacob_cov,snip),,rank_sum(zico,params)")
    assert names == ["zico", "vote(synflow, jacob_cov,snip)", "rank_sum(zico,params)"]
    assert ensembles.singles(names) == ["zico", "synflow", "jacob_cov", "snip", "params"]
    with pytest.raises(UserError, match=r"unknown ensemble 'votes'.*rank_sum, vote"):
        ensembles.singles(["votes(a,b)"])
    with pytest.raises(UserError, match="needs two different proxies"):
        ensembles.members("vote(a,a)")


@pytest.mark.slow
def test_rank_command(run_pynas: Callable[..., Any], tmp_path: Path) -> None:
    space = spaces.get("nasbench201")
    archs = list(space.all())
    table = tmp_path / "accuracy.npz"
    params = np.array([space.params(a) for a in archs], dtype=np.float64)
    texts = np.array([space.format(a) for a in archs])
    np.savez(table, arch_str=texts, test200_cifar10=params / params.max() * 90)
    ensemble = "vote(l2_norm,layers,params)"
    arguments = ["--sample", "5", "--batch", "4", "--table", f"npz:{table}", "--json"]
    code, out, err = run_pynas("rank", "--proxies", f"l2_norm,{ensemble}", *arguments)
    assert code == 0, err
    found = json.loads(out)["correlations"]
    assert list(found) == ["l2_norm", "layers", ensemble, "params", "flops"]
    assert found[ensemble]["count"] == 5
    code, _, err = run_pynas("rank", "--proxies", "vote(l2_norm)", *arguments)
    assert code == 2
    assert "needs two different proxies" in err
