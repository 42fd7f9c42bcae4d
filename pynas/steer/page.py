"""A page in front of a search, from Python: what :func:`pynas.steer` returns."""

from __future__ import annotations

import html
import os
import webbrowser
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pynas._errors import UserError
from pynas.steer.search import SteeredSearch
from pynas.steer.server import Desk, Server
from pynas.steer.setup import Setup, begin, space_of_run, start, stored_setup
from pynas.steer.steering import POINTS, Steering
from pynas.store import Store

if TYPE_CHECKING:
    from pynas.spaces import SearchSpace
    from pynas.store import Action
    from pynas.trial import Evaluator

CHANNELS, CELLS = 4, 1
"""Of the NAS-Bench-201 that the example trains in seconds."""


class Page:
    """A search with its page. Close it, or use it as a context manager; closing a browser ends nothing.

    Attributes:
        url: Address of the page, with the token that opens it.
        steering: The search in its threads.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self.url = server.url

    @property
    def steering(self) -> Steering:
        """The search that the page shows now."""
        return self._server.desk.steering

    def act(self, kind: str, *, who: str = "python", **fields: Any) -> Action:
        """As :meth:`SteeredSearch.act`."""
        return self.steering.act(kind, who=who, **fields)

    def state(self) -> Mapping[str, Any]:
        """What the page knows; see docs/design/steering_protocol.md."""
        return self.steering.state()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until there is nothing to do until somebody acts; False if that took longer."""
        return self.steering.wait(timeout)

    def open(self) -> None:
        """Open the page in a browser."""
        webbrowser.open(self._server.once())

    def close(self) -> None:
        """End the search and the server; the store, if there is one, holds everything."""
        self._server.close()

    def __enter__(self) -> Page:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _repr_html_(self) -> str:
        address = html.escape(self.url, quote=True)
        return f'<a href="{address}" target="_blank" rel="noopener">pynas steer: open the page</a>'


def example_space() -> SearchSpace:
    """The space that is steered if none is named."""
    from pynas.spaces import NASBench201

    return NASBench201(channels=CHANNELS, num_cells=CELLS)


def serve(
    make: Callable[[], SteeredSearch],
    first: Callable[[SteeredSearch], None] = lambda search: None,
    *,
    another: Callable[[SearchSpace], Steering] | None = None,
    folder: Path | None = None,
    points: int = POINTS,
    host: str = "127.0.0.1",
    port: int = 0,
    token: str | None = None,
    names: tuple[str, ...] = (),
) -> Page:
    """A page for the search that ``make`` makes."""
    steering = Steering(make, first, points=points)
    try:
        return Page(Server(Desk(steering, another, folder), host=host, port=port, token=token, names=names))
    except BaseException:
        steering.close()
        raise


def steer(
    space: str | SearchSpace | None = None,
    evaluator: str | Evaluator = "supernet",
    *,
    budget: int = 100,
    store: str | os.PathLike[str] | None = None,
    resume: bool = False,
    run: int | None = None,
    points: int = POINTS,
    host: str = "127.0.0.1",
    port: int = 0,
    token: str | None = None,
    names: tuple[str, ...] = (),
    begin_at_once: bool = True,
    browser: bool = False,
    **setup: Any,
) -> Page:
    """Begin a search that is steered on a page, and serve the page.

    Args:
        space: A space or its name; by default a small NAS-Bench-201.
        evaluator: ``supernet``, ``table``, names of proxies with commas, or a function that scores.
        budget: First number of trials.
        store: Path or URL of a store to keep everything in.
        resume: Go on with a steered run of the store; what it was made of is read from there.
        run: Which one; by default the newest.
        points: Points of the map of candidates, at most 20,000.
        host: Address to listen on; another than this machine's own needs a ``token``.
        port: Port; 0 for any that is free.
        token: Secret of the page's address; a random one by default.
        names: Names of this machine in addresses, where ``host`` is not the loopback.
        begin_at_once: Train and search at once, rather than when the analyst says so.
        browser: Open the page in a browser.
        setup: Fields of :class:`Setup`; for a function that scores, arguments of :class:`SteeredSearch`.

    Returns:
        A handle with the page's address; in a notebook it shows a link.

    Raises:
        UserError: What cannot be used; the extra ``steer`` is not installed.
    """
    from pynas.steer.server import is_loopback

    if not is_loopback(host) and not token:
        raise UserError(f"host: {host} can be reached from other machines, so give a token of your own")
    if resume and store is not None and not setup and isinstance(evaluator, str):
        with Store(store, read_only=True) as opened:
            found, known = stored_setup(opened, run)
            chosen: str | SearchSpace | None = space_of_run(found)
    else:
        chosen = space
        known = Setup(evaluator=evaluator, **setup) if isinstance(evaluator, str) else Setup()
    given = example_space() if chosen is None else chosen
    if isinstance(given, str):
        from pynas import spaces

        given = spaces.get(given)
    place = given

    def make() -> SteeredSearch:
        if isinstance(evaluator, str):
            return begin(place, known, budget=budget, store=store, resume=resume)
        return SteeredSearch(place, evaluator, budget=budget, store=store, resume=resume, **setup)

    def first(search: SteeredSearch) -> None:
        if begin_at_once:
            start(search, known)

    def another(other: SearchSpace) -> Steering:
        return Steering(lambda: begin(other, known, budget=budget, store=store), first, points=points)

    page = serve(
        make,
        first,
        another=another if isinstance(evaluator, str) else None,
        folder=Path.cwd(),
        points=points,
        host=host,
        port=port,
        token=token,
        names=names,
    )
    if browser:
        page.open()
    return page
