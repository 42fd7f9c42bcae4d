"""Numbers with their nouns in messages and pages: "1 epoch", "2 epochs", "1,234 architectures"."""

from __future__ import annotations


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """``count`` with thousands separated, and ``noun`` in the number that goes with it.

    Args:
        count: How many.
        noun: Singular; may carry adjectives, as in ``"slow case"``.
        plural: Where it is not the singular and an s: ``counted(2, "index", "indices")``.
    """
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"
