"""Search strategies: one file each, all behind :class:`SearchStrategy`. None of them knows torch.

A strategy of your own is registered by :func:`register`, given to :func:`pynas.search` as a class, as an
instance or as ``package.module:object``, or offered by an entry point of the group ``pynas.strategies``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from pynas import _named
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

Chosen = str | type[SearchStrategy] | SearchStrategy
"""A strategy by name or ``package.module:object``, as a class, or as an instance."""

_T = TypeVar("_T", bound=type[SearchStrategy])


def _checked(name: str, found: object) -> type[SearchStrategy]:
    if isinstance(found, type) and issubclass(found, SearchStrategy):
        return found
    raise TypeError(
        f"strategy {name!r}: expected a class of pynas.strategies.SearchStrategy, got "
        f"{found.__name__ if isinstance(found, type) else type(found).__name__}"
    )


REGISTRY: Registry[type[SearchStrategy]] = Registry("search strategy", "pynas.strategies", _checked)
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


def register(name: str) -> Callable[[_T], _T]:
    """Class decorator that registers a strategy, ``@register("hill_climbing")``.

    Raises:
        ValueError: The name is taken.
        TypeError: It is no class of strategies.
    """

    def add(strategy: _T) -> _T:
        REGISTRY.register(name, _checked(name, strategy))
        return strategy

    return add


def get(name: str) -> type[SearchStrategy]:
    """The strategy class called ``name``; UserError with the choices if there is none."""
    return REGISTRY.get(name)


def names() -> tuple[str, ...]:
    """All strategy names, sorted."""
    return REGISTRY.names()


def resolve(strategy: Chosen) -> type[SearchStrategy] | SearchStrategy:
    """The class or the instance that ``strategy`` is or names.

    Raises:
        UserError: It is neither, there is no such name, or what it names does not load.
    """
    found: object = strategy
    if isinstance(strategy, str):
        if strategy in REGISTRY or not _named.is_path(strategy):
            return get(strategy)
        found = _named.load(strategy, f"strategy {strategy}")
    if isinstance(found, SearchStrategy):
        return found
    try:
        return _checked(str(strategy), found)
    except TypeError as error:
        raise UserError(f"{error}; give its name, a class or an instance") from None


def name_of(strategy: Chosen) -> str:
    """The name of a strategy in stores and reports: its registered one, or that of its class."""
    found = resolve(strategy)
    kind = found if isinstance(found, type) else type(found)
    return next((name for name, known in REGISTRY.loaded().items() if known is kind), kind.__name__)


def options(strategy: Chosen) -> dict[str, Any]:
    """The options of a strategy with their defaults; of an instance, what it was made with.

    Those of an instance are its attributes, without what every search gives: the space, the objectives and
    the constraints.
    """
    found = resolve(strategy)
    if isinstance(found, SearchStrategy):
        return found._made_of()
    parameters = inspect.signature(found).parameters.items()
    return {key: parameter.default for key, parameter in parameters if key not in _SHARED_ARGUMENTS}


def recorded(strategy: Chosen, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """All options of a strategy as a store records them.

    An option of :attr:`SearchStrategy.added` at the value of before is left out: earlier versions did not
    record it, and the search is the same.
    """
    added = resolve(strategy).added
    values = {**options(strategy), **chosen}
    return {key: value for key, value in values.items() if not (key in added and added[key] == value)}


def former(strategy: Chosen, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """``chosen`` as an earlier version understood it; no version knew an instance."""
    found = resolve(strategy)
    if isinstance(found, SearchStrategy):
        return dict(chosen)
    known = options(found)
    return {**{key: value for key, value in found.added.items() if key in known}, **chosen}


def create(
    strategy: Chosen,
    space: SearchSpace,
    *,
    seed: int = 0,
    feasible: Feasible | None = None,
    objectives: Sequence[str] = (),
    **chosen: Any,
) -> SearchStrategy:
    """Make a strategy for a search of ``space``.

    Of an instance a copy is made, so that the search leaves it as it is; it has its own seed.

    Raises:
        UserError: The strategy does not take one of these options, and which it takes; or an instance is of
            another space or other objectives, was used before, or cannot be copied.
    """
    found = resolve(strategy)
    name = strategy if isinstance(strategy, str) else name_of(found)
    if isinstance(found, SearchStrategy):
        if chosen:
            raise UserError(f"strategy_options: {name} is an instance, made with its options; leave them out")
        return found._for_search(space, feasible, objectives)
    known = options(found)
    for key in chosen:
        if key not in known:
            takes = ", ".join(f"{k} (default {v!r})" for k, v in known.items()) or "none"
            raise UserError(f"unknown option {key!r} of search strategy {name!r}; it takes: {takes}")
    shared: Mapping[str, Any] = {"seed": seed, "feasible": feasible, "objectives": objectives}
    try:
        inspect.signature(found).bind(space, **shared, **chosen)
    except TypeError as error:
        raise UserError(
            f"strategy {name}: {error}; a search makes it by {found.__name__}(space, seed=..., feasible=..., "
            "objectives=..., and its options)"
        ) from None
    return found(space, **shared, **chosen)


__all__ = [
    "EPNAS",
    "NSGA2",
    "REGISTRY",
    "BayesianOptimization",
    "Chosen",
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
    "name_of",
    "names",
    "options",
    "recorded",
    "register",
    "resolve",
]
