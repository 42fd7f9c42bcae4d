"""Searching a recurrent cell by gradient: weights and architecture in turn, over streams of text.

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

from pynas.nn.language_model import RecurrentLanguageModel
from pynas.nn.recurrent import RecurrentGenotype


@dataclass(frozen=True)
class TextSchedule:
    """How weights w and logits alpha are trained.

    The paper trains w by SGD at a rate of 20 for 50 epochs; Adam gets further in the few that one waits for.

    Attributes:
        epochs: Passes over the text of the weights.
        batch_size: Streams that are read side by side.
        steps: Words of each that a gradient goes back through (bptt).
        learning_rate: Of w: Adam, along a half cosine to a tenth.
        weight_decay: Of w.
        clip: Largest norm of the gradient of w.
        alpha_learning_rate: Of alpha: Adam, betas (0.9, 0.999).
        alpha_weight_decay: Of alpha.
        alpha_warm_up: Fraction of the steps, from the first on, in which alpha stays as it is.
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
    """One step of weights and one of the architecture.

    Attributes:
        number: From 0, through all epochs.
        total: Steps of the whole training.
        loss: Mean cross-entropy per word of w's batch, before the step.
    """

    number: int
    total: int
    loss: float


@torch.no_grad()
def start_from_frequencies(model: RecurrentLanguageModel, tokens: Tensor) -> None:
    """Set the decoder's bias to the words' log frequencies, ln (count(w) + 1) - ln (n + words).

    Training then starts near the unigram's perplexity instead of learning the bias first, step by step.
    """
    bias = model.decoder.bias
    counts = torch.bincount(tokens, minlength=bias.numel()).to(bias) + 1
    bias.copy_(counts.log() - counts.sum().log())


@torch.no_grad()
def start_at_unit_scale(model: RecurrentLanguageModel, spread: float = 0.1) -> None:
    """Draw embeddings and the cell's matrices anew, so that every product starts at a variance near one.

    Embeddings are uniform in +-r, r = ``spread``; states of n features take matrices uniform in
    +-sqrt(3 / n), and the rows of W_0 that take embeddings are larger by sqrt(3) / r, which makes up for
    the embeddings' size. From the published +-0.04 everywhere, the share of s_0 that comes from the word is
    about a hundredth of the share that comes from the normalised state before it: the cell cannot see what
    it reads, and the first hundreds of updates go by before embeddings and W_0 have grown. Published searches
    make thousands of them.

    Args:
        model: Changed in place, with torch's global random numbers; its decoder shares the embeddings.
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
    """A model ready for :func:`train_language_model`: at unit scale, biased to the words' frequencies.

    Args:
        tokens: [n] int64, the training text.
        words: Size of the vocabulary.
        features: Of embeddings and states.
        genotype: A discrete cell; None for the search cell.
        nodes: Of the search cell.
        dropout: Of the cell's inputs and outputs; embeddings have at most 0.2 of it, states 0.25, as in the
            paper.
        seed: Of the parameters. Cells of as many nodes start with the same ones.
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
        torch.manual_seed(seed)  # the search cell has drawn its logits too
        start_at_unit_scale(model)
    start_from_frequencies(model, tokens)
    return model


def streams(tokens: Tensor, batch_size: int) -> Tensor:
    """[n] as [n // batch_size, batch_size]: stream b is the b-th piece of the text, the rest is left off."""
    length = tokens.numel() // batch_size
    return tokens[: length * batch_size].view(batch_size, length).t().contiguous()


def _pieces(columns: Tensor, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Words and their successors, ``steps`` of each at a time."""
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
    """Train w on ``weight_tokens``; before each step, alpha on the next piece of ``alpha_tokens``.

    Args:
        model: Changed in place, left in training mode.
        weight_tokens: [n] int64.
        alpha_tokens: [m] int64, read again from the start when it ends; None trains w alone.
        schedule: Sizes and rates.
        on_step: Called after each step.

    Raises:
        ValueError: a text is too short for the schedule, or a loss is not finite.
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
            f"{name}: expected at least {2 * schedule.batch_size} words for {schedule.batch_size} streams, "
            f"got {tokens.numel()}"
        )
    return columns


@torch.no_grad()
def perplexity(
    model: RecurrentLanguageModel, tokens: Tensor, *, batch_size: int = 10, steps: int = 35
) -> float:
    """Exp of the mean cross-entropy per word, in evaluation mode.

    Args:
        model: Its mode is put back.
        tokens: [n] int64; read in ``batch_size`` streams, so the first word of each is not predicted.
        batch_size: Fewer where the text is short.
        steps: Words at a time; the result does not depend on them.

    Raises:
        ValueError: fewer than two words.
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
