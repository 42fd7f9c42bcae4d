"""What architectures are trained and judged on: images with classes, or text; and how they are judged."""

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
from pynas.analysis.quality import ACCURACY, LOG_LIKELIHOOD, Quality
from pynas.architecture import Architecture
from pynas.data import Images
from pynas.data.text import Vocabulary
from pynas.spaces import SearchSpace
from pynas.supernet import TrainingOptions
from pynas.supernet._trainer_parts import describe_transform
from pynas.supernet.evaluation import SubnetScore
from pynas.supernet.recurrent import start_language_model


@dataclass(frozen=True, eq=False)
class Task(ABC):
    """Data to train on, other data to validate on, and what counts as good there.

    Attributes:
        inputs: ``[N, ...]`` to train on.
        targets: ``[N, ...]`` int64.
        validation_inputs: ``[M, ...]``.
        validation_targets: ``[M, ...]`` int64.
        num_classes: Number of classes, or of words of the vocabulary.
        name: For people.
        transform: Changes the inputs of each batch that weights are trained on, drawing from torch's global
            generator, such as :class:`pynas.data.CropAndFlip`; None to leave them.
        quality: What :meth:`measure` is.
        evaluation_batch: Samples of a forward pass without gradients.
        training: Settings with which short trainings do well.
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
        """Raise UserError where the space's networks read other data."""

    @abstractmethod
    def measure(self, score: SubnetScore) -> float:
        """The number that is ranked, more is better; -inf for a network that is broken."""

    @abstractmethod
    def show(self, value: float) -> str:
        """A measured number for people."""

    @property
    @abstractmethod
    def in_channels(self) -> int:
        """Of the images; 1 where there are none."""

    @abstractmethod
    def start(self, network: nn.Module) -> None:
        """Change a new network's weights, by torch's global random numbers, if the task needs others."""

    def params(self, space: SearchSpace, arch: Architecture) -> int:
        """Parameters of a network for this task."""
        return space.params(arch, self.num_classes, self.in_channels)

    def digest(self) -> str:
        """A short text that other data, another split or another transform do not have."""
        found = hashlib.sha256()
        for tensor in (self.inputs, self.targets, self.validation_inputs, self.validation_targets):
            found.update(f"{tensor.dtype} {list(tensor.shape)}".encode())
            raw = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8)
            found.update(raw.numpy().tobytes())
        if self.transform is not None:
            found.update(str(describe_transform(self.transform)).encode())
        return found.hexdigest()[:16]


class ImageTask(Task):
    """Images ``[N, C, H, W]`` and their classes ``[N]``; percent of those classified rightly counts."""

    quality = ACCURACY
    evaluation_batch = 500
    training = TrainingOptions(learning_rate=0.05)

    @classmethod
    def split(cls, images: Images, share: float, seed: int) -> ImageTask:
        """A random ``share`` of the images to validate on, the others to train on.

        Raises:
            UserError: One of both would be empty.
        """
        held = round(share * len(images))
        if not 0 < held < len(images):
            raise UserError(f"share: expected a share of {len(images)} images that leaves some on both sides")
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed)).tolist()
        validation, training = images.take(order[:held]), images.take(order[held:])
        return cls(*training, *validation, images.num_classes, images.name)

    def check(self, space: SearchSpace) -> None:
        """Networks of images."""
        if _reads_words(space):
            raise UserError(f"{space.name} reads words, not images: give it a text")

    def measure(self, score: SubnetScore) -> float:
        """Percent right."""
        return 100 * score.accuracy

    def show(self, value: float) -> str:
        """``87.1 %``."""
        return f"{value:.1f} %"

    @property
    def in_channels(self) -> int:
        """``C``."""
        return self.inputs.shape[1]

    def start(self, network: nn.Module) -> None:
        """They stay."""


class TextTask(Task):
    r"""Windows of words ``[N, T]`` and the words that follow each ``[N, T]``; log likelihood counts.

    That is ``1/(M T) sum_t ln p(w_{t+1} | w_1 ... w_t)`` over the validation windows, each of which starts
    afresh, in nats a word.
    """

    quality = LOG_LIKELIHOOD
    evaluation_batch = 64
    # As the paper's, whose SGD of rate 20 has no momentum.
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
        """The last ``share`` of a text to validate on, what is before it to train on.

        Args:
            words: The text.
            share: In (0, 1).
            steps: T, the words of a window; windows do not overlap, what is left over is left out.
            vocabulary: Most frequent words of the training part that are kept.
            name: For people.

        Raises:
            UserError: One of both would have no window.
        """
        cut = len(words) - round(share * len(words))
        if steps < 1 or min(cut, len(words) - cut) <= steps:
            raise UserError(
                f"steps: expected windows of at least one word that fit into both parts of a text of "
                f"{len(words)} words, {share:g} of it held out, got {steps}"
            )
        known = Vocabulary(words[:cut], vocabulary)
        training, validation = (_windows(known, part, steps) for part in (words[:cut], words[cut:]))
        return cls(*training, *validation, len(known), name)

    def check(self, space: SearchSpace) -> None:
        """Networks of words."""
        if not _reads_words(space):
            raise UserError(f"{space.name} reads images, not words: give it images")

    def measure(self, score: SubnetScore) -> float:
        """Minus the loss."""
        return -score.loss if math.isfinite(score.loss) else -math.inf

    def show(self, value: float) -> str:
        """``-5.931 nats a word (perplexity 377)``."""
        return f"{value:.3f} nats a word (perplexity {math.exp(min(-value, 700.0)):.0f})"

    @property
    def in_channels(self) -> int:
        """There are no images."""
        return 1

    def start(self, network: nn.Module) -> None:
        """Products at unit scale, the decoder at the words' frequencies."""
        start_language_model(network, self.inputs)


def _windows(known: Vocabulary, words: Sequence[str], steps: int) -> tuple[Tensor, Tensor]:
    tokens = torch.from_numpy(known.encode(words))
    count = (len(tokens) - 1) // steps
    inputs, targets = tokens[: count * steps], tokens[1 : count * steps + 1]
    return inputs.view(count, steps), targets.view(count, steps)


def _reads_words(space: SearchSpace) -> bool:
    return not space.example_inputs(1, generator=torch.Generator()).is_floating_point()
