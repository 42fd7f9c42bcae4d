"""Search in an embedding: a pool of architectures, their vectors, and which are left."""

from __future__ import annotations

import hashlib
import os
import random
import sys
import weakref
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pynas._errors import UserError
from pynas.architecture import Architecture
from pynas.ranking.pareto import mean_ranks
from pynas.strategies._base import ENUMERATION_LIMIT, Feasible, SearchStrategy
from pynas.strategies._members import Member, from_json, member_of, to_json
from pynas.trial import Trial

if TYPE_CHECKING:
    from pynas.embedding import Arch2Vec
    from pynas.spaces import SearchSpace

Floats = NDArray[np.float64]
ENCODING = "encoding"


@dataclass(frozen=True, eq=False)
class Pool:
    """Architectures with their vectors.

    Attributes:
        architectures: Distinct canonical forms.
        vectors: ``[N, D]``; each column has mean 0, the whole array standard deviation 1.
        rows: Row of each architecture, by the decisions of its canonical form.
    """

    architectures: tuple[Architecture, ...]
    vectors: Floats
    rows: Mapping[tuple[int, ...], int]


_POOLS: weakref.WeakKeyDictionary[SearchSpace, dict[tuple[str, int, int], Pool]] = weakref.WeakKeyDictionary()


class LatentStrategy(SearchStrategy):
    """Base of searches in an embedding.

    The pool holds all canonical forms of a space with at most ``ENUMERATION_LIMIT`` architectures, otherwise
    ``pool_size`` random ones. Their vectors come from an arch2vec embedding or, for spaces without a graph
    encoding, from the space's ``encode``, with shorter vectors zero-padded. When the pool is used up,
    proposals are random.

    Args:
        space: The space to search.
        seed: Seed of the strategy's own random generator.
        feasible: The hard constraints as a predicate; None allows every architecture.
        objectives: Names of the scores to maximise; empty means all scores of each evaluation.
        embedding: A file of ``pynas embed --save``; ``""`` trains an embedding when first needed and keeps it
            in the user's cache folder; ``"encoding"`` uses the space's ``encode`` even if it has graphs.
        pool_size: Number of architectures drawn from a space too large to list.
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int = 0,
        feasible: Feasible | None = None,
        objectives: Sequence[str] = (),
        embedding: str = "",
        pool_size: int = 20_000,
    ) -> None:
        super().__init__(space, seed=seed, feasible=feasible, objectives=objectives)
        if pool_size < 2:
            raise UserError(f"pool_size: expected at least 2, got {pool_size}")
        if embedding not in ("", ENCODING) and not os.path.isfile(os.path.expanduser(embedding)):
            raise UserError(
                f"embedding: no such file: {embedding}; 'pynas embed --space {space.name} --save FILE' makes"
                " one"
            )
        self.embedding, self.pool_size = embedding, pool_size
        self._model_seed = seed
        self._members: list[Member] = []  # successful trials, in the order told
        self._pool_made: Pool | None = None
        self._left: NDArray[np.bool_] = np.zeros(0, dtype=np.bool_)  # rows neither proposed nor infeasible

    def _depends_on(self) -> Mapping[str, Any]:
        if self.embedding in ("", ENCODING):
            return {}
        content = Path(self.embedding).expanduser().read_bytes()
        return {"embedding_digest": hashlib.sha256(content).hexdigest()[:16]}

    def tell(self, trial: Trial) -> None:
        super().tell(trial)
        found = member_of(trial, self.objectives)
        if found is not None:
            self._members.append(found)

    def state(self) -> dict[str, Any]:
        return super().state() | {"model_seed": self._model_seed, "members": to_json(self._members)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        super().load_state(state)
        self._model_seed = int(state["model_seed"])
        self._members = from_json(self.space.name, state["members"])
        self._pool_made = None

    def _remember(self, key: tuple[int, ...]) -> None:
        super()._remember(key)
        if self._pool_made is not None and (row := self._pool_made.rows.get(key)) is not None:
            self._left[row] = False

    @property
    def _pool(self) -> Pool:
        """The pool, made when first needed in some seconds, or a minute if an embedding has to be trained."""
        if self._pool_made is None:
            listed = self.space.size is not None and self.space.size <= ENUMERATION_LIMIT
            seed = 0 if listed else self._model_seed
            key = (self.embedding, self.pool_size, seed)
            pools = _POOLS.setdefault(self.space, {})
            if key not in pools:
                pools[key] = _make_pool(self.space, self.embedding, None if listed else self.pool_size, seed)
            self._pool_made = pools[key]
            self._left = np.ones(len(self._pool_made.architectures), dtype=np.bool_)
            for seen in self._seen:
                if (row := self._pool_made.rows.get(seen)) is not None:
                    self._left[row] = False
        return self._pool_made

    def _claim_best(self, preference: Floats) -> Architecture:
        """Claim the remaining feasible architecture of highest preference [N], or a random one."""
        pool = self._pool
        order = np.flatnonzero(self._left)
        # Sort only as many as are likely to be needed; the rest if constraints refuse these.
        first = order
        if len(order) > 64:
            first = order[np.argpartition(-preference[order], 63)[:64]]
        for part in (first, order):
            rows: list[int] = part[np.argsort(-preference[part], kind="stable")].tolist()
            for row in rows:
                if self._left[row]:
                    if self._claim(pool.architectures[row]):
                        return pool.architectures[row]
                    self._left[row] = False
        return self._sample()

    def _located(self) -> tuple[Floats, Floats]:
        """Vectors ``[n, D]`` and values ``[n]`` of the members in the pool, in the order told.

        A value is the score or, with several objectives, the mean rank.
        """
        pool = self._pool
        values = _scalars(self._members)
        kept = [
            (row, value)
            for (architecture, _), value in zip(self._members, values, strict=True)
            if (row := pool.rows.get(self._key(architecture))) is not None
        ]
        rows = [row for row, _ in kept]
        return pool.vectors[rows], np.array([value for _, value in kept], dtype=np.float64)

    @abstractmethod
    def _propose(self) -> Architecture: ...


def _scalars(members: Sequence[Member]) -> list[float]:
    fitness = [values for _, values in members]
    if fitness and len(fitness[0]) == 1:
        return [values[0] for values in fitness]
    return mean_ranks(fitness)


def _make_pool(space: SearchSpace, embedding: str, draws: int | None, seed: int) -> Pool:
    forms: Iterable[Architecture]
    if draws is None:
        forms = (space.canonical(architecture) for architecture in space.all())
    else:
        rng = random.Random(seed)
        forms = (space.canonical(space.sample(rng)) for _ in range(draws))
    architectures = tuple(dict.fromkeys(forms))
    vectors = _vectors(space, architectures, embedding)
    vectors -= vectors.mean(axis=0)
    scale = float(np.sqrt(np.mean(vectors**2)))
    if scale > 0:
        vectors /= scale
    return Pool(architectures, vectors, {a.decisions: row for row, a in enumerate(architectures)})


def _vectors(space: SearchSpace, architectures: Sequence[Architecture], embedding: str) -> Floats:
    model = None if embedding == ENCODING else _model(space, embedding)
    if model is not None:
        return np.asarray(model.embed(architectures).double().numpy(), dtype=np.float64)
    codes = [space.encode(architecture) for architecture in architectures]
    vectors = np.zeros((len(codes), max(map(len, codes))))
    for row, code in zip(vectors, codes, strict=True):
        row[: len(code)] = code
    spread = vectors.std(axis=0)
    kept = spread > 0  # columns in which architectures differ; all share one scale
    return np.asarray(vectors[:, kept] / spread[kept]) if kept.any() else vectors


def _model(space: SearchSpace, embedding: str) -> Arch2Vec | None:
    """The embedding from the file, from the cache, or trained; None if the space has no graph encoding."""
    import pynas.embedding as embeddings

    if embedding:
        return embeddings.Arch2Vec.load(Path(embedding).expanduser(), space)
    try:
        embeddings.graphs_of(space)
    except UserError:
        return None

    def on_epoch(epoch: embeddings.Epoch) -> None:
        text = f"training the arch2vec embedding of {space.name}, once: epoch {epoch.number} of {epoch.total}"
        print(text, file=sys.stderr)

    return embeddings.trained(space, on_epoch=on_epoch)
