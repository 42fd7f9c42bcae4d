"""The quality of an architecture: the number to rank by, and its unit."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Quality:
    """Name and units, for display, of a measure of architectures of which more is better.

    Attributes:
        name: Name of the measure.
        unit: Unit of a value.
        difference: Unit of a difference of two values.
    """

    name: str
    unit: str
    difference: str


ACCURACY = Quality("accuracy", "%", "points")
"""Percent of the validation images that are classified correctly."""

LOG_LIKELIHOOD = Quality("log likelihood", "nats a word", "nats a word")
"""Negative mean cross-entropy of the validation words; the perplexity is ``exp(-log likelihood)``."""
