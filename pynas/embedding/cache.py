"""Embeddings that are trained once per space and then read from the user's cache folder."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
from collections.abc import Callable
from pathlib import Path

from pynas._errors import UserError
from pynas.architecture import Architecture
from pynas.embedding.arch2vec import Arch2Vec, Epoch, split
from pynas.spaces import SearchSpace
from pynas.spaces.identity import identity

VERSION = 1
"""Increased when training changes, so that older embeddings are no longer found."""

ENUMERATED = 20_000
"""Spaces up to this size are used completely; from larger ones, this many architectures are drawn."""


def cache_folder() -> Path:
    """The folder of embeddings: ``pynas/embeddings`` in ``$XDG_CACHE_HOME``, by default ``~/.cache``."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "pynas" / "embeddings"


def training_pool(space: SearchSpace, *, limit: int = ENUMERATED, seed: int = 0) -> list[Architecture]:
    """Architectures to train on, in order: the whole space, or ``limit`` architectures drawn from it."""
    if space.size is not None and space.size <= limit:
        return list(space.all())
    rng = random.Random(seed)
    return [space.sample(rng) for _ in range(limit)]


def trained(
    space: SearchSpace,
    *,
    epochs: int = 10,
    seed: int = 0,
    folder: Path | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> Arch2Vec:
    """The arch2vec embedding of ``space``, from the cache; if absent, trained on nine tenths and cached.

    A damaged file is replaced by a new training. If the folder is not writable, the next caller trains again.

    Args:
        space: A space with a graph encoding.
        epochs: Passes over the training architectures.
        seed: Seed of weights, order and samples.
        folder: The cache; by default :func:`cache_folder`.
        on_epoch: Called after every epoch of a training.
    """
    settings = {
        "version": VERSION,
        "space": space.name,
        "options": identity(space),
        "epochs": epochs,
        "seed": seed,
        "architectures": ENUMERATED,
    }
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
    path = (folder or cache_folder()) / f"{space.name}-{digest}.safetensors"
    with contextlib.suppress(UserError):
        return Arch2Vec.load(path, space)
    embedding = Arch2Vec(space, seed=seed)
    embedding.train(split(training_pool(space, seed=seed))[0], epochs=epochs, seed=seed, on_epoch=on_epoch)
    with contextlib.suppress(OSError, UserError):
        path.parent.mkdir(parents=True, exist_ok=True)
        embedding.save(path)  # atomic: readers see the whole file or none
    return embedding
