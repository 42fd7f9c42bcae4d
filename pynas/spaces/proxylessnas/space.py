"""ProxylessNAS: 21 inverted residual blocks, six choices each or none, 6^6 * 7^15 architectures for ImageNet.

Source: H. Cai, L. Zhu, S. Han, "ProxylessNAS: Direct Neural Architecture Search on Target Task and Hardware",
ICLR 2019, arXiv:1812.00332.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pynas._errors import UserError
from pynas.architecture import Architecture
from pynas.spaces.base import SearchSpace, check_positive
from pynas.spaces.proxylessnas.notation import once_for_all

if TYPE_CHECKING:
    from torch import nn

OPERATIONS: Final = (
    "3x3_MBConv3", "3x3_MBConv6", "5x5_MBConv3", "5x5_MBConv6", "7x7_MBConv3", "7x7_MBConv6", "Zero"
)  # fmt: skip
ZERO: Final = OPERATIONS.index("Zero")
BLOCKS: Final = (4, 4, 4, 4, 4, 1)  # number of blocks of each stage
STRIDES: Final = (2, 2, 2, 1, 2, 1)  # stride of the first block of each stage
WIDTHS: Final = "24-40-80-96-192-320"

_TOKEN: Final = re.compile(r"[^,|]*")


@dataclass(frozen=True)
class Place:
    """One of the 21 places where an operation is chosen, with the shapes that it maps."""

    in_channels: int
    out_channels: int
    stride: int

    @property
    def keeps_shape(self) -> bool:
        """Whether a block here has a shortcut and may be left out."""
        return self.in_channels == self.out_channels and self.stride == 1


@dataclass(frozen=True)
class MBConv:
    """1x1 convolution to ``expansion`` times the channels (left out for 1), depthwise, 1x1 convolution."""

    place: Place
    kernel_size: int
    expansion: int

    @property
    def channels(self) -> int:
        """Inner channels, of the depthwise convolution."""
        return self.expansion * self.place.in_channels

    def convolutions(self) -> Iterator[tuple[int, int, bool]]:
        """For each convolution: weights, channels of its batch norm, whether at the input's resolution."""
        m = self.channels
        if self.expansion > 1:
            yield self.place.in_channels * m, m, True
        yield self.kernel_size**2 * m, m, False
        yield m * self.place.out_channels, self.place.out_channels, False


class ProxylessNAS(SearchSpace):
    """Networks of inverted residual blocks ``y = x + op(x)``, or ``y = op(x)`` if the shape changes.

    Network: 3x3 convolution of stride 2; a block without choice, 3x3 and expansion 1; stages of 4, 4, 4, 4, 4
    and 1 blocks, the first block of stages 1, 2, 3 and 5 of stride 2; 1x1 convolution; global average
    pooling; a linear classifier. Kernels are 3, 5 or 7, expansions 3 or 6. A block that keeps the shape may
    also be ``Zero``, the identity. Every convolution is followed by a batch norm (eps 1e-3) and, except for
    the last of a block, by ReLU6. As in the authors' code, convolutions are initialised from a normal
    distribution with variance ``2 / (k^2 out_channels)``, and the classifier's bias is zero.

    The blocks of a stage that keep the shape are alike, so the positions of ``Zero`` in a stage do not
    matter: :meth:`canonical` has them last. That leaves ``6^6 * 259^5`` networks.

    The published networks have other widths than the search: ProxylessNAS-Mobile is in the space with
    ``widths="32-40-80-96-192-320"``.

    Args:
        widths: Channels of the six stages, a sequence or a text with dashes; stored as text.
        stem_channels: Channels of the first convolution.
        first_channels: Channels of the block without choice.
        last_channels: Channels of the last convolution.
    """

    name = "proxylessnas"
    summary = "kernel, expansion and depth of 21 inverted residual blocks (Cai et al., ICLR 2019)"

    def __init__(
        self,
        *,
        widths: str | Sequence[int] = WIDTHS,
        stem_channels: int = 32,
        first_channels: int = 16,
        last_channels: int = 1280,
    ) -> None:
        # Text, because a store tells spaces of one name apart by numbers and texts.
        self.widths = widths if isinstance(widths, str) else "-".join(map(str, widths))
        numbers = self.widths.split("-")
        if len(numbers) != len(BLOCKS) or not all(n.isascii() and n.isdigit() and int(n) for n in numbers):
            raise UserError(f"widths: expected {len(BLOCKS)} numbers of channels, got {widths!r}")
        check_positive(
            stem_channels=stem_channels, first_channels=first_channels, last_channels=last_channels
        )
        self._widths = tuple(map(int, numbers))
        self.stem_channels = stem_channels
        self.first_channels = first_channels
        self.last_channels = last_channels
        self._num_choices = tuple(len(OPERATIONS) - (not place.keeps_shape) for place in self.places())

    def places(self) -> tuple[Place, ...]:
        """The places of the 21 blocks."""
        found = []
        width = self.first_channels
        for count, stride, channels in zip(BLOCKS, STRIDES, self._widths, strict=True):
            found.append(Place(width, channels, stride))
            found += [Place(channels, channels, 1)] * (count - 1)
            width = channels
        return tuple(found)

    @property
    def num_choices(self) -> tuple[int, ...]:
        """Six, or seven if the block keeps the shape."""
        return self._num_choices

    def canonical(self, arch: Architecture) -> Architecture:
        """``arch`` with the ``Zero`` of each run of blocks of one shape moved to its end."""
        decisions: list[int] = []
        pairs = zip(self.places(), self.check(arch), strict=True)
        for _, run in itertools.groupby(pairs, key=lambda pair: pair[0]):
            chosen = [decision for _, decision in run]
            decisions += sorted(chosen, key=lambda decision: decision == ZERO)  # a stable sort
        return Architecture(self.name, tuple(decisions))

    # ---- notation --------------------------------------------------------------------------------

    def format(self, arch: Architecture) -> str:
        """The authors' names of operations, commas between blocks and bars between stages."""
        names = iter([OPERATIONS[decision] for decision in self.check(arch)])
        return "|".join(",".join(itertools.islice(names, count)) for count in BLOCKS)

    def parse(self, text: str) -> Architecture:
        """Read what :meth:`format` wrote, or a dictionary of Once-for-all (:mod:`.notation`).

        Blanks around names are ignored.
        """
        text = text.strip()
        if text.startswith("{"):
            return Architecture(self.name, once_for_all(text, BLOCKS))
        decisions: list[int] = []
        separators = [separator for count in BLOCKS for separator in "," * (count - 1) + "|"]
        position = 0
        for separator, choices in zip([*separators[:-1], ""], self.num_choices, strict=True):
            match = _TOKEN.match(text, position)
            assert match is not None  # it may be empty
            name = match[0].strip()
            start = match.start() + len(match[0]) - len(match[0].lstrip())
            if name not in OPERATIONS[:choices]:
                expected = f"an operation out of {', '.join(OPERATIONS[:choices])}"
                raise self._parse_error(text, start, len(name), expected, OPERATIONS[:choices])
            decisions.append(OPERATIONS.index(name))
            position = match.end()
            if separator and text[position : position + 1] != separator:
                what = "the next block" if separator == "," else "the next stage"
                length = min(1, len(text) - position)
                raise self._parse_error(text, position, length, f"{separator!r} and {what}")
            position += len(separator)
        if position < len(text):
            raise self._parse_error(text, position, len(text) - position, "the end of the text")
        return Architecture(self.name, tuple(decisions))

    # ---- the network -----------------------------------------------------------------------------

    def blocks(self, arch: Architecture) -> tuple[MBConv | None, ...]:
        """The block without choice and the 21 others; None for ``Zero``."""
        first = MBConv(Place(self.stem_channels, self.first_channels, 1), 3, 1)
        chosen = (
            None if decision == ZERO else MBConv(place, 3 + decision // 2 * 2, 3 + decision % 2 * 3)
            for place, decision in zip(self.places(), self.check(arch), strict=True)
        )
        return (first, *chosen)

    def params(self, arch: Architecture, num_classes: int = 10, in_channels: int = 3) -> int:
        """Parameters: weights of convolutions, two per channel of a batch norm, and the classifier."""
        blocks = self.blocks(arch)
        check_positive(num_classes=num_classes, in_channels=in_channels)
        total = (9 * in_channels + 2) * self.stem_channels
        for weights, normalised, _ in itertools.chain(*(block.convolutions() for block in blocks if block)):
            total += weights + 2 * normalised
        return total + (self._widths[-1] + 2 + num_classes) * self.last_channels + num_classes

    def macs(
        self, arch: Architecture, num_classes: int = 10, image_size: int = 224, in_channels: int = 3
    ) -> int:
        """Multiply-adds of convolutions and classifier for one ``image_size`` x ``image_size`` image.

        With 1,000 classes these are the authors' FLOPs.
        """
        blocks = self.blocks(arch)
        check_positive(num_classes=num_classes, image_size=image_size, in_channels=in_channels)
        size = (image_size + 1) // 2
        total = 9 * in_channels * self.stem_channels * size**2
        for block in blocks:
            if block is not None:
                before, size = size, (size + 1) // 2 if block.place.stride == 2 else size
                total += sum(w * (before if early else size) ** 2 for w, _, early in block.convolutions())
        return total + self._widths[-1] * self.last_channels * size**2 + self.last_channels * num_classes

    def build(
        self, arch: Architecture, num_classes: int = 10, in_channels: int = 3, prune: bool = False
    ) -> nn.Module:
        """Build the network; parameter names are those of the authors' code, so their weights load.

        Images may have any size. ``prune`` has no effect: every part of a network influences its output.
        """
        from pynas.spaces.proxylessnas.network import ProxylessNASNetwork

        blocks = self.blocks(arch)
        check_positive(num_classes=num_classes, in_channels=in_channels)
        return ProxylessNASNetwork(
            blocks,
            stem_channels=self.stem_channels,
            last_channels=self.last_channels,
            num_classes=num_classes,
            in_channels=in_channels,
        )
