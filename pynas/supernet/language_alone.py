"""What recurrent cells reach alone: small language models trained from scratch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pynas.nn.language_training import TextSchedule, initial_language_model, perplexity, train_language_model
from pynas.nn.recurrent import RecurrentGenotype


def train_cell_alone(
    genotype: RecurrentGenotype,
    tokens: Tensor,
    held: Sequence[Tensor],
    words: int,
    schedule: TextSchedule,
    *,
    features: int = 128,
    dropout: float = 0.2,
    seed: int = 0,
) -> tuple[float, ...]:
    """Train a discrete cell from scratch; its perplexities on the held texts.

    Weights and dropout depend on ``seed`` alone: cells of as many nodes start with the same matrices.

    Args:
        genotype: The cell.
        tokens: ``[n]`` int64 to train on.
        held: Texts ``[m]`` int64, read in as many streams as the schedule's.
        words: Size of the vocabulary.
        schedule: How long and how fast; what it says of alpha has no meaning here.
        features: Of embeddings and states.
        dropout: As of :func:`~pynas.nn.language_training.initial_language_model`.
        seed: Of everything that is drawn.

    Raises:
        ValueError: A text is too short for the schedule, or the loss is not finite.
    """
    model = initial_language_model(tokens, words, features, genotype=genotype, dropout=dropout, seed=seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        train_language_model(model, tokens, None, schedule)
    return tuple(perplexity(model, text, batch_size=schedule.batch_size) for text in held)
