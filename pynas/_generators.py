"""The random states that a forward pass can move: torch's, numpy's, Python's, and those of a model's own."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

import numpy as np
import torch

GENERATORS: Final = frozenset({torch.Generator, random.Random, np.random.Generator, np.random.RandomState})


def seed_generators(seed: int) -> None:
    """Seed what draws without a generator of its own: torch on all devices in use, numpy, Python.

    Unlike ``torch.manual_seed`` it leaves no seed behind for devices that start later.
    """
    torch.default_generator.manual_seed(seed)
    for module in _devices():
        module.manual_seed_all(seed)
    random.seed(seed)
    # A caller may have given numpy a generator that cannot be seeded again; it then draws as it does.
    with contextlib.suppress(TypeError):
        np.random.seed(seed % 2**32)  # noqa: NPY002 - what a model draws from


def put_back_generators() -> list[Callable[[], object]]:
    """Functions that put these generators back into their present states."""
    found: list[Callable[[], object]] = [
        put_back(torch.default_generator),
        partial(random.setstate, random.getstate()),
        partial(np.random.set_state, np.random.get_state(legacy=False)),  # noqa: NPY002
    ]
    return found + [partial(module.set_rng_state_all, module.get_rng_state_all()) for module in _devices()]


def put_back(generator: Any) -> Callable[[], object]:
    """A function that puts one of :data:`GENERATORS` back into its present state."""
    if isinstance(generator, torch.Generator):
        return partial(generator.set_state, generator.get_state())
    if isinstance(generator, random.Random):
        return partial(generator.setstate, generator.getstate())
    if isinstance(generator, np.random.RandomState):
        return partial(generator.set_state, generator.get_state(legacy=False))
    bits = generator.bit_generator
    return partial(setattr, bits, "state", bits.state)


@contextmanager
def generators_kept() -> Iterator[None]:
    """Context that puts all of them back, for passes of a copy of a model."""
    steps = put_back_generators()
    try:
        yield
    finally:
        for step in steps:
            step()


def states() -> tuple[Any, ...]:
    """Where all of them are, to compare with ``==``."""
    _, key, *rest = np.random.get_state()  # noqa: NPY002
    devices = [state for module in _devices() for state in module.get_rng_state_all()]
    own = [t.numpy().tobytes() for t in (torch.default_generator.get_state(), *devices)]
    return *own, random.getstate(), np.asarray(key).tobytes(), tuple(rest)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Context in which all of them draw from ``seed``; afterwards they go on from where they were."""
    with generators_kept():
        seed_generators(seed)
        yield


def _devices() -> list[Any]:
    """The modules of accelerators that have started; asking others would start them."""
    return [module for module in (torch.cuda, torch.xpu) if module.is_initialized()]
