"""Processes that evaluate architectures beside each other, any of which may die."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING

from pynas._errors import UserError
from pynas._objectives import evaluated
from pynas.trial import Evaluation, Evaluator, Status

if TYPE_CHECKING:
    from pynas._recorder import Proposal

_SECONDS_TO_END = 5.0


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
    begun once more; if that kills a process again, the evaluation has failed. When this process dies the
    others end by themselves.

    Args:
        evaluator: Made for pickling: an instance or function of an importable module.
        count: Number of processes, started at the first call.

    Raises:
        UserError: The evaluator cannot be pickled.
    """

    def __init__(self, evaluator: Evaluator, count: int) -> None:
        try:
            self._payload = pickle.dumps(evaluator)
        except Exception as error:  # pickle raises whatever the object's own methods raise
            raise UserError(
                f"workers: the evaluator cannot be sent to other processes: {type(error).__name__}: {error}"
            ) from error
        self._context = multiprocessing.get_context("spawn")  # threads and CUDA do not survive a fork
        self._count = count
        self._workers: list[_Worker] = []
        self._waiting: deque[_Job] = deque()
        self._results: dict[int, Evaluation | UserError] = {}
        self._next = 0

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *exception: object) -> None:
        for worker in self._workers:
            if worker.job is not None or not worker.ready:
                worker.process.terminate()
            worker.connection.close()
        for worker in self._workers:
            worker.process.join(_SECONDS_TO_END)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()

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
        while len(self._workers) < self._count:
            self._workers.append(self._start())
        while number not in self._results:
            self._work()
        found = self._results.pop(number)
        if isinstance(found, UserError):
            raise found
        return found

    def _start(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        torch = sys.modules.get("torch")
        threads = None if torch is None else torch.get_num_threads()
        process = self._context.Process(target=_serve, args=(theirs, self._payload, threads))
        process.start()
        theirs.close()  # so that the end of the process is the end of what it sends
        return _Worker(process, ours)

    def _work(self) -> None:
        """Give out what is waiting, and take what comes next."""
        for worker in self._workers:
            if worker.ready and worker.job is None and self._waiting:
                worker.job = self._waiting.popleft()
                self._send(worker)
        busy = {w.connection: w for w in self._workers if w.job is not None or not w.ready}
        for connection in wait(list(busy)):
            assert isinstance(connection, Connection)
            self._receive(busy[connection])

    def _send(self, worker: _Worker) -> None:
        assert worker.job is not None
        with contextlib.suppress(OSError):  # it is dead, which the next reading finds
            worker.connection.send((*worker.job.proposal, worker.job.number == 0))

    def _receive(self, worker: _Worker) -> None:
        try:
            message = worker.connection.recv()
        except (EOFError, OSError):
            self._bury(worker)
            return
        if not worker.ready:
            if message is not None:
                raise UserError(f"workers: a process cannot read the evaluator: {message}")
            worker.ready = True
            return
        assert worker.job is not None
        self._results[worker.job.number] = message
        worker.job = None

    def _bury(self, worker: _Worker) -> None:
        """A process is dead: start another, and begin its evaluation once more or give it up."""
        worker.process.join()
        worker.connection.close()
        how = f"exit code {worker.process.exitcode}"
        if not worker.ready:
            raise UserError(
                f"workers: a process did not start ({how}); its own message stands above. A script that "
                "searches with workers does so below 'if __name__ == \"__main__\":'"
            )
        self._workers[self._workers.index(worker)] = self._start()
        job = worker.job
        assert job is not None
        job.deaths += 1
        if job.deaths == 1:
            self._waiting.appendleft(job)
        else:
            message = f"the process that evaluated it died twice ({how})"
            self._results[job.number] = Evaluation(Status.FAILED, message=message)


def _serve(connection: Connection, payload: bytes, threads: int | None) -> None:
    """What a process does: read the evaluator, then evaluate until nobody asks any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the searching process's, which ends this one
    if threads is not None:  # for the torch that the evaluator may load only later
        os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(threads)
    try:
        evaluator = pickle.loads(payload)  # which the searching process wrote
        torch = sys.modules.get("torch")
        if torch is not None and threads is not None:
            torch.set_num_threads(threads)
    except Exception as error:
        connection.send(f"{type(error).__name__}: {error}")
        return
    try:
        connection.send(None)
        while True:
            architecture, fidelity, is_first = connection.recv()
            try:
                result: Evaluation | UserError = evaluated(evaluator, architecture, is_first, fidelity)
            except UserError as error:
                result = UserError(str(error))
            connection.send(result)
    except (EOFError, OSError):
        return  # the search has ended, or its process has died
