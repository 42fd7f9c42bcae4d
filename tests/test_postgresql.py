"""Stores on a PostgreSQL server, which goes away, comes back, and is told secrets: one of the tests' own."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from pynas._errors import UserError
from pynas.architecture import Architecture
from pynas.run import search
from pynas.store import RunConfig, Store
from pynas.testing.strategies import ToySpace, evaluate
from pynas.trial import Evaluation, Status, Trial

pytestmark = pytest.mark.slow

psycopg = pytest.importorskip("psycopg", reason="needs the extra 'postgresql'")

PASSWORD = "s3cr#t pass/word@%"
ENCODED = "s3cr%23t%20pass%2Fword%40%25"
CONFIG = RunConfig("toy", "random", 0, ("zico",), {"flops": 1e8}, {"evaluator": {"batch": 128}})


def make_trial(number: int, score: float = 1.5, message: str = "") -> Trial:
    status = Status.OK if math.isfinite(score) else Status.FAILED
    evaluation = Evaluation(status, {"zico": score}, {"flops": 3.0}, message, 0.25)
    return Trial(number, Architecture("toy", (number, 2)), evaluation)


def binaries() -> Path | None:
    found = shutil.which("initdb")
    folders = [Path(found).parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: -float(path.parent.name))
    return next((folder for folder in folders if (folder / "pg_ctl").exists()), None)


class Server:
    """A cluster in a folder, reached by a socket in it; PostgreSQL's programs refuse to run as root."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self.programs, self.folder, self.data = programs, folder, folder / "data"
        self.user = 65534 if os.geteuid() == 0 else None
        if self.user is not None:
            os.chown(folder, self.user, self.user)
        secret = folder / "password"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        options = ("-A", "scram-sha-256", "-U", "pynas", "--pwfile", secret, "--no-sync", "-E", "UTF8")
        self._call("initdb", "-D", self.data, *options, "--locale=C")
        self._settings = f"-k {folder} -c listen_addresses= -c fsync=off -c max_connections=20"
        self.start()

    def start(self) -> None:
        self._call("pg_ctl", "-D", self.data, "-w", "-l", self.folder / "log", "-o", self._settings, "start")

    def stop(self) -> None:
        self._call("pg_ctl", "-D", self.data, "-w", "-m", "immediate", "stop")

    def _call(self, program: str, *arguments: object) -> None:
        subprocess.run(
            [self.programs / program, *map(str, arguments)],
            user=self.user,
            group=self.user,
            extra_groups=None if self.user is None else [],
            cwd=self.folder,
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
        )

    def url(self, database: str, password: str = ENCODED, scheme: str = "postgresql+psycopg") -> str:
        return f"{scheme}://pynas:{password}@/{database}?host={self.folder}"

    @contextlib.contextmanager
    def admin(self) -> Iterator[Any]:
        with psycopg.connect(
            host=str(self.folder), user="pynas", password=PASSWORD, dbname="postgres", autocommit=True
        ) as connection:
            yield connection

    def end_connections(self, database: str) -> int:
        """Break the others' connections, as an administrator or a restart would; how many there were."""
        query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
        with self.admin() as connection:
            return len(connection.execute(query, (database,)).fetchall())


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    programs = binaries()
    if programs is None:
        pytest.skip("needs the programs of a PostgreSQL server")
    with tempfile.TemporaryDirectory(prefix="pynas-pg-") as name:
        try:
            running = Server(programs, Path(name))
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"no PostgreSQL server starts here: {error}")
        try:
            yield running
        finally:
            with contextlib.suppress(subprocess.CalledProcessError):
                running.stop()


@pytest.fixture
def database(server: Server, request: pytest.FixtureRequest) -> Iterator[str]:
    """An empty database."""
    name = "d" + format(abs(hash(request.node.nodeid)), "x")[:12]
    with server.admin() as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template0 STRATEGY file_copy")
    yield name
    with server.admin() as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def check_secret(text: str) -> None:
    for part in (PASSWORD, ENCODED, "s3cr", "pass/word", "s3cr%23t+pass"):
        assert part not in text


def refusal(call: Callable[[], object]) -> str:
    """What a user is told; with its traceback it is one line, and says no password."""
    with pytest.raises(UserError) as caught:
        call()
    check_secret("".join(traceback.format_exception(caught.value)))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_trials_are_those_of_sqlite(server: Server, database: str, tmp_path: Path) -> None:
    hostile = "zero \0, escape \x1b[31m, half \udcff, pair \U0001f600, quotes '\"\\ \\udcff, bidi \u202e \n"
    trials = [make_trial(0), make_trial(1, 0.1 + 0.2, hostile), make_trial(2, math.inf, "%s %(x)s :a")]
    large = RunConfig("toy 'x' ü", "random", 2**63 - 1, ("zico", "zero \0"), {"a": 1e-300}, {"": [None, {}]})
    seen = []
    for location in (server.url(database), tmp_path / "runs.db"):
        with Store(location) as store:
            store.start(large, {"started": hostile})
            run = store.start(CONFIG, {"versions": {"torch": "2"}})
            for trial in trials:
                store.append(run, trial, {"n": trial.number, "text": hostile})
        with Store(location, read_only=True) as store:
            seen.append([(run, repr(store.trials(run)), store.state(run)) for run in store.runs()])
            with pytest.raises(UserError, match="read"):
                store.append(run, make_trial(3))
            assert len(store.trials(run)) == 3
    assert seen[0] == seen[1]
    assert seen[0][0][0].provenance["started"] == hostile.replace("\udcff", "\\udcff")


def test_the_short_name_of_the_scheme(server: Server, database: str) -> None:
    with Store(server.url(database, scheme="postgresql")) as store:
        assert store.runs() == ()


@pytest.mark.parametrize("column", ["space", "strategy"])
@pytest.mark.parametrize("name", ["zero \0", "half \udcff"])
def test_names_and_seeds_that_no_database_holds(tmp_path: Path, column: str, name: str) -> None:
    values = {"space": "toy", "strategy": "random"} | {column: name}
    with Store(tmp_path / "runs.db") as store:
        with pytest.raises(UserError, match=f"{column}: a store cannot hold the name"):
            store.start(RunConfig(**values, seed=0, objectives=("zico",)), {})
        for seed in (2**63, -(2**63) - 1):
            with pytest.raises(UserError, match="seed: a store holds integers of 64 bits"):
                store.start(RunConfig("toy", "random", seed, ("zico",)), {})
        assert store.runs() == ()
        assert store.start(RunConfig("toy", "random", -(2**63), ("zico",)), {}).config.seed == -(2**63)


def test_several_start_at_once_in_an_empty_database(server: Server, database: str) -> None:
    count = 8
    barrier, errors = threading.Barrier(count), []

    def start(seed: int) -> None:
        try:
            barrier.wait()
            with Store(server.url(database)) as store:
                run = store.start(RunConfig("toy", "random", seed, ("zico",)), {})
                store.append(run, make_trial(0))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=start, args=(seed,)) for seed in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    with Store(server.url(database), read_only=True) as store:
        assert sorted(run.config.seed for run in store.runs()) == list(range(count))


def test_a_search_outlives_its_connection(server: Server, database: str) -> None:
    lost = []

    def on_trial(trial: Trial) -> None:
        if trial.number in (3, 4, 11):
            lost.append(server.end_connections(database))

    with Store("sqlite://") as store:
        whole = search(ToySpace(), "evolution", ["toy"], budget=20, evaluator=evaluate, store=store)
    found = search(
        ToySpace(), "evolution", ["toy"], budget=20, evaluator=evaluate, store=server.url(database),
        on_trial=on_trial,
    )  # fmt: skip
    assert lost == [1, 1, 1]
    known = [(t.architecture, t.evaluation.scores) for t in whole.trials]
    assert [(t.architecture, t.evaluation.scores) for t in found.trials] == known
    with Store(server.url(database), read_only=True) as store:
        assert store.trials(store.run()) == found.trials
        number, _ = store.state(store.run()) or (0, {})
        assert 18 < number <= 20


@pytest.mark.parametrize("after", [False, True], ids=["before the commit", "after it"])
def test_a_commit_without_an_answer(
    server: Server, database: str, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    with Store(server.url(database)) as store:
        run = store.start(CONFIG, {})
        store.append(run, make_trial(0), {"n": 0})
        dialect = store._engine.dialect
        commit = dialect.do_commit

        def lose(connection: Any) -> None:
            monkeypatch.undo()
            if after:
                commit(connection)
            server.end_connections(database)
            commit(connection)
            connection.execute("SELECT 1")

        monkeypatch.setattr(dialect, "do_commit", lose)
        store.append(run, make_trial(1), {"n": 1})
        store.append(run, make_trial(2))
        assert store.trials(run) == (make_trial(0), make_trial(1), make_trial(2))
        assert store.state(run) == (2, {"n": 1})


def test_what_came_back_is_another_story(
    server: Server, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a lost connection the database has another's trial, or has lost some: nothing is written."""
    with Store(server.url(database)) as store, Store(server.url(database)) as other:
        run = store.start(CONFIG, {})
        store.append(run, make_trial(0))
        reopen = store._open

        def meanwhile(action: Callable[[], None]) -> None:
            def opened() -> None:
                reopen()
                other.close()
                other._open()
                action()

            monkeypatch.setattr(store, "_open", opened)
            server.end_connections(database)

        meanwhile(lambda: other.append(run, make_trial(1, 7.0)))
        with pytest.raises(UserError, match="another process is writing the same run"):
            store.append(run, make_trial(1), {"n": 1})
        assert other.trials(run) == (make_trial(0), make_trial(1, 7.0))

        def forget() -> None:
            with other._transaction() as connection:
                connection.execute(sa.text("DELETE FROM trials WHERE number = 0"))

        meanwhile(forget)
        with pytest.raises(UserError, match="came back with 1 of 2 trials of run 1: resume"):
            store.append(run, make_trial(2))
        with pytest.raises(UserError, match=r"run 1, trial 0: the next one has the number 1; the store is"):
            other.trials(run)


def test_a_server_that_goes_away(server: Server, database: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    url = server.url(database)
    with Store(url) as store:
        run = store.start(CONFIG, {})
        store.append(run, make_trial(0))
        server.stop()
        try:
            said = refusal(lambda: store.append(run, make_trial(1)))
            assert "the database does not answer" in said
            said = refusal(lambda: Store(url))
            assert "does not answer; check the URL, and that its server runs" in said
        finally:
            server.start()
    with Store(url) as store:
        run = store.start(CONFIG, {}, resume=True)
        assert store.trials(run) == (make_trial(0),)
        server.end_connections(database)
        said = refusal(lambda: store.trials(run))
        assert "the connection was lost; every trial up to here is kept: resume" in said
    check_secret(caplog.text)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda url: url.replace(ENCODED, ENCODED + "x"), "the user's name or password is wrong"),
        (lambda url: url.replace("/d", "/no_such_d"), "the database or the user is not there"),
        (lambda url: url.replace("pynas:", "nobody:"), "the user's name or password is wrong"),
        (lambda url: url.replace(f":{ENCODED}", "") + f"&password={ENCODED}y", "password is wrong"),
        (lambda url: url + f"&sslpassword={ENCODED}&port=abc", "the URL cannot be used"),
        (lambda url: url + "&sslmode=sometimes", "an option that the database does not know"),
        (lambda url: url + f"&no_such_option={ENCODED}", "an option that the database does not know"),
        (lambda url: url.replace("@/", "@[::1/"), "expected a path or a URL"),
        (lambda url: url.replace("@/", "@host:port/"), "expected a path or a URL"),
        (lambda url: url.replace(ENCODED, f"x@{ENCODED}@y"), "an @ in a .* password is written %40"),
        (lambda url: url.replace("://", "//"), "directory .* does not exist"),
        (lambda url: url.replace("://", ":"), "directory .* does not exist"),
        (lambda url: url.replace("psycopg", "no_such_driver"), "driver is not installed"),
        (lambda url: url.replace("@/", "@127.0.0.1:9/").partition("?")[0], "the database does not answer"),
        (lambda url: url.replace("@/", "@no.such.host.invalid/").partition("?")[0], "does not answer"),
    ],
)  # fmt: skip
def test_urls_that_do_not_work(
    server: Server,
    database: str,
    change: Callable[[str], str],
    expected: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    said = refusal(lambda: Store(change(server.url(database))))
    assert re.search(expected, said), said
    check_secret(caplog.text)


def test_commands_say_no_password(
    run_pynas: Callable[..., tuple[int, str, str]], server: Server, database: str, tmp_path: Path
) -> None:
    url = server.url(database)
    page = tmp_path / "page.html"
    arguments = ("search", "--objective", "-params", "--budget", 3, "--strategy", "random")
    said = []
    for more in (("--report", page), ("--json",), ("--resume", "--json"), ("--resume",)):
        code, out, err = run_pynas(*arguments, "--store", url, *more)
        said.append((code, out, err))
        if "--json" in more and code == 0:
            json.loads(out)
    assert [code for code, _, _ in said] == [0, 2, 0, 0]
    assert "run 1 has this configuration already" in said[1][2]
    said.append(run_pynas("report", url, "--output", page))
    said.append(run_pynas("report", url + "x", "--output", page))
    assert [code for code, _, _ in said[4:]] == [0, 2]
    check_secret(repr(said) + page.read_text())
    with server.admin() as connection:  # nor does the store
        dump = [*connection.execute("SELECT query FROM pg_stat_activity").fetchall()]
    with Store(url, read_only=True) as store:
        check_secret(repr((store.runs(), store.location, repr(store), dump)))


def test_the_driver_is_optional(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['psycopg'] = None\n"
        "from pynas.store import Store\n"
        "try:\n    Store('postgresql://u:secret@h/d')\n"
        "except ValueError as error:\n    print(error)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "the database driver is not installed" in out
    assert "pip install 'pynas-torch[postgresql]'" in out
    assert "secret" not in out
