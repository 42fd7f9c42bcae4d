"""Soft constraints on costs, and their effect on a reward."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pynas._errors import UserError

_CONDITION = re.compile(r"\s*([^\s<>=,]+)\s*([<>])=?\s*([^\s<>=,]+)\s*")


@dataclass(frozen=True, slots=True)
class Condition:
    """``cost <= bound``, or ``cost >= bound`` if ``upper`` is False."""

    cost: str
    bound: float
    upper: bool

    def violation(self, cost: float) -> float:
        """Relative excess over the bound; 0 if the condition holds or the cost is unknown."""
        if math.isnan(cost):
            return 0.0
        ratio = cost / self.bound if self.upper else self.bound / max(cost, 1e-300)
        return max(0.0, ratio - 1)


@dataclass(frozen=True, slots=True)
class Target:
    """Conditions that should all hold; without conditions, only the score counts.

    The reward of a score u >= 0 is ``u * prod_i penalty^violation_i``, the multiplicative form of RENA
    (Y. Zhou et al., "Resource-Efficient Neural Architect", 2018, arXiv:1806.07912): unchanged if all
    conditions hold, multiplied by ``penalty`` if one cost is 2 times its bound.
    """

    conditions: tuple[Condition, ...]

    def factor(self, costs: Mapping[str, float], penalty: float) -> float:
        """The factor of the reward, in [0, 1]."""
        total = sum(each.violation(costs.get(each.cost, math.nan)) for each in self.conditions)
        return float(penalty**total)


def read_targets(texts: str | Sequence[str]) -> tuple[Target, ...]:
    """Targets from texts such as ``"params<=1e6, intensity>=20"``; UserError if one is malformed.

    ``;`` separates the targets of one text. No text means one target without conditions.
    """
    listed = texts.split(";") if isinstance(texts, str) else list(texts)
    return tuple(_target(text) for text in listed) or (Target(()),)


def _target(text: str) -> Target:
    conditions = []
    for part in text.split(",") if text.strip() else ():
        match = _CONDITION.fullmatch(part)
        try:
            bound = float(match[3]) if match else math.nan
        except ValueError:
            bound = math.nan
        if match is None or not 0 < bound < math.inf:
            raise UserError(
                f"targets: expected conditions such as params<=1e6 or intensity>=20, with a bound above 0 "
                f"and commas between them, got {part.strip()!r}"
            )
        conditions.append(Condition(match[1], bound, upper=match[2] == "<"))
    return Target(tuple(conditions))
