"""Shared by the two spaces of TransNAS-Bench-101: tasks, skeleton, decoders, and their costs.

Source: Y. Duan, X. Chen, H. Xu, Z. Chen, X. Liang, T. Zhang, Z. Li, "TransNAS-Bench-101: Improving
Transferability and Generalizability of Cross-Task Neural Architecture Search", CVPR 2021, arXiv:2105.11871.
"""

from __future__ import annotations

import itertools
from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from pynas._errors import UserError
from pynas.architecture import Architecture
from pynas.spaces.base import SearchSpace, check_positive

if TYPE_CHECKING:
    import torch
    from torch import nn

    from pynas.spaces.transnas.network import BlockFactory

Head = Literal["linear", "tiles", "segmentation", "generative"]

TILES: Final = 9  # tiles of a jigsaw puzzle
BLOCKS: Final = 2  # blocks of each module; the first changes width and resolution


@dataclass(frozen=True)
class Task:
    """One of the seven tasks.

    Attributes:
        head: Kind of the head after the encoder.
        outputs: Classes, regression targets or channels in the benchmark.
        image_size: Side of the images in the benchmark, in pixels; of one tile for a puzzle.
    """

    head: Head
    outputs: int
    image_size: int = 256


TASKS: Final = {
    "class_scene": Task("linear", 47),
    "class_object": Task("linear", 75),
    "room_layout": Task("linear", 9),
    "jigsaw": Task("tiles", 1000, 64),
    "segmentsemantic": Task("segmentation", 17),
    "normal": Task("generative", 3),
    "autoencoder": Task("generative", 3),
}


@dataclass(frozen=True)
class Block:
    """A cell or a residual block, ``[N, in_channels, H, W] -> [N, out_channels, H / stride, W / stride]``."""

    in_channels: int
    out_channels: int
    stride: int


@dataclass(frozen=True)
class DecoderLayer:
    """A 3x3 convolution with bias; batch norm and leaky ReLU follow in all but the last layer.

    Attributes:
        in_channels: Input channels.
        out_channels: Output channels.
        doubles: Whether it is a transposed convolution that doubles height and width.
    """

    in_channels: int
    out_channels: int
    doubles: bool = False


def skeleton(digits: str, channels: int) -> list[list[Block]]:
    """The blocks of each module; digits 2 and 4 double the channels, 3 and 4 halve the resolution."""
    modules = []
    for digit in map(int, digits):
        width = channels * (2 if digit % 2 == 0 else 1)
        first = Block(channels, width, 2 if digit > 2 else 1)
        modules.append([first, *[Block(width, width, 1)] * (BLOCKS - 1)])
        channels = width
    return modules


def decoder(head: Head, channels: int, doublings: int, outputs: int) -> list[DecoderLayer]:
    """Layers of a dense head after an encoder that halves the resolution ``doublings`` times, 2 to 6."""
    widths: tuple[int, ...]
    if head == "segmentation":
        widths = (channels, 1024, 512, 256, 128, 64, 32, 32, outputs)
        places = (1, 2, 3, 4, 5, 6)
    else:
        widths = (channels, 1024, 1024, 512, 512, 256, 128, 64, 64, 32, 32, 16, 32, 16, outputs)
        places = (2, 4, 6, 8, 10, 12)
    doubled = places[-doublings:]
    return [DecoderLayer(a, b, i in doubled) for i, (a, b) in enumerate(itertools.pairwise(widths))]


class TransNASSpace(SearchSpace):
    """Stem, modules of two blocks each, and the head of a task.

    The stem is a 3x3 convolution of stride 2 to half the channels, batch norm, ReLU, a 3x3 convolution of
    stride 2 to all of them, batch norm. The head depends on ``task``:

    - ``class_scene``, ``class_object``, ``room_layout``: global average pooling and a linear layer; 47, 75
      and 9 outputs in the authors' configurations (63 and 100 for the first two in NASLib).
    - ``jigsaw``: the encoder processes nine tiles ``[B, 9, C, H, W]`` one after the other; their channels are
      concatenated, followed by pooling and a linear layer; 1,000 outputs.
    - ``segmentsemantic``, ``normal``, ``autoencoder``: convolutions and transposed convolutions up to the
      resolution of the image, ``[B, num_classes, H, W]``; 17, 3 and 3 channels. The last two end in tanh.

    As in the authors' code, convolutions of the encoder are initialised from a normal distribution with
    variance ``2 / (k^2 out_channels)``, the rest as in PyTorch. The discriminator with which the authors
    train ``normal`` and ``autoencoder`` is not part of the network.

    Args:
        task: class_scene, class_object, room_layout, jigsaw, segmentsemantic, normal or autoencoder.
        channels: Channels after the stem, 64 in the benchmark.
    """

    def __init__(self, *, task: str = "class_scene", channels: int = 64) -> None:
        if task not in TASKS:
            raise UserError(f"task: expected one of {', '.join(TASKS)}, got {task!r}")
        check_positive(channels=channels)
        if channels % 2:
            raise UserError(f"channels: expected an even number (the stem has half of them), got {channels}")
        self.task = task
        self.channels = channels

    @property
    def num_outputs(self) -> int:
        """Classes, regression targets or channels of the task in the benchmark."""
        return TASKS[self.task].outputs

    @property
    def dense(self) -> bool:
        """Whether there is an output for every pixel."""
        return TASKS[self.task].head in ("segmentation", "generative")

    @abstractmethod
    def modules(self, arch: Architecture) -> str:
        """The digits of the modules."""

    @abstractmethod
    def _block_cost(self, decisions: tuple[int, ...], block: Block) -> tuple[int, int]:
        """Weights of convolutions, all applied at the output's resolution, and channels of batch norms."""

    @abstractmethod
    def _block_factory(self, decisions: tuple[int, ...], prune: bool) -> BlockFactory:
        """The function that makes the module of a block."""

    # ---- inputs and outputs ----------------------------------------------------------------------

    def example_inputs(
        self, batch: int, in_channels: int = 3, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        """Random images, or tiles ``[batch, 9, in_channels, image_size, image_size]`` of a jigsaw puzzle."""
        import torch

        tiles = (TILES,) if TASKS[self.task].head == "tiles" else ()
        size = self.image_size
        return torch.rand(batch, *tiles, in_channels, size, size, generator=generator)

    def output_shape(self, batch: int, num_classes: int = 10) -> tuple[int, ...]:
        """``(batch, num_classes)``, followed by the size of the image for dense tasks."""
        return (batch, num_classes, *(self.image_size,) * (2 if self.dense else 0))

    # ---- cost ------------------------------------------------------------------------------------

    def _halvings(self, digits: str) -> int:
        return 2 + sum(digit in "34" for digit in digits)

    def _layers(self, digits: str, num_classes: int) -> list[DecoderLayer]:
        """Layers of a dense head."""
        channels = skeleton(digits, self.channels)[-1][-1].out_channels
        return decoder(TASKS[self.task].head, channels, self._halvings(digits), num_classes)

    def params(self, arch: Architecture, num_classes: int = 10, in_channels: int = 3) -> int:
        """Parameters of encoder and head: the sum over convolutions ``k^2 a b`` and batch norms ``2 b``."""
        decisions, digits = self.check(arch), self.modules(arch)
        check_positive(num_classes=num_classes, in_channels=in_channels)
        c = self.channels
        total = 9 * in_channels * (c // 2) + 2 * (c // 2) + 9 * (c // 2) * c + 2 * c
        for blocks in skeleton(digits, c):
            for block in blocks:
                weights, normalised = self._block_cost(decisions, block)
                total += weights + 2 * normalised
                c = block.out_channels
        if not self.dense:
            tiles = TILES if TASKS[self.task].head == "tiles" else 1
            return total + (tiles * c + 1) * num_classes
        layers = self._layers(digits, num_classes)
        total += sum((9 * layer.in_channels + 3) * layer.out_channels for layer in layers)
        return total - 2 * layers[-1].out_channels  # no batch norm

    def macs(
        self, arch: Architecture, num_classes: int = 10, image_size: int = 256, in_channels: int = 3
    ) -> int:
        """Multiply-adds of convolutions and linear layers for one ``image_size`` x ``image_size`` image.

        For a jigsaw puzzle, ``image_size`` is the side of one tile (64 in the benchmark) and all nine tiles
        count. For a dense task it must be a multiple of the factor by which the encoder divides it.
        """
        decisions, digits = self.check(arch), self.modules(arch)
        check_positive(num_classes=num_classes, image_size=image_size, in_channels=in_channels)
        factor = 2 ** self._halvings(digits)
        if self.dense and image_size % factor:
            raise UserError(
                f"image_size: expected a multiple of {factor}, by which this encoder divides it, "
                f"got {image_size}"
            )
        c = self.channels
        size = _half(image_size)
        total = 9 * in_channels * (c // 2) * size**2
        size = _half(size)
        total += 9 * (c // 2) * c * size**2
        for blocks in skeleton(digits, c):
            for block in blocks:
                size = _half(size) if block.stride == 2 else size
                total += self._block_cost(decisions, block)[0] * size**2
                c = block.out_channels
        if not self.dense:
            tiles = TILES if TASKS[self.task].head == "tiles" else 1
            return tiles * (total + c * num_classes)
        for layer in self._layers(digits, num_classes):
            # A transposed convolution computes once for each input pixel.
            total += 9 * layer.in_channels * layer.out_channels * size**2
            size *= 2 if layer.doubles else 1
        return total

    # ---- the network -----------------------------------------------------------------------------

    def build(
        self, arch: Architecture, num_classes: int = 10, in_channels: int = 3, prune: bool = False
    ) -> nn.Module:
        """Build the network; parameter names are those of the authors' ``encoder`` and ``decoder``.

        ``num_classes`` is the number of outputs of the head; the benchmark has :attr:`num_outputs`.
        ``prune=True`` leaves out operations without a path from input to output.
        """
        from pynas.spaces.transnas.network import TransNASNetwork

        decisions, digits = self.check(arch), self.modules(arch)
        check_positive(num_classes=num_classes, in_channels=in_channels)
        return TransNASNetwork(
            skeleton(digits, self.channels),
            self._block_factory(decisions, prune),
            self._layers(digits, num_classes) if self.dense else [],
            head=TASKS[self.task].head,
            num_classes=num_classes,
            in_channels=in_channels,
        )


def _half(size: int) -> int:
    """Pixels after a stride of 2."""
    return (size + 1) // 2
