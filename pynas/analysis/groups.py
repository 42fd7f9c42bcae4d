"""Shared weights that not all architectures share: groups with weights of their own, common up to a layer.

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
    """The group of each architecture; sizes differ by one at most.

    Args:
        space: Of the architectures.
        architectures: To divide.
        groups: How many groups, at most as many as architectures.
        how: ``sequential`` cuts the order of their decisions, as a nested loop over all choices visits them,
            into pieces; ``shuffled`` a random order; ``similar`` takes, group after group, the first that is
            left in that order and those nearest to it by ``space.distance``.
        seed: Of the random order.

    Raises:
        UserError: ``groups`` or ``how`` is out of its range.
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
            order.sort(key=lambda i: space.distance(first, architectures[i]))  # stable, the first stays first
        for i in order[:size]:
            found[i] = group
        order = order[size:]
        if how == "similar":
            order.sort(key=lambda i: architectures[i].decisions)
    return tuple(found)


def check_prefix(weights: SharedWeights, architectures: Iterable[Architecture], prefix: int) -> None:
    """Raise UserError unless each architecture has more than ``prefix`` segments: the last is its group's."""
    shortest = min(len(weights.segments(arch)) for arch in architectures)
    if not 0 <= prefix < shortest:
        whole = f"; {weights.space.name} runs in one piece" if shortest == 1 else ""
        raise UserError(f"prefix: expected 0 to {shortest - 1} common segments, got {prefix}{whole}")


class GroupedWeights(SharedWeights):
    """As many whole copies of shared weights as there are groups; the first segments may be common to all.

    All copies start alike. An architecture that belongs to no group is an error.

    Args:
        weights: The first copy.
        groups: Group of each architecture, from 0.
        prefix: How many segments (the stem is the first) all groups take from the first copy; each
            architecture's last segment at least is its group's.
    """

    def __init__(self, weights: SharedWeights, groups: Mapping[Architecture, int], prefix: int = 0) -> None:
        super().__init__()
        if not groups or sorted(set(groups.values())) != list(range(max(groups.values()) + 1)):
            raise UserError("groups: expected each architecture's group, numbered from 0 without gaps")
        check_prefix(weights, groups, prefix)
        self.space, self.groups, self.prefix = weights.space, dict(groups), prefix
        others = [copy.deepcopy(weights) for _ in range(max(groups.values()))]
        self.copies = nn.ModuleList([weights, *others])

    def segments(self, arch: Architecture) -> tuple[Segment, ...]:
        """Of the group's copy after the common ones; the keys of its own say which group."""
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
        """The first group's."""
        return self._copy(0).classifier()

    def _replace_classifier(self, layer: nn.Linear) -> None:
        raise UserError("reset_classifier: groups have classifiers of their own; make new groups instead")


class ChildSampler(Sampler):
    """One of a list of architectures a step, all alike probable.

    So, however the weights are shared, each of them has as many steps of its own.

    Args:
        space: Of the children.
        children: The list.
    """

    name = "children"

    def __init__(self, space: SearchSpace, children: Sequence[Architecture]) -> None:
        super().__init__(space)
        if not children:
            raise UserError("children: expected at least one architecture, got none")
        self.children = tuple(children)

    def sample(self, rng: random.Random) -> tuple[Architecture, ...]:
        """One, alike probable."""
        return (rng.choice(self.children),)

    def describe(self) -> dict[str, str | int | float]:
        """With the children."""
        text = " ".join(",".join(map(str, child.decisions)) for child in self.children)
        return super().describe() | {"children": text}
