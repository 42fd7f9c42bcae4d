"""Disturbs one job by a number of faults and compares it with an undisturbed run."""

from __future__ import annotations

import random
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from pynas._errors import UserError
from pynas._plural import counted
from pynas.testing.chaos import _outcomes
from pynas.testing.chaos._control import Control
from pynas.testing.chaos._faults import FAULTS, Fault
from pynas.testing.chaos._jobs import Job
from pynas.testing.chaos._outcomes import Outcome
from pynas.testing.chaos._place import Place
from pynas.testing.chaos._process import End, Process, Starter, some_output
from pynas.testing.chaos._results import Result
from pynas.trial import Status

_LONGEST = 120.0  # seconds that a process may take, beside twenty times what an undisturbed one did
_ORPHANS = 15.0  # seconds that workers may take to find out that they work for nobody, beside thrice the same
_EXACT = 0.4  # share of the signals that hit exactly at an event
_PER_RUN = 4  # faults in one run from start to end, about
_ATTEMPTS = 60  # in one run, at most
_MISSES = 5  # times that a fault may find nothing to hit


class _Wrong(Exception):  # noqa: N818
    """Something that must not be, in words."""


class _Excused(Exception):  # noqa: N818
    """A trial has failed because of a fault, and says so: this run cannot be compared."""


class Campaign:
    """Disturbs one job.

    Args:
        job: The job.
        place: Where it works.
        log: An empty folder for what its processes say.
        faults: Names of the kinds to draw from.
        starter: Starts its processes.
        seed: Of kinds and moments; those of a job do not depend on other jobs.
        load: A Python file for its processes to run first, or an empty text.
        keep: Makes a folder for evidence.
        on_fault: Called after each fault.
        deadline: No fault comes after this time of the monotonic clock.
    """

    def __init__(
        self,
        job: Job,
        place: Place,
        log: Path,
        faults: Mapping[str, Fault] = FAULTS,
        *,
        starter: Starter,
        seed: int,
        load: str,
        keep: Callable[[str], Path],
        on_fault: Callable[[str, str], None],
        deadline: float,
    ) -> None:
        self.starter, self.job, self.place, self.log, self.load = starter, job, place, log, load
        self.keep, self.on_fault, self.deadline = keep, on_fault, deadline
        self.rng = random.Random(f"{seed} {job.name}")
        self.result = Result(job.name)
        self.result.missing = {
            name: why for name, fault in faults.items() if (why := fault.missing(job, place))
        }
        self.faults = [name for name in faults if name not in self.result.missing]
        self.control = Control(log / "control", create=True)
        self.story: list[str] = []
        self.stored = 0
        self._deck = self._shuffled()
        self._open: deque[str] = deque()
        self._misses = 0

    def run(self, count: int) -> Result:
        """Disturb the job ``count`` times."""
        started = time.monotonic()
        try:
            if self.faults and count:
                self._undisturbed()
                while self.left(count):
                    try:
                        self._once(count)
                    except _Excused:
                        self.result.excused += 1
        except _Wrong as error:
            self._report(str(error))
        except UserError as error:  # what it has left cannot be read
            self.result.different += 1
            self._report(str(error))
        self.result.seconds = time.monotonic() - started
        return self.result

    def left(self, count: int) -> bool:
        """Whether faults are to come."""
        return self.result.faults.total() < count and bool(self.faults) and time.monotonic() < self.deadline

    # ---- runs --------------------------------------------------------------------------------------------

    def _undisturbed(self) -> None:
        self.job.prepare(self.place.prepare())
        folder = self.place.fresh()
        began = time.monotonic()
        with Process(self.starter, self.job, self.place, self.control, self.load, self.log) as process:
            end = process.end(5 * _LONGEST)
        self.seconds, self.events = time.monotonic() - began, max(1, self.control.events)
        self._tell(process, end, "undisturbed")
        if end.code != 0:
            raise _Wrong(f"undisturbed, it ends with exit code {end.code}: {end.line}")
        self.expected: Outcome = self.job.outcome(folder)
        self.longest = _LONGEST + 20 * self.seconds
        if not self.expected:
            raise _Wrong("undisturbed, it leaves nothing")

    def _once(self, count: int) -> None:
        """From the start to the end."""
        folder = self.place.fresh()
        self.stored = 0
        self.story = self.story[:1]
        for attempt in range(_ATTEMPTS):
            self.result.processes += 1
            self.result.resumed += attempt > 0
            if self._attempt(count):
                break
        else:
            raise _Wrong(f"it does not come to its end in {_ATTEMPTS} attempts")
        self.result.runs += 1
        self.result.compared += len(self.expected)
        self.result.leftovers += len(_outcomes.leftovers(folder))
        difference = _outcomes.compare(self.job.outcome(folder), self.expected)
        self.result.lost += len(difference.lost)
        self.result.doubled += len(difference.doubled)
        self.result.different += len(difference.different)
        if difference:
            raise _Wrong(f"it ends otherwise than undisturbed: {difference}")

    def _attempt(self, count: int) -> bool:
        """One process, with one fault that ends it, several that do not, or none if it is quick.

        Returns:
            Whether the job has come to its end.
        """
        names: list[str] = []
        first = self._next() if self.left(count) else None
        output = some_output(self.rng) if first == "output" else None
        with Process(
            self.starter, self.job, self.place, self.control, self.load, self.log, output
        ) as process:
            if output is not None:
                names.append(self._struck(f"output ({output})"))
            elif first is not None:
                names += self._disturb(process, first, count)
            end = process.end(self.longest)
        self._tell(process, end, ", ".join(names) or "nothing")
        faults = [FAULTS[name.partition(" ")[0]] for name in names]
        for fault in faults:
            fault.end(process, self.rng)
        if end.code == 2:
            self.result.refusals.append(f"{', '.join(names)}: {end.line}")
        if wrong := judged(end, faults):
            raise _Wrong(wrong)
        patience = _ORPHANS + 3 * self.seconds
        orphans = process.left_after(patience)
        if orphans:
            raise _Wrong(f"{counted(len(orphans), 'orphan')} still running {patience:.0f} s after its end")
        self._check_left(faults)
        spared = self.job.spares and any(fault.refused for fault in faults)
        return end.code == 0 and not spared

    def _disturb(self, process: Process, name: str, count: int) -> Iterator[str]:
        """Let faults happen until one has that does not pass; yields their names."""
        deadline = time.monotonic() + self.longest
        while True:
            fault = FAULTS[name]
            often = _PER_RUN * (1 + self._misses)  # sooner, if the process was too quick
            event = self.control.events + 1 + int(self.rng.expovariate(often / self.events))
            if fault.signal is not None and self.rng.random() < _EXACT:
                hit, when = process.signals_itself(event, fault.signal, deadline), f"exactly at event {event}"
            else:
                delay = self.rng.uniform(0, 2 * self.seconds / self.events)
                hit = process.reaches(event, deadline)
                if hit:
                    time.sleep(delay)
                hit = hit and process.running and fault.strike(process, self.rng)
                when = f"{1e3 * delay:.1f} ms after event {event}"
            if not hit:
                self._missed(name)
                return
            yield self._struck(f"{name} ({when})")
            if not fault.passes or not self.left(count):
                return
            name = self._next()
            if name == "output":  # which comes with the start of a process
                self._open.appendleft(name)
                return

    # ---- which fault --------------------------------------------------------------------------------------

    def _shuffled(self) -> Iterator[str]:
        while True:
            deck = [name for name in self.faults for _ in range(FAULTS[name].often)]
            self.rng.shuffle(deck)
            yield from deck

    def _next(self) -> str:
        while True:
            name = self._open.popleft() if self._open else next(self._deck)
            if name in self.faults:
                return name

    def _missed(self, name: str) -> None:
        """The process ended first, or there was nothing to hit: the same again in the next one."""
        self._misses += 1
        if self._misses < _MISSES:
            self._open.append(name)
        else:
            self._misses = 0

    def _struck(self, text: str) -> str:
        name = text.partition(" ")[0]
        self._misses = 0
        self.result.faults[name] += 1
        self.on_fault(self.job.name, name)
        return text

    # ---- what must be ------------------------------------------------------------------------------------

    def _check_left(self, faults: list[Fault]) -> None:
        found, wrong = self.job.check(self.place.folder, self.expected)
        if wrong and self.job.store:
            excuses = [fault.excuse for fault in faults if fault.excuse]
            failed = [text for name, text in found.items() if text != self.expected.get(name)]
            if any(f" {Status.FAILED} " in text and e in text for text in failed for e in excuses):
                raise _Excused
        if wrong:
            self.result.different += 1
            raise _Wrong(f"what it has left is not the beginning of what it should leave: {wrong}")
        if not self.job.store:
            return
        said = self.control.trials
        # What was there before must still be, and what was called done must be too.
        needed = max(self.stored, said) if all(fault.keeps for fault in faults) else 0
        self.stored = len(found)
        if len(found) < needed:
            self.result.lost += needed - len(found)
            raise _Wrong(
                f"{counted(needed, 'trial')} reported as done, of which the store has {len(found):,}"
            )

    # ---- evidence ----------------------------------------------------------------------------------------

    def _tell(self, process: Process, end: End, what: str) -> None:
        self.story.append(
            f"process {process.pid}: {what}: exit code {end.code} after "
            f"{counted(self.control.events, 'event')}\n"
            + "".join(f"    {line}\n" for line in end.err.splitlines()[-40:])
        )

    def _report(self, problem: str) -> None:
        self.result.problems.append(problem)
        folder = self.keep(self.job.name)
        (folder / "story.txt").write_text("".join([*self.story, problem, "\n"]), encoding="utf-8")
        self.place.free()
        self.place.writable(True)
        if self.place.folder.exists():
            shutil.copytree(self.place.folder, folder / "left", dirs_exist_ok=True)
        self.result.evidence = folder


def judged(end: End, faults: Sequence[Fault]) -> str:
    """What is wrong with how a process ended that these faults happened to, or an empty text."""
    if end.code is None:
        return "it hangs"
    clear = end.code == 2 and end.is_clear
    refused = clear and any(fault.refused for fault in faults)
    if end.code != 0 and not refused and not any(end.code in fault.ends for fault in faults):
        how = "refuses to go on" if clear else "does not end in one clear line"
        return f"it {how}, exit code {end.code}: {end.line or 'it says nothing'}"
    if end.code >= 0 and "Traceback" in end.err:
        return f"exit code {end.code}, but a traceback: {end.line}"
    return ""
