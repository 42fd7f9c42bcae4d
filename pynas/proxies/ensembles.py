"""Ensembles of proxies: one order of a population from several proxies' scores.

They take scores that are known already, so they belong to populations and not to single networks::

    from pynas.proxies.ensembles import vote

    scores = {name: [...] for name in ("synflow", "jacob_cov", "snip")}  # of each architecture
    best = max(range(len(population)), key=vote(scores).__getitem__)

``pynas rank --proxies "zico,vote(synflow,jacob_cov,snip),rank_sum(zico,naswot)"`` ranks by them.
"""

from __future__ import annotations

from pynas._ensembles import ENSEMBLES, rank_sum, vote

__all__ = ["ENSEMBLES", "rank_sum", "vote"]
