"""What was done to a run while it ran, and the curve of its supernet's training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from pynas.store import _records
from pynas.store._database import ACTIONS, CURVES, has_steering, prepare_steering
from pynas.store._store import Store
from pynas.store._values import Action, Run


class Journal:
    """The actions of one run in the order in which they were done, and the points of its training.

    A store has the tables of this since its first steered search; without them a run has no actions.

    Args:
        store: The store of the run.
        run: The run.
        write: Whether anything is to be written, so that the tables have to be there.

    Raises:
        UserError: The store cannot be read or written; methods also if a row is damaged.
    """

    def __init__(self, store: Store, run: Run, *, write: bool = False) -> None:
        self._store, self._run = store, run
        with store._explained():
            if write:
                prepare_steering(store._connection)
            self._is_there = write or has_steering(store._connection)

    def actions(self) -> tuple[Action, ...]:
        """All actions of the run, by number, without gaps from 0."""
        if not self._is_there:
            return ()
        query = sa.select(ACTIONS).where(ACTIONS.c.run == self._run.id).order_by(ACTIONS.c.number)
        with self._store._transaction() as connection:
            rows = connection.execute(query).all()
        found = []
        for number, row in enumerate(rows):
            with self._store._located(f"run {self._run.id}, action {number}"):
                found.append(_records.action_of(row, number))
        return tuple(found)

    def count(self) -> int:
        """Number of actions of the run, without reading them."""
        if not self._is_there:
            return 0
        query = sa.select(sa.func.count()).select_from(ACTIONS).where(ACTIONS.c.run == self._run.id)
        with self._store._transaction() as connection:
            return int(connection.execute(query).scalar_one())

    def append(self, action: Action) -> None:
        """Write an action; it is committed when this returns."""
        with self._store._transaction() as connection:
            connection.execute(ACTIONS.insert(), _records.action_columns(self._run, action))

    def points(self) -> tuple[dict[str, Any], ...]:
        """The points of the training, by step."""
        if not self._is_there:
            return ()
        query = sa.select(CURVES).where(CURVES.c.run == self._run.id).order_by(CURVES.c.step)
        with self._store._transaction() as connection:
            rows = connection.execute(query).all()
        with self._store._located(f"run {self._run.id}, curve of the training"):
            return tuple([_records.point_of(row) for row in rows])

    def put_point(self, step: int, point: Mapping[str, Any]) -> None:
        """Write a point, in place of one of the same step."""
        same = (CURVES.c.run == self._run.id) & (CURVES.c.step == step)
        with self._store._transaction() as connection:
            connection.execute(CURVES.delete().where(same))
            connection.execute(CURVES.insert(), _records.point_columns(self._run, step, point))

    def forget_points(self, after: int) -> None:
        """Delete the points of steps after this one, which a resumed training makes again."""
        later = (CURVES.c.run == self._run.id) & (CURVES.c.step > after)
        with self._store._transaction() as connection:
            connection.execute(CURVES.delete().where(later))
