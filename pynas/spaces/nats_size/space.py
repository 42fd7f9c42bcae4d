"""NATS-Bench SSS, the size search space: five widths out of eight around a fixed cell, 32,768 architectures.

Source: X. Dong, L. Liu, K. Musial, B. Gabrys, "NATS-Bench: Benchmarking NAS Algorithms for Architecture
Topology and Size", TPAMI 2021, arXiv:2009.00437.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pynas._errors import UserError
from pynas.architecture import Architecture
from pynas.spaces.base import SearchSpace, check_positive
from pynas.spaces.nasbench201.space import CONV_3X3, SKIP

if TYPE_CHECKING:
    from torch import nn

WIDTHS: Final = (8, 16, 24, 32, 40, 48, 56, 64)
# |nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|, the cell
# of NAS-Bench-201 that is best in validation on CIFAR-100.
CELL: Final = (CONV_3X3, CONV_3X3, CONV_3X3, SKIP, CONV_3X3, CONV_3X3)


class NATSSize(SearchSpace):
    """Networks ``c1:c2:c3:c4:c5``, each width one of 8, 16, ..., 64.

    Network: 3x3 convolution and batch norm to ``c1``; a cell at ``c1``; a residual block of stride 2 to
    ``c2``; a cell from ``c2`` to ``c3``; a residual block of stride 2 to ``c4``; a cell from ``c4`` to
    ``c5``; batch norm, ReLU, global average pooling, a linear classifier. This follows the authors' code;
    their documentation describes the five numbers differently.

    In a cell, the convolutions that read the cell's input change the width. So does the skip connection if
    the widths differ: it is then a 1x1 convolution and a batch norm. All else is as in NAS-Bench-201.

    Indices are those of the published files: the widths are the octal digits of the index.
    """

    name = "nats_size"
    summary = "five widths around a fixed NAS-Bench-201 cell (NATS-Bench SSS; Dong et al., TPAMI 2021)"

    @property
    def num_choices(self) -> tuple[int, ...]:
        """Eight widths for each of five numbers."""
        return (len(WIDTHS),) * 5

    def widths(self, arch: Architecture) -> tuple[int, ...]:
        """``(c1, c2, c3, c4, c5)``."""
        return tuple(WIDTHS[decision] for decision in self.check(arch))

    # ---- notation --------------------------------------------------------------------------------

    def format(self, arch: Architecture) -> str:
        """The official string, ``8:64:32:16:24``."""
        return ":".join(map(str, self.widths(arch)))

    def parse(self, text: str) -> Architecture:
        """Read an official string; surrounding blanks are ignored."""
        text = text.strip()
        names = tuple(map(str, WIDTHS))
        decisions: list[int] = []
        start = 0
        for token in text.split(":"):
            if len(decisions) == 5:
                raise self._parse_error(text, start - 1, len(text) - start + 1, "the end of the text")
            if token not in names:
                expected = f"a width out of {', '.join(names)}"
                raise self._parse_error(text, start, len(token), expected)
            decisions.append(names.index(token))
            start += len(token) + 1
        if len(decisions) < 5:
            raise self._parse_error(text, len(text), 0, f"':' and a width, c{len(decisions) + 1}")
        return Architecture(self.name, tuple(decisions))

    # ---- the network -----------------------------------------------------------------------------

    def params(self, arch: Architecture, num_classes: int = 10, in_channels: int = 3) -> int:
        """Parameters, as published: 11,714 (``8:8:8:8:8``) to 713,674 (``64:64:64:64:64``) for 10 classes.

        A cell from ``a`` to ``b`` channels has ``2 (9 a b + 2 b) + 3 (9 b^2 + 2 b)``, and ``a b + 2 b`` more
        if its widths differ; a residual block has ``10 a b + 9 b^2 + 4 b``.
        """
        c1, c2, c3, c4, c5 = self.widths(arch)
        check_positive(num_classes=num_classes, in_channels=in_channels)
        total = 9 * in_channels * c1 + 2 * c1
        for a, b in ((c1, c1), (c2, c3), (c4, c5)):
            total += _cell_weights(a, b) + 2 * b * (5 + (a != b))
        for a, b in ((c1, c2), (c3, c4)):
            total += _block_weights(a, b) + 4 * b
        return total + 2 * c5 + (c5 + 1) * num_classes

    def macs(
        self, arch: Architecture, num_classes: int = 10, image_size: int = 32, in_channels: int = 3
    ) -> int:
        """Multiply-adds of convolutions and classifier for one ``image_size`` x ``image_size`` image.

        The published FLOPs also count the ``num_classes`` additions of the classifier's bias. The image size
        must be a multiple of 4, since it is halved twice.
        """
        c1, c2, c3, c4, c5 = self.widths(arch)
        check_positive(num_classes=num_classes, image_size=image_size, in_channels=in_channels)
        if image_size % 4:
            raise UserError(
                f"image_size: expected a multiple of 4 (the image is halved twice), got {image_size}"
            )
        pixels = image_size**2
        total = (9 * in_channels * c1 + _cell_weights(c1, c1)) * pixels
        total += (_block_weights(c1, c2) + _cell_weights(c2, c3)) * (pixels // 4)
        total += (_block_weights(c3, c4) + _cell_weights(c4, c5)) * (pixels // 16)
        return total + c5 * num_classes

    def build(
        self, arch: Architecture, num_classes: int = 10, in_channels: int = 3, prune: bool = False
    ) -> nn.Module:
        """Build the network; parameter names are those of the authors' code, so their weights load.

        ``prune`` has no effect: every operation of the cell has a path to the output.
        """
        from pynas.spaces.nats_size.network import NATSSizeNetwork

        widths = self.widths(arch)
        check_positive(num_classes=num_classes, in_channels=in_channels)
        return NATSSizeNetwork(widths, num_classes=num_classes, in_channels=in_channels)


def _cell_weights(a: int, b: int) -> int:
    """Weights of the convolutions of a cell from ``a`` to ``b`` channels."""
    return 2 * 9 * a * b + 3 * 9 * b**2 + (a * b if a != b else 0)


def _block_weights(a: int, b: int) -> int:
    """Weights of the convolutions of a residual block from ``a`` to ``b`` channels."""
    return 9 * a * b + 9 * b**2 + a * b
