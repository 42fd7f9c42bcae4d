"""Twenty pages on one search, of which one reads nothing: all see the same, and nobody waits."""

from __future__ import annotations

import json
import selectors
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from pynas.architecture import Architecture
from pynas.steer import Page, steer
from pynas.trial import Evaluation, Status
from tests.steer.steered import SPACE

pytest.importorskip("uvicorn", reason="the extra 'steer' is not installed")
httpx = pytest.importorskip("httpx", reason="httpx, of the extra 'dev', is not installed")

PAGES = 20
TRIALS = 300
FILLER = "told at length " * 300


def wordy(arch: Architecture) -> Evaluation:
    total = sum(decision * (i + 1) for i, decision in enumerate(arch.decisions))
    return Evaluation(Status.OK, {"s": float(total % 17)}, message=FILLER)


@pytest.fixture
def page() -> Iterator[Page]:
    with steer(SPACE, wordy, objectives=["s"], budget=TRIALS, points=50, begin_at_once=False) as made:
        yield made


def follow(page: Page, *, room: int | None = None) -> socket.socket:
    """A connection that has asked for the events."""
    host, _, port = page.url.removeprefix("http://").partition("/")[0].rpartition(":")
    made = socket.socket()
    if room is not None:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
    made.connect((host, int(port)))
    token = page.url.partition("token=")[2]
    made.sendall(
        f"GET /api/events?since=0 HTTP/1.0\r\nHost: {host}:{port}\r\n"
        f"Authorization: Bearer {token}\r\n\r\n".encode()
    )
    return made


def read_all(streams: list[socket.socket], until: float) -> list[bytearray]:
    """What each has sent, when all have told the last trial and the last state."""
    read = [bytearray() for _ in streams]
    waiting = selectors.DefaultSelector()
    for number, stream in enumerate(streams):
        stream.setblocking(False)
        waiting.register(stream, selectors.EVENT_READ, number)
    last = f'"number":{TRIALS - 1},'.encode()
    missing = set(range(len(streams)))
    while missing and time.monotonic() < until:
        for key, _ in waiting.select(timeout=0.2):
            read[key.data] += stream.recv(1 << 20) if (stream := key.fileobj) else b""  # type: ignore[union-attr]
        for number in tuple(missing):
            tail = bytes(read[number][-200_000:])
            if last in tail and b'"status":"finished"' in tail:
                missing.remove(number)
    waiting.close()
    return read


def events(raw: bytearray) -> list[tuple[int, str, Any]]:
    body = raw.partition(b"\r\n\r\n")[2].decode()
    found = []
    for part in body.split("\n\n"):
        lines = part.splitlines()
        if lines and lines[0].startswith("id: "):
            found.append((int(lines[0][4:]), lines[1][7:], json.loads(lines[2][6:])))
    return found


@pytest.mark.slow
def test_twenty_pages_see_all_while_one_reads_nothing(page: Page) -> None:
    streams = [follow(page) for _ in range(PAGES)]
    stalled = follow(page, room=4096)
    base, _, token = page.url.partition("?token=")
    answers: list[int] = []
    slowest = [0.0]

    def analyst(number: int) -> None:
        with httpx.Client(headers={"authorization": f"Bearer {token}"}) as browser:
            for block in range(5):
                kind = "forbid" if number % 2 else "allow"
                body = {"kind": kind, "blocks": [f"{number % 6}:{block}"], "who": f"page {number}"}
                start = time.monotonic()
                answers.append(browser.post(f"{base}api/actions", json=body).status_code)
                slowest[0] = max(slowest[0], time.monotonic() - start)

    analysts = [threading.Thread(target=analyst, args=(number,)) for number in range(4)]
    page.act("resume")
    for thread in analysts:
        thread.start()
    read = read_all(streams, time.monotonic() + 60)
    for thread in analysts:
        thread.join()
    assert set(answers) <= {200, 409, 429}
    assert 200 in answers
    assert slowest[0] < 5
    wanted = page.steering.trials()
    assert len(wanted) == TRIALS
    numbers = [action["number"] for action in page.steering.actions()]
    for raw in read:
        told = events(raw)
        revisions = [revision for revision, _, _ in told]
        assert revisions == sorted(set(revisions))
        assert [data["text"] for _, kind, data in told if kind == "trial"] == [t["text"] for t in wanted]
        seen = [data["number"] for _, kind, data in told if kind == "action"]
        assert seen == numbers[1 : 1 + len(seen)], "the first was done before anybody listened"
        assert seen
        states = [data for _, kind, data in told if kind == "state"]
        assert states[-1]["search"]["trials"] == TRIALS
    kept = sum(len(event.data) for event in page.steering._log._events)
    assert kept < 2 * TRIALS * (len(FILLER) + 1000), "no state is kept but the last"
    start = time.monotonic()
    page.close()
    assert time.monotonic() - start < 10, "a page that reads nothing does not keep the process"
    for stream in (*streams, stalled):
        stream.close()
