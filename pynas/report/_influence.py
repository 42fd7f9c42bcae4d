"""Which decisions matter for a score, and the architectures in parallel coordinates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from pynas.architecture import Architecture
from pynas.report import _figures, document
from pynas.report._importance import importances
from pynas.spaces import SearchSpace

_LINES = 1000  # in parallel coordinates; more hide each other
_AXES = 12  # decisions in them
_BARS = 20


def cards(
    space: SearchSpace | None,
    architectures: Sequence[Architecture],
    values: Mapping[str, _figures.Floats],
    whose: str,
) -> list[str]:
    """Permutation importance of decisions, and parallel coordinates; only what there is enough for.

    Args:
        space: The space, which names decisions; None: they are numbered.
        architectures: At least three.
        values: By name; the importance is that for the first, which also colours the lines.
        whose: What has these values, as words: "trials", say.
    """
    decisions = [architecture.decisions for architecture in architectures]
    if len({len(row) for row in decisions}) != 1 or not decisions[0] or len(decisions) < 3:
        return []
    names, choices = _names(space, architectures)
    first, of_first = next(iter(values.items()))
    known = np.flatnonzero(np.isfinite(of_first))
    if len(known) < 3:
        return []
    made: list[str] = []
    found = importances([decisions[i] for i in known], of_first[known].tolist(), names)
    if found:
        shown = found[:_BARS]
        triples = [(mean, mean - deviation, mean + deviation) for _, mean, deviation in shown]
        figure = _figures.bars(
            [name for name, _, _ in shown], {"importance": triples}, "fall of R² when permuted"
        )
        figure.update_layout(showlegend=False)
        remark = (
            "Permutation importance: by how much a random forest, fitted to two thirds of the "
            f"{whose}, explains the others worse when the values of one decision are shuffled; whiskers are "
            "the standard deviation of 10 shuffles. It speaks of these architectures, not of the whole space."
        )
        made.append(
            document.card(
                f"Which decisions matter for {first}", document.plot(figure) + document.note(remark)
            )
        )
    varied = [i for i in range(len(decisions[0])) if len({row[i] for row in decisions}) > 1][:_AXES]
    lines = known[np.argsort(of_first[known], kind="stable")[-_LINES:]]
    figure = _figures.parallel(
        [(names[i], [decisions[k][i] for k in lines], choices[i]) for i in varied],
        {name: column[lines] for name, column in values.items()},
    )
    remark = "" if len(lines) == len(decisions) else f"The {len(lines):,} {whose} with the highest {first}. "
    remark += "Drag along an axis to keep the lines that pass there; drag a name to move its axis."
    width = 200 + 90 * (len(varied) + len(values) - 1)
    content = document.plot(figure, margin={"l": 110, "r": 90, "t": 60, "b": 30}, width=width)
    wide = not found or width > 640
    made.append(document.card("Parallel coordinates", content + document.note(remark), wide=wide))
    if wide and found:
        made[0] = made[0].replace('<section class="">', '<section class="wide">', 1)
    return made


def _names(
    space: SearchSpace | None, architectures: Sequence[Architecture]
) -> tuple[dict[int, str], list[dict[int, str]]]:
    """What each decision is, and its choices: those of a space of named choices, or the edges of a graph."""
    count = len(architectures[0].decisions)
    names = {i: f"decision {i + 1}" for i in range(count)}
    choices: list[dict[int, str]] = [{} for _ in range(count)]
    named = getattr(space, "choices", None)
    if isinstance(named, Mapping) and len(named) == count:
        return dict(enumerate(map(str, named))), [
            dict(enumerate(map(str, values))) for values in named.values()
        ]
    if space is None:
        return names, choices
    seen: list[dict[int, str]] = [{} for _ in range(count)]
    ends: list[tuple[int, int]] = []
    for architecture in architectures[:2000]:
        graph = space.graph(architecture)
        if len(graph) != count or (ends and [(e.source, e.target) for e in graph] != ends):
            return names, choices
        ends = [(e.source, e.target) for e in graph]
        for place, decision, edge in zip(seen, architecture.decisions, graph, strict=True):
            if place.setdefault(decision, edge.label) != edge.label:
                return names, choices
    last = max((target for _, target in ends), default=0)
    labels = space.node_labels or ("in", *map(str, range(1, last)), "out")
    return {i: f"{labels[s]} → {labels[t]}" for i, (s, t) in enumerate(ends)}, seen
