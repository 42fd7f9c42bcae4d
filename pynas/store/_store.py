"""The store itself."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc

from pynas._errors import UserError
from pynas._plural import counted
from pynas.architecture import Architecture
from pynas.store import _records
from pynas.store._advice import ConnectionLostError, explained
from pynas.store._database import DAMAGED, RUNS, STATES, TRIALS, connect, prepare
from pynas.store._location import locate
from pynas.store._records import DamageError
from pynas.store._values import Run, RunConfig
from pynas.trial import Trial

_INSERT_TRIAL = TRIALS.insert()
_INSERT_STATE = STATES.insert()
_DELETE_STATE = STATES.delete().where(STATES.c.run == sa.bindparam("of_run"))


class Store:
    """A database of searches. Use it as a context manager, or call :meth:`close`.

    Only one process may write a run at a time; others may read it meanwhile, and write other runs. It is not
    thread-safe.

    Args:
        location: Path of an SQLite file, or a database URL such as ``sqlite:///runs.db``.
        read_only: Never write; a file that does not exist is then an error instead of a new store.

    Raises:
        UserError: The location cannot be opened, is not a store of pynas, or was written by a newer version.
            Methods raise it if the disk is full or another process writes the same run.
    """

    def __init__(self, location: str | os.PathLike[str], *, read_only: bool = False) -> None:
        self._place = locate(location)
        self._read_only = read_only
        self._open()

    @property
    def location(self) -> str:
        """Name of the store in messages: its path, or its URL without passwords."""
        return self._place.name

    @property
    def file(self) -> Path | None:
        """The file of the store; None in memory and on a server."""
        return self._place.file

    def close(self) -> None:
        """Close the connection; everything appended is already committed."""
        with contextlib.suppress(exc.SQLAlchemyError):  # the connection may be lost
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
        return tuple(self._run_of(row) for row in rows)

    def run(self, run_id: int | None = None) -> Run:
        """The run with this number, or the latest one; UserError if there is none."""
        with self._transaction() as connection:
            known = connection.execute(sa.select(RUNS.c.id).order_by(RUNS.c.id)).scalars().all()
            wanted = known[-1] if run_id is None and known else run_id
            rows = connection.execute(sa.select(RUNS).where(RUNS.c.id == wanted)).all()
        if not rows:
            named = "no run" if run_id is None else f"no run {run_id}"
            raise UserError(f"{self.location}: {named}; runs in it: {', '.join(map(str, known)) or 'none'}")
        return self._run_of(rows[0])

    def start(self, config: RunConfig, provenance: Mapping[str, Any], *, resume: bool = False) -> Run:
        """Register a new run, or find the one to continue.

        Args:
            config: Configuration, which identifies the run.
            provenance: Facts about this session (versions, device), stored with the run; those of later
                sessions are appended under ``"resumed"``.
            resume: Resume the run with this configuration; in an empty store, start a new one.

        Raises:
            UserError: Without ``resume``, the run already exists; with it, there are only runs with other
                configurations. Or the database cannot hold the seed or a name.
        """
        values = _records.run_columns(config, provenance)
        with self._transaction() as connection:
            rows = connection.execute(sa.select(RUNS).where(RUNS.c.key == values["key"])).all()
        found = self._run_of(rows[0]) if rows else None
        if found is None and resume and (runs := self.runs()):
            nearest = min(reversed(runs), key=lambda run: len(config.differences(run.config)))
            raise UserError(
                f"{self.location}: no run with this configuration to resume; run {nearest.id} differs in "
                f"{'; '.join(config.differences(nearest.config))}. Use the same settings, or another store"
            )
        if found is not None and not resume:
            raise UserError(
                f"{self.location}: run {found.id} has this configuration already, with "
                f"{counted(len(self.trials(found)), 'trial')}: resume it, or use another store or seed"
            )
        with self._transaction() as connection:
            if found is None:
                inserted = connection.execute(RUNS.insert().values(values)).inserted_primary_key
                assert inserted is not None
                return Run(inserted[0], config, provenance)
            resumed = [*found.provenance.get("resumed", []), provenance]
            merged = {**found.provenance, "resumed": resumed}
            changed = {"provenance": _records.run_columns(config, merged)["provenance"]}
            connection.execute(RUNS.update().where(RUNS.c.id == found.id).values(changed))
            return Run(found.id, found.config, merged)

    # ---- trials and states -------------------------------------------------------------------------------

    def trials(
        self, run: Run, *, check: Callable[[Architecture], object] = lambda architecture: None
    ) -> tuple[Trial, ...]:
        """The trials of a run, by number, without gaps from 0.

        Args:
            run: A run of this store.
            check: Raises UserError for an architecture that is not in the search space, such as
                :meth:`SearchSpace.check`.

        Raises:
            UserError: A trial is damaged or missing.
        """
        query = sa.select(TRIALS).where(TRIALS.c.run == run.id).order_by(TRIALS.c.number)
        with self._transaction() as connection:
            rows = connection.execute(query).all()
        trials = []
        for number, row in enumerate(rows):
            with self._located(f"run {run.id}, trial {number}"):
                trials.append(_records.trial_of(row, number, run.config))
                try:
                    check(trials[-1].architecture)
                except UserError as error:
                    raise DamageError(str(error)) from error
        return tuple(trials)

    def count(self, run: Run) -> int:
        """Number of trials of a run, without reading them."""
        query = sa.select(sa.func.count()).select_from(TRIALS).where(TRIALS.c.run == run.id)
        with self._transaction() as connection:
            return int(connection.execute(query).scalar_one())

    def state(self, run: Run) -> tuple[int, dict[str, Any]] | None:
        """The latest strategy state of a run, with its number of trials; None if there is none."""
        count = sa.select(sa.func.count()).where(TRIALS.c.run == run.id).scalar_subquery().label("trials")
        query = sa.select(STATES.c.number, STATES.c.state, count).where(STATES.c.run == run.id)
        with self._transaction() as connection:
            rows = connection.execute(query).all()
        with self._located(f"run {run.id}, state of the strategy"):
            if len(rows) > 1:
                raise DamageError("there are several")
            return _records.state_of(rows[0]) if rows else None

    def append(self, run: Run, trial: Trial, state: Mapping[str, Any] | None = None) -> None:
        """Write a trial and, if given, the strategy's state after it, in one transaction.

        If the connection is lost, it reconnects once; a trial whose commit was not confirmed counts as
        written if the database has it.
        """
        values = _records.trial_columns(run, trial)
        saved = None if state is None else _records.state_columns(run, trial.number + 1, state)
        try:
            self._append(values, saved)
        except ConnectionLostError:
            self.close()
            self._open()
            if not self._has(values):
                self._append(values, saved)

    def _append(self, trial: Mapping[str, Any], state: Mapping[str, Any] | None) -> None:
        with self._transaction() as connection:
            connection.execute(_INSERT_TRIAL, trial)
            if state is not None:
                connection.execute(_DELETE_STATE, {"of_run": state["run"]})
                connection.execute(_INSERT_STATE, state)

    def _has(self, trial: Mapping[str, Any]) -> bool:
        """Whether this trial was written; UserError if another one was, or if earlier trials are missing."""
        columns = (TRIALS.c.number, TRIALS.c.architecture, TRIALS.c.evaluation)
        after = sa.select(*columns).where(TRIALS.c.run == trial["run"], TRIALS.c.number >= trial["number"])
        before = sa.select(sa.func.count()).where(
            TRIALS.c.run == trial["run"], TRIALS.c.number < trial["number"]
        )
        with self._transaction() as connection:
            rows = [dict(row) for row in connection.execute(after).mappings()]
            count = connection.execute(before).scalar_one()
        if count != trial["number"]:
            raise UserError(
                f"{self.location}: the database came back with {count:,} of "
                f"{counted(trial['number'], 'trial')} of run {trial['run']}: resume to continue from these"
            )
        if not rows:
            return False
        if rows != [{name: value for name, value in trial.items() if name != "run"}]:
            raise UserError(
                f"{self.location}: another process is writing the same run; let one of them finish"
            )
        return True

    # ---- the database ------------------------------------------------------------------------------------

    def _open(self) -> None:
        with self._explained():
            self._engine, self._connection = connect(self._place, self._read_only)
            try:
                prepare(self._connection, self._place, self._read_only)
            except BaseException:
                self.close()
                raise

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        with self._explained(), self._connection.begin():
            yield self._connection

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Convert errors of the database to UserError."""
        try:
            yield
        except exc.SQLAlchemyError as error:
            # Not as the cause if its text may contain a password, which a traceback would show.
            raise explained(error, self._place) from (error if self._place.is_sqlite else None)
        except UnicodeDecodeError as error:
            raise UserError(f"{self.location}: {error}; {DAMAGED}") from error

    @contextlib.contextmanager
    def _located(self, where: str) -> Iterator[None]:
        """Add the place of the damage to the error."""
        try:
            yield
        except DamageError as error:
            raise UserError(f"{self.location}: {where}: {error}; {DAMAGED}") from error

    def _run_of(self, row: Any) -> Run:
        with self._located(f"run {row.id}"):
            return _records.run_of(row)
