"""Groups of architectures with weights of their own, which may share the first layers.

Source: Y. Zhang et al., "Deeper Insights into Weight Sharing in Neural Architecture Search",
arXiv:2001.01431.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from torch import nn

from pynas._errors import UserError
from pynas.architecture import Architecture
from pynas.spaces import SearchSpace
from pynas.supernet import Segment, SharedWeights
from pynas.supernet.sampling import Sampler

Partition = Literal["sequential", "shuffled", "similar"]


def partition(
    space: SearchSpace, architectures: Sequence[Architecture], groups: int, how: Partition, seed: int = 0
) -> tuple[int, ...]:
    """The group of each architecture; sizes differ by at most one.

    Args:
        space: Space of the architectures.
        architectures: Architectures to divide.
        groups: Number of groups, at most one per architecture.
        how: ``sequential`` sorts by decisions, as a nested loop over all choices does, and cuts the list into
            pieces; ``shuffled`` cuts a random order; ``similar`` fills group after group with the first
            remaining architecture of the sorted list and those nearest to it by ``space.distance``.
        seed: Seed of the random order.

    Raises:
        UserError: ``groups`` or ``how`` is out of range.
    """
    count = len(architectures)
    if not 1 <= groups <= count:
        raise UserError(f"groups: expected 1 to {count}, one for each architecture, got {groups}")
    if how not in ("sequential", "shuffled", "similar"):
        raise UserError(f"how: expected sequential, shuffled or similar, got {how!r}")
    order = sorted(range(count), key=lambda i: architectures[i].decisions)
    if how == "shuffled":
        random.Random(seed).shuffle(order)
    found = [0] * count
    for group in range(groups):
        size = count * (group + 1) // groups - count * group // groups
        if how == "similar":
            first = architectures[order[0]]
            order.sort(key=lambda i: space.distance(first, architectures[i]))  # a stable sort
        for i in order[:size]:
            found[i] = group
        order = order[size:]
        if how == "similar":
            order.sort(key=lambda i: architectures[i].decisions)
    return tuple(found)


def check_prefix(weights: SharedWeights, architectures: Iterable[Architecture], prefix: int) -> None:
    """Raise UserError unless each architecture has more than ``prefix`` segments: groups own the last."""
    shortest = min(len(weights.segments(arch)) for arch in architectures)
    if not 0 <= prefix < shortest:
        whole = f"; {weights.space.name} has a single segment" if shortest == 1 else ""
        raise UserError(f"prefix: expected a number of segments in 0..{shortest - 1}, got {prefix}{whole}")


class GroupedWeights(SharedWeights):
    """A copy of the shared weights for each group; the first segments may be common to all groups.

    All copies start with equal weights. An architecture that belongs to no group is an error.

    Args:
        weights: The first copy.
        groups: Group of each architecture, from 0.
        prefix: Number of segments, the stem being the first, that all groups take from the first copy. At
            least the last segment of an architecture belongs to its group.
    """

    def __init__(self, weights: SharedWeights, groups: Mapping[Architecture, int], prefix: int = 0) -> None:
        super().__init__()
        if not groups or sorted(set(groups.values())) != list(range(max(groups.values()) + 1)):
            raise UserError("groups: expected group numbers from 0 without gaps")
        check_prefix(weights, groups, prefix)
        self.space, self.groups, self.prefix = weights.space, dict(groups), prefix
        others = [copy.deepcopy(weights) for _ in range(max(groups.values()))]
        self.copies = nn.ModuleList([weights, *others])

    def segments(self, arch: Architecture) -> tuple[Segment, ...]:
        """The common segments, then those of the group's copy, whose keys contain the group."""
        if arch not in self.groups:
            raise UserError(f"arch: expected one that belongs to a group, got {self.space.format(arch)}")
        group = self.groups[arch]
        common, own = (self._copy(i).segments(arch) for i in (0, group))
        private = [Segment((group, s.key), s.run, s.modules) for s in own[self.prefix :]]
        return (*common[: self.prefix], *private)

    def _copy(self, group: int) -> SharedWeights:
        found = self.copies[group]
        assert isinstance(found, SharedWeights)
        return found

    def classifier(self) -> nn.Linear:
        """The classifier of the first group."""
        return self._copy(0).classifier()

    def _replace_classifier(self, layer: nn.Linear) -> None:
        raise UserError("reset_classifier: groups have classifiers of their own; make new groups instead")


class ChildSampler(Sampler):
    """One architecture per step, drawn uniformly from a list.

    So each of them has the same number of steps of its own, however the weights are shared.

    Args:
        space: Space of the architectures.
        children: The list of architectures.
    """

    name = "children"

    def __init__(self, space: SearchSpace, children: Sequence[Architecture]) -> None:
        super().__init__(space)
        if not children:
            raise UserError("children: expected at least one architecture, got none")
        self.children = tuple(children)

    def sample(self, rng: random.Random) -> tuple[Architecture, ...]:
        """One architecture of the list, drawn uniformly."""
        return (rng.choice(self.children),)

    def describe(self) -> dict[str, str | int | float]:
        """Name and settings, including the list."""
        text = " ".join(",".join(map(str, child.decisions)) for child in self.children)
        return super().describe() | {"children": text}
