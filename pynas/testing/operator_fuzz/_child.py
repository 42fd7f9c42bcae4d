"""The process that makes the calls, in forks of itself: one that dies costs another fork, and not seconds."""

from __future__ import annotations

import json
import mmap
import os
import random
import resource
import signal
import struct
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

from pynas.testing._extension import use_extension

_PLACE = struct.Struct("<q")
_UNCHANGED = -1  # in place of a call's number


def main(report: str, seed: int, first: int, last: int, memory: int, patience: float, most: int) -> None:
    """Makes calls `first` to `last` of a seed; writes a line of JSON for each fault, then how many it made.

    Args:
        report: The file to write.
        seed: Seed of the calls.
        first: Number of the first call; 0 also makes the unchanged samples.
        last: Number after the last call.
        memory: Bytes that the calls may allocate; 0 for no limit.
        patience: Seconds that a call may take.
        most: Stop after so many calls that end the process.
    """
    use_extension()
    import torch

    from pynas.testing.operator_fuzz._call import Judge
    from pynas.testing.operator_fuzz._mutations import mutate
    from pynas.testing.operator_fuzz._samples import OperatorCall, describe, samples

    warnings.simplefilter("ignore")
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    calls, judge = samples(), Judge()
    names = sorted(calls)
    where = mmap.mmap(-1, _PLACE.size)  # forks tell here which call they are at

    def drawn(index: int) -> tuple[OperatorCall | None, bool]:
        rng = random.Random(f"{seed}:{index}")
        sample, at_end = rng.choice(calls[names[index % len(names)]]), rng.random() < 0.8
        try:
            return mutate(sample, rng), at_end
        except RuntimeError:  # torch itself refuses to make such a tensor
            return None, at_end

    def told(index: int) -> str:
        call = None if index < 0 else drawn(index)[0]
        return "" if call is None else describe(call)

    with Path(report).open("a", buffering=1) as lines:

        def write(index: int, reason: str, call: str) -> None:
            lines.write(json.dumps([index, call.partition("(")[0], reason, call]) + "\n")

        def make(begin: int) -> None:
            if memory:
                _limit(memory)
            if begin == 0:
                for call in (call for name in names for call in calls[name]):
                    reason = judge.fault(call, True, must_succeed=True)
                    if reason is not None:
                        write(_UNCHANGED, reason, describe(call))
            for index in range(begin, last):
                where[:] = _PLACE.pack(index)
                changed, at_end = drawn(index)
                reason = None if changed is None else judge.fault(changed, at_end, must_succeed=False)
                if reason is not None and changed is not None:
                    write(index, reason, describe(changed))
            where[:] = _PLACE.pack(last)

        begin = first
        while begin < last and most > 0:
            where[:] = _PLACE.pack(_UNCHANGED)
            reason = _fork(partial(make, begin), where, patience)
            (place,) = _PLACE.unpack(where[:])
            if reason:
                most -= 1
                write(place, reason, told(place))
            begin = max(place, first) + 1
        lines.write(json.dumps(min(begin, last) - first) + "\n")


def _fork(work: Callable[[], None], where: mmap.mmap, patience: float) -> str:
    """Why the fork that did the work ended before it was done, or nothing."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException as error:
            traceback.print_exception(error)
        finally:
            os._exit(code)
    place, since = where[:], time.monotonic()
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
            return (
                ""
                if code == 0
                else f"killed by {_name(code)}"
                if code < 0
                else f"ended with exit code {code}"
            )
        if where[:] != place:
            place, since = where[:], time.monotonic()
        elif time.monotonic() - since > patience:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return f"took more than {patience:g} seconds"
        time.sleep(0.02)


def _name(code: int) -> str:
    return signal.Signals(-code).name


def _limit(memory: int) -> None:
    """So many bytes more than are mapped now; an allocation beyond fails instead of ending the process."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + memory
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    given = sys.argv[1:]
    numbers = [int(number) for number in given[1:5]]
    main(given[0], numbers[0], numbers[1], numbers[2], numbers[3], float(given[5]), int(given[6]))
