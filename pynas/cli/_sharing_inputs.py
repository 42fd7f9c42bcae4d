"""Inputs of ``pynas analyze weight-sharing``: settings, data and architectures, and the checks of them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast, get_args

from pynas._errors import UserError
from pynas._plural import counted
from pynas.cli import flags, specs

if TYPE_CHECKING:
    from pynas.analysis.study import Sharing
    from pynas.analysis.tasks import Task
    from pynas.architecture import Architecture
    from pynas.spaces import SearchSpace
    from pynas.tables import Table


def settings(groups: str, prefix: str, partition: str) -> list[Sharing]:
    """Every number of ``--groups``; where that is more than one group, with every ``--prefix``."""
    from pynas.analysis.groups import Partition
    from pynas.analysis.study import Sharing

    if partition not in get_args(Partition):
        raise UserError(f"--partition: expected {' | '.join(get_args(Partition))}, got {partition!r}")
    numbers: dict[str, list[int]] = {}
    for name, text in (("--groups", groups), ("--prefix", prefix)):
        parts = flags.comma_separated(text)
        if not parts or not all(part.isdigit() for part in parts):
            raise UserError(f"{name}: expected whole numbers such as 0,1,4, got {text!r}")
        numbers[name] = [int(part) for part in parts]
    found = [
        Sharing(count, cast(Partition, partition), common)
        for count in numbers["--groups"]
        for common in (numbers["--prefix"] if count > 1 else [0])
    ]
    return list(dict.fromkeys(found))


def image_task(
    images: str | None,
    size: int | None,
    limit: int | None,
    held_out: float,
    seed: int,
    classes: int | None = None,
) -> Task:
    """The task that ``--images`` makes."""
    from pynas import data
    from pynas.analysis.tasks import ImageTask

    images = specs.images_or_digits(images)
    if size is None and images == specs.DIGITS:
        size = 16  # they are scans of 8x8
    return ImageTask.split(
        data.load_images(images, size=size, limit=limit, seed=seed, classes=classes), held_out, seed
    )


def text_task(text: Path, limit: int | None, held_out: float, steps: int, vocabulary: int) -> Task:
    """The task that ``--text`` makes."""
    from pynas.analysis.tasks import TextTask
    from pynas.data.text import read_words

    words = read_words(text)[:limit]
    return TextTask.split(words, held_out, steps=steps, vocabulary=vocabulary, name=text.name)


def check_study(
    space: SearchSpace,
    sharings: list[Sharing],
    architectures: Sequence[Architecture],
    steps: int,
    checkpoints: int,
    *,
    every: int,
    running: bool,
) -> None:
    """Raise UserError for what would otherwise fail only after hours of training."""
    from pynas.analysis.groups import check_prefix
    from pynas.supernet import build
    from pynas.supernet.evaluation import batch_norms

    largest, sample = max(sharing.groups for sharing in sharings), len(architectures)
    if largest > sample:
        raise UserError(f"--groups: expected at most {sample}, one for each architecture, got {largest}")
    if steps < 1:
        raise UserError("--batch: larger than the training data; use a smaller batch, more images or words")
    if -(-steps // every) < checkpoints:
        raise UserError(
            f"--checkpoints {checkpoints}: a training of {counted(steps, 'step')} writes "
            f"{-(-steps // every)}; use a smaller --checkpoint-every"
        )
    weights = build(space)
    for sharing in sharings:
        check_prefix(weights, architectures, sharing.prefix)
    if running and not batch_norms(weights):
        raise UserError(f"--running: the supernet of {space.name} has no batch norms; leave it out")


def open_table(
    space: SearchSpace, table: str | None, metric: str | None, dataset: str | None
) -> Table | None:
    """The table that was asked for, if any."""
    if table is None:
        if metric or dataset:
            raise UserError("--metric, --dataset: choose from a table: give --table")
        return None
    from pynas import tables

    return tables.load(table, space, metric, dataset=dataset)


def draw(space: SearchSpace, table: Table | None, count: int, seed: int) -> tuple[Architecture, ...]:
    """``count`` distinct architectures, drawn uniformly; with a table, from those that it knows."""
    from pynas.spaces import NASBench101

    rng = random.Random(seed)
    if table is not None:
        drawn = rng.sample(list(table.architectures()), min(count, len(table)))
        # Supernets know the vertex order that sampling gives; every eighth cell of the files has another.
        return tuple(space.canonical(arch) if isinstance(space, NASBench101) else arch for arch in drawn)
    if space.size is not None and space.size < count:
        raise UserError(
            f"--sample: {space.name} has {counted(space.size, 'architecture')}, fewer than {count:,}"
        )
    found: dict[Architecture, None] = {}
    while len(found) < count:
        found[space.sample(rng)] = None
    return tuple(found)
