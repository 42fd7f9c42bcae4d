"""Builds a latency table: finds operators, times them in rounds, resumes after an interruption."""

from __future__ import annotations

import dataclasses
import math
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from pynas._errors import UserError
from pynas._io import provenance
from pynas._plural import counted
from pynas.architecture import Architecture
from pynas.hardware import _network, runtimes
from pynas.hardware._network import Task
from pynas.hardware._timings import Measured, OperatorTiming
from pynas.hardware._trace import Call, Operator, Setting, is_block, trace
from pynas.hardware.stopwatch import Stopwatch
from pynas.spaces import SearchSpace
from pynas.stats.state import generators_kept

if TYPE_CHECKING:
    from pynas.hardware.latency_table import LatencyTable

Block = Callable[[nn.Module], bool]

PATIENCE = 30  # stop after so many architectures in a row without a new operator
_MOST_SAMPLES = 1000
_SECONDS_BETWEEN_SAVES = 5.0
_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}


def traced(
    space: SearchSpace, arch: Architecture, settings: Mapping[str, Any], block: Block | None = None
) -> tuple[Counter[str], dict[str, Operator]]:
    """The operators that the network of ``arch`` runs under a table's settings."""
    task = Task(**settings["task"])
    return _network.follow(space, arch, task, lambda model, inputs: trace(model, inputs, block or is_block))


class Builder:
    """One build; the arguments are those of :meth:`LatencyTable.build`."""

    def __init__(
        self,
        space: SearchSpace,
        device: str,
        *,
        task: Mapping[str, Any],
        dtype: str,
        channels_last: bool,
        runtime: str,
        threads: int | None,
        rounds: int,
        seconds: float,
        seed: int,
        block: Block | None,
        stopwatch: Stopwatch | None,
        on_progress: Callable[[int, int, str], None],
    ) -> None:
        if dtype not in _DTYPES:
            raise UserError(f"dtype: expected one of {', '.join(_DTYPES)}, got {dtype!r}")
        if rounds < 1 or not seconds > 0:
            raise UserError(f"rounds, seconds: expected positive numbers, got {rounds} and {seconds}")
        kind = device.partition(":")[0]
        if kind not in ("cpu", "cuda"):
            raise UserError(f"device: expected cpu or cuda, got {device!r}")
        if kind == "cuda" and not torch.cuda.is_available():
            raise UserError("device: torch finds no CUDA device; see 'pynas doctor'")
        self.space, self.block, self.rounds, self.seed = space, block, rounds, seed
        self.setting = Setting(device, _DTYPES[dtype], channels_last)
        self.runtime = runtimes.get(runtime)
        self.runtime.check(self.setting)
        self._ready: dict[str | Architecture, Callable[[], object]] = {}
        self.threads = torch.get_num_threads() if threads is None else threads
        self.stopwatch = stopwatch or Stopwatch(device, seconds)
        self.on_progress = on_progress
        self.task = Task(**task)
        if self.task.image_size is None:
            size = _network.published(space, "image_size")
            self.task = dataclasses.replace(self.task, image_size=size)
        if self.task.num_classes is None:
            classes = _network.published(space, "num_classes")
            self.task = dataclasses.replace(self.task, num_classes=classes)
        self.settings: dict[str, Any] = {
            "task": self.task.to_dict(),
            "device": device,
            "dtype": dtype,
            "channels_last": channels_last,
            "runtime": runtime,
            "threads": self.threads,
            "rounds": rounds,
            "seconds": seconds,
            "seed": seed,
        }

    def run(
        self, cls: type[LatencyTable], name: str, path: Path | None, fit_networks: int, held_out: int
    ) -> LatencyTable:
        """Build, or resume the build in ``path``."""
        self.settings |= {"fit_networks": fit_networks, "held_out": held_out}
        table = self._begin(cls, name, path)
        if table.complete:
            return table
        operators, networks = self._find(table, fit_networks, held_out)
        for key in operators:
            table.operators.setdefault(key, OperatorTiming())
        for arch, network in networks.items():
            table.networks.setdefault(arch, network)
        jobs: list[str | Architecture] = [*operators, *networks]
        total, done, saved = self.rounds * len(jobs), 0, time.monotonic()
        with _threads(self.threads), generators_kept():
            for number in range(self.rounds):
                # The order depends only on seed and round, so a resumed build keeps it.
                random.Random(f"{self.seed} {number}").shuffle(jobs)
                for job in jobs:
                    if len(_rounds(table, job)) <= number:
                        self._time(table, job, operators)
                        if path is not None and time.monotonic() - saved > _SECONDS_BETWEEN_SAVES:
                            table.save(path)
                            saved = time.monotonic()
                    done += 1
                    note = f"round {number + 1} of {self.rounds}"
                    self.on_progress(done, total, note)
        table.fit()
        table.complete = True
        table.judge()
        if path is not None:
            table.save(path)
        return table

    def _begin(self, cls: type[LatencyTable], name: str, path: Path | None) -> LatencyTable:
        machine = provenance.collect() | {"device": _device_name(self.setting.device)}
        machine["versions"] = {**machine["versions"], **self.runtime.versions()}
        if path is None or not os.path.exists(path):
            return cls(self.space, name, self.settings, machine, self.block)
        table = cls.load(path, self.space, partial=True)
        table._block = self.block
        timed, versions = {"runtime": table.runtime} | table.settings, table.machine.get("versions", {})
        for what, old, new in (
            *((key, timed.get(key), value) for key, value in self.settings.items()),
            ("name", table.device, name),
            ("machine", table.machine.get("device"), machine["device"]),
            *(
                (key, versions.get(key), machine["versions"][key])
                for key in ("torch", *self.runtime.versions())
            ),
        ):
            if old != new:
                raise UserError(
                    f"{path} holds a table with {what} {old}, not {new}: delete it, or write to another file"
                )
        table.settings = timed
        return table

    def _find(
        self, table: LatencyTable, fit_networks: int, held_out: int
    ) -> tuple[dict[str, Operator], dict[Architecture, Measured]]:
        """Operators of extreme and random architectures, until no new ones are found; networks to time."""
        rng = random.Random(self.seed)
        operators: dict[str, Operator] = {}
        drawn: dict[Architecture, None] = {}
        idle = 0
        corners = self._corners()
        for i in range(_MOST_SAMPLES):
            if idle == PATIENCE:
                break
            arch = corners[i] if i < len(corners) else self.space.sample(rng)
            if arch in drawn:
                idle += 1
                continue
            counts, found = traced(self.space, arch, self.settings, self.block)
            drawn[arch] = None
            table._counts[arch] = dict(counts)
            idle = 0 if found.keys() - operators.keys() else idle + 1
            operators = found | operators
            found_so_far = f"{counted(len(operators), 'operator')} in {counted(len(drawn), 'architecture')}"
            self.on_progress(0, 0, found_so_far)
        task = self.task
        options: dict[str, Any] = {"num_classes": task.num_classes, "image_size": task.image_size}
        costs = {arch: self.space.macs(arch, **options, in_channels=task.in_channels) for arch in drawn}
        ordered = sorted(drawn, key=costs.__getitem__)
        count = min(fit_networks, len(ordered))
        last = max(count - 1, 1)
        networks = {ordered[i * (len(ordered) - 1) // last]: Measured("fit") for i in range(count)}
        # Enough draws for a small space to give all that it has.
        for _ in range(100 * held_out):
            if sum(net.use == "held out" for net in networks.values()) == held_out:
                break
            networks.setdefault(self.space.sample(rng), Measured("held out"))
        return operators, networks

    def _corners(self) -> list[Architecture]:
        """Architectures with the same choice everywhere, which random samples hardly ever are."""
        choices = self.space.num_choices
        decisions = [tuple(min(c, n - 1) for n in choices) for c in range(max(choices, default=0))]
        return [Architecture(self.space.name, d) for d in decisions if self.space.is_valid(d)]

    def _time(self, table: LatencyTable, job: str | Architecture, operators: Mapping[str, Operator]) -> None:
        what = job if isinstance(job, str) else f"the network {self.space.format(job)}"
        try:
            timing = self.stopwatch.measure(self._runnable(job, operators))
        except (RuntimeError, NotImplementedError) as error:
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise UserError(f"{what} does not run on {self.setting.device}: {reason[0]}") from error
        for ms in (timing.ms, timing.low, timing.high):
            if not (math.isfinite(ms) and ms > 0):
                raise UserError(
                    f"the time of {what} was measured as {ms} ms and not recorded: check the clock and the "
                    "device, then repeat the build to resume"
                )
        if isinstance(job, str):
            table.operators[job].rounds.append((timing.ms, timing.low, timing.high, timing.runs))
        else:
            table.networks[job].rounds.append(timing.ms)

    def _runnable(self, job: str | Architecture, operators: Mapping[str, Operator]) -> Callable[[], object]:
        """What runs an operator or a whole network once, in the runtime."""
        if job in self._ready:
            return self._ready[job]
        call = operators[job].make(self.setting) if isinstance(job, str) else self._network(job)
        ready = self.runtime.prepare(call, self.threads)
        if self.runtime.compiles:
            self._ready[job] = ready
        return ready

    def _network(self, arch: Architecture) -> Call:
        model = self.setting.network(_network.build(self.space, arch, self.task, "cpu"))
        return Call(model, (self.setting.tensor(_network.example(self.space, self.task)),))


def _rounds(table: LatencyTable, job: str | Architecture) -> list[Any]:
    return table.operators[job].rounds if isinstance(job, str) else table.networks[job].rounds


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _device_name(device: str) -> str:
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return str(provenance.collect()["device"])
