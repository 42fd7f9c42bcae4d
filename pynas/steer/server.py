"""The server of the page: HTTP in front of a :class:`Steering`, and nothing of its own."""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pynas._errors import UserError
from pynas.steer import _design
from pynas.steer._routes import UNKNOWN, routes_of, too_large, unknown
from pynas.steer._security import Guard, TooLarge
from pynas.steer.steering import Steering

if TYPE_CHECKING:
    from pynas.spaces import SearchSpace

MISSING = "steering in a browser needs starlette and uvicorn: pip install 'pynas-torch[steer]'"
STATIC = Path(__file__).parent / "static"
_HEARTBEAT = 15.0


class Desk:
    """The search that the page shows, and how another takes its place.

    Args:
        steering: The search.
        another: Begins a search in another space, in the same store; None where that cannot be.
        folder: Where templates are saved; None where they cannot be.
    """

    def __init__(
        self,
        steering: Steering,
        another: Callable[[SearchSpace], Steering] | None = None,
        folder: Path | None = None,
    ) -> None:
        self.steering, self.another, self.folder = steering, another, folder
        self.saved: set[str] = set()
        self.is_closing = False
        self._lock = threading.Lock()
        self._wakers: set[Callable[[], None]] = set()
        steering.offer(_design.offers(self))

    def open(self, space: SearchSpace) -> Steering:
        """Stop the search and begin one in another space."""
        assert self.another is not None
        with self._lock:
            before, self.steering = self.steering, self.another(space)
            self.steering.offer(_design.offers(self))
        if not before.call(lambda search: search.state.is_ended or search.is_catching_up):
            before.act("stop", who="page")
        before.close()
        self.wake()
        return self.steering

    def watch(self, waker: Callable[[], None]) -> Callable[[], None]:
        """Call ``waker`` when another search takes the place, or the process ends."""
        self._wakers.add(waker)
        return lambda: self._wakers.discard(waker)

    def wake(self) -> None:
        """Tell everybody who watches."""
        for waker in list(self._wakers):
            waker()

    def close(self) -> None:
        """End the search and every stream of events."""
        self.is_closing = True
        self.steering.close()
        self.wake()


async def stream(desk: Desk, since: int) -> AsyncIterator[str]:
    """The events after a number as server-sent events, until another search takes the place."""
    steering = desk.steering
    loop, news = asyncio.get_running_loop(), asyncio.Event()

    def wake() -> None:
        try:
            loop.call_soon_threadsafe(news.set)
        except RuntimeError:  # the loop has ended
            return

    stops = [steering.listen(wake), desk.watch(wake)]
    try:
        yield ": hello\n\n"
        while True:
            if desk.is_closing:
                yield 'event: end\ndata: {"message":"the process ends"}\n\n'
                return
            news.clear()
            events = steering.events(since)
            if desk.steering is not steering or events is None:
                yield f'event: reset\ndata: {{"session":"{desk.steering.session}"}}\n\n'
                return
            for event in events:
                since = event.revision
                yield f"id: {event.revision}\nevent: {event.kind}\ndata: {event.data}\n\n"
            if not events:
                try:
                    await asyncio.wait_for(news.wait(), _HEARTBEAT)
                except TimeoutError:
                    yield ": still here\n\n"
    finally:
        for stop in stops:
            stop()


def application(desk: Desk, *, token: str, hosts: tuple[str, ...], port: int) -> Guard:
    """The ASGI application of a page.

    Args:
        desk: The search.
        token: The secret of its address.
        hosts: ``HOST:PORT`` that may be asked for.
        port: Part of the cookie's name, since cookies do not know ports.

    Raises:
        UserError: The extra ``steer`` is not installed.
    """
    try:
        from starlette.applications import Starlette
    except ImportError:
        raise UserError(MISSING) from None
    handlers: Any = {**dict.fromkeys(UNKNOWN, unknown), TooLarge: too_large}
    app: Any = Starlette(routes=routes_of(desk), exception_handlers=handlers)
    return Guard(app, token=token, hosts=hosts, cookie=f"pynas_steer_{port}")


def new_token() -> str:
    """A random token of 256 bits."""
    return secrets.token_urlsafe(32)


class Server:
    """uvicorn in a thread.

    Args:
        desk: The search.
        host: Address to listen on.
        port: Port; 0 for any that is free.
        token: The secret of the address; a new one by default.
        names: Further names of this machine that may stand in an address.

    Attributes:
        url: The address of the page, with its token.

    Raises:
        UserError: The extra is not installed, or the address cannot be used.
    """

    def __init__(
        self,
        desk: Desk,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        token: str | None = None,
        names: tuple[str, ...] = (),
    ) -> None:
        import socket

        try:
            import uvicorn
        except ImportError:
            raise UserError(MISSING) from None
        self.desk, self.token = desk, token or new_token()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((host, port))
        except (OSError, OverflowError) as error:
            self._socket.close()
            reason = getattr(error, "strerror", None) or str(error)
            raise UserError(
                f"--host {host} --port {port}: cannot be used: {reason}; choose another"
            ) from None
        self.port = int(self._socket.getsockname()[1])
        shown = f"[{host}]" if ":" in host else host
        local = ("127.0.0.1", "localhost", "[::1]") if is_loopback(host) else ()
        hosts = tuple(f"{name}:{self.port}" for name in dict.fromkeys((shown, *local, *names)))
        self._guard = app = application(desk, token=self.token, hosts=hosts, port=self.port)
        address = names[0] if names and not is_loopback(host) else shown
        self.address = f"http://{address}:{self.port}/"
        self.url = f"{self.address}?token={self.token}"
        settings = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=2,
            server_header=False,
            h11_max_incomplete_event_size=1 << 16,
        )
        self._server = uvicorn.Server(settings)
        self._socket.listen(128)  # whoever has the address may ask at once, and is answered in a moment
        self._thread = threading.Thread(target=self._run, name="pynas-server", daemon=True)
        self._thread.start()

    def once(self) -> str:
        """The address with a secret that opens it one time, for a browser's command line."""
        secret = new_token()
        self._guard.once = [*self._guard.once[-9:], secret]
        return f"{self.address}?token={secret}"

    def _run(self) -> None:
        self._server.run(sockets=[self._socket])

    def close(self) -> None:
        """End the search, the streams and the server."""
        self.desk.close()
        self._server.should_exit = True
        self._thread.join(5)
        self._socket.close()


def is_loopback(host: str) -> bool:
    """Whether an address is of this machine alone."""
    import ipaddress

    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
