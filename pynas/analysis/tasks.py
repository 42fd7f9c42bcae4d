"""The data that architectures are trained and evaluated on, images or text, and the measure of quality."""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from pynas._errors import UserError
from pynas._plural import counted
from pynas.analysis.quality import ACCURACY, LOG_LIKELIHOOD, Quality
from pynas.architecture import Architecture
from pynas.data import Images
from pynas.data.text import Vocabulary
from pynas.spaces import SearchSpace
from pynas.supernet import TrainingOptions
from pynas.supernet.evaluation import SubnetScore
from pynas.supernet.recurrent import start_language_model
from pynas.supernet.trainer_parts import describe_transform


@dataclass(frozen=True, eq=False)
class Task(ABC):
    """Training data, validation data, and the measure of quality.

    Attributes:
        inputs: ``[N, ...]``, training inputs.
        targets: ``[N, ...]`` int64.
        validation_inputs: ``[M, ...]``.
        validation_targets: ``[M, ...]`` int64.
        num_classes: Number of classes, or size of the vocabulary.
        name: Display name.
        transform: Augmentation of each training batch, such as :class:`pynas.data.CropAndFlip`; it draws from
            torch's global generator. None for no augmentation.
        quality: Name and units of :meth:`measure`.
        evaluation_batch: Batch size without gradients.
        training: Default settings, which suit short trainings.
    """

    inputs: Tensor
    targets: Tensor
    validation_inputs: Tensor
    validation_targets: Tensor
    num_classes: int
    name: str
    transform: Callable[[Tensor], Tensor] | None = None
    quality: ClassVar[Quality]
    evaluation_batch: ClassVar[int]
    training: ClassVar[TrainingOptions]

    @abstractmethod
    def check(self, space: SearchSpace) -> None:
        """Raise UserError if the space's networks read another kind of data."""

    @abstractmethod
    def measure(self, score: SubnetScore) -> float:
        """The number to rank by, more is better; -inf for a network with a loss that is not finite."""

    @abstractmethod
    def show(self, value: float) -> str:
        """A measured number as text."""

    @property
    @abstractmethod
    def in_channels(self) -> int:
        """Channels of the images; 1 if there are none."""

    @abstractmethod
    def start(self, network: nn.Module) -> None:
        """Reinitialise a new network, with torch's global generator, if the task needs other weights."""

    def params(self, space: SearchSpace, arch: Architecture) -> int:
        """Parameters of a network for this task."""
        return space.params(arch, self.num_classes, self.in_channels)

    def digest(self) -> str:
        """A short text that identifies data, split and transform."""
        found = hashlib.sha256()
        for tensor in (self.inputs, self.targets, self.validation_inputs, self.validation_targets):
            found.update(f"{tensor.dtype} {list(tensor.shape)}".encode())
            raw = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8)
            found.update(raw.numpy().tobytes())
        if self.transform is not None:
            found.update(str(describe_transform(self.transform)).encode())
        return found.hexdigest()[:16]


class ImageTask(Task):
    """Images ``[N, C, H, W]`` and their classes ``[N]``; the measure is accuracy in percent."""

    quality = ACCURACY
    evaluation_batch = 500
    training = TrainingOptions(learning_rate=0.05)

    @classmethod
    def split(cls, images: Images, share: float, seed: int) -> ImageTask:
        """Validate on a random ``share`` of the images, train on the others.

        Raises:
            UserError: One part would be empty.
        """
        held = round(share * len(images))
        if not 0 < held < len(images):
            raise UserError(
                f"share: expected a share of {counted(len(images), 'image')} with neither part empty, "
                f"got {share:g}"
            )
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed)).tolist()
        validation, training = images.take(order[:held]), images.take(order[held:])
        return cls(*training, *validation, images.num_classes, images.name)

    def check(self, space: SearchSpace) -> None:
        """Raise UserError unless the space's networks read images."""
        if _reads_words(space):
            raise UserError(f"{space.name} reads words, not images: give it a text")

    def measure(self, score: SubnetScore) -> float:
        """Accuracy in percent."""
        return 100 * score.accuracy

    def show(self, value: float) -> str:
        """``87.1 %``."""
        return f"{value:.1f} %"

    @property
    def in_channels(self) -> int:
        """``C``."""
        return self.inputs.shape[1]

    def start(self, network: nn.Module) -> None:
        """Keep the weights."""


class TextTask(Task):
    r"""Windows of words ``[N, T]`` and the next word of each ``[N, T]``; the measure is log likelihood.

    ``1/(M T) sum_t ln p(w_{t+1} | w_1 ... w_t)`` over the M validation windows, in nats per word; every
    window starts from the initial state.
    """

    quality = LOG_LIKELIHOOD
    evaluation_batch = 64
    # As in the paper, whose SGD with rate 20 has no momentum.
    training = TrainingOptions(learning_rate=2.0, final_learning_rate=0.1, weight_decay=5e-7, clip=0.25)

    @classmethod
    def split(
        cls,
        words: Sequence[str],
        share: float,
        *,
        steps: int = 35,
        vocabulary: int = 10_000,
        name: str = "text",
    ) -> TextTask:
        """Validate on the last ``share`` of a text, train on the part before it.

        Args:
            words: The text.
            share: Share of the text, in (0, 1).
            steps: T, the words of a window; windows do not overlap, and a remainder is dropped.
            vocabulary: How many of the most frequent words of the training part to keep.
            name: Display name.

        Raises:
            UserError: One part would have no window.
        """
        cut = len(words) - round(share * len(words))
        if steps < 1 or min(cut, len(words) - cut) <= steps:
            raise UserError(
                f"steps: expected windows of at least one word that fit into both parts of a text of "
                f"{counted(len(words), 'word')}, {share:g} of it held out, got {steps}"
            )
        known = Vocabulary(words[:cut], vocabulary)
        training, validation = (_windows(known, part, steps) for part in (words[:cut], words[cut:]))
        return cls(*training, *validation, len(known), name)

    def check(self, space: SearchSpace) -> None:
        """Raise UserError unless the space's networks read words."""
        if not _reads_words(space):
            raise UserError(f"{space.name} reads images, not words: give it images")

    def measure(self, score: SubnetScore) -> float:
        """The negative loss."""
        return -score.loss if math.isfinite(score.loss) else -math.inf

    def show(self, value: float) -> str:
        """``-5.931 nats a word (perplexity 377)``."""
        return f"{value:.3f} nats a word (perplexity {math.exp(min(-value, 700.0)):.0f})"

    @property
    def in_channels(self) -> int:
        """1: there are no images."""
        return 1

    def start(self, network: nn.Module) -> None:
        """Initialise at unit scale, with the decoder's bias at the word frequencies."""
        start_language_model(network, self.inputs)


def _windows(known: Vocabulary, words: Sequence[str], steps: int) -> tuple[Tensor, Tensor]:
    tokens = torch.from_numpy(known.encode(words))
    count = (len(tokens) - 1) // steps
    inputs, targets = tokens[: count * steps], tokens[1 : count * steps + 1]
    return inputs.view(count, steps), targets.view(count, steps)


def _reads_words(space: SearchSpace) -> bool:
    return not space.example_inputs(1, generator=torch.Generator()).is_floating_point()
