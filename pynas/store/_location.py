"""The location of a store: path or URL, its name in messages, and the secrets to hide in them."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, quote_plus

import sqlalchemy as sa
from sqlalchemy import exc

from pynas._errors import UserError
from pynas._io.atomic import check_output

# Options of a URL that messages may show; all others, such as "password" or misspelt ones, are hidden.
_OPEN = ("host", "hostaddr", "port", "dbname", "user", "sslmode", "application_name", "connect_timeout")
_PASSWORD = re.compile(":(.*)@", re.DOTALL)
_SHORT = 4  # secrets of so few characters occur inside ordinary words


@dataclass(frozen=True)
class Location:
    """A store's URL.

    Attributes:
        url: URL for the engine.
        file: The file of an SQLite store; None in memory and on a server.
        name: Name in messages, without passwords.
        secrets: What to hide in foreign messages: the URL's passwords, as written and decoded.
    """

    url: sa.URL
    file: Path | None
    name: str
    secrets: tuple[str, ...]

    @property
    def is_sqlite(self) -> bool:
        """Whether it is in a file or in memory, not on a server."""
        return self.url.get_backend_name() == "sqlite"

    def hide(self, message: str) -> str:
        """A database's ``message`` as one line, without the URL's passwords."""
        line = "; ".join(filter(None, map(str.strip, message.splitlines())))
        for secret in self.secrets:
            if len(secret) >= _SHORT:
                line = line.replace(secret, "***")
            elif secret in line:
                return "what the driver says is left out: the password is in it"
        return line


def locate(location: str | os.PathLike[str]) -> Location:
    """Read a path or URL.

    Raises:
        UserError: It is neither.
    """
    text = os.fspath(location)
    if "\0" in text:
        raise UserError(f"store {text!r}: a zero byte can stand in no path or URL")
    url = _url(text)
    if url.get_backend_name() == "sqlite":
        path = url.database or ""
        has_file = path not in ("", ":memory:") and not path.startswith("file:")  # SQLite's own URLs
        # A URL that lacks "://" counts as a path.
        secrets = {form for secret in _PASSWORD.findall(path) for form in (secret, str(Path(secret)))}
        name = f"store {_redacted(path) or 'in memory'}"
        return Location(url, Path(path) if has_file else None, name, tuple(filter(None, secrets)))
    if url.host is not None and "@" in url.host:
        raise UserError("store: an @ in a user's name or password is written %40 in a URL")
    hidden = {name: "***" for name in url.query if name not in _OPEN}
    shown = url.update_query_dict(hidden).render_as_string().replace(quote_plus("***"), "***")
    return Location(url, None, f"store {shown}", _secrets(url, hidden))


def check_location(location: str | os.PathLike[str], argument: str) -> None:
    """Raise UserError, before any work is done, if the location is not writable; does not contact servers."""
    if not os.fspath(location):
        raise UserError(f"{argument}: expected a file or a URL, got an empty text")
    found = locate(location)
    if found.file is not None:
        check_output(found.file, argument)


def _url(text: str) -> sa.URL:
    if "://" not in text:
        return sa.URL.create("sqlite", database=text)
    try:
        url = sa.make_url(text)
    except (exc.ArgumentError, ValueError):  # its message may contain the password
        raise UserError(
            f"store: expected a path or a URL such as sqlite:///runs.db, got {_redacted(text)!r}"
        ) from None
    if url.drivername in ("postgresql", "postgres"):
        return url.set(drivername="postgresql+psycopg")
    return url


def _redacted(text: str) -> str:
    """A text that may be a malformed URL, without what may be a password."""
    scheme, separator, rest = text.partition("://")
    rest = rest if separator else text
    rest = _PASSWORD.sub(":***@", rest)
    rest = re.sub(rf"([?&](?!(?:{'|'.join(_OPEN)})=)[^=&]*=)[^&]*", r"\1***", rest)
    return f"{scheme}{separator}{rest}" if separator else rest


def _secrets(url: sa.URL, names: dict[str, str]) -> tuple[str, ...]:
    found = [] if url.password is None else [str(url.password)]
    for name in names:
        value = url.query[name]
        found += [value] if isinstance(value, str) else value
    written = {form for secret in found for form in (secret, quote(secret, safe=""), quote_plus(secret))}
    return tuple(
        sorted(filter(None, written), key=len, reverse=True)
    )  # longest first: one may contain another
