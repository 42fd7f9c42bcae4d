"""The server of the page: what it answers, whom it refuses, and that pages keep up."""

from __future__ import annotations

import json
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pynas._errors import UserError
from pynas.steer import Setup, SteeredSearch, Steering, _security, begin, steer
from pynas.steer.server import Desk, application, is_loopback
from tests.steer.steered import CELL, SPACE, score, steered

pytest.importorskip("starlette", reason="the extra 'steer' is not installed")
pytest.importorskip("httpx", reason="httpx, of the extra 'dev', is not installed")

with warnings.catch_warnings():  # it would rather have a package of another name
    warnings.simplefilter("ignore")
    from starlette.testclient import TestClient

HOST = "127.0.0.1:8765"
TOKEN = "t" * 43


def client(steering: Steering, *, known: bool = True, **options: Any) -> TestClient:
    app = application(Desk(steering, **options), token=TOKEN, hosts=(HOST,), port=8765)
    made = TestClient(app, base_url=f"http://{HOST}", follow_redirects=False)  # type: ignore[arg-type]
    if known:
        made.headers["authorization"] = f"Bearer {TOKEN}"
    return made


@pytest.fixture
def steering() -> Iterator[Steering]:
    with Steering(steered, points=50) as made:
        yield made


@pytest.fixture
def page(steering: Steering) -> TestClient:
    return client(steering)


def act(page: TestClient, kind: str, **fields: Any) -> Any:
    return page.post("/api/actions", json={"kind": kind, **fields})


def test_the_token_becomes_a_cookie(steering: Steering) -> None:
    page = client(steering, known=False)
    assert page.get("/").status_code == 401
    assert page.get("/api/state").status_code == 401
    assert page.get("/?token=wrong").status_code == 401
    assert page.get("/static/index.html").status_code == 401
    answer = page.get(f"/?token={TOKEN}")
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert page.get("/").status_code == 200
    assert page.get("/api/state").status_code == 200
    assert page.get("/api/state", headers={"authorization": "Bearer x"}).status_code == 200
    page.cookies.clear()
    assert page.get("/api/state", headers={"cookie": "pynas_steer_8765=wrong"}).status_code == 401
    assert page.get("/api/state", headers={"authorization": f"Basic {TOKEN}"}).status_code == 401
    good = f"pynas_steer_8765={TOKEN}"
    for cookie in (f'theirs={{"a": [1, 2]}}; {good}', f"x; =; \x07=1; {good}", f"{good}; other"):
        assert page.get("/api/state", headers={"cookie": cookie}).status_code == 200, cookie
    for cookie in (f"a{good}", f"{good}x", "pynas_steer_8765", f"other={good}"):
        assert page.get("/api/state", headers={"cookie": cookie}).status_code == 401, cookie


def test_a_link_on_another_site_opens_the_page(steering: Steering) -> None:
    """A browser follows a redirect of a foreign link without the cookie, so there is a page in between."""
    page = client(steering, known=False)
    answer = page.get(f"/?token={TOKEN}", headers={"sec-fetch-site": "cross-site"})
    assert answer.status_code == 200
    assert "SameSite=Strict" in answer.headers["set-cookie"]
    assert 'content="0; url=/"' in answer.text
    assert TOKEN not in answer.text


def test_a_secret_for_a_browser_opens_the_page_once(steering: Steering) -> None:
    app = application(Desk(steering), token=TOKEN, hosts=(HOST,), port=8765)
    app.once = ["first", "second"]
    page = TestClient(app, base_url=f"http://{HOST}", follow_redirects=False)  # type: ignore[arg-type]
    assert page.get("/?token=second").status_code == 303
    page.cookies.clear()
    assert page.get("/?token=second").status_code == 401
    assert page.get("/?token=first").status_code == 303
    page.cookies.clear()
    assert page.get("/api/state", headers={"authorization": "Bearer first"}).status_code == 401


@pytest.mark.slow
def test_strangers_do_not_shut_out_the_analyst(steering: Steering) -> None:
    """Any page that is open in the browser can send requests here, though without the cookie."""
    page = client(steering, known=False)
    codes = [page.get(path).status_code for path in ("/", "/api/state", "/?token=x") for _ in range(200)]
    assert set(codes) == {401, 429}
    assert page.get("/api/state", headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200
    assert page.get(f"/?token={TOKEN}").status_code == 303


def test_strangers_are_refused(page: TestClient) -> None:
    for host in ("evil.example", "evil.example:8765", "127.0.0.1", "127.0.0.1:80", ""):
        assert page.get("/api/state", headers={"host": host}).status_code == 403, host
    body = {"kind": "resume"}
    for origin in ("http://evil.example", "null", "http://127.0.0.1:1", f"https://evil.{HOST}"):
        assert page.post("/api/actions", json=body, headers={"origin": origin}).status_code == 403
    assert page.post("/api/actions", json=body, headers={"origin": f"http://{HOST}"}).status_code == 200
    answer = page.get("/api/state", headers={"origin": f"http://{HOST}"})
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_every_answer_has_the_policy(page: TestClient) -> None:
    for path in ("/", "/api/state", "/api/nothing", "/static/index.html", "/vendor/plotly.min.js"):
        headers = page.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy
        assert "unsafe-eval" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
    assert page.get("/api/state").headers["cache-control"] == "no-store"


def test_bodies_and_methods_are_limited(page: TestClient) -> None:
    post = page.post("/api/actions", content=b"{}")
    assert (post.status_code, post.json()["error"]["code"]) == (415, "not_json")
    kind = {"content-type": "application/json"}
    assert page.post("/api/actions", content=b" " * (4 << 20) + b"{}", headers=kind).status_code == 413

    def endless() -> Iterator[bytes]:
        for _ in range(70):
            yield b" " * (1 << 16)

    assert page.post("/api/actions", content=endless(), headers=kind).status_code == 413
    for raw in (b"", b"{", b"[]", b"3", b'{"kind": NaN}', b"\xff", b'{"a":1,"a":2}'):
        answer = page.post("/api/actions", content=raw, headers=kind)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "bad_request"), raw
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS"):
        assert page.request(method, "/api/state").status_code == 405
    assert page.get("/api/actions", params={"from": "-1"}).status_code == 400
    assert page.get("/api/trials", params={"from": "x"}).status_code == 400
    assert page.get("/api/events", params={"since": "1e3"}).status_code == 400


@pytest.mark.slow
def test_too_many_are_told_to_wait(steering: Steering, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(_security, "time", SimpleNamespace(monotonic=lambda: now[0]))
    page = client(steering)
    codes = lambda: [act(page, "redo").status_code for _ in range(150)]  # noqa: E731
    at_once = 2 * _security.POSTS
    assert codes() == [409] * at_once + [429] * (150 - at_once)
    now[0] += 1
    assert codes() == [409] * _security.POSTS + [429] * (150 - _security.POSTS)


def test_files_outside_are_not_served(page: TestClient) -> None:
    for path in (
        "../server.py",
        "%2e%2e/server.py",
        "..%2fserver.py",
        "/etc/passwd",
        "index.htm",
        "a%00b.js",
    ):
        assert page.get(f"/static/{path}").status_code in (400, 404), path
    assert page.get("/static/index.html").headers["content-type"].startswith("text/html")
    assert page.get("/vendor/plotly.min.js").headers["content-type"].startswith("text/javascript")


def test_the_documents_fit_each_other(page: TestClient, steering: Steering) -> None:
    act(page, "resume")
    assert steering.wait(60)
    state = page.get("/api/state").json()
    assert state["search"]["trials"] == 40
    assert state["search"]["status"] == "finished"
    assert state["can"]["pause"]
    assert not state["can"]["train"]
    assert state["training"] is None
    trials = page.get("/api/trials").json()["trials"]
    assert [trial["number"] for trial in trials] == list(range(40))
    assert page.get("/api/trials", params={"from": 38}).json()["trials"] == trials[38:]
    points = page.get("/api/candidates").json()
    count = len(points["x"])
    assert len(points["decisions"]) == count * points["decisions_per"]
    for trial in trials:
        number = trial["candidate"]["id"]
        assert points["decisions"][6 * number : 6 * number + 6] == trial["decisions"]
        assert points["trial"][number] == trial["number"]
        assert (trial["value"] is None) == (trial["status"] != "ok")
    blocks = page.get("/api/blocks").json()
    template = page.get("/api/template").json()
    assert [b["id"] for b in blocks["blocks"]] == [b["id"] for b in template["blocks"]]
    assert blocks["trials"] == sum(trial["value"] is not None for trial in trials)
    best = max((t for t in trials if t["value"] is not None), key=lambda t: (t["value"], -t["number"]))
    assert state["search"]["best"] == best["number"]
    assert page.get("/api/curves").json() == {"points": []}
    runs = page.get("/api/runs").json()["runs"]
    assert [run["this"] for run in runs] == [True]
    run = page.get("/api/runs/None").json()
    assert run["best"][-1][1] == best["value"]
    assert page.get("/api/runs/17").status_code == 404
    assert {document["session"] for document in (state, points, blocks, template)} == {steering.session}


def test_actions_previews_and_their_errors(page: TestClient, steering: Steering) -> None:
    session = page.get("/api/state").json()["session"]
    told = page.post("/api/preview", json={"kind": "forbid", "blocks": ["0:0"]}).json()
    assert (told["before"], told["after"]) == ("15625", "12500")
    answer = act(page, "forbid", blocks=["0:0"], who="Ada", session=session)
    action = answer.json()["action"]
    assert (action["who"], action["text"], action["undone"]) == ("Ada", "forbid none on 0-1", False)
    assert page.get("/api/state").json()["allowed"][0] == [1, 2, 3, 4]
    assert act(page, "forbid", blocks=["0:0"]).json()["error"]["code"] == "refused"
    answer = act(page, "forbid", blocks=["0:7"])
    assert (answer.status_code, answer.json()["error"]["argument"]) == (400, "blocks")
    assert act(page, "resume", session="another").status_code == 409
    assert act(page, "resume", who="").json()["error"]["argument"] == "who"
    assert act(page, "resume", who="a\nb").status_code == 400
    for odd in ({"self": 1}, {"search": 1}, {"not a name": 1}):
        assert act(page, "resume", **odd).status_code == 400
    act(page, "undo")
    assert [each["undone"] for each in page.get("/api/actions").json()["actions"]] == [False, True, False]
    parsed = page.post("/api/parse", json={"text": CELL}).json()
    assert parsed["decisions"] == [1, 1, 1, 2, 1, 1]
    assert parsed["params"] == SPACE.params(SPACE.parse(CELL))
    assert page.post("/api/parse", json={"text": "<b>"}).status_code == 409
    assert page.get("/api/export", params={"trial": 99, "format": "architecture"}).status_code == 404
    assert page.get("/api/export", params={"trial": 0, "format": "fortran"}).status_code == 400


def test_export_answers_with_a_file(page: TestClient, steering: Steering) -> None:
    act(page, "resume")
    assert steering.wait(60)
    answer = page.get("/api/export", params={"trial": 3, "format": "architecture"})
    assert json.loads(answer.content)["space"] == "nasbench201"
    assert answer.headers["content-disposition"] == 'attachment; filename="trial-3.json"'
    answer = page.get("/api/export", params={"trial": 3, "format": "state_dict"})
    assert answer.headers["x-pynas-weights"] == "initial"


def test_design_needs_a_search_that_can_be_begun_again(page: TestClient) -> None:
    assert page.get("/api/design/palette").status_code == 404
    assert page.get("/api/state").json()["offers"]["design"] is False


def test_a_template_is_drawn_checked_saved_and_searched(tmp_path: Path) -> None:
    setup = Setup(evaluator="params", strategy="random", batch=8)
    store = tmp_path / "runs.db"

    def another(space: Any) -> Steering:
        return Steering(lambda: begin(space, setup, budget=4, store=store), points=20)

    with another(SPACE) as steering:
        page = client(steering, another=another, folder=tmp_path)
        assert page.get("/api/state").json()["offers"]["design"] is True
        told = page.get("/api/design/palette").json()
        assert {"conv", "identity"} <= {kind["kind"] for kind in told["palette"]}
        example = told["example"]
        checked = page.post("/api/design/check", json={"template": example}).json()
        assert checked["ok"]
        assert checked["params"][0] < checked["params"][1]
        assert len(checked["template"]["layers"]) == len(example["layers"])
        assert page.post("/api/design/check", json={}).status_code == 400
        broken = page.post("/api/design/check", json={"template": {"format": "x"}}).json()
        assert broken["problems"]
        saved = page.post("/api/design/save", json={"template": example, "name": "mine"}).json()
        assert (tmp_path / saved["file"]).is_file()
        (tmp_path / "theirs.json").touch()
        for name, status in (("theirs", 409), ("../x", 400), ("mine", 200)):
            answer = page.post("/api/design/save", json={"template": example, "name": name})
            assert answer.status_code == status
        opened = page.post("/api/design/open", json={"spec": saved["spec"]}).json()
        state = page.get("/api/state").json()
        assert (state["session"], state["space"]["name"], state["run"]) == (opened["session"], "template", 2)
        assert act(page, "resume", session=steering.session).status_code == 409
        assert act(page, "resume", session=opened["session"]).status_code == 200
        runs = page.get("/api/runs").json()["runs"]
        assert [run["this"] for run in runs] == [False, True]
        assert steering.is_closed


def slow(arch: Any) -> Any:
    time.sleep(0.3)
    return score(arch)


def test_questions_are_answered_while_a_trial_runs() -> None:
    def make() -> SteeredSearch:
        return SteeredSearch(SPACE, slow, objectives=["s"], budget=3, seed=3)

    with Steering(make, points=20) as steering:
        steering.act("resume")
        time.sleep(0.05)
        start = time.perf_counter()
        state = steering.state()
        steering.act("forbid", blocks=["0:0"])
        assert time.perf_counter() - start < 0.25
        assert state["search"]["running"]["number"] == 0
        assert steering.actions()[-1]["trial"] == 1
        assert steering.wait(30)


def read(steering: Steering, page_events: list[tuple[int, str]], stop: threading.Event, since: int) -> None:
    while not stop.is_set():
        for event in steering.events(since) or ():
            page_events.append((event.revision, event.kind))
            since = event.revision
        time.sleep(0.005)


def test_two_pages_see_the_same_and_one_that_comes_back_catches_up(steering: Steering) -> None:
    seen: list[list[tuple[int, str]]] = [[], []]
    stop = threading.Event()
    threads = [threading.Thread(target=read, args=(steering, each, stop, 0)) for each in seen]
    for thread in threads:
        thread.start()
    steering.act("resume")
    assert steering.wait(60)
    time.sleep(0.6)
    stop.set()
    for thread in threads:
        thread.join()
    whole = ("state", "blocks")  # of which a reader may find a newer one only
    assert [e for e in seen[0] if e[1] not in whole] == [e for e in seen[1] if e[1] not in whole]
    assert seen[0][-1] == seen[1][-1]
    numbers = [revision for revision, _ in seen[0]]
    assert numbers == sorted(set(numbers))
    assert [kind for _, kind in seen[0]].count("trial") == 40
    assert {kind for _, kind in seen[0]} == {"state", "trial", "action", "blocks"}
    later = steering.events(10)
    assert later is not None
    assert [e.revision for e in later if e.kind == "trial"] == [
        n for n, k in seen[0] if k == "trial" and n > 10
    ]
    assert steering.events(10**6) is None


def test_events_are_streamed(steering: Steering) -> None:
    steering.act("resume")
    assert steering.wait(60)
    app = application(desk := Desk(steering), token=TOKEN, hosts=(HOST,), port=8765)
    other = TestClient(app, base_url=f"http://{HOST}")  # type: ignore[arg-type]
    threading.Timer(1.0, desk.close).start()
    answer = other.get("/api/events", params={"since": 0}, headers={"authorization": f"Bearer {TOKEN}"})
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = [part.splitlines() for part in answer.text.split("\n\n") if part.startswith("id: ")]
    kinds = [lines[1].removeprefix("event: ") for lines in events]
    assert kinds.count("trial") == 40
    for lines in events:
        json.loads(lines[2].removeprefix("data: "))
    assert "event: end" in answer.text


def test_a_store_that_cannot_be_written_ends_nothing_silently(tmp_path: Path) -> None:
    with Steering(lambda: steered(tmp_path / "runs.db"), points=20) as steering:

        def fail(search: SteeredSearch) -> None:
            def append(*arguments: object) -> None:
                raise UserError("the disk is full")

            assert search.store is not None
            search.store.append = append  # type: ignore[method-assign]

        steering.call(fail)
        steering.act("resume")
        assert steering.wait(30)
        state = steering.state()
        assert (state["search"]["status"], state["search"]["message"]) == ("failed", "the disk is full")
        assert not any(state["can"][name] for name in ("pause", "undo", "train"))


def test_a_server_on_a_port_of_its_own(tmp_path: Path) -> None:
    import httpx

    setup = {"strategy": "random", "seed": 5, "batch": 8}
    with steer(SPACE, "params,flops", budget=5, store=tmp_path / "runs.db", points=20, **setup) as page:
        assert page.wait(60)
        assert page.url.startswith("http://127.0.0.1:")
        assert "href" in page._repr_html_()
        with httpx.Client(follow_redirects=True) as browser:
            assert browser.get(page.url).status_code == 200
            base = page.url.partition("?")[0]
            assert browser.get(f"{base}api/state").json()["search"]["trials"] == 5
    with steer(store=tmp_path / "runs.db", resume=True, points=20) as page:
        assert page.wait(60)
        assert page.state()["search"]["trials"] == 5
        assert page.act("budget", trials=7).number == 2
        assert page.wait(60)
        assert page.state()["search"]["trials"] == 7


def test_other_addresses_need_a_token() -> None:
    with pytest.raises(UserError, match="give a token"):
        steer(SPACE, "params", host="0.0.0.0")
    assert [
        is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "192.168.1.2", "x")
    ] == [*(True, True, True, False, False, False)]


def test_a_setup_is_json() -> None:
    setup = Setup(objectives=("accuracy", "-params"), constraints={"flops": 1e6})
    assert Setup.from_dict(json.loads(json.dumps(setup.to_dict()))) == setup
    with pytest.raises(UserError, match="a later pynas"):
        Setup.from_dict({"colour": "red"})
