"""Search strategies: one file each, all behind :class:`SearchStrategy`. None of them knows torch."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pynas._errors import UserError
from pynas._registry import Registry
from pynas.strategies._base import Exhausted, Feasible, Infeasible, SearchStrategy
from pynas.strategies.bayesian import BayesianOptimization
from pynas.strategies.epnas import EPNAS
from pynas.strategies.evolution import RegularizedEvolution
from pynas.strategies.exhaustive import ExhaustiveSearch
from pynas.strategies.local_search import LocalSearch
from pynas.strategies.nsga2 import NSGA2
from pynas.strategies.random import RandomSearch
from pynas.strategies.reinforce import Reinforce
from pynas.strategies.spos_evolution import SPOSEvolution
from pynas.strategies.successive_halving import SuccessiveHalving
from pynas.strategies.zico_evolution import ZiCoEvolution

if TYPE_CHECKING:
    from pynas.spaces import SearchSpace

REGISTRY: Registry[type[SearchStrategy]] = Registry("search strategy")
REGISTRY.register("epnas", EPNAS)
REGISTRY.register("bayesian", BayesianOptimization)
REGISTRY.register("evolution", RegularizedEvolution)
REGISTRY.register("exhaustive", ExhaustiveSearch)
REGISTRY.register("local_search", LocalSearch)
REGISTRY.register("nsga2", NSGA2)
REGISTRY.register("random", RandomSearch)
REGISTRY.register("reinforce", Reinforce)
REGISTRY.register("spos_evolution", SPOSEvolution)
REGISTRY.register("successive_halving", SuccessiveHalving)
REGISTRY.register("zico_evolution", ZiCoEvolution)

_SHARED_ARGUMENTS = frozenset(inspect.signature(SearchStrategy).parameters)


def get(name: str) -> type[SearchStrategy]:
    """The strategy class called ``name``; UserError with the choices if there is none."""
    return REGISTRY.get(name)


def names() -> tuple[str, ...]:
    """All strategy names, sorted."""
    return REGISTRY.names()


def options(name: str) -> dict[str, Any]:
    """The options of the strategy called ``name``, with their defaults."""
    parameters = inspect.signature(get(name)).parameters.items()
    return {key: parameter.default for key, parameter in parameters if key not in _SHARED_ARGUMENTS}


def recorded(name: str, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """All options of a strategy as a store records them.

    An option of :attr:`SearchStrategy.added` at the value of before is left out: earlier versions did not
    record it, and the search is the same.
    """
    added = get(name).added
    values = {**options(name), **chosen}
    return {key: value for key, value in values.items() if not (key in added and added[key] == value)}


def former(name: str, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """``chosen`` as an earlier version understood it."""
    return {**get(name).added, **chosen}


def create(
    name: str,
    space: SearchSpace,
    *,
    seed: int = 0,
    feasible: Feasible | None = None,
    objectives: Sequence[str] = (),
    **chosen: Any,
) -> SearchStrategy:
    """Make the strategy called ``name``; UserError with its options if it does not take one of these."""
    known = options(name)
    for key in chosen:
        if key not in known:
            takes = ", ".join(f"{k} (default {v!r})" for k, v in known.items()) or "none"
            raise UserError(f"unknown option {key!r} of search strategy {name!r}; it takes: {takes}")
    return get(name)(space, seed=seed, feasible=feasible, objectives=objectives, **chosen)


__all__ = [
    "EPNAS",
    "NSGA2",
    "REGISTRY",
    "BayesianOptimization",
    "Exhausted",
    "ExhaustiveSearch",
    "Feasible",
    "Infeasible",
    "LocalSearch",
    "RandomSearch",
    "RegularizedEvolution",
    "Reinforce",
    "SPOSEvolution",
    "SearchStrategy",
    "SuccessiveHalving",
    "ZiCoEvolution",
    "create",
    "former",
    "get",
    "names",
    "options",
    "recorded",
]
