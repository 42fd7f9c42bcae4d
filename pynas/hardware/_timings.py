"""What a latency table keeps of its measurements."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import Literal

Use = Literal["fit", "held out"]


@dataclass(slots=True)
class Measured:
    """Timing of a whole network: the median of each round, in milliseconds."""

    use: Use
    rounds: list[float] = field(default_factory=list)


@dataclass(slots=True)
class OperatorTiming:
    """Timing of an operator: (median, 20th and 80th percentile in ms, number of samples) of each round."""

    rounds: list[tuple[float, float, float, int]] = field(default_factory=list)

    @property
    def ms(self) -> float:
        """Median over rounds."""
        return statistics.median(r[0] for r in self.rounds)

    @property
    def spread(self) -> tuple[float, float]:
        """Median over rounds of the 20th and of the 80th percentile."""
        return statistics.median(r[1] for r in self.rounds), statistics.median(r[2] for r in self.rounds)
