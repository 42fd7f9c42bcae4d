"""Gradient-based search of a recurrent cell: alternates weights and architecture on streams of text.

Source: H. Liu, K. Simonyan, Y. Yang, "DARTS: Differentiable Architecture Search", ICLR 2019, algorithm 1,
first order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from pynas._plural import counted
from pynas.nn.language_model import RecurrentLanguageModel
from pynas.nn.recurrent import RecurrentGenotype


@dataclass(frozen=True)
class TextSchedule:
    """The training of weights w and logits alpha.

    The paper trains w by SGD with rate 20 for 50 epochs; in a few epochs, Adam gets further.

    Attributes:
        epochs: Passes over the text that trains the weights.
        batch_size: Number of streams that are read in parallel.
        steps: Words of backpropagation through time (bptt).
        learning_rate: Initial learning rate of w (Adam); it follows a half cosine down to a tenth.
        weight_decay: Weight decay of w.
        clip: Largest gradient norm of w.
        alpha_learning_rate: Learning rate of alpha (Adam, betas (0.9, 0.999)).
        alpha_weight_decay: Weight decay of alpha.
        alpha_warm_up: Fraction of the steps, from the first on, that do not train alpha.
    """

    epochs: int = 3
    batch_size: int = 64
    steps: int = 10
    learning_rate: float = 5e-3
    weight_decay: float = 5e-7
    clip: float = 1.0
    alpha_learning_rate: float = 3e-3
    alpha_weight_decay: float = 1e-3
    alpha_warm_up: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.alpha_warm_up < 1:
            raise ValueError(
                f"alpha_warm_up: expected a fraction of the steps in [0, 1), got {self.alpha_warm_up!r}"
            )


@dataclass(frozen=True)
class TextStep:
    """One step of the weights and one of the architecture.

    Attributes:
        number: Number of the step over all epochs, from 0.
        total: Number of steps of the whole training.
        loss: Mean cross-entropy per word of the batch for w, before the step.
    """

    number: int
    total: int
    loss: float


@torch.no_grad()
def start_from_frequencies(model: RecurrentLanguageModel, tokens: Tensor) -> None:
    """Set the decoder's bias to the words' log frequencies, ln (count(w) + 1) - ln (n + words).

    Training then starts near the perplexity of a unigram model instead of first having to learn the bias.
    """
    bias = model.decoder.bias
    counts = torch.bincount(tokens, minlength=bias.numel()).to(bias) + 1
    bias.copy_(counts.log() - counts.sum().log())


@torch.no_grad()
def start_at_unit_scale(model: RecurrentLanguageModel, spread: float = 0.1) -> None:
    """Reinitialise embeddings and the cell's matrices, so that every product has a variance near one.

    Embeddings are uniform in [-r, r] with r = ``spread``. Matrices on states of n features are uniform in
    [-sqrt(3 / n), sqrt(3 / n)]; the rows of W_0 that multiply embeddings are larger by sqrt(3) / r, to
    compensate for the size of embeddings. With the published +-0.04 everywhere, the word contributes about a
    hundredth as much to s_0 as the normalised previous state does. The cell then hardly sees its input until,
    after hundreds of updates, embeddings and W_0 have grown; published searches make thousands of updates.

    Args:
        model: Changed in place with torch's global generator; its decoder shares the embeddings.
        spread: Largest absolute value of an embedding.

    Raises:
        ValueError: ``spread`` is not positive and finite.
    """
    if not (math.isfinite(spread) and spread > 0):
        raise ValueError(f"spread: expected a positive number, got {spread}")
    torch.nn.init.uniform_(model.encoder.weight, -spread, spread)
    bound = math.sqrt(3 / model.features)
    for name, matrix in model.rnns.named_parameters():
        torch.nn.init.uniform_(matrix, -bound, bound)
        if name.endswith("_W0"):
            matrix[: model.features].mul_(math.sqrt(3) / spread)


def initial_language_model(
    tokens: Tensor,
    words: int,
    features: int = 128,
    *,
    genotype: RecurrentGenotype | None = None,
    nodes: int = 8,
    dropout: float = 0.2,
    seed: int = 0,
) -> RecurrentLanguageModel:
    """A model ready for :func:`train_language_model`: at unit scale, with a bias of word frequencies.

    Args:
        tokens: [n] int64, the training text.
        words: Size of the vocabulary.
        features: Size of embeddings and states.
        genotype: A discrete cell; None for the search cell.
        nodes: Nodes of the search cell.
        dropout: Dropout of the cell's inputs and outputs; at most 0.2 for embeddings and 0.25 for states, as
            in the paper.
        seed: Seed of the parameters; cells with equally many nodes start with the same ones.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = RecurrentLanguageModel(
            words,
            features,
            genotype=genotype,
            nodes=nodes,
            dropout=dropout,
            dropout_input=dropout,
            dropout_embedding=min(dropout, 0.2),
            dropout_hidden=min(dropout, 0.25),
        )
        torch.manual_seed(seed)  # seed again: a search cell has also drawn its logits
        start_at_unit_scale(model)
    start_from_frequencies(model, tokens)
    return model


def streams(tokens: Tensor, batch_size: int) -> Tensor:
    """[n] as [n // batch_size, batch_size]: stream b is the b-th piece of the text; drops the remainder."""
    length = tokens.numel() // batch_size
    return tokens[: length * batch_size].view(batch_size, length).t().contiguous()


def _pieces(columns: Tensor, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Words and their successors, in pieces of ``steps`` rows."""
    last = columns.shape[0] - 1
    for begin in range(0, last, steps):
        end = min(begin + steps, last)
        yield columns[begin:end], columns[begin + 1 : end + 1]


def _loss(
    model: RecurrentLanguageModel, words: Tensor, targets: Tensor, hidden: Tensor
) -> tuple[Tensor, Tensor]:
    logits, hidden = model(words, hidden)
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten()), hidden.detach()


def train_language_model(
    model: RecurrentLanguageModel,
    weight_tokens: Tensor,
    alpha_tokens: Tensor | None,
    schedule: TextSchedule,
    on_step: Callable[[TextStep], None] | None = None,
) -> None:
    """Train w on ``weight_tokens`` and, before each step, alpha on the next piece of ``alpha_tokens``.

    Args:
        model: Changed in place, left in training mode.
        weight_tokens: [n] int64.
        alpha_tokens: [m] int64, read again from the start when it ends; None trains only w.
        schedule: Sizes and rates.
        on_step: Called after each step.

    Raises:
        ValueError: A text is too short for the schedule, or a loss is not finite.
    """
    columns = _columns("weight_tokens", weight_tokens, schedule)
    total = schedule.epochs * math.ceil((columns.shape[0] - 1) / schedule.steps)
    optimizer = torch.optim.Adam(
        model.model_parameters(), schedule.learning_rate, weight_decay=schedule.weight_decay
    )
    rates = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total, schedule.learning_rate / 10)
    architect = None
    if alpha_tokens is not None and model.arch_parameters():
        architect = _Architect(model, _columns("alpha_tokens", alpha_tokens, schedule), schedule)
    model.train()
    number = 0
    for _ in range(schedule.epochs):
        hidden = model.initial_hidden(schedule.batch_size)
        for words, targets in _pieces(columns, schedule.steps):
            if architect is not None and number >= schedule.alpha_warm_up * total:
                architect.step()
            for parameter in model.arch_parameters():
                parameter.requires_grad_(False)
            loss, hidden = _loss(model, words, targets, hidden)
            value = loss.item()
            if not math.isfinite(value):
                raise ValueError(f"the loss became {value} at step {number}; lower the learning rate")
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(list(model.model_parameters()), schedule.clip)
            optimizer.step()
            rates.step()
            for parameter in model.arch_parameters():
                parameter.requires_grad_(True)
            if on_step is not None:
                on_step(TextStep(number, total, value))
            number += 1


class _Architect:
    """Steps of alpha on a text of its own."""

    def __init__(self, model: RecurrentLanguageModel, columns: Tensor, schedule: TextSchedule) -> None:
        self._model, self._columns, self._steps = model, columns, schedule.steps
        self._optimizer = torch.optim.Adam(
            model.arch_parameters(),
            schedule.alpha_learning_rate,
            weight_decay=schedule.alpha_weight_decay,
        )
        self._restart()

    def _restart(self) -> None:
        self._left = _pieces(self._columns, self._steps)
        self._hidden = self._model.initial_hidden(self._columns.shape[1])

    def step(self) -> None:
        piece = next(self._left, None)
        if piece is None:
            self._restart()
            piece = next(self._left)
        loss, self._hidden = _loss(self._model, *piece, self._hidden)
        parameters = self._model.arch_parameters()
        for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            parameter.grad = gradient
        self._optimizer.step()


def _columns(name: str, tokens: Tensor, schedule: TextSchedule) -> Tensor:
    columns = streams(tokens, schedule.batch_size)
    if columns.shape[0] < 2:
        raise ValueError(
            f"{name}: expected at least {2 * schedule.batch_size:,} words for "
            f"{counted(schedule.batch_size, 'stream')}, got {tokens.numel():,}"
        )
    return columns


@torch.no_grad()
def perplexity(
    model: RecurrentLanguageModel, tokens: Tensor, *, batch_size: int = 10, steps: int = 35
) -> float:
    """Exp of the mean cross-entropy per word, in evaluation mode.

    Args:
        model: The model; its mode is restored.
        tokens: [n] int64, read in ``batch_size`` streams; the first word of each is not predicted.
        batch_size: Number of streams; fewer for a short text.
        steps: Words per forward pass; the result does not depend on it.

    Raises:
        ValueError: There are fewer than two words.
    """
    columns = streams(tokens, max(1, min(batch_size, tokens.numel() // 2)))
    if columns.shape[0] < 2:
        raise ValueError(f"tokens: expected at least two words, got {tokens.numel()}")
    mode = model.training
    model.eval()
    hidden, total = model.initial_hidden(columns.shape[1]), 0.0
    for words, targets in _pieces(columns, steps):
        loss, hidden = _loss(model, words, targets, hidden)
        total += loss.item() * words.shape[0]
    model.train(mode)
    return math.exp(total / (columns.shape[0] - 1))
