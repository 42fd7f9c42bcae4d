"""What is measured of architectures: the number that is ranked, and its unit."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Quality:
    """A measure of an architecture, of which more is better; for people.

    Attributes:
        name: Of the measure.
        unit: Of a value.
        difference: Of the difference of two.
    """

    name: str
    unit: str
    difference: str


ACCURACY = Quality("accuracy", "%", "points")
"""Percent of the validation images that are classified rightly."""

LOG_LIKELIHOOD = Quality("log likelihood", "nats a word", "nats a word")
"""Minus the mean cross-entropy of the validation words; perplexity is ``exp`` of minus it."""
