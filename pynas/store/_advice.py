"""Advice for errors of databases."""

from __future__ import annotations

from sqlalchemy import exc

from pynas._errors import UserError
from pynas.store._location import Location

KEPT = "every trial up to here is kept"

# Parts of error messages of SQLite, PostgreSQL and psycopg, and what to do about them.
_ADVICE = {
    "disk is full": f"the disk is full; {KEPT}: free some space, then resume",
    "No space left": f"the disk is full; {KEPT}: free some space, then resume",
    "disk I/O error": f"the disk cannot be written, perhaps it is full; {KEPT}",
    "not a database": "not a store of pynas; give the path of a new file",
    "malformed": "the file is damaged; restore a copy, or use another store",
    "Could not decode": "the file is damaged; restore a copy, or use another store",
    "readonly": "the file cannot be written; change its permissions, or use another store",
    "unable to open": "the file cannot be opened; check the path and its permissions",
    "locked": "another process has locked it; let that finish first",
    "password authentication failed": "the user's name or password is wrong; check the URL",
    "no password supplied": "the database asks for a password; put it into the URL, or into ~/.pgpass",
    "pg_hba.conf": "the database does not let this user in from here; ask who runs it",
    '" does not exist': "the database or the user is not there; check the URL, or make it first (createdb)",
    "permission denied": "this user may not do that; ask who runs the database",
    "read-only transaction": "the database cannot be written now; use its primary server",
    "too many": "the database has no connection left; let another process end first",
    "starting up": "the database is starting up; try again in a moment",
    "shutting down": f"the database is shutting down; {KEPT}: resume when it is back",
    "connection option": "the URL has an option that the database does not know; check it",
    "invalid sslmode": "the URL has an option that the database does not know; check it",
}
_NO_ANSWER = (
    "could not connect",
    "Connection refused",
    "connection failed",
    "connection timeout",
    "failed to resolve",
    "could not translate",
    "No route to host",
    "server running",
)


class ConnectionLostError(UserError):
    """The connection was lost; it is unknown whether the current operation was completed."""


def explained(error: exc.SQLAlchemyError, location: Location) -> UserError:
    """The error as one readable line, without passwords."""
    original = getattr(error, "orig", None)
    said = location.hide(str(error if original is None else original))
    if isinstance(error, exc.DBAPIError) and error.connection_invalidated:
        return ConnectionLostError(
            f"{location.name}: the connection was lost; {KEPT}: resume when the database is back ({said})"
        )
    if isinstance(error, exc.IntegrityError) and "unique" in said.lower():
        return UserError(f"{location.name}: another process is writing the same run; let one of them finish")
    known = next((text for fragment, text in _ADVICE.items() if fragment in said), None)
    if known is None and any(fragment in said for fragment in _NO_ANSWER):
        known = "the database does not answer; check the URL, and that its server runs"
    return UserError(f"{location.name}: {known or 'the database cannot do it'} ({said})")
