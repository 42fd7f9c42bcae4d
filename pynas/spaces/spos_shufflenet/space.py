"""Single Path One-Shot's ShuffleNetV2 space: 20 blocks, four choices each, 4^20 architectures for ImageNet.

Source: Z. Guo, X. Zhang, H. Mu, W. Heng, Z. Liu, Y. Wei, J. Sun, "Single Path One-Shot Neural Architecture
Search with Uniform Sampling", ECCV 2020, arXiv:1904.00420.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pynas._errors import UserError
from pynas.architecture import Architecture
from pynas.spaces.base import SearchSpace, check_positive

if TYPE_CHECKING:
    from torch import nn

CHOICES: Final = ("shuffle_3x3", "shuffle_5x5", "shuffle_7x7", "xception_3x3")
STAGES: Final = ((4, 64), (4, 160), (8, 320), (4, 640))  # blocks and channels
STEM_CHANNELS: Final = 16
LAST_CHANNELS: Final = 1024

_XCEPTION: Final = 3
_NUMBER: Final = re.compile(r"[^,()\s]*")


@dataclass(frozen=True)
class Block:
    """One choice block with a given choice.

    Attributes:
        in_channels: Input channels of the main branch: half of the block's at stride 1, all at stride 2.
        channels: Inner channels of the main branch.
        out_channels: Output channels of the block.
        kernel_size: Kernel size of the depthwise convolutions.
        stride: 1 or 2. At stride 2 the other branch is a depthwise and a 1x1 convolution, at 1 the identity.
        xception: Whether the main branch is three times depthwise - 1x1; otherwise 1x1 - depthwise - 1x1.
    """

    in_channels: int
    channels: int
    out_channels: int
    kernel_size: int
    stride: int
    xception: bool

    @property
    def branch_channels(self) -> int:
        """Output channels of the main branch; the other branch has the rest."""
        return self.out_channels - self.in_channels

    def convolutions(self) -> Iterator[tuple[int, int, bool]]:
        """For each convolution: weights, channels of its batch norm, whether at the input's resolution."""
        c, m, square = self.in_channels, self.channels, self.kernel_size**2
        if self.xception:
            yield square * c, c, False
            yield c * m, m, False
            yield square * m, m, False
            yield m * m, m, False
            yield square * m, m, False
        else:
            yield c * m, m, True
            yield square * m, m, False
        yield m * self.branch_channels, self.branch_channels, False
        if self.stride == 2:
            yield square * c, c, False
            yield c * c, c, False


class SPOSShuffleNet(SearchSpace):
    """ShuffleNetV2 with a choice for each of its 20 blocks: 3x3, 5x5, 7x7 or an Xception-like one.

    Network: 3x3 convolution of stride 2 to 16 channels; stages of 4, 4, 8 and 4 blocks with 64, 160, 320 and
    640 channels, the first of each of stride 2; 1x1 convolution to 1,024; global average pooling; dropout; a
    linear classifier without bias. Every convolution is followed by a batch norm and, unless it is depthwise,
    by ReLU. At stride 1 a block passes its even channels through and computes on the odd ones. Weights are
    initialised as in the authors' code: from a normal distribution with standard deviation ``1 / (input
    channels of a filter)``, 0.01 in the first convolution and the classifier; shifts of batch norms are 1e-4.

    The paper also searches over channel numbers. That is neither in the authors' code nor in this space.

    Args:
        dropout: Dropout probability before the classifier, 0.1 as published. In training mode it draws from
            torch's global generator; with 0, passes are reproducible.
    """

    name = "spos_shufflenet"
    summary = "ShuffleNetV2 with four choices in each of 20 blocks (SPOS; Guo et al., ECCV 2020)"

    def __init__(self, *, dropout: float = 0.1) -> None:
        if not 0 <= dropout < 1:
            raise UserError(f"dropout: expected a probability below 1, got {dropout!r}")
        self.dropout = dropout

    @property
    def num_choices(self) -> tuple[int, ...]:
        """Four choices in each of 20 blocks."""
        return (len(CHOICES),) * sum(blocks for blocks, _ in STAGES)

    # ---- notation --------------------------------------------------------------------------------

    def format(self, arch: Architecture) -> str:
        """The authors' tuple, ``(2, 1, 0, ...)``: 0, 1, 2 for kernels of 3, 5, 7, 3 for Xception."""
        return f"({', '.join(map(str, self.check(arch)))})"

    def parse(self, text: str) -> Architecture:
        """Read such a tuple; the brackets and all blanks may be left out, a comma may not."""
        text = text.strip()
        count = len(self.num_choices)
        position = int(text.startswith("("))
        decisions: list[int] = []
        while True:
            position += len(text[position:]) - len(text[position:].lstrip())
            match = _NUMBER.match(text, position)
            assert match is not None  # it may be empty
            if match[0] not in tuple("0123"):
                length = max(len(match[0]), min(1, len(text) - position))
                choices = ", ".join(f"{i} {name}" for i, name in enumerate(CHOICES))
                raise self._parse_error(text, position, length, f"a choice out of {choices}")
            decisions.append(int(match[0]))
            position = match.end()
            position += len(text[position:]) - len(text[position:].lstrip())
            if len(decisions) == count:
                break
            if text[position : position + 1] != ",":
                expected = f"',' and choice {len(decisions)} of {count:,}"
                raise self._parse_error(text, position, min(1, len(text) - position), expected)
            position += 1
        end = ")" if text.startswith("(") else ""
        if text[position:] != end:
            expected = "')'" if end else f"the end of the text after {count} choices"
            raise self._parse_error(text, position, len(text) - position, expected)
        return Architecture(self.name, tuple(decisions))

    # ---- the network -----------------------------------------------------------------------------

    def blocks(self, arch: Architecture) -> tuple[Block, ...]:
        """The 20 blocks with their choices."""
        shapes = []
        width = STEM_CHANNELS
        for count, channels in STAGES:
            shapes.append((width, channels, 2))
            shapes += [(channels // 2, channels, 1)] * (count - 1)
            width = channels
        return tuple(
            Block(c, out // 2, out, 3 if choice == _XCEPTION else 3 + 2 * choice, stride, choice == _XCEPTION)
            for (c, out, stride), choice in zip(shapes, self.check(arch), strict=True)
        )

    def params(self, arch: Architecture, num_classes: int = 10, in_channels: int = 3) -> int:
        """Parameters: weights of convolutions and classifier, and two per channel of a batch norm."""
        blocks = self.blocks(arch)
        check_positive(num_classes=num_classes, in_channels=in_channels)
        total = (9 * in_channels + 2) * STEM_CHANNELS
        for weights, normalised, _ in itertools.chain(*(block.convolutions() for block in blocks)):
            total += weights + 2 * normalised
        return total + (STAGES[-1][1] + 2 + num_classes) * LAST_CHANNELS

    def macs(
        self, arch: Architecture, num_classes: int = 10, image_size: int = 224, in_channels: int = 3
    ) -> int:
        """Multiply-adds of convolutions and classifier for one ``image_size`` x ``image_size`` image.

        With 1,000 classes these are the authors' FLOPs, which they limit to 330 million in their search.
        """
        blocks = self.blocks(arch)
        check_positive(num_classes=num_classes, image_size=image_size, in_channels=in_channels)
        size = (image_size + 1) // 2
        total = 9 * in_channels * STEM_CHANNELS * size**2
        for block in blocks:
            before, size = size, (size + 1) // 2 if block.stride == 2 else size
            total += sum(w * (before if early else size) ** 2 for w, _, early in block.convolutions())
        return total + STAGES[-1][1] * LAST_CHANNELS * size**2 + LAST_CHANNELS * num_classes

    def build(
        self, arch: Architecture, num_classes: int = 10, in_channels: int = 3, prune: bool = False
    ) -> nn.Module:
        """Build the network; parameter names are those of the authors' searched networks.

        Images may have any size: the authors' 7x7 pooling is global average pooling here, the same at
        224 x 224. ``prune`` has no effect: every part of a network influences its output.
        """
        from pynas.spaces.spos_shufflenet.network import SPOSNetwork

        blocks = self.blocks(arch)
        check_positive(num_classes=num_classes, in_channels=in_channels)
        return SPOSNetwork(blocks, num_classes=num_classes, in_channels=in_channels, dropout=self.dropout)
