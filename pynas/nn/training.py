"""Training a supernet by gradient: weights and architecture in turn.

Source: H. Liu, K. Simonyan, Y. Yang, "DARTS: Differentiable Architecture Search", ICLR 2019, algorithm 1, of
first order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pynas.nn.supernet import Sampling, Supernet


@dataclass(frozen=True)
class Schedule:
    """How weights w and logits alpha are trained; the defaults are the paper's, 50 epochs excepted.

    Attributes:
        epochs: Passes over the images of the weights.
        batch_size: Images of a step, of each of the two.
        learning_rate: Of w: SGD with momentum, along a half cosine to ``final_learning_rate``.
        final_learning_rate: Where that ends.
        momentum: Of w.
        weight_decay: Of w.
        clip: Largest norm of the gradient of w.
        alpha_learning_rate: Of alpha: Adam, betas (0.5, 0.999).
        alpha_weight_decay: Of alpha.
        sampling: How mixture weights come from alpha, as of :meth:`~pynas.nn.Supernet.sample`.
    """

    epochs: int = 50
    batch_size: int = 64
    learning_rate: float = 0.025
    final_learning_rate: float = 0.001
    momentum: float = 0.9
    weight_decay: float = 3e-4
    clip: float = 5.0
    alpha_learning_rate: float = 3e-4
    alpha_weight_decay: float = 1e-3
    sampling: Sampling = "softmax"


@dataclass(frozen=True)
class Step:
    """One step of weights and one of the architecture.

    Attributes:
        number: From 0, through all epochs.
        total: Steps of the whole training.
        loss: Cross-entropy of w's batch, before the step.
        accuracy: Fraction of that batch that was right.
    """

    number: int
    total: int
    loss: float
    accuracy: float


def train_supernet(
    supernet: Supernet,
    inputs: Tensor,
    targets: Tensor,
    schedule: Schedule | None = None,
    *,
    seed: int = 0,
    on_step: Callable[[Step], None] | None = None,
) -> None:
    """Train weights on one half of the images and architecture parameters on the other, in turn.

    Each step descends ``L_val(w, alpha)`` along alpha, then ``L_train(w, alpha)`` along w.

    Args:
        supernet: Trained in place; it stays on its device.
        inputs: ``[N, C, H, W]``.
        targets: ``[N]`` int64.
        schedule: The paper's if None.
        seed: Of the halves and of the order of images.
        on_step: Called after each step.

    Raises:
        ValueError: There are fewer images than two batches, or a setting is not positive.
    """
    schedule = schedule or Schedule()
    half = len(targets) // 2
    if schedule.epochs < 1 or schedule.batch_size < 2:
        raise ValueError(f"schedule: expected at least one epoch and two images a batch, got {schedule}")
    if len(inputs) != len(targets) or half < schedule.batch_size:
        raise ValueError(
            f"inputs, targets: expected as many of both, at least two batches of {schedule.batch_size}, "
            f"got {len(inputs)} and {len(targets)}"
        )
    random = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(targets), generator=random)
    for_alpha = _endless(order[half:], schedule.batch_size, random)
    for_weights = _endless(order[:half], schedule.batch_size, random)
    weights = list(supernet.weight_parameters())
    alphas = list(supernet.architecture_parameters())
    optimizer = torch.optim.SGD(
        weights,
        schedule.learning_rate,
        momentum=schedule.momentum,
        weight_decay=schedule.weight_decay,
    )
    alpha_optimizer = torch.optim.Adam(
        alphas,
        schedule.alpha_learning_rate,
        betas=(0.5, 0.999),
        weight_decay=schedule.alpha_weight_decay,
    )
    total = schedule.epochs * (half // schedule.batch_size)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimizer, total, eta_min=schedule.final_learning_rate
    )
    supernet.train()
    for number in range(total):
        positions = next(for_alpha)
        for weight in weights:  # their gradients are not needed, and the fused backward leaves them out
            weight.requires_grad_(False)
        alpha_optimizer.zero_grad()
        logits = supernet(inputs[positions], supernet.sample(schedule.sampling))
        torch.autograd.backward(F.cross_entropy(logits, targets[positions]))
        alpha_optimizer.step()
        for weight in weights:
            weight.requires_grad_(True)

        positions = next(for_weights)
        optimizer.zero_grad()
        mixture = tuple(w.detach() for w in supernet.sample(schedule.sampling))
        logits = supernet(inputs[positions], mixture)
        loss = F.cross_entropy(logits, targets[positions])
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(weights, schedule.clip)
        optimizer.step()
        cosine.step()
        if on_step is not None:
            right = (logits.detach().argmax(1) == targets[positions]).double().mean()
            on_step(Step(number, total, float(loss.detach()), float(right)))


def _endless(positions: Tensor, batch_size: int, random: torch.Generator) -> Iterator[Tensor]:
    """Full batches of ``positions``, shuffled again whenever all have been seen."""
    while True:
        shuffled = positions[torch.randperm(len(positions), generator=random)]
        yield from torch.split(shuffled[: len(positions) // batch_size * batch_size], batch_size)


def accuracy(
    network: nn.Module, inputs: Tensor, targets: Tensor, *arguments: Any, batch_size: int = 256
) -> float:
    """Fraction of images that ``network`` classifies rightly, in evaluation mode; the mode is put back.

    Args:
        network: ``network(images, *arguments)`` are logits.
        inputs: ``[N, C, H, W]``.
        targets: ``[N]`` int64.
        arguments: Such as the weights or the architecture of a :class:`~pynas.nn.Supernet`.
        batch_size: Images at a time.
    """
    training = network.training
    network.eval()
    try:
        with torch.no_grad():
            right = sum(
                int((network(x, *arguments).argmax(1) == y).sum().item())
                for x, y in zip(
                    torch.split(inputs, batch_size), torch.split(targets, batch_size), strict=True
                )
            )
    finally:
        network.train(training)
    return right / len(targets)
