"""Processes that evaluate architectures beside each other, any of which may die."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Any

from pynas._errors import UserError
from pynas._plural import counted
from pynas._user_values import explained
from pynas.run.evaluation import evaluated
from pynas.trial import Evaluation, Evaluator, Status

if TYPE_CHECKING:
    from pynas.trial import Proposal

_SECONDS_TO_END = 5.0

_FAILED_STARTS = 4
"""How many processes in a row may die, or not come up, without having evaluated anything."""


@dataclass
class _Job:
    number: int
    proposal: Proposal
    deaths: int = 0


@dataclass
class _Worker:
    process: BaseProcess
    connection: Connection
    ready: bool = False
    job: _Job | None = None


class Workers:
    """Evaluations by ``count`` processes; which one makes an evaluation does not show in it.

    Each process has a copy of the evaluator, by pickle, and as many threads of torch as this process has.
    One that dies (killed, out of memory, a fault in native code) is replaced, and what it was evaluating is
    begun once more; if that kills a process again, the evaluation has failed. Processes that die without
    having evaluated anything are replaced too; after ``_FAILED_STARTS`` in a row the others go on without
    them until the next evaluation has ended, and where there are none left, that is an error. When this
    process dies the others end by themselves.

    Args:
        evaluator: Made for pickling: an instance or function of an importable module.
        count: Number of processes, started at the first call.
        scored: Names of the objectives that nobody but the evaluator gives.

    Raises:
        UserError: The evaluator cannot be pickled.
    """

    def __init__(self, evaluator: Evaluator, count: int, scored: Sequence[str] = ()) -> None:
        try:
            self._payload = pickle.dumps(evaluator)
        except Exception as error:  # pickle raises whatever the object's own methods raise
            raise UserError(
                f"workers: the evaluator cannot be sent to other processes: {explained(error)}"
            ) from error
        self._context = multiprocessing.get_context("spawn")  # threads and CUDA do not survive a fork
        self._count = count
        self._scored = tuple(scored)
        self._workers: list[_Worker] = []
        self._waiting: deque[_Job] = deque()
        self._results: dict[int, Evaluation | UserError] = {}
        self._next = 0
        self._failed_starts = 0
        self._last_failure = self._unreadable = ""
        self._any_was_ready = False

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *exception: object) -> None:
        try:
            for worker in self._workers:
                if worker.job is not None or not worker.ready:
                    worker.process.terminate()
                worker.connection.close()
            deadline = time.monotonic() + _SECONDS_TO_END
            for worker in self._workers:
                worker.process.join(max(0.0, deadline - time.monotonic()))
        finally:  # also where Ctrl-C comes while waiting
            for worker in self._workers:
                _end(worker.process)

    def __call__(self, number: int, proposals: Sequence[Proposal]) -> Evaluation:
        """The evaluation of trial ``number``.

        Args:
            number: One more than that of the call before.
            proposals: Of this trial and those after it, which are begun too.

        Raises:
            UserError: No process can be started, or the first evaluation of all raises it.
        """
        self._next = max(self._next, number)
        for at in range(self._next, number + len(proposals)):
            self._waiting.append(_Job(at, proposals[at - number]))
        self._next = number + len(proposals)
        while number not in self._results:
            self._fill()
            self._work()
        found = self._results.pop(number)
        if isinstance(found, UserError):
            raise found
        return found

    def _fill(self) -> None:
        """Start what is missing; UserError where nothing more is started and nothing runs."""
        while len(self._workers) < self._count and self._failed_starts < _FAILED_STARTS:
            try:
                self._workers.append(self._start())
            except OSError as error:  # no memory, too many processes or open files; or it died at once
                self._count_failure(explained(error))
                time.sleep(0.1)
        if self._workers:
            return
        if self._unreadable:
            raise UserError(f"workers: a process cannot read the evaluator: {self._unreadable}")
        failed = counted(self._failed_starts, "process", "processes")
        how = f"{failed} in a row did not start ({self._last_failure})"
        if self._any_was_ready:
            raise UserError(
                f"workers: {how}; every trial up to here is kept: resume the search with its store, perhaps "
                "with fewer workers"
            )
        raise UserError(
            f"workers: {how}; what they say themselves stands above. A script that searches with workers "
            "does so below 'if __name__ == \"__main__\":'"
        )

    def _start(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        torch = sys.modules.get("torch")
        threads = None if torch is None else torch.get_num_threads()
        process = self._context.Process(target=_serve, args=(theirs, threads, self._scored))
        try:
            process.start()
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()  # so that the end of the process is the end of what it sends
        return _Worker(process, ours)

    def _count_failure(self, how: str) -> None:
        self._failed_starts += 1
        self._last_failure = how

    def _work(self) -> None:
        """Give out what is waiting, and take what comes next."""
        for worker in self._workers:
            if worker.ready and worker.job is None and self._waiting:
                job = self._waiting.popleft()
                if self._send(worker, (job.proposal, job.number == 0)):
                    worker.job = job
                else:  # it is dead, which the next reading finds
                    self._waiting.appendleft(job)
                    break
        known = {worker.connection: worker for worker in self._workers}
        for connection in wait(list(known)):
            assert isinstance(connection, Connection)
            self._receive(known[connection])

    def _send(self, worker: _Worker, message: Any) -> bool:
        try:
            worker.connection.send(message)
        except OSError:
            return False
        return True

    def _receive(self, worker: _Worker) -> None:
        """The life of a worker: it asks for the evaluator, says that it has read it, then gives results."""
        try:
            kind, content = worker.connection.recv()
        except Exception:  # nothing, a part of a message, or what somebody else wrote into the pipe
            self._bury(worker)
            return
        if kind == "hello" and not worker.ready:
            with contextlib.suppress(OSError):  # it is dead, which the next reading finds
                worker.connection.send_bytes(self._payload)
        elif kind == "ready" and not worker.ready:
            worker.ready = self._any_was_ready = True
            self._unreadable = ""
        elif kind == "unreadable":
            self._unreadable = str(content)
            self._bury(worker)
        elif kind == "result" and worker.job is not None and isinstance(content, (Evaluation, UserError)):
            self._results[worker.job.number] = content
            worker.job = None
            self._failed_starts = 0
        else:
            self._bury(worker)

    def _bury(self, worker: _Worker) -> None:
        """A process is dead or of no use: begin its evaluation once more or give it up."""
        self._workers.remove(worker)
        worker.connection.close()
        worker.process.join(_SECONDS_TO_END)
        _end(worker.process)
        how = f"exit code {worker.process.exitcode}"
        job = worker.job
        if job is None:
            self._count_failure(how)
            return
        job.deaths += 1
        if job.deaths == 1:
            self._waiting.appendleft(job)
        else:
            message = f"the process that evaluated it died twice ({how})"
            self._results[job.number] = Evaluation(Status.FAILED, message=message)


def _end(process: BaseProcess) -> None:
    if process.is_alive():
        process.kill()
        process.join()


def _serve(connection: Connection, threads: int | None, scored: Sequence[str]) -> None:
    """What a process does: read the evaluator, then evaluate until nobody asks any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the searching process's, which ends this one
    if hasattr(os, "register_at_fork"):  # a process of the evaluator's own must not hold the pipe open
        os.register_at_fork(after_in_child=connection.close)
    threading.Thread(target=_end_with_the_search, daemon=True).start()
    if threads is not None:  # for the torch that the evaluator may load only later
        os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(threads)
    try:
        connection.send(("hello", None))
        payload = connection.recv_bytes()
        try:
            evaluator = pickle.loads(payload)  # which the searching process wrote
            del payload
            torch = sys.modules.get("torch")
            if torch is not None and threads is not None:
                torch.set_num_threads(threads)
        except BaseException as error:
            connection.send(("unreadable", explained(error)))
            return
        connection.send(("ready", None))
        while True:
            proposal, is_first = connection.recv()
            result: Evaluation | UserError
            try:
                result = evaluated(evaluator, proposal, is_first, scored)
            except UserError as error:
                result = UserError(explained(error).removeprefix("UserError: "))
            except KeyboardInterrupt as error:  # of the evaluator: SIGINT is ignored
                result = Evaluation(Status.FAILED, message=explained(error))
            connection.send(("result", result))
    except (EOFError, OSError):
        return  # the search has ended, or its process has died


def _end_with_the_search() -> None:
    """End this process when the searching one is dead, whatever it is evaluating for it."""
    search = multiprocessing.parent_process()
    if search is not None:
        search.join()
        os._exit(1)
