"""Who may talk to the server, from where, how much and how often."""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from pynas._errors import printable

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LARGEST_BODY = 4 << 20
POSTS, REQUESTS, STRANGERS = 50, 200, 20
"""Requests in a second: that change something, in all, and without a token. Twice that in a burst.

Those without a token are counted apart: any page of a browser can send them, and must not shut out the
analyst.
"""

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self' 'unsafe-inline'",  # plotly writes style elements
        "img-src 'self' data: blob:",
        "connect-src 'self'",
        "font-src 'self'",
        "worker-src 'self' blob:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}

_NOBODY = """<!doctype html><html lang="en"><meta charset="utf-8"><title>pynas steer</title>
<h1>pynas steer</h1><p>This page needs the address that the command printed, with its token.</p></html>"""


_ONWARD = """<!doctype html><html lang="en"><meta charset="utf-8">
<meta http-equiv="refresh" content="0; url=/">
<title>pynas steer</title><p><a href="/">pynas steer</a></p></html>"""

Refusal = tuple[int, str, dict[str, str]]
"""An answer by the guard itself: status, body, headers."""


class Bucket:
    """So many requests a second on average, twice that at once."""

    def __init__(self, rate: float) -> None:
        self._rate, self._left, self._at = rate, 2 * rate, time.monotonic()
        self._lock = threading.Lock()

    def take(self) -> bool:
        """Whether one more is allowed now."""
        with self._lock:
            now = time.monotonic()
            self._left = min(2 * self._rate, self._left + (now - self._at) * self._rate)
            self._at = now
            if self._left < 1:
                return False
            self._left -= 1
            return True


class Guard:
    """Refuses what comes from elsewhere, without the token, too large or too often; marks each answer.

    The token is compared in constant time. A cookie takes its place after the first visit, so that it does
    not stay in the address. ``Host`` must be one that is served, which keeps out pages that rebind their
    name to this machine; ``Origin`` must be the same, which keeps out those that send forms here.

    Args:
        app: What answers.
        token: The secret of this server.
        hosts: ``HOST:PORT`` that may be asked for.
        cookie: Name of the cookie.

    Attributes:
        once: Secrets that open the page one time each: others on this machine see the arguments of a browser.
    """

    def __init__(self, app: App, *, token: str, hosts: Iterable[str], cookie: str) -> None:
        self._app, self._token, self._cookie = app, token.encode(), cookie
        self._hosts = frozenset(host.lower() for host in hosts)
        self._requests, self._posts, self._strangers = Bucket(REQUESTS), Bucket(POSTS), Bucket(STRANGERS)
        self.once: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI application."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        headers = {
            name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]
        }
        marked = _marking(send)
        refused = self._foreign(headers)
        if refused is None and self._is_known(headers):
            refused = self._refusal(scope, headers)
        elif refused is None:
            refused = self._stranger(scope, headers)
        given = _query(scope).get("token") if _is_front(scope) else None
        if given is not None and (refused is None or refused[0] != 403):
            refused = self._welcome(given, headers) or refused
        if refused is not None:
            await _answer(marked, *refused)
            return
        await self._app(scope, _Limited(receive).receive, marked)

    def _stranger(self, scope: Scope, headers: dict[str, str]) -> Refusal:
        if not self._strangers.take():
            return 429, *_error("too_many", "too many requests without the token")
        if _is_front(scope):
            return 401, _NOBODY, {"content-type": "text/html; charset=utf-8"}
        return 401, *_error("unauthorized", "no valid token: open the address that the command printed")

    def _foreign(self, headers: dict[str, str]) -> Refusal | None:
        host = headers.get("host", "").lower()
        if host not in self._hosts:
            return 403, *_error("forbidden", f"host {printable(host)[:80]!r} is not served here")
        origin = headers.get("origin")
        if origin is not None and origin.lower() not in (f"http://{host}", f"https://{host}"):
            return 403, *_error("forbidden", "a page of another origin asks")
        return None

    def _refusal(self, scope: Scope, headers: dict[str, str]) -> Refusal | None:
        if not self._requests.take():
            return 429, *_error("too_many", "too many requests in a second; try again")
        if scope["method"] in ("GET", "HEAD"):
            return None
        if scope["method"] != "POST":
            return 405, *_error("not_allowed", f"{printable(scope['method'])[:20]} is not used here")
        if not self._posts.take():
            return 429, *_error("too_many", "too many actions in a second; try again")
        if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return 415, *_error("not_json", "expected content-type application/json")
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit()) or int(length[:12]) > LARGEST_BODY:
            return 413, *_error("too_large", f"a body is at most {LARGEST_BODY:,} bytes")
        return None

    def _is_known(self, headers: dict[str, str]) -> bool:
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._matches(bearer.strip()):
            return True
        # By hand: http.cookies stops at the first odd one, and all servers of a machine share their cookies.
        for pair in headers.get("cookie", "").split(";"):
            name, _, value = pair.strip().partition("=")
            if name == self._cookie and self._matches(value):
                return True
        return False

    def _matches(self, given: str) -> bool:
        return secrets.compare_digest(given.encode("utf-8", "replace"), self._token)

    def _welcome(self, given: str, headers: dict[str, str]) -> Refusal | None:
        """The first visit: the token becomes a cookie, and leaves the address; None for a wrong one."""
        opened = [each for each in self.once if secrets.compare_digest(given.encode(), each.encode())]
        if not opened and not self._matches(given):
            return None
        self.once = [each for each in self.once if each not in opened]
        cookie = f"{self._cookie}={self._token.decode()}; HttpOnly; SameSite=Strict; Path=/"
        if headers.get("sec-fetch-site") == "cross-site":
            # A link on another site, such as a hosted notebook: what it redirects to would come without the
            # cookie, so the page asks for itself.
            page = _ONWARD, {"content-type": "text/html; charset=utf-8", "set-cookie": cookie}
            return 200, *page
        return 303, "", {"location": "/", "set-cookie": cookie}


class TooLarge(Exception):  # noqa: N818
    """A body without a length went on and on; what answers makes a 413 of it."""


class _Limited:
    """Counts the bytes of a body, whatever length it says."""

    def __init__(self, receive: Receive) -> None:
        self._receive, self._count = receive, 0

    async def receive(self) -> Message:
        message = await self._receive()
        self._count += len(message.get("body", b""))
        if self._count > LARGEST_BODY:
            raise TooLarge
        return message


def _marking(send: Send) -> Send:
    async def marked(message: Message) -> None:
        if message["type"] == "http.response.start":
            present = {name.lower() for name, _ in message.get("headers", ())}
            more = [
                (name.encode(), value.encode())
                for name, value in {**HEADERS, "cache-control": "no-store"}.items()
                if name.encode() not in present
            ]
            message = {**message, "headers": [*message.get("headers", ()), *more]}
        await send(message)

    return marked


def _error(code: str, message: str) -> tuple[str, dict[str, str]]:
    body = json.dumps({"error": {"code": code, "message": message, "argument": None}})
    more = {"retry-after": "1"} if code == "too_many" else {}
    return body, {"content-type": "application/json", **more}


def _is_front(scope: Scope) -> bool:
    return bool(scope["path"] == "/" and scope["method"] in ("GET", "HEAD"))


def _query(scope: Scope) -> dict[str, str]:
    from urllib.parse import parse_qsl

    try:
        return dict(parse_qsl(scope.get("query_string", b"").decode("latin-1"), max_num_fields=20))
    except ValueError:
        return {}


async def _answer(send: Send, status: int, body: str, headers: dict[str, str]) -> None:
    content = body.encode()
    listed = {**headers, "content-length": str(len(content))}
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [(name.encode(), value.encode("latin-1")) for name, value in listed.items()],
        }
    )
    await send({"type": "http.response.body", "body": content})
