"""Known accuracies as the evaluator of a search."""

from __future__ import annotations

from typing import Any

from pynas.architecture import Architecture
from pynas.run.identity import table_facts
from pynas.tables import Table
from pynas.trial import Evaluation, Status


class TableEvaluator:
    """Scores by a table: ``accuracy`` is what it knows; what it does not know has failed."""

    def __init__(self, table: Table) -> None:
        self.table = table

    @property
    def config(self) -> dict[str, Any]:
        """The table, with a digest of its values."""
        return {"table": table_facts(self.table)}

    def __call__(self, architecture: Architecture) -> Evaluation:
        """The accuracy in the table."""
        value = self.table.accuracy(architecture)
        if value is None:
            return Evaluation(Status.FAILED, message=f"{self.table.name} does not know it")
        return Evaluation(Status.OK, {"accuracy": value})
