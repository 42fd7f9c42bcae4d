"""The store itself."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc

from pynas._errors import UserError
from pynas.architecture import Architecture
from pynas.store._database import METADATA, RUNS, SCHEMA, SCHEMA_VERSION, STATES, TRIALS, advice, open_engine
from pynas.store._values import Run, RunConfig, to_json
from pynas.trial import Evaluation, Trial

_INSERT_TRIAL = TRIALS.insert()
_INSERT_STATE = STATES.insert()
_DELETE_STATE = STATES.delete().where(STATES.c.run == sa.bindparam("of_run"))


class Store:
    """A database of searches. Use it as a context manager, or call :meth:`close`.

    One process writes a run at a time; others may read it meanwhile, and write other runs. Not for use by
    several threads at once.

    Args:
        location: Path of an SQLite file, or a database URL such as ``sqlite:///runs.db``.
        read_only: Nothing is written, and a file that does not exist is an error instead of a new store.

    Raises:
        UserError: the location cannot be opened, is something else than a store of pynas, or was written by a
            newer version. Methods raise it when the disk is full or another process writes the same run.
    """

    def __init__(self, location: str | os.PathLike[str], *, read_only: bool = False) -> None:
        self._engine, self.location = open_engine(location, read_only)
        try:
            with self._explained():
                self._connection = self._engine.connect()
                self._prepare(read_only)
        except BaseException:
            self._engine.dispose()
            raise

    def close(self) -> None:
        """Close the connection; what was appended is safe already."""
        self._connection.close()
        self._engine.dispose()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # ---- runs --------------------------------------------------------------------------------------------

    def runs(self) -> tuple[Run, ...]:
        """All runs, oldest first."""
        with self._transaction() as connection:
            rows = connection.execute(sa.select(RUNS).order_by(RUNS.c.id)).all()
        return tuple(_read_run(row) for row in rows)

    def run(self, run_id: int | None = None) -> Run:
        """The run with this number, or the latest one; UserError if there is none."""
        runs = self.runs()
        if run_id is None and runs:
            return runs[-1]
        for run in runs:
            if run.id == run_id:
                return run
        wanted = "no run" if run_id is None else f"no run {run_id}"
        raise UserError(
            f"{self.location}: {wanted}; runs in it: {', '.join(str(r.id) for r in runs) or 'none'}"
        )

    def start(self, config: RunConfig, provenance: Mapping[str, Any], *, resume: bool = False) -> Run:
        """Register a new run, or find the one to continue.

        Args:
            config: Identifies the run.
            provenance: Facts about this session (versions, device), kept with the run; those of later
                sessions are appended under ``"resumed"``.
            resume: Continue the run with this configuration; in an empty store that is a new one.

        Raises:
            UserError: without ``resume``, the run is there already; with it, only runs with other
                configurations are.
        """
        runs = self.runs()
        found = next((run for run in runs if run.config.key() == config.key()), None)
        if found is None and resume and runs:
            nearest = min(reversed(runs), key=lambda run: len(config.differences(run.config)))
            raise UserError(
                f"{self.location}: no run with this configuration to resume; run {nearest.id} differs in "
                f"{'; '.join(config.differences(nearest.config))}. Use the same settings, or another store"
            )
        if found is not None and not resume:
            raise UserError(
                f"{self.location}: run {found.id} has this configuration already, with "
                f"{len(self.trials(found))} trials: resume it, or use another store or seed"
            )
        with self._transaction() as connection:
            if found is None:
                values = _run_columns(config) | {"provenance": to_json(provenance)}
                inserted = connection.execute(RUNS.insert().values(values)).inserted_primary_key
                assert inserted is not None
                return Run(inserted[0], config, provenance)
            resumed = [*found.provenance.get("resumed", []), provenance]
            merged = {**found.provenance, "resumed": resumed}
            connection.execute(RUNS.update().where(RUNS.c.id == found.id).values(provenance=to_json(merged)))
            return Run(found.id, found.config, merged)

    # ---- trials and states -------------------------------------------------------------------------------

    def trials(self, run: Run) -> tuple[Trial, ...]:
        """The trials of a run, by number."""
        query = sa.select(TRIALS).where(TRIALS.c.run == run.id).order_by(TRIALS.c.number)
        with self._transaction() as connection:
            rows = connection.execute(query).all()
        return tuple(_read_trial(row) for row in rows)

    def state(self, run: Run) -> tuple[int, dict[str, Any]] | None:
        """The latest strategy state of a run and how many trials it knows; None if there is none."""
        with self._transaction() as connection:
            row = connection.execute(sa.select(STATES).where(STATES.c.run == run.id)).one_or_none()
        return None if row is None else (row.number, json.loads(row.state))

    def append(self, run: Run, trial: Trial, state: Mapping[str, Any] | None = None) -> None:
        """Write a trial and, if given, the strategy's state after it; both or, on any error, neither."""
        values = {
            "run": run.id,
            "number": trial.number,
            "architecture": trial.architecture.to_json(),
            "evaluation": to_json(trial.evaluation.to_dict()),
        }
        with self._transaction() as connection:
            connection.execute(_INSERT_TRIAL, values)
            if state is not None:
                saved = {"run": run.id, "number": trial.number + 1, "state": to_json(state)}
                connection.execute(_DELETE_STATE, {"of_run": run.id})
                connection.execute(_INSERT_STATE, saved)

    # ---- the database ------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        with self._explained(), self._connection.begin():
            yield self._connection

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn what a person can act on into a UserError."""
        try:
            yield
        except exc.IntegrityError as error:
            raise UserError(
                f"{self.location}: another process is writing the same run; let one of them finish"
            ) from error
        except exc.DatabaseError as error:
            known = advice(str(error.orig))
            if known is None:
                raise
            raise UserError(f"{self.location}: {known} ({error.orig})") from error

    def _prepare(self, read_only: bool) -> None:
        """Create the tables in an empty database; refuse one that is not ours or is from the future."""
        with self._connection.begin():
            tables = sa.inspect(self._connection).get_table_names()
            if not tables and not read_only:
                METADATA.create_all(self._connection)
                self._connection.execute(SCHEMA.insert().values(version=SCHEMA_VERSION))
                return
            if SCHEMA.name not in tables:
                raise UserError(f"{self.location}: not a store of pynas; give the path of a new file")
            version = self._connection.execute(sa.select(sa.func.max(SCHEMA.c.version))).scalar_one()
            if version > SCHEMA_VERSION:
                raise UserError(
                    f"{self.location}: written by a newer pynas (layout {version}; this one knows "
                    f"{SCHEMA_VERSION}): upgrade pynas, or use another store"
                )


def _run_columns(config: RunConfig) -> dict[str, Any]:
    return {
        "key": config.key(),
        "space": config.space,
        "strategy": config.strategy,
        "seed": config.seed,
        "objectives": to_json(config.objectives),
        "constraints": to_json(config.constraints),
        "config": to_json(config.config),
    }


def _read_run(row: Any) -> Run:
    config = RunConfig(
        space=row.space,
        strategy=row.strategy,
        seed=row.seed,
        objectives=tuple(json.loads(row.objectives)),
        constraints=json.loads(row.constraints),
        config=json.loads(row.config),
    )
    return Run(row.id, config, json.loads(row.provenance))


def _read_trial(row: Any) -> Trial:
    evaluation = Evaluation.from_dict(json.loads(row.evaluation))
    return Trial(row.number, Architecture.from_json(row.architecture), evaluation)
