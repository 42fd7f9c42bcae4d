"""Looking for failures by changing inputs at random."""

from __future__ import annotations

import mmap
import os
import random
import time
from collections.abc import Callable, Sequence
from functools import partial

from pynas.testing._sandbox import PATIENCE, in_child, skeleton, timed
from pynas.testing.fuzz._mutations import LARGEST, mutated
from pynas.testing.fuzz._targets import Target, folder


def judged(target: Target, raw: bytes) -> tuple[str, str]:
    """What is wrong with how ``target`` reads ``raw``, or nothing; and how it ended. In a child only."""
    os.chdir(folder())
    with timed():
        return target.verdict(raw)


def failures_of(target: Target, inputs: Sequence[bytes]) -> dict[bytes, str]:
    """Which inputs fail, and how; those after one that kills the process are read by another."""
    found: dict[bytes, str] = {}
    left = list(inputs)
    while left:

        def read_all(write: Callable[[bytes], object], some: list[bytes] = left) -> None:
            for raw in some:
                write(judged(target, raw)[0].encode(errors="replace") + b"\n")

        output, death = in_child(read_all)
        lines = output.decode(errors="replace").split("\n")[:-1][: len(left)]
        found |= {raw: line for raw, line in zip(left, lines, strict=False) if line}
        left = left[len(lines) :]
        if left and death:
            found[left[0]] = death
            left = left[1:]
    return found


def search(
    target: Target, corpus: Sequence[bytes], seconds: float, seed: int, most: int
) -> tuple[dict[bytes, str], int]:
    """Inputs that fail, one for each way of failing, and how many inputs were read."""
    found: dict[bytes, str] = {}
    pool = list(corpus) or [b""]
    done, end, round_ = 0, time.monotonic() + seconds, 0
    with mmap.mmap(-1, LARGEST + 16) as shared:
        while len(found) < most and time.monotonic() < end:
            rng = random.Random(f"{target.name} {seed} {round_}")
            known = {skeleton(reason) for reason in found.values()}
            shared[:16] = bytes(16)
            run = partial(_run, target, pool, end, rng, known, shared)
            output, death = in_child(run)
            done += int.from_bytes(shared[8:16], "little")
            last = shared[16 : 16 + int.from_bytes(shared[:8], "little")]
            for line in filter(None, output.decode(errors="replace").split("\n")):
                how, _, rest = line.partition("\t")
                raw, _, reason = rest.partition("\t")
                if how not in ("fails", "new"):
                    raise RuntimeError(f"{target.name}: the fuzzer itself fails: {output.decode()[-2000:]}")
                if how == "fails":
                    found[bytes.fromhex(raw)] = reason
                else:
                    pool.append(bytes.fromhex(raw))
            if death and skeleton(death) not in known:
                found[last] = death
            elif death:  # in a way that is known: go on with other inputs
                end -= seconds / 20
            round_ += 1
    return found, done


def _run(
    target: Target,
    pool: list[bytes],
    end: float,
    rng: random.Random,
    known: set[str],
    shared: mmap.mmap,
    write: Callable[[bytes], object],
) -> None:
    """In the child: until time is over, or something fails. Inputs that end in a new way join the pool."""
    seen: set[str] = set()
    done, said = 0, time.monotonic()
    while (now := time.monotonic()) < end:
        if now - said > PATIENCE / 10:
            write(b"\n")  # so that nobody thinks that it hangs
            said = now
        raw = mutated(rng.choice(pool), pool, target.tokens, rng)
        shared[:8] = len(raw).to_bytes(8, "little")
        shared[16 : 16 + len(raw)] = raw
        done += 1
        shared[8:16] = done.to_bytes(8, "little")
        failure, way = judged(target, raw)
        if failure and skeleton(failure) not in known:
            write(f"fails\t{raw.hex()}\t{failure}\n".encode(errors="replace"))
            return
        if way not in seen and not failure:
            seen.add(way)
            pool.append(raw)
            write(f"new\t{raw.hex()}\n".encode())
