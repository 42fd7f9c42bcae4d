"""Stand-alone training of recurrent cells: small language models trained from scratch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pynas.nn.recurrent import RecurrentGenotype
from pynas.supernet.language_training import (
    TextSchedule,
    initial_language_model,
    perplexity,
    train_language_model,
)


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
    """Train a discrete cell from scratch and return its perplexities on held-out texts.

    Initial weights and dropout depend only on ``seed``: cells with equally many nodes start with the same
    matrices.

    Args:
        genotype: The cell.
        tokens: ``[n]`` int64, the training text.
        held: Texts ``[m]`` int64, read in as many streams as the schedule has.
        words: Size of the vocabulary.
        schedule: Length and rates of the training; settings of alpha are ignored.
        features: Size of embeddings and states.
        dropout: As in :func:`~pynas.supernet.language_training.initial_language_model`.
        seed: Seed of all random numbers.

    Raises:
        ValueError: A text is too short for the schedule, or the loss is not finite.
    """
    model = initial_language_model(tokens, words, features, genotype=genotype, dropout=dropout, seed=seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        train_language_model(model, tokens, None, schedule)
    return tuple(perplexity(model, text, batch_size=schedule.batch_size) for text in held)
