"""The tables, the connection, and the check that a database is an intact store."""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy import exc

from pynas._errors import UserError
from pynas._io.atomic import check_output
from pynas.store._location import Location

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

# Tables of steered searches, made when the first one begins: stores without them are whole.
STEERING = sa.MetaData()
ACTIONS = sa.Table(
    "actions",
    STEERING,
    sa.Column("run", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("trial", sa.Integer, nullable=False),
    sa.Column("step", sa.Integer, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("who", sa.Text, nullable=False),
    sa.Column("time", sa.Text, nullable=False),
    sa.Column("fields", sa.Text, nullable=False),  # JSON
)
CURVES = sa.Table(
    "curves",
    STEERING,
    sa.Column("run", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("step", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("point", sa.Text, nullable=False),  # JSON
)

BUSY_SECONDS = 30  # for which a connection waits while another one writes
DAMAGED = "the store is damaged: restore a copy, or use another store"

_MAKING_TABLES = 0x70796E6173  # "pynas": advisory lock of the process that creates the PostgreSQL tables
# Detect a lost network after two minutes, not after hours.
_PATIENCE = {
    "connect_timeout": "10",
    "keepalives_idle": "60",
    "keepalives_interval": "10",
    "keepalives_count": "6",
    "tcp_user_timeout": "120000",
}


def open_engine(location: Location, read_only: bool) -> sa.Engine:
    """An engine for a location; UserError if there cannot be one."""
    name, url, file = location.name, location.url, location.file
    if file is not None:
        try:
            _check_file(file, name, must_exist=read_only)
        except UserError as error:
            raise UserError(location.hide(str(error))) from None
        if read_only:
            url = _reading(url, file, unchanging=False)
    elif url.drivername == "postgresql+psycopg":
        url = url.update_query_dict({key: value for key, value in _PATIENCE.items() if key not in url.query})
    try:
        # There is a single connection, so no pool is needed.
        engine = sa.create_engine(url, poolclass=sa.NullPool, pool_reset_on_return=None)
    except (exc.NoSuchModuleError, ModuleNotFoundError) as error:
        hint = ": pip install 'pynas-torch[postgresql]'" if url.get_backend_name() == "postgresql" else ""
        raise UserError(f"{name}: the database driver is not installed ({error}){hint}") from error
    except (exc.SQLAlchemyError, TypeError, ValueError) as error:
        raise UserError(f"{name}: the URL cannot be used: {location.hide(str(error))}") from None
    if location.is_sqlite:
        # Begin transactions explicitly: Python's sqlite3 begins them late, and not before CREATE TABLE.
        # Writers take the write lock at once, since upgrading a read transaction fails if another process has
        # written.
        begin = "BEGIN" if read_only else "BEGIN IMMEDIATE"
        sa.event.listen(engine, "connect", _configure_reader if read_only else _configure_writer)
        sa.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin))
    elif read_only:
        return engine.execution_options(**{f"{url.get_backend_name()}_readonly": True})
    return engine


def connect(location: Location, read_only: bool) -> tuple[sa.Engine, sa.Connection]:
    """Open an engine and its connection.

    A reader of an SQLite file in write-ahead mode creates files next to it. If it may not, and nobody writes,
    it opens the file as immutable.

    Raises:
        UserError: There cannot be an engine.
        SQLAlchemyError: The database does not answer, or it is not a database.
    """
    engine = open_engine(location, read_only)
    try:
        connection = engine.connect()
        if location.file is None or not read_only:
            return engine, connection
        try:
            with connection.begin():
                connection.exec_driver_sql("SELECT count(*) FROM sqlite_master")
            return engine, connection
        except exc.OperationalError as error:
            connection.close()
            said = str(error.orig)
            if os.access(location.file.absolute().parent, os.W_OK) or not (
                "readonly" in said or "unable to open" in said
            ):
                raise
        return _connect_unchanging(location)
    except BaseException:
        engine.dispose()
        raise


def prepare(connection: sa.Connection, location: Location, read_only: bool) -> None:
    """Create the tables in an empty database, or check the existing ones.

    Raises:
        UserError: The database is not a store of pynas, is damaged, or was written by a newer version.
    """
    with connection.begin():
        names = sa.inspect(connection).get_table_names()
        if not names and not read_only:
            if connection.dialect.name == "postgresql":  # an SQLite transaction already holds the lock
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MAKING_TABLES)))
                names = sa.inspect(connection).get_table_names()  # another process may have made them
            if not names:
                METADATA.create_all(connection)
                connection.execute(SCHEMA.insert().values(version=SCHEMA_VERSION))
                return
        if SCHEMA.name not in names:
            raise UserError(f"{location.name}: not a store of pynas; give the path of a new file")
        if location.is_sqlite:
            found = connection.exec_driver_sql("PRAGMA integrity_check(1)").scalar_one()
            if found != "ok":
                raise UserError(f"{location.name}: {location.hide(found)}; {DAMAGED}")
        versions = connection.execute(sa.select(SCHEMA.c.version)).scalars().all()
        if not versions or not all(type(version) is int and version > 0 for version in versions):
            raise UserError(f"{location.name}: says no version of its layout; {DAMAGED}")
        if max(versions) > SCHEMA_VERSION:
            raise UserError(
                f"{location.name}: written by a newer pynas (layout {max(versions)}; this one knows "
                f"{SCHEMA_VERSION}): upgrade pynas, or use another store"
            )
        for table in METADATA.sorted_tables:
            present = _columns(connection, table.name) if table.name in names else ()
            missing = [column.name for column in table.columns if column.name not in present]
            if missing:
                raise UserError(f"{location.name}: table {table.name} has no {', '.join(missing)}; {DAMAGED}")


def prepare_steering(connection: sa.Connection) -> None:
    """Create the tables of steered searches where they are absent."""
    with connection.begin():
        if connection.dialect.name == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MAKING_TABLES)))
        STEERING.create_all(connection)


def has_steering(connection: sa.Connection) -> bool:
    """Whether the tables of steered searches are there."""
    with connection.begin():
        names = sa.inspect(connection).get_table_names()
    return all(table.name in names for table in STEERING.sorted_tables)


def _columns(connection: sa.Connection, table: str) -> tuple[str, ...]:
    return tuple(connection.execute(sa.text(f"SELECT * FROM {table} LIMIT 0")).keys())


def _check_file(file: Path, name: str, must_exist: bool) -> None:
    try:
        if file.is_dir():
            raise UserError(f"{name}: a directory; give the path of a file in it")
        if not file.parent.is_dir():
            raise UserError(f"{name}: the directory {file.parent} does not exist; make it first")
        if file.exists() and not file.is_file():
            raise UserError(f"{name}: a device or a pipe; give the path of a file")
        if must_exist and not file.exists():
            raise UserError(f"{name}: no such file; check the path, or run a search with this store first")
    except OSError as error:
        raise UserError(f"{name}: cannot be looked at: {error.strerror}; check the path") from error
    if not must_exist:
        check_output(file, name)


def _reading(url: sa.URL, file: Path, *, unchanging: bool) -> sa.URL:
    """The URL that reads a file and never creates one."""
    options = {"uri": "true", "mode": "rw"}  # without write permission, SQLite treats this as "ro"
    if unchanging:
        options |= {"mode": "ro", "immutable": "1"}
    return url.set(database=f"file:{quote(os.fsencode(file.absolute()))}").update_query_dict(options)


def _connect_unchanging(location: Location) -> tuple[sa.Engine, sa.Connection]:
    file = location.file
    assert file is not None

    def check() -> None:
        for suffix in ("-wal", "-journal"):
            beside = file.with_name(file.name + suffix)
            if beside.exists() and beside.stat().st_size:
                raise UserError(
                    f"{location.name}: its last trials are in {beside.name}, and reading those writes into "
                    "the folder, which may not be written: copy both files into another folder"
                )
        if _stamp(file) != before:
            raise UserError(f"{location.name}: another process has written it meanwhile; read it again")

    before = _stamp(file)
    check()
    engine = sa.create_engine(_reading(location.url, file, unchanging=True), poolclass=sa.NullPool)
    sa.event.listen(engine, "connect", _configure_reader)

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        check()
        connection.exec_driver_sql("BEGIN")

    return engine, engine.connect()


def _stamp(file: Path) -> tuple[int, int]:
    found = file.stat()
    return found.st_size, found.st_mtime_ns


def _configure_reader(connection: Any, record: object) -> None:
    connection.isolation_level = None  # leave transactions to the engine's "begin"
    connection.execute(f"PRAGMA busy_timeout = {1000 * BUSY_SECONDS}")
    connection.execute("PRAGMA query_only = ON")


def _configure_writer(connection: Any, record: object) -> None:
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout = {1000 * BUSY_SECONDS}")
    # In write-ahead mode a commit survives the death of the process without a flush; a power cut can lose the
    # last ones.
    _go_write_ahead(connection)
    for pragma in ("synchronous = NORMAL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")


def _go_write_ahead(connection: Any) -> None:
    """Switch to write-ahead mode; several may do so at once, and SQLite makes none of them wait for this."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.005)
        else:
            return
