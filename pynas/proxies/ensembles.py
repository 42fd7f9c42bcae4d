"""Ensembles of proxies: rank a population by the scores of several proxies.

They combine known scores of a population, not of a single network::

    from pynas.proxies.ensembles import vote

    scores = {name: [...] for name in ("synflow", "jacob_cov", "snip")}  # of each architecture
    best = max(range(len(population)), key=vote(scores).__getitem__)

``pynas rank --proxies "zico,vote(synflow,jacob_cov,snip),rank_sum(zico,naswot)"`` uses them.
"""

from __future__ import annotations

from pynas.ranking.ensembles import ENSEMBLES, rank_sum, vote

__all__ = ["ENSEMBLES", "rank_sum", "vote"]
