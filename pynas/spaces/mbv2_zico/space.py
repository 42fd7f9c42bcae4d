"""The ImageNet space of Zen-NAS and ZiCo: super-blocks of inverted residuals that grow by replacement.

Sources: M. Lin et al., "Zen-NAS: A Zero-Shot NAS for High-Performance Deep Image Recognition", ICCV 2021,
arXiv:2102.01063 (the space, its notation and its mutation); G. Li et al., "ZiCo: Zero-shot NAS via Inverse
Coefficient of Variation on Gradients", ICLR 2023, arXiv:2301.11300 (the search that starts from
:data:`START` and scores networks without residual links).
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar, Final

from pynas._errors import UserError
from pynas.architecture import Architecture
from pynas.spaces._open_ended import OpenEndedSpace
from pynas.spaces.base import check_positive
from pynas.spaces.mbv2_zico import blocks as parts
from pynas.spaces.mbv2_zico import text as notation
from pynas.spaces.mbv2_zico.blocks import SPLIT_FROM, TYPES, Block, blocks_of

if TYPE_CHECKING:
    from torch import nn

START: Final = (
    "SuperConvK3BNRELU(3,8,2,1)SuperResIDWE6K3(8,32,2,8,1)SuperResIDWE6K3(32,48,2,32,1)"
    "SuperResIDWE6K3(48,96,2,48,1)SuperResIDWE6K3(96,128,2,96,1)SuperConvK1BNRELU(128,2048,1,1)"
)
"""The network that the published searches start from."""

_SAMPLED_MOVES: Final = 5
_MAX_DRAWS: Final = 10_000


class MBV2ZiCo(OpenEndedSpace):
    """A stem, a varying number of super-blocks, a 1x1 convolution and a classifier.

    Network: 3x3 convolution of stride 2; super-blocks; 1x1 convolution; global average pooling; a linear
    classifier. A super-block has ``layers`` sub-layers of two inverted residuals each: 1x1 convolution to
    ``round8(expansion * b)`` channels, depthwise convolution, 1x1 convolution to ``b``; then the same with
    the block's ``width`` in place of ``b``. Batch norm (eps 0.001) follows every convolution; ReLU follows
    the first two and the sum with the residual link. The link is a 1x1 convolution with bias and a batch norm
    in the first inverted residual of a block and wherever the channels change, otherwise the identity.

    Decisions: channels of the stem, channels of the last 1x1 convolution, then the five numbers of
    :class:`Block` for each super-block. Input channels are no decisions: they are the output channels of the
    previous block, so replacing a block also changes its successor's input. The text is the authors'
    structure string.

    A move replaces the stem or one super-block. A stem gets another width. A super-block gets any of the 12
    types, a width and a bottleneck from nine ratios of the current ones (rounded to multiples of 8, at least
    8), and up to two sub-layers more or fewer. One that reaches six or seven sub-layers is split into three
    and the rest, as in the codes of ZiCo and of Zen-NAS (whose first version gave the second block three in
    both cases). Moves never join blocks, so they are not reversible. The last convolution never changes. The
    bound of 65,536 on all widths is pynas's own: without ``max_flops`` a walk would exceed any.

    :meth:`replace` is what the published searches do, and the strategy ``zico_evolution`` uses it. Other
    strategies use :meth:`mutate`, which draws types uniformly and draws again what would change nothing or
    leave the space. There is no published crossover:
    here a child takes each stage (from one stride of 2 to the next) from either parent. Nor is there a
    published sampling distribution: :meth:`sample` makes 1 to 5 moves from :data:`START`.

    Args:
        max_layers: Upper bound of :meth:`depth`; 16 in the published search for 1 GFLOPs, 14 for 450 and 600
            MFLOPs. None for no bound.
        max_flops: Upper bound of :meth:`published_flops`, such as 450e6; None for no bound.
        replacements: Number of replacements in :meth:`mutate`.
        residual: Whether networks have residual links. Published searches score without and train with links.
        squeeze_excite: Whether squeeze-and-excitation (ratio 0.25) follows every depthwise convolution, as in
            the published training but not in the search.
    """

    name = "mbv2_zico"
    summary = "super-blocks of inverted residuals for ImageNet, no fixed number (Zen-NAS, ZiCo)"
    image_size: ClassVar[int] = 64
    reversible_moves: ClassVar[bool] = False

    def __init__(
        self,
        *,
        max_layers: int | None = 16,
        max_flops: float | None = None,
        replacements: int = 2,
        residual: bool = True,
        squeeze_excite: bool = False,
    ) -> None:
        check_positive(replacements=replacements)
        if max_layers is not None:
            check_positive(max_layers=max_layers)
        if max_flops is not None and not max_flops > 0:
            raise UserError(f"max_flops: expected a positive number or None, got {max_flops!r}")
        self.max_layers = max_layers
        self.max_flops = max_flops
        self.replacements = replacements
        self.mutation_distance = replacements
        self.residual = residual
        self.squeeze_excite = squeeze_excite
        problem = self.problem(self.start().decisions)
        if problem:
            raise UserError(f"max_layers, max_flops: they exclude the start network: {problem}")

    # ---- the set ---------------------------------------------------------------------------------

    def start(self) -> Architecture:
        """The network that the published searches start from, :data:`START`."""
        return Architecture(self.name, notation.read(START, self.name))

    def problem(self, decisions: tuple[int, ...]) -> str:
        """Why ``decisions`` are not in the space; empty if they are."""
        if len(decisions) < 7 or len(decisions) % 5 != 2:
            return f"expected 2 + 5n decisions for n > 0 super-blocks, got {len(decisions)}"
        stem, last, *_ = decisions
        for what, width in (("the stem", stem), ("the last convolution", last)):
            if not parts.is_width(width):
                return f"the width of {what} must be {parts.A_WIDTH}, not {width}"
        for i, block in enumerate(blocks_of(decisions)):
            if not 0 <= block.kind < len(TYPES):
                return f"the type of super-block {i} must be in 0..{len(TYPES) - 1}, not {block.kind}"
            for field in ("width", "bottleneck"):
                width = getattr(block, field)
                if not parts.is_width(width):
                    return f"the {field} of super-block {i} must be {parts.A_WIDTH}, not {width}"
            if block.stride not in (1, 2):
                return f"the stride of super-block {i} must be 1 or 2, not {block.stride}"
            if not 0 < block.layers < SPLIT_FROM:
                return f"super-block {i} must have 1..{SPLIT_FROM - 1} sub-layers, not {block.layers}"
        depth = _depth(decisions)
        if self.max_layers is not None and depth > self.max_layers:
            return f"expected at most max_layers={self.max_layers}, got {depth}"
        if self.max_flops is not None and (flops := parts.published_flops(decisions)) > self.max_flops:
            return f"expected at most max_flops={self.max_flops:,.0f}, got {flops:,.0f}"
        return ""

    def depth(self, arch: Architecture) -> int:
        """Layers as the authors count them: sub-layers, the stem and the last convolution."""
        return _depth(self.check(arch))

    def published_flops(self, arch: Architecture, num_classes: int = 1000, image_size: int = 224) -> float:
        """FLOPs as the authors count them for their budgets, with residual links, without squeeze-excitation.

        Multiply-adds of convolutions and classifier, plus one for each output of a batch norm. A link's
        convolution of stride 2 counts a quarter of its true cost, since the authors' code divides its
        resolution by the stride two times. :meth:`macs` is the true number of multiply-adds.
        """
        check_positive(num_classes=num_classes, image_size=image_size)
        return parts.published_flops(self.check(arch), num_classes, image_size)

    def blocks(self, arch: Architecture) -> tuple[Block, ...]:
        """The super-blocks of ``arch``."""
        return blocks_of(self.check(arch))

    # ---- moves -----------------------------------------------------------------------------------

    def sample(self, rng: random.Random) -> Architecture:
        """Make 1 to 5 moves from the start network, each number equally likely."""
        decisions = self.start().decisions
        for _ in range(rng.randint(1, _SAMPLED_MOVES)):
            decisions = self._replaced(decisions, 1, rng)
        return Architecture(self.name, decisions)

    def mutate(self, arch: Architecture, rng: random.Random) -> Architecture:
        """Replace up to ``replacements`` of stem and super-blocks at once."""
        return Architecture(self.name, self._replaced(self.check(arch), self.replacements, rng))

    def replace(self, arch: Architecture, replacements: int, rng: random.Random) -> Architecture | None:
        """Draw ``replacements`` places and replace their blocks, as the published searches do.

        A place is the stem, a super-block or the last convolution, drawn uniformly; one drawn twice is
        replaced once, and the last convolution never changes. Each choice of the stem's width, or of a
        block's width, bottleneck and sub-layers, is equally likely; the present one is among them. Its type
        is drawn by the list of the authors' code: E1K3 and E2K3 each with 12/89, falling to 2/89 for E6K7,
        so that kernels of 3, 5 and 7 come with .51, .34 and .16. Nothing is drawn again.

        Returns:
            The architecture, which may be ``arch`` itself; None if it is outside the limits of the space.
        """
        stem, last, *_ = decisions = self.check(arch)
        blocks = blocks_of(decisions)
        places = {rng.randrange(len(blocks) + 2) for _ in range(replacements)}
        changed: list[int] = []
        for place, block in enumerate(blocks, start=1):
            new = parts.split(parts.draw_published(block, rng)) if place in places else (block,)
            changed.extend(itertools.chain(*new))
        new_stem = rng.choice(parts.widths(stem)) if 0 in places else stem
        mutant = (new_stem, last, *changed)
        return Architecture(self.name, mutant) if self.is_valid(mutant) else None

    def _replaced(self, decisions: tuple[int, ...], replacements: int, rng: random.Random) -> tuple[int, ...]:
        stem, last, *_ = decisions
        blocks = blocks_of(decisions)
        for _ in range(_MAX_DRAWS):
            places = {rng.randrange(len(blocks) + 2) for _ in range(replacements)}
            replaced = [
                parts.split(parts.draw(block, rng)) if place in places else (block,)
                for place, block in enumerate(blocks, start=1)
            ]
            new_stem = rng.choice(parts.widths(stem)) if 0 in places else stem
            mutant = (new_stem, last, *itertools.chain(*itertools.chain(*replaced)))
            if mutant != decisions and self.is_valid(mutant):
                return mutant
        raise RuntimeError(f"{self.name}: no valid replacement in {_MAX_DRAWS} draws")

    def neighbours(self, arch: Architecture) -> Iterator[Architecture]:
        """Every architecture that one replacement makes: about 4,900 per super-block."""
        decisions = self.check(arch)
        stem, last, *rest = decisions
        blocks = blocks_of(decisions)
        for width in parts.widths(stem):
            moved = (width, last, *rest)
            if width != stem and self.is_valid(moved):
                yield Architecture(self.name, moved)
        for i, block in enumerate(blocks):
            before = itertools.chain(*blocks[:i])
            start, end = (stem, last, *before), tuple(itertools.chain(*blocks[i + 1 :]))
            for replacement in parts.replacements(block):
                moved = (*start, *itertools.chain(*parts.split(replacement)), *end)
                if replacement != block and self.is_valid(moved):
                    yield Architecture(self.name, moved)

    def distance(self, a: Architecture, b: Architecture) -> int:
        """Smallest number of parts (stem, last convolution, super-blocks) of ``a`` to replace to get ``b``.

        A super-block may be replaced by one or by two. If ``b`` cannot be made from ``a`` in this way, the
        distance is the number of parts of ``a`` plus one.
        """
        first, second = self.check(a), self.check(b)
        ends = sum(x != y for x, y in zip(first[:2], second[:2], strict=True))
        ours, theirs = blocks_of(first), blocks_of(second)
        unreachable = len(ours) + 3
        costs = [0] + [unreachable] * len(theirs)  # costs[j]: of making theirs[:j] from the blocks so far
        for block in ours:
            costs = [unreachable] + [
                min(costs[j - 1] + (block != theirs[j - 1]), costs[j - 2] + 1 if j > 1 else unreachable)
                for j in range(1, len(costs))
            ]
        return min(ends + costs[-1], unreachable)

    def crossover(self, a: Architecture, b: Architecture, rng: random.Random) -> Architecture:
        """Stem, last convolution and each stage from either parent; ``a`` if the stages do not match."""
        parents = [_stages(self.check(parent)) for parent in (a, b)]
        if len(parents[0]) != len(parents[1]):
            return a
        pairs = list(zip(*parents, strict=True))
        ends = list(zip(a.decisions[:2], b.decisions[:2], strict=True))
        for _ in range(_MAX_DRAWS):
            head = [pair[rng.getrandbits(1)] for pair in ends]
            stages = [pair[rng.getrandbits(1)] for pair in pairs]
            child = (*head, *itertools.chain(*itertools.chain(*stages)))
            if self.is_valid(child):
                return Architecture(self.name, child)
        return a

    # ---- notation --------------------------------------------------------------------------------

    def format(self, arch: Architecture) -> str:
        """The authors' structure string, ``SuperConvK3BNRELU(3,8,2,1)SuperResIDWE6K3(8,32,2,8,1)...``."""
        return notation.write(self.check(arch))

    def parse(self, text: str) -> Architecture:
        """Read a structure string; channels must match, and a block may have at most five sub-layers."""
        arch = Architecture(self.name, notation.read(text.strip(), self.name, self._parse_error))
        problem = self.problem(arch.decisions)
        if problem:
            raise self._parse_error(text.strip(), 0, len(text.strip()), f"another network, for {problem}")
        return arch

    def encode(self, arch: Architecture) -> list[float]:
        """Stem and last width, then for each super-block its type one-hot and its other four numbers."""
        decisions = self.check(arch)
        code = [float(width) for width in decisions[:2]]
        for block in blocks_of(decisions):
            code += [float(block.kind == kind) for kind in range(len(TYPES))]
            code += [float(number) for number in block[1:]]
        return code

    # ---- the network -----------------------------------------------------------------------------

    def params(self, arch: Architecture, num_classes: int = 10, in_channels: int = 3) -> int:
        """Parameters of the network: convolutions, batch norms, biases of links and classifier."""
        check_positive(num_classes=num_classes, in_channels=in_channels)
        decisions = self.check(arch)
        return parts.params(decisions, num_classes, in_channels, self.residual, self.squeeze_excite)

    def macs(
        self, arch: Architecture, num_classes: int = 10, image_size: int = 224, in_channels: int = 3
    ) -> int:
        """Multiply-adds of convolutions and classifier for one ``image_size`` x ``image_size`` image."""
        check_positive(num_classes=num_classes, image_size=image_size, in_channels=in_channels)
        decisions = self.check(arch)
        return parts.macs(decisions, num_classes, image_size, in_channels, self.residual, self.squeeze_excite)

    def build(
        self, arch: Architecture, num_classes: int = 10, in_channels: int = 3, prune: bool = False
    ) -> nn.Module:
        """Build the network; parameter names are those of the authors' code. There is nothing to prune."""
        from pynas.spaces.mbv2_zico.network import MBV2ZiCoNetwork

        check_positive(num_classes=num_classes, in_channels=in_channels)
        decisions = self.check(arch)
        return MBV2ZiCoNetwork(
            decisions[0],
            blocks_of(decisions),
            decisions[1],
            num_classes=num_classes,
            in_channels=in_channels,
            residual=self.residual,
            squeeze_excite=self.squeeze_excite,
        )


def _depth(decisions: Sequence[int]) -> int:
    return 2 + sum(decisions[6::5])


def _stages(decisions: Sequence[int]) -> list[list[Block]]:
    """The super-blocks before the first stride of 2, and from each to the next."""
    stages: list[list[Block]] = [[]]
    for block in blocks_of(decisions):
        if block.stride == 2:
            stages.append([])
        stages[-1].append(block)
    return stages
