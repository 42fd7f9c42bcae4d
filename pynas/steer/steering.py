"""A steered search in threads: it goes on by itself, and anybody may ask and act meanwhile."""

from __future__ import annotations

import contextlib
import queue
import secrets
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import Any, TypeVar

from pynas._errors import UserError
from pynas._user_values import explained
from pynas.steer._documents import (
    action_document,
    map_document,
    offers,
    preview,
    state_document,
    trial_documents,
)
from pynas.steer._events import Event, Log
from pynas.steer._layout import layout
from pynas.steer._map import CandidateMap
from pynas.steer._settings import Refused
from pynas.steer.search import SteeredSearch, Unit
from pynas.store import Action

_T = TypeVar("_T")
_STATE_EVERY = 0.05  # seconds between two states
_BLOCKS_EVERY = 0.25

POINTS = 2000


class Ended(UserError):  # noqa: N818
    """The search is not there any more: its process is ending, or another took its place."""


class Steering:
    """A :class:`SteeredSearch` that one thread owns while another computes.

    The owner's thread alone touches the search, its strategy and its store; a second one trains and
    evaluates, one unit at a time, so that questions and actions are answered while a unit runs. Whoever holds
    this may call it from any thread.

    Args:
        make: Makes the search, in the owner's thread.
        begin: Called with it before anything else, such as to let it run.
        points: Size of the reference sample of the map of candidates.

    Attributes:
        session: Differs between any two of these.

    Raises:
        UserError: What ``make`` raises.
    """

    def __init__(
        self,
        make: Callable[[], SteeredSearch],
        begin: Callable[[SteeredSearch], None] = lambda search: None,
        *,
        points: int = POINTS,
    ) -> None:
        self.session = secrets.token_hex(4)
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._log = Log()
        self._compute = ThreadPoolExecutor(1, "pynas-compute")
        self._work: Future[None] | None = None
        self._closing = self._dirty = False
        self._last_state = 0.0
        self._fault = ""
        self._state: dict[str, Any] = {}
        self._blocks_wanted = threading.Event()
        ready: Future[None] = Future()
        self._owner = threading.Thread(
            target=self._own, args=(make, begin, points, ready), name="pynas-search", daemon=True
        )
        self._owner.start()
        ready.result()
        threading.Thread(target=self._follow_blocks, name="pynas-blocks", daemon=True).start()

    # ---- the owner's thread --------------------------------------------------------------------------

    def _own(
        self,
        make: Callable[[], SteeredSearch],
        begin: Callable[[SteeredSearch], None],
        points: int,
        ready: Future[None],
    ) -> None:
        try:
            search = self._search = make()
            try:
                self._points = CandidateMap(search.space, points=points, seed=search.seed)
                self._template = {"session": self.session, **layout(search.space)}
                self._offers = offers() | {"costs": list(search.cost_names)}
                search.listen(self._heard)
                begin(search)
                self._publish_state()
            except BaseException:
                search.close()
                raise
        except BaseException as error:
            ready.set_exception(error)
            return
        ready.set_result(None)
        try:
            self._serve()
        finally:
            search.close()

    def _serve(self) -> None:
        while not self._closing:
            if self._search.unit is None and not self._fault:
                self._begin()
            wait = None
            if self._dirty:
                wait = max(0.0, self._last_state + _STATE_EVERY - time.monotonic())
            elif self._search.unit is None and not self._fault and not self._search.is_idle:
                wait = 0.0
            with contextlib.suppress(queue.Empty):
                self._inbox.get(block=wait != 0.0, timeout=wait)()
            if self._dirty and time.monotonic() - self._last_state >= _STATE_EVERY:
                try:
                    self._publish_state()
                except Exception as error:  # of a space's own texts, say: pages have to hear of it
                    self._fail(error)
                    self._last_state = time.monotonic()

    def _begin(self) -> None:
        try:
            unit = self._search.begin()
        except Exception as error:
            self._fail(error)
            return
        if unit is not None:
            self._dirty = True
            self._work = self._compute.submit(self._run, unit)

    def _run(self, unit: Unit) -> None:
        try:
            result = unit.run()
        except BaseException as error:
            self._inbox.put(lambda error=error: self._fail(error))  # type: ignore[misc]
            return
        self._inbox.put(lambda: self._finish(unit, result))

    def _finish(self, unit: Unit, result: Any) -> None:
        try:
            self._search.finish(unit, result)
        except Exception as error:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        """What must not happen happened, or the store cannot be written: nothing more begins."""
        self._fault = str(error) if isinstance(error, UserError) else explained(error)
        self._dirty = True

    def _heard(self, kind: str, value: Any) -> None:
        search = self._search
        self._dirty = True
        if kind == "trial":
            self._publish("trial", trial_documents(search, self._points, [value])[0])
            self._blocks_wanted.set()
        elif kind == "point":
            self._publish("curve", value)
        elif kind == "action":
            self._publish("action", action_document(search, value))
            self._blocks_wanted.set()

    def _publish(self, kind: str, data: Any) -> None:
        self._log.publish(kind, lambda revision: data)

    def _publish_state(self) -> None:
        self._dirty, self._last_state = False, time.monotonic()
        document = self._document()

        def numbered(revision: int) -> dict[str, Any]:
            self._state = {**document, "revision": revision}
            return self._state

        self._log.publish("state", numbered)

    def _document(self) -> dict[str, Any]:
        try:
            document = {"session": self.session, **state_document(self._search)}
        except Exception:
            if not self._fault:
                raise
            document = dict(self._state)  # the last one that could be made, with the reason
        document["offers"] = self._offers
        if self._fault:
            document["search"] = {**document["search"], "status": "failed", "message": self._fault}
            document["can"] = {name: name == "export" and may for name, may in document["can"].items()}
        return document

    # ---- from any thread -----------------------------------------------------------------------------

    def call(self, ask: Callable[[SteeredSearch], _T]) -> _T:
        """What ``ask`` returns of the search, in the owner's thread; it must be quick and keep nothing.

        Raises:
            Ended: The search has been closed.
        """
        return self._ask(lambda: ask(self._search))

    def _ask(self, ask: Callable[[], _T]) -> _T:
        if threading.current_thread() is self._owner:
            return ask()
        future: Future[_T] = Future()

        def answer() -> None:
            try:
                future.set_result(ask())
            except BaseException as error:
                future.set_exception(error)

        if self._closing or not self._owner.is_alive():
            raise Ended("the search has been closed")
        self._inbox.put(answer)
        while True:
            try:
                return future.result(timeout=0.5)
            except TimeoutError:
                if future.done():
                    raise
                if not self._owner.is_alive():
                    raise Ended("the search has been closed") from None

    def compute(self, work: Callable[[], _T]) -> _T:
        """The result of ``work`` in the thread that trains and evaluates, between two units."""
        try:
            return self._compute.submit(work).result()
        except (CancelledError, RuntimeError):
            if not self._closing:
                raise
            raise Ended("the search has been closed") from None

    def act(self, kind: str, *, who: str = "python", **fields: Any) -> Action:
        """As :meth:`SteeredSearch.act`."""
        return self.acted(kind, who, fields)[0]

    def acted(self, kind: str, who: str, fields: dict[str, Any]) -> tuple[Action, dict[str, Any], int]:
        """An action, the object that describes it, and the number of the event that tells it."""

        def do() -> tuple[Action, dict[str, Any], int]:
            if self._fault:
                raise Refused(f"the search has failed: {self._fault}")
            action = self._search.act(kind, who=who, **fields)
            return action, action_document(self._search, action), self._log.revision

        return self._ask(do)

    def preview(self, kind: object, fields: dict[str, Any]) -> dict[str, Any]:
        """As :meth:`SteeredSearch.preview`."""
        return self._ask(lambda: preview(self._search, kind, fields))

    def offer(self, more: dict[str, Any]) -> None:
        """What else the state says that is offered."""

        def change() -> None:
            self._offers = {**self._offers, **more}
            self._publish_state()

        self._ask(change)

    @property
    def revision(self) -> int:
        """Number of the newest event."""
        return self._log.revision

    def state(self) -> dict[str, Any]:
        """The state, newest."""

        def ask() -> dict[str, Any]:
            if self._dirty:
                self._publish_state()
            return self._state

        return self._ask(ask)

    def template(self) -> dict[str, Any]:
        """The drawing of the space."""
        return self._template

    def candidates(self) -> dict[str, Any]:
        """The map."""
        return self._ask(
            lambda: {
                "session": self.session,
                "revision": self._log.revision,
                **map_document(self._search, self._points),
            }
        )

    def trials(self, first: int = 0) -> list[dict[str, Any]]:
        """Trials from a number on."""
        return self._ask(lambda: trial_documents(self._search, self._points, self._search.trials[first:]))

    def actions(self, first: int = 0) -> list[dict[str, Any]]:
        """Actions from a number on."""
        return self._ask(
            lambda: [action_document(self._search, action) for action in self._search.actions[first:]]
        )

    def curves(self, first: int = 0) -> list[dict[str, Any]]:
        """Points of the training from a step on."""
        return self._ask(lambda: [p for p in self._search.points if first <= p["step"] <= self._search.steps])

    def blocks(self) -> dict[str, Any]:
        """The fitness of every block, computed in the calling thread."""
        from pynas.steer._blocks import LEVEL, block_fitness

        def ask() -> tuple[Any, ...]:
            search = self._search
            found = search.progress.trials
            decisions = [trial.architecture.decisions for trial in found]
            return (
                decisions,
                search.progress.values(),
                search.space.num_choices,
                search.seed,
                self._log.revision,
            )

        decisions, values, counts, seed, revision = self._ask(ask)
        found = block_fitness(decisions, values, counts, seed=seed)
        return {
            "session": self.session,
            "revision": revision,
            "trials": len(values),
            "mean": sum(values) / len(values) if values else None,
            "level": LEVEL,
            "blocks": [each.to_dict() for each in found],
        }

    def _follow_blocks(self) -> None:
        while not self._closing:
            if not self._blocks_wanted.wait(1.0):
                continue
            self._blocks_wanted.clear()
            start = time.monotonic()
            try:
                self._publish("blocks", self.blocks())
            except Ended:
                return
            # Where there is much to resample, most of the processor is left to the search.
            time.sleep(max(_BLOCKS_EVERY, 4 * (time.monotonic() - start)))

    # ---- events --------------------------------------------------------------------------------------

    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call ``listener`` after each event, in any thread, until what this returns is called."""
        return self._log.listen(listener)

    def events(self, since: int) -> list[Event] | None:
        """The events after a number, in order; None if some of them are no longer kept."""
        return self._log.since(since)

    @property
    def is_busy(self) -> bool:
        """Whether a trial or a step of training runs, also one that was thrown away."""
        return self._work is not None and not self._work.done()

    @property
    def is_closed(self) -> bool:
        """Whether it has been closed."""
        return self._closing

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until there is nothing to do until somebody acts; False if that took longer."""
        end = None if timeout is None else time.monotonic() + timeout
        while not self.call(lambda search: search.is_idle or bool(self._fault)):
            if end is not None and time.monotonic() > end:
                return False
            time.sleep(0.02)
        return True

    def close(self) -> None:
        """End the threads; what runs is thrown away, as by a kill, and the store holds all else."""
        if self._closing:
            return
        self._closing = True
        self._inbox.put(lambda: None)
        self._blocks_wanted.set()
        self._compute.shutdown(wait=False, cancel_futures=True)
        if threading.current_thread() is not self._owner:
            self._owner.join(10)
        self._log.wake()

    def __enter__(self) -> Steering:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
