"""The report of a search."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pynas import spaces
from pynas._errors import UserError
from pynas._plural import counted
from pynas.architecture import Architecture
from pynas.hardware.costs import ALWAYS, PROFILED
from pynas.ranking.pareto import mean_ranks, pareto_front
from pynas.ranking.rank import rank_scores
from pynas.report import _figures, document
from pynas.report._cell import draw_cell
from pynas.report._figures import hidden
from pynas.run.objectives import summary
from pynas.spaces.identity import DEFINITION, recorded_options
from pynas.store import Run
from pynas.trial import Status, Trial

if TYPE_CHECKING:
    from pynas.spaces import SearchSpace

_TOP = 10


def write_search_report(
    path: str | os.PathLike[str], run: Run, trials: Sequence[Trial], *, space: SearchSpace | None = None
) -> Path:
    """Write a page about a search; it opens without a network connection.

    It shows the best architecture and its cell, the best score over the trials, score against accuracy where
    that is known, the Pareto fronts of scores and costs (of FLOPs if no cost is an objective), the ten best
    trials, and the configuration of the search.

    Args:
        path: HTML file to write.
        run: The search.
        trials: Its trials.
        space: The search space, which names the architectures and draws the cell. Default: the registered
            space of the run's name; if there is none, the page shows decisions in place of names.

    Returns:
        ``path``.
    """
    page = _SearchPage(run, trials, space if space is not None else registered_space(run))
    config = run.config
    parts = [
        f"{config.strategy}",
        f"seed {config.seed}",
        counted(len(trials), "trial"),
        _date(_text(run.provenance.get("started", ""))),
    ]
    title = f"Search of {config.space} for {', '.join(config.objectives)}"
    return document.write_page(path, title, ", ".join(filter(None, parts)), page.body())


class _SearchPage:
    """The trials as columns, and the cards made of them."""

    def __init__(self, run: Run, trials: Sequence[Trial], space: SearchSpace | None) -> None:
        self.run = run
        self.objectives = run.config.objectives
        self.trials = trials
        self.space = space
        self.valid = [trial for trial in trials if trial.evaluation.status is Status.OK]
        rows = [[trial.evaluation.scores[name] for name in self.objectives] for trial in self.valid]
        ranks = mean_ranks(rows)
        self.order = sorted(range(len(ranks)), key=lambda i: -ranks[i])
        self.scores = np.array(rows).reshape(len(rows), len(self.objectives))
        self.accuracy = self._metric("accuracy")
        self.mega_flops = self._metric("flops") / 1e6
        self.labels = [self._label(trial.architecture) for trial in self.valid]
        self.hover = [self._hover(i) for i in range(len(self.valid))]
        table = run.config.config.get("table")
        dataset = _text(table.get("dataset", "")) if isinstance(table, dict) else ""
        percent = np.isfinite(self.accuracy).any() and np.nanmax(self.accuracy) > 1
        self.accuracy_label = f"{dataset} accuracy{' (%)' if percent else ''}".strip()

    def body(self) -> Iterator[str]:
        """The page's parts."""
        if not self.valid:
            messages = sorted({trial.evaluation.message for trial in self.trials})[:5]
            yield document.grid(
                [document.card("No trial succeeded", document.note("; ".join(messages)), wide=True)]
            )
        else:
            yield self._numbers()
            yield document.grid([self._best()])
            yield document.grid(self._charts())
            yield document.grid([document.card("The best trials", self._table(), wide=True)])
        yield document.grid([document.card("What the search ran with", self._facts(), wide=True)])

    def _numbers(self) -> str:
        best = self.order[0]
        metrics = self.valid[best].evaluation.metrics
        label = "best {} score" if len(self.objectives) == 1 else "{} score of the best trial"
        values = {}
        for name, score in zip(self.objectives, self.scores[best], strict=True):
            if name.startswith("-"):
                values[f"{name[1:]} of the best trial"] = _number(-score)
            else:
                values[label.format(name)] = _number(score)
        if len(self.objectives) > 1 and math.isfinite(volume := self._hypervolume()):
            values["hypervolume of the Pareto front"] = f"{volume:.3f}"
        if math.isfinite(self.accuracy[best]):
            values[f"its {self.accuracy_label}"] = f"{self.accuracy[best]:.2f}"
        if "params" in metrics:
            values["its parameters (millions)"] = f"{metrics['params'] / 1e6:.3f}"
        if "flops" in metrics:
            values["its FLOPs (millions of multiply-adds)"] = f"{metrics['flops'] / 1e6:.1f}"
        failed = len(self.trials) - len(self.valid)
        values[f"trials, {f'{failed:,}' if failed else 'none'} failed"] = f"{len(self.trials):,}"
        return document.numbers(values)

    def _hypervolume(self) -> float:
        if not (np.isfinite(self.mega_flops).all() or any(name.startswith("-") for name in self.objectives)):
            return math.nan  # there is no cost on the other axis
        known = (*ALWAYS, *PROFILED, *(name[1:] for name in self.objectives if name.startswith("-")))
        return summary(self.valid, self.objectives, known)[2]

    def _best(self) -> str:
        best = self.valid[self.order[0]]
        name = f'<p class="best"><code>{document.escaped(self.labels[self.order[0]])}</code></p>'
        space = self.space
        cell = "" if space is None else draw_cell(space.graph(best.architecture), space.node_labels)
        return document.card(
            f"The best architecture, found in trial {best.number + 1}", name + cell, wide=True
        )

    def _charts(self) -> list[str]:
        star = self.order[0]
        axes = self._cost_axes()
        cards = []
        for k, objective in enumerate(self.objectives):
            if objective in axes and len(axes) < len(self.objectives):
                continue  # a cost is the other axis of the scores' charts
            scores, label = self.scores[:, k], f"{objective} score"
            numbers = [trial.number + 1 for trial in self.valid]
            figure = _figures.progress(numbers, scores, len(self.trials), label, self.hover)
            charts = [(f"Best {objective} so far", document.plot(figure) + document.note(hidden(scores)))]
            for cost, (values, cost_label, bound) in axes.items():
                front = pareto_front(np.stack([scores, -values], axis=1))
                figure = _figures.pareto(
                    values, scores, front, label, self.hover, star=star, bound=bound, cost_label=cost_label
                )
                content = document.plot(figure) + document.note(hidden(scores))
                name = cost.removeprefix("-") or "cost"
                charts.append((f"{objective} and {name}: the Pareto front", content))
            if np.isfinite(self.accuracy).sum() >= 3:
                charts.append(self._against_accuracy(k))
            odd, last = len(charts) % 2 == 1, len(charts) - 1
            cards += [document.card(*chart, wide=odd and i == last) for i, chart in enumerate(charts)]
        return cards

    def _cost_axes(self) -> dict[str, tuple[_figures.Floats, str, float | None]]:
        """Values, label and bound of each cost that is an objective; else of FLOPs, under an empty name."""
        bounds = self.run.config.constraints
        axes: dict[str, tuple[_figures.Floats, str, float | None]] = {}
        for objective in self.objectives:
            name = objective.removeprefix("-")
            values = self._metric(name)
            if name != objective and np.isfinite(values).all():
                axes[objective] = values, name, bounds.get(name)
        if not axes and np.isfinite(self.mega_flops).all():
            bound = bounds.get("flops")
            axes[""] = self.mega_flops, _figures.FLOPS_LABEL, None if bound is None else bound / 1e6
        return axes

    def _against_accuracy(self, k: int) -> tuple[str, str]:
        """Heading and content: accuracy over score, the correlation in the heading."""
        known = np.flatnonzero(np.isfinite(self.accuracy))
        scores, accuracy = self.scores[known, k], self.accuracy[known]
        star = self.order[0]
        figure = _figures.against_accuracy(
            scores,
            accuracy,
            f"{self.objectives[k]} score",
            self.accuracy_label,
            [self.hover[i] for i in known],
            mega_flops=self.mega_flops[known],
            star=int(np.searchsorted(known, star)) if star in known else None,
        )
        correlation = rank_scores({"score": scores.tolist()}, accuracy.tolist(), resamples=1).correlations[
            "score"
        ]
        heading = (
            f"{self.objectives[k]} against accuracy: Spearman {correlation.spearman.value:.2f}, "
            f"Kendall {correlation.kendall.value:.2f}"
        )
        remarks = f"Over {counted(len(known), 'trial')} of this search, as its strategy chose them. "
        return heading, document.plot(figure, height=440) + document.note(remarks + hidden(scores, accuracy))

    def _table(self) -> str:
        known = bool(np.isfinite(self.accuracy).any())
        params = self._metric("params") / 1e6
        columns = ["", "architecture", *self.objectives, *([self.accuracy_label] if known else [])]
        columns += ["params (M)", "FLOPs (M)", "trial"]
        rows = []
        for place, i in enumerate(self.order[:_TOP], start=1):
            row = [str(place), self.labels[i], *map(_number, self.scores[i])]
            row += [_fixed(self.accuracy[i], 2)] if known else []
            row += [_fixed(params[i], 3), _fixed(self.mega_flops[i], 1), str(self.valid[i].number + 1)]
            rows.append(row)
        return document.table(columns, rows, text_columns=["architecture"])

    def _facts(self) -> str:
        config, provenance = self.run.config, self.run.provenance
        bounds = (f"{name} at most {bound:,.0f}" for name, bound in config.constraints.items())
        values = {
            "search space": config.space,
            "strategy": config.strategy,
            "seed": str(config.seed),
            "objectives": ", ".join(config.objectives),
            "constraints": ", ".join(bounds) or "none",
        }
        for name, value in sorted(config.config.items()):
            if value in ({}, None):
                continue
            values[{"space": "space options", "strategy": "strategy options"}.get(name, name)] = _text(value)
        values |= {name: _text(value) for name, value in sorted(provenance.items()) if name != "resumed"}
        if provenance.get("resumed"):
            values["resumed"] = ", ".join(_text(session.get("started")) for session in provenance["resumed"])
        values["seconds of evaluation"] = f"{sum(trial.evaluation.seconds for trial in self.trials):,.1f}"
        return document.facts({name.replace("_", " "): value for name, value in values.items()})

    def _metric(self, name: str) -> _figures.Floats:
        return np.array(
            [trial.evaluation.metrics.get(name, math.nan) for trial in self.valid], dtype=np.float64
        )

    def _label(self, architecture: Architecture) -> str:
        if self.space is None:
            return "-".join(map(str, architecture.decisions))
        return self.space.format(architecture)

    def _hover(self, i: int) -> str:
        """What the pointer shows beside a trial's value; plotly reads it as HTML."""
        lines = [self.labels[i], f"trial {self.valid[i].number + 1}"]
        lines += [
            f"{name} {_number(score)}" for name, score in zip(self.objectives, self.scores[i], strict=True)
        ]
        if math.isfinite(self.accuracy[i]):
            lines.append(f"accuracy {self.accuracy[i]:.2f}")
        if math.isfinite(self.mega_flops[i]):
            lines.append(f"{self.mega_flops[i]:.1f} M FLOPs")
        return "<br>".join(map(document.escaped, lines))


def registered_space(run: Run) -> SearchSpace | None:
    """The space that a run searched, if it is registered under its name; for a subset, the whole space.

    Raises:
        UserError: The space has no such options.
    """
    name, options = run.config.space, run.config.config.get("space", {})
    if name not in spaces.names():
        return None
    try:
        return spaces.get(name, **recorded_options(options))
    except Exception as error:  # a constructor may fail in any way on values from a file
        if DEFINITION in options:  # a custom space: the options are not all that it was made with
            return None
        raise UserError(f"run {run.id}: {name} cannot be made with {_text(options)}: {error}") from error


def _date(text: str) -> str:
    """``2026-11-22T18:27:23+00:00`` as ``2026-11-22 18:27 UTC``."""
    return f"{text[:10]} {text[11:16]} UTC" if text.endswith("+00:00") else text


def _number(value: float) -> str:
    return f"{value:,.3f}" if 0.01 <= abs(value) < 1e5 or value == 0 else f"{value:.4g}"


def _fixed(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else "–"


def _text(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text(inner)}" for name, inner in sorted(value.items())) or "none"
    if isinstance(value, list):
        return ", ".join(map(_text, value)) or "none"
    return value if isinstance(value, str) else "none" if value is None else json.dumps(value)
