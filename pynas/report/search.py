"""The report of a search."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
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
from pynas.report import _figures, _influence, document
from pynas.report._architectures import Column, table_of_all, with_unit
from pynas.report._cell import draw_cell
from pynas.report._figures import hidden
from pynas.run.objectives import summary
from pynas.spaces.identity import DEFINITION, recorded_options
from pynas.store import Run
from pynas.trial import FIDELITY, Status, Trial

if TYPE_CHECKING:
    from pynas.spaces import SearchSpace

_TOP = 10
_HOVERED = ("accuracy", "flops", "params")  # metrics that the pointer shows beside the objectives


def write_search_report(
    path: str | os.PathLike[str],
    run: Run,
    trials: Sequence[Trial],
    *,
    space: SearchSpace | None = None,
    inline: bool = False,
) -> Path:
    """Write a page about a search; it opens without a network connection.

    It shows the best architecture and its cell, the best score over the trials, score against accuracy where
    that is known, the Pareto fronts of scores and costs (of FLOPs if no cost is an objective), which
    decisions matter, the ten best trials with the ranks that ruled, all trials in a table that sorts, and the
    configuration of the search. A click on a point draws its architecture and copies its text.

    Args:
        path: HTML file to write.
        run: The search.
        trials: Its trials.
        space: The search space, which names the architectures and draws the cell. Default: the registered
            space of the run's name; if there is none, the page shows decisions in place of names.
        inline: Put plotly.js, five megabytes, into the page, and not beside it.

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
    goals = [f"low {name[1:]}" if name.startswith("-") else name for name in config.objectives]
    title = f"Search of {config.space} for {', '.join(goals)}"
    return document.write_page(path, title, ", ".join(filter(None, parts)), page.body(), inline=inline)


class _SearchPage:
    """The trials as columns, and the cards made of them."""

    def __init__(self, run: Run, trials: Sequence[Trial], space: SearchSpace | None) -> None:
        self.run = run
        self.objectives = run.config.objectives
        self.trials = trials
        self.space = space
        self.valid = [trial for trial in trials if trial.evaluation.status is Status.OK]
        self.rows = [i for i, trial in enumerate(trials) if trial.evaluation.status is Status.OK]
        scores = [[trial.evaluation.scores[name] for name in self.objectives] for trial in self.valid]
        self.scores = np.array(scores).reshape(len(scores), len(self.objectives))
        # Ranks are among the trials of the highest fidelity, of which the best is one; others come after.
        fidelity = np.nan_to_num(self._metric(FIDELITY), nan=1.0)
        full = np.flatnonzero(fidelity == fidelity.max(initial=0.0))
        self.ranks = {
            name: dict(zip(full.tolist(), mean_ranks(self.scores[full, k, None].tolist()), strict=True))
            for k, name in enumerate(self.objectives)
        }
        self.mean_rank = dict(zip(full.tolist(), mean_ranks(self.scores[full].tolist()), strict=True))
        self.order = sorted(range(len(scores)), key=lambda i: (-self.mean_rank.get(i, -1.0), -fidelity[i], i))
        self.accuracy = self._metric("accuracy")
        self.mega_flops = self._metric("flops") / 1e6
        self.every_label = [self._label(trial.architecture) for trial in trials]
        self.labels = [self.every_label[i] for i in self.rows]
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
            yield document.grid(self._influence())
            yield document.grid([document.card("The best trials", self._table(), wide=True)])
        yield document.grid([document.card("All trials", self._all(), wide=True)])
        yield document.grid([document.card("What the search ran with", self._facts(), wide=True)])

    def _numbers(self) -> str:
        best = self.order[0]
        metrics = self.valid[best].evaluation.metrics
        label = "best {} score" if len(self.objectives) == 1 else "{} score of the best trial"
        values = {}
        for name, score in zip(self.objectives, self.scores[best], strict=True):
            if name.startswith("-"):
                values[f"{with_unit(name[1:])} of the best trial"] = _number(-score)
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
        cell = f'<div class="drawing">{cell}</div>' if cell else ""
        return document.card(
            f"The best architecture, found in trial {best.number + 1:,}", name + cell, wide=True
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
            figure = _figures.progress(numbers, scores, len(self.trials), label, self.rows)
            charts = [(f"Best {objective} so far", document.plot(figure) + document.note(hidden(scores)))]
            for cost, (values, cost_label, bound) in axes.items():
                front = pareto_front(np.stack([scores, -values], axis=1))
                figure = _figures.pareto(
                    values, scores, front, label, self.rows, star=star, bound=bound, cost_label=cost_label
                )
                content = document.plot(figure) + document.note(hidden(scores))
                name = cost.removeprefix("-") or "FLOPs"
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
                axes[objective] = values, with_unit(name), bounds.get(name)
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
            [self.rows[i] for i in known],
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
        ruled = self.objectives if len(self.objectives) > 1 else ()
        names = [with_unit(name.removeprefix("-")) for name in self.objectives]
        columns = ["", "architecture", *(["mean rank"] if ruled else []), *names]
        columns += [f"rank by {name.removeprefix('-')}" for name in ruled]
        columns += [*([self.accuracy_label] if known else []), "params (M)", "FLOPs (M)", "trial"]
        rows = []
        for place, i in enumerate(self.order[:_TOP], start=1):
            row = [str(place), self.labels[i]]
            row += [self._place(self.mean_rank, i)] if ruled else []
            row += [*self._values(i), *(self._place(self.ranks[name], i) for name in ruled)]
            row += [_fixed(self.accuracy[i], 2)] if known else []
            row += [_fixed(params[i], 3), _fixed(self.mega_flops[i], 1), str(self.valid[i].number + 1)]
            rows.append(row)
        return document.note(self._rule()) + document.table(columns, rows, text_columns=["architecture"])

    def _place(self, ranks: Mapping[int, float], i: int) -> str:
        """A rank as people count, 1 for the best, halves for ties; a dash for a trial of lower fidelity."""
        return f"{len(ranks) - ranks[i]:,.1f}".removesuffix(".0") if i in ranks else "–"

    def _values(self, i: int) -> list[str]:
        """The objectives of a trial; costs as they are, not negated."""
        pairs = zip(self.objectives, self.scores[i], strict=True)
        return [_number(-score if name.startswith("-") else score) for name, score in pairs]

    def _rule(self) -> str:
        """What decides which trial is the best."""
        if len(self.objectives) == 1:
            most = "lowest" if self.objectives[0].startswith("-") else "highest"
            return f"The best trial has the {most} {self.objectives[0].removeprefix('-')}."
        goals = ", ".join(
            f"{name.removeprefix('-')} ({'lower' if name.startswith('-') else 'higher'} is better)"
            for name in self.objectives
        )
        return (
            f"The best trial has the best mean rank. All {counted(len(self.mean_rank), 'trial')} that "
            f"succeeded are ranked by each of {goals} alone, 1 for the best and equal values sharing their "
            "mean; the ranks of a trial are averaged, so that no objective's unit counts."
        )

    def _all(self) -> str:
        """Every trial, failed ones with their message."""
        names = [name.removeprefix("-") for name in self.objectives]
        metrics = sorted({name for trial in self.trials for name in trial.evaluation.metrics})
        found = [trial.evaluation for trial in self.trials]
        columns = []
        for objective, name in zip(self.objectives, names, strict=True):
            sign = 1 if name == objective else -1
            values = [sign * each.scores.get(objective, math.nan) for each in found]
            columns.append(Column(with_unit(name), values, hover=True))
        if len(names) > 1:
            by_row = {self.rows[i]: rank for i, rank in self.mean_rank.items()}
            places = [len(by_row) - by_row[row] if row in by_row else math.nan for row in range(len(found))]
            columns.append(Column("mean rank", places, hover=True))
        for name in metrics:
            if name not in names:
                values = [each.metrics.get(name, math.nan) for each in found]
                columns.append(Column(with_unit(name), values, hover=name in _HOVERED))
        states = [f"{each.status}: {each.message}" if each.message else str(each.status) for each in found]
        columns.append(Column("status", states))
        graphs = [() if self.space is None else self.space.graph(trial.architecture) for trial in self.trials]
        failed = len(self.trials) - len(self.valid)
        remark = f"{counted(failed, 'trial')} failed; sort by status to see why. " if failed else ""
        remark += "A click on a row, or on a point of a plot, draws that architecture and copies its text."
        numbered = Column("trial", [trial.number + 1 for trial in self.trials])
        labels = () if self.space is None else self.space.node_labels
        table = table_of_all("trial", numbered, self.every_label, columns, graphs, labels)
        return document.note(remark) + table

    def _influence(self) -> list[str]:
        """Which decisions matter, and the trials in parallel coordinates."""
        values = {
            name.removeprefix("-"): -self.scores[:, k] if name.startswith("-") else self.scores[:, k]
            for k, name in enumerate(self.objectives)
        }
        if np.isfinite(self.accuracy).all():
            values[self.accuracy_label or "accuracy"] = self.accuracy
        return _influence.cards(self.space, [trial.architecture for trial in self.valid], values, "trials")

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
    return f"{value:,.3f}" if 0.01 <= abs(value) < 1e5 or value == 0 else _large(value)


def _large(value: float) -> str:
    return f"{value:,.0f}" if 1e5 <= abs(value) < 1e12 else f"{value:.4g}"


def _fixed(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else "–"


def _text(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text(inner)}" for name, inner in sorted(value.items())) or "none"
    if isinstance(value, list):
        return ", ".join(map(_text, value)) or "none"
    return value if isinstance(value, str) else "none" if value is None else json.dumps(value)
