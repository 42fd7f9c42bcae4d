"""Which candidates of a mixture one call of the operator can compute."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from pynas.nn._recognise import ANY, Recognised, UnknownCandidateError, recognise, refuse_hooks


def one_family(members: Sequence[nn.Module]) -> tuple[list[Recognised | None], dict[int, str]]:
    """The largest group that one call of the operator can compute: each member's candidate, or why not."""
    found: list[Recognised | None] = []
    reasons: dict[int, str] = {}
    for k, member in enumerate(members):
        try:
            for part in member.modules():
                refuse_hooks(part)
            found.append(recognise(member))
        except UnknownCandidateError as reason:
            found.append(None)
            reasons[k] = str(reason)
    best: list[Recognised | None] = [None] * len(found)
    for family in sorted(ANY):
        for first in [item for item in found if item is not None and family in item.families]:
            group: list[Recognised] = [first]  # start a group from each in turn
            for item in found:
                if item is not None and item is not first and family in item.families:
                    group += [item] if all(_fit(item, other) for other in group) else []
            if len(group) > sum(item is not None for item in best):
                best = [item if any(item is member for member in group) else None for item in found]
    for k, item in enumerate(found):
        if item is not None and best[k] is None:
            reasons[k] = f"is a {item.name} of another family, stride, width or batch norm than the others"
    return best, reasons


def _fit(one: Recognised, other: Recognised) -> bool:
    """Whether one call of the operator can compute both."""
    if one.stride != other.stride and "none" not in (one.name, other.name):
        return False
    if None not in (one.channels, other.channels) and one.channels != other.channels:
        return False
    if one.norm is not None and other.norm is not None and one.norm.affine != other.norm.affine:
        return False
    ours, theirs = one.norm or one.pool_norm, other.norm or other.pool_norm
    return ours is None or theirs is None or replace(ours, affine=False) == replace(theirs, affine=False)
