"""Why a cell of the table of ``pynas rank`` holds no number."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pynas._plural import counted

if TYPE_CHECKING:
    from pynas.ranking import Ranking

LEAST = 3  # architectures that a rank correlation needs


def notes(ranking: Ranking) -> Iterator[str]:
    """One line for each kind of cell that is empty or not defined."""
    groups = {f"in the top {100 * ranking.top:g} %": ("kendall_top", "count_top")}
    if ranking.bounds:
        groups[ranking.constraint] = ("kendall_within", "count_within")
    for where, (field, count) in groups.items():
        empty = [name for name, c in ranking.correlations.items() if getattr(c, field) is None]
        if empty:
            most = max(getattr(ranking.correlations[name], count) for name in empty)
            relax = "--top" if field == "kendall_top" else "--constraint"
            yield (
                f"-: {', '.join(empty)} {'has' if len(empty) == 1 else 'have'} scores for {most} "
                f"{where}, and a correlation needs {LEAST}: use a larger --sample or {relax}"
            )
    constant = [name for name, c in ranking.correlations.items() if math.isnan(c.kendall.value)]
    if constant:
        yield f"nan: every architecture has the same score of {', '.join(constant)}, which orders none"
    failed = {name: c.excluded for name, c in ranking.correlations.items() if c.excluded}
    if failed:
        each = ", ".join(f"{name} of {counted(count, 'architecture')}" for name, count in failed.items())
        yield f"failed scores, which are left out: {each}"
