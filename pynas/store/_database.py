"""Tables, the connection, and what a person can do about a database's errors."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc

from pynas._errors import UserError

SCHEMA_VERSION = 1

METADATA = sa.MetaData()
SCHEMA = sa.Table("pynas_schema", METADATA, sa.Column("version", sa.Integer, primary_key=True))
RUNS = sa.Table(
    "runs",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("key", sa.String(64), nullable=False, unique=True),  # hash of the configuration below
    sa.Column("space", sa.Text, nullable=False),
    sa.Column("strategy", sa.Text, nullable=False),
    sa.Column("seed", sa.BigInteger, nullable=False),
    sa.Column("objectives", sa.Text, nullable=False),  # JSON, like the columns after it
    sa.Column("constraints", sa.Text, nullable=False),
    sa.Column("config", sa.Text, nullable=False),
    sa.Column("provenance", sa.Text, nullable=False),
)
TRIALS = sa.Table(
    "trials",
    METADATA,
    sa.Column("run", sa.ForeignKey("runs.id"), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("architecture", sa.Text, nullable=False),
    sa.Column("evaluation", sa.Text, nullable=False),
)
STATES = sa.Table(
    "states",
    METADATA,
    sa.Column("run", sa.ForeignKey("runs.id"), primary_key=True),
    sa.Column("number", sa.Integer, nullable=False),  # how many trials the strategy had been told
    sa.Column("state", sa.Text, nullable=False),
)

# What databases say, and what to do about it; all but the last are SQLite's words.
_ADVICE = {
    "disk is full": "the disk is full; every trial up to here is kept: free some space, then resume",
    "disk I/O error": "the disk cannot be written, perhaps it is full; every trial up to here is kept",
    "not a database": "not a store of pynas; give the path of a new file",
    "malformed": "the file is damaged; restore a copy, or use another store",
    "readonly database": "the file cannot be written; change its permissions, or use another store",
    "unable to open": "the file cannot be opened; check the path and its permissions",
    "locked": "another process has locked it; let that finish first",
    "could not connect": "the database does not answer; check the URL",
}


def advice(message: str) -> str | None:
    """What a person can do about a database error with this message; None if that is not known."""
    return next((text for fragment, text in _ADVICE.items() if fragment in message), None)


def open_engine(location: str | os.PathLike[str], read_only: bool) -> tuple[sa.Engine, str]:
    """An engine for a path or URL, and the name by which messages call it; UserError if it cannot be."""
    url = _url(location)
    is_sqlite = url.get_backend_name() == "sqlite"
    if is_sqlite and url.database:
        _check_path(Path(url.database), must_exist=read_only)
    name = f"store {(url.database or 'in memory') if is_sqlite else url.render_as_string()}"
    try:
        engine = sa.create_engine(url)
    except (exc.NoSuchModuleError, ModuleNotFoundError) as error:
        raise UserError(f"{name}: the database driver is not installed ({error})") from error
    if is_sqlite:
        # Python's sqlite3 starts transactions late, and none before CREATE TABLE, so they are started here.
        # Writers take the write lock at once: upgrading a read transaction fails when another process has
        # written since.
        begin = "BEGIN" if read_only else "BEGIN IMMEDIATE"
        sa.event.listen(engine, "connect", _configure_reader if read_only else _configure_writer)
        sa.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin))
    return engine, name


def _url(location: str | os.PathLike[str]) -> sa.URL:
    text = os.fspath(location)
    if "://" not in text:
        return sa.URL.create("sqlite", database=text)
    try:
        return sa.make_url(text)
    except exc.ArgumentError as error:
        raise UserError(f"store: expected a path or a URL such as sqlite:///runs.db, got {text!r}") from error


def _check_path(path: Path, must_exist: bool) -> None:
    if path.is_dir():
        raise UserError(f"store {path}: a directory; give the path of a file in it")
    if not path.parent.is_dir():
        raise UserError(f"store {path}: the directory {path.parent} does not exist; make it first")
    if must_exist and not path.exists():
        raise UserError(f"store {path}: no such file; check the path, or run a search with this store first")


def _configure_reader(connection: Any, record: object) -> None:
    connection.isolation_level = None  # leave transactions to the engine's "begin"
    connection.execute("PRAGMA busy_timeout = 30000")


def _configure_writer(connection: Any, record: object) -> None:
    _configure_reader(connection, record)
    # In write-ahead mode a commit survives the death of the process without a flush; a power cut can take the
    # last.
    for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")
