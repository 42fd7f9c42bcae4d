"""What a search gives: its trials, the best of them, and these as a table."""

from __future__ import annotations

import csv
import io
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pynas._errors import UserError
from pynas._io.atomic import check_output, replacing
from pynas._plural import counted
from pynas.store import Run
from pynas.trial import Status, Trial

if TYPE_CHECKING:
    from pynas.export import Exported
    from pynas.spaces import SearchSpace


@dataclass(frozen=True, slots=True, repr=False)
class SearchResult:
    """What a search found.

    Attributes:
        run: The search's configuration and provenance, and its number in the store.
        trials: Every trial by number, those of earlier sessions of a resumed search included.
        best: The trial with the highest objective, or with several the highest mean rank; None if all failed.
        pareto: The trials that no other beats in every objective, by number; where no objective is a cost,
            FLOPs count as another one.
        seconds: Wall-clock seconds of this session.
        overhead_seconds: Those of them spent in the search itself: ask, tell, canonical forms, costs, store.
        hypervolume: Share of the box between the worst and the best value of each objective among the trials
            that the front dominates, in [0, 1]; NaN if all failed, and on more than four axes.
        space: The space that was searched.
    """

    run: Run
    trials: tuple[Trial, ...]
    best: Trial | None
    pareto: tuple[Trial, ...]
    seconds: float
    overhead_seconds: float
    hypervolume: float = math.nan
    space: SearchSpace | None = None

    def export(
        self,
        path: str | os.PathLike[str],
        *,
        trial: Trial | None = None,
        space: SearchSpace | None = None,
        **options: Any,
    ) -> Exported:
        """Write the network of the best trial for a place without pynas: see :func:`pynas.export.export`.

        Args:
            path: File to write.
            trial: Another trial.
            space: The space that was searched; needed for one of your own.
            **options: ``to``, ``model``, ``weights``, ``num_classes``, ``image_size`` and others.

        Raises:
            UserError: All trials failed, or the space is not known; and those of the function.
        """
        from pynas import spaces
        from pynas.export import export, found_by
        from pynas.spaces.identity import DEFINITION, recorded_options

        chosen, config = trial or self.best, self.run.config
        if chosen is None:
            raise UserError("trial: every trial failed; give the one to export")
        space = space or self.space
        if space is None:
            known = config.config.get("space", {})
            if config.space not in spaces.names() or DEFINITION in known:
                raise UserError(f"space: {config.space} is of your own; pass the one that was searched")
            space = spaces.get(config.space, **recorded_options(known))
        options = {"num_classes": config.config.get("num_classes", 10), **options}
        found = found_by(config, chosen, len(self.trials))
        return export(space, chosen.architecture, os.fspath(path), found=found, **options)

    def __repr__(self) -> str:
        """Best, number of trials and size of the front, on a few lines."""
        config = self.run.config
        failed = sum(trial.evaluation.status is not Status.OK for trial in self.trials)
        count = counted(len(self.trials), "trial") + (f" ({failed:,} failed)" if failed else "")
        lines = [
            f"SearchResult: {count} of {config.space} by {config.strategy}, "
            f"{counted(len(self.pareto), 'trial')} on the front"
        ]
        images = config.config.get("images")
        lines[0] += f", images {images}" if isinstance(images, str) else ""
        if self.best is None:
            return "\n".join([*lines, f"  {self.failure or 'no trial'}"])
        scores = self.best.evaluation.scores
        known = ", ".join(f"{name} {scores[name]:.4g}" for name in config.objectives)
        return "\n".join([*lines, f"  best: {self.text(self.best)}", f"  {known}"])

    @property
    def failure(self) -> str:
        """Why there is no best trial: how many failed, and the first reason; empty where there is one."""
        if self.best is not None or not self.trials:
            return ""
        first = self.trials[0].evaluation
        reason = first.message or "no reason was given"
        all_of = "the only trial" if len(self.trials) == 1 else f"all {counted(len(self.trials), 'trial')}"
        return f"{all_of} failed; the first: {reason}"

    def text(self, trial: Trial) -> str:
        """The architecture of a trial in the notation of its space."""
        if self.space is None:
            return trial.architecture.to_json()
        return self.space.format(trial.architecture)

    def rows(self) -> list[dict[str, Any]]:
        """Each trial as one record: number, architecture, status, scores, metrics, seconds, message.

        A score and a metric of one name are one column, the score's.
        """
        names = {
            name: None
            for t in self.trials
            for part in (t.evaluation.scores, t.evaluation.metrics)
            for name in part
        }
        found = []
        for trial in self.trials:
            each = trial.evaluation
            values = {**each.metrics, **each.scores}
            found.append(
                {"trial": trial.number, "architecture": self.text(trial), "status": each.status.value}
                | {name: values.get(name, math.nan) for name in names}
                | {"seconds": each.seconds, "message": each.message}
            )
        return found

    def to_dataframe(self) -> Any:
        """:meth:`rows` as a ``pandas.DataFrame``; UserError where pandas is not installed."""
        try:
            import pandas
        except ImportError:
            raise UserError("to_dataframe: needs pandas; install it with: pip install pandas") from None
        return pandas.DataFrame(self.rows())

    def to_csv(self, path: str | os.PathLike[str]) -> Path:
        """Write :meth:`rows` as CSV in UTF-8, whole or not at all; a number that is not known is empty.

        Raises:
            UserError: The file cannot be written.
        """
        rows = self.rows()
        names = list(rows[0]) if rows else ["trial", "architecture", "status", "seconds", "message"]
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, names, lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({k: "" if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()})
        target = Path(path)
        check_output(target, "csv")
        with replacing(target) as file:
            file.write(text.getvalue().encode())
        return target
