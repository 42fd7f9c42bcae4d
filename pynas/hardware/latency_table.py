"""Latency tables: each operator of a space is timed, and the latency of a network predicted as their sum.

The method is that of H. Cai, L. Zhu, S. Han, "ProxylessNAS", ICLR 2019, arXiv:1812.00332, section 3.4; here
with a fitted correction and the error on held-out networks.
"""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pynas import spaces
from pynas._identity.description import brief
from pynas._plural import counted
from pynas.architecture import Architecture
from pynas.hardware._fit import Correction, PredictionError, doubts_of, prediction_error
from pynas.hardware._timings import Measured, OperatorTiming
from pynas.hardware.model import HardwareModel
from pynas.spaces import SearchSpace

if TYPE_CHECKING:
    from torch import nn

    from pynas.hardware.stopwatch import Stopwatch


TASKS = {"cifar10": (10, 32), "cifar100": (100, 32), "imagenet16-120": (120, 16)}
"""Classes, and pixels of a side, of the data sets of NAS-Bench-201 and NATS-Bench."""


class LatencyTable(HardwareModel):
    """Predicts ``t(arch) = correction(sum over operators of count * ms, sum of counts)`` in milliseconds.

    Make a table with :meth:`build`, write it with :meth:`save`, read it with :meth:`load`.

    Attributes:
        space: The search space.
        device: Name of the machine, as given to :meth:`build`.
        settings: What was timed and how: task, dtype, threads, rounds.
        machine: Versions, processor or GPU, date.
        operators: Timings by operator.
        networks: Timings of whole networks, for the fit and held out.
        correction: The fitted correction.
        complete: Whether the build was completed.
    """

    quantity = "latency"

    def __init__(
        self,
        space: SearchSpace,
        device: str,
        settings: Mapping[str, Any],
        machine: Mapping[str, Any],
        block: Callable[[nn.Module], bool] | None = None,
    ) -> None:
        self.space, self.device = space, device
        self.settings, self.machine = dict(settings), dict(machine)
        self.operators: dict[str, OperatorTiming] = {}
        self.networks: dict[Architecture, Measured] = {}
        self.correction = Correction()
        self.complete = False
        self._doubts: tuple[str, ...] | None = None
        self._block = block
        self._counts: dict[Architecture, dict[str, int]] = {}

    # ---- prediction ------------------------------------------------------------------------------

    def predict(self, arch: Architecture) -> float:
        """Predicted milliseconds of one batch; NaN if the network has an operator that was never timed."""
        if self._missing(arch):
            return math.nan
        counts = self.counts(arch)
        return self.correction(self._sum(arch), sum(counts.values()))

    def explain(self, arch: Architecture) -> str:  # noqa: D102
        missing = self._missing(arch)
        if not missing:
            return ""
        never = "was never timed" if len(missing) == 1 else "were never timed"
        return f"{counted(len(missing), 'operator')} {never} on {self.device}, such as {missing[0]}"

    def describe(self) -> dict[str, Any]:  # noqa: D102
        fit = [self.correction.slope, self.correction.per_operator, self.correction.constant]
        return {
            "name": self.name,
            "settings": self.settings,
            "machine": self.machine,
            "fit": fit,
            "operators": brief({key: timing.ms for key, timing in sorted(self.operators.items())}),
        }

    @property
    def runtime(self) -> str:
        """What ran the operators and networks."""
        return str(self.settings.get("runtime", "torch"))

    @property
    def doubts(self) -> tuple[str, ...]:
        """Why predictions may mislead; found when the table was completed."""
        if self._doubts is None:
            self.judge()
        return self._doubts or ()

    def judge(self) -> None:
        """Say of a complete table what speaks against it."""
        self._doubts = doubts_of(self.error()) if self.complete else None

    def facts(self) -> dict[str, Any]:  # noqa: D102
        task, versions = self.settings["task"], self.machine.get("versions", {})
        inputs = f"{task['image_size']} x {task['image_size']} x {task['in_channels']}"
        return super().facts() | {
            "inputs": f"{inputs}, {counted(task['num_classes'], 'class', 'classes')}, batch {task['batch']}",
            "runtime": f"{self.runtime} {versions.get(self.runtime, '')}".strip(),
            "machine": f"{self.machine.get('device')}, {counted(self.settings['threads'], 'thread')}",
        }

    def unlike(self, dataset: str) -> str:  # noqa: D102
        known = TASKS.get(dataset.lower().removesuffix("-valid"))
        task = self.settings["task"]
        if known in (None, (task["num_classes"], task["image_size"])):
            return ""
        assert known is not None
        return (
            f"it was built for {counted(task['num_classes'], 'class', 'classes')} and images of "
            f"{counted(task['image_size'], 'pixel')}, and {dataset} has {known[0]} and {known[1]}: build "
            f"it with --num-classes {known[0]} --image-size {known[1]}"
        )

    def counts(self, arch: Architecture) -> dict[str, int]:
        """How often the network of ``arch`` runs each operator; needs torch, but computes nothing."""
        if arch not in self._counts:
            from pynas.hardware.build import traced

            self._counts[arch] = dict(traced(self.space, arch, self.settings, self._block)[0])
        return self._counts[arch]

    def error(self) -> PredictionError:
        """The error of predictions on the held-out networks."""
        tested = {arch: net.rounds for arch, net in self.networks.items() if net.use == "held out"}
        sums = [math.nan if self._missing(arch) else self._sum(arch) for arch in tested]
        return prediction_error([self.predict(arch) for arch in tested], sums, list(tested.values()))

    def fit(self) -> None:
        """Fit the correction to the networks measured for this purpose."""
        fitted = [arch for arch, net in self.networks.items() if net.use == "fit" and not self._missing(arch)]
        self.correction = Correction.fit(
            [self._sum(arch) for arch in fitted],
            [sum(self.counts(arch).values()) for arch in fitted],
            [statistics.median(self.networks[arch].rounds) for arch in fitted],
        )

    def _sum(self, arch: Architecture) -> float:
        return sum(count * self.operators[key].ms for key, count in self.counts(arch).items())

    def _missing(self, arch: Architecture) -> list[str]:
        return [key for key in self.counts(arch) if key not in self.operators]

    # ---- building --------------------------------------------------------------------------------

    @classmethod
    def build(
        cls,
        space: SearchSpace | str,
        device: str = "cpu",
        *,
        path: str | os.PathLike[str] | None = None,
        name: str | None = None,
        batch: int = 1,
        image_size: int | None = None,
        num_classes: int | None = None,
        in_channels: int = 3,
        dtype: str = "float32",
        channels_last: bool = False,
        runtime: str = "torch",
        threads: int | None = None,
        rounds: int = 7,
        seconds: float = 0.02,
        fit_networks: int = 12,
        held_out: int = 24,
        seed: int = 0,
        block: Callable[[nn.Module], bool] | None = None,
        stopwatch: Stopwatch | None = None,
        on_progress: Callable[[int, int, str], None] | None = None,
    ) -> LatencyTable:
        """Time each distinct operator of a space, and some whole networks, on this machine.

        Networks run in eval and inference mode, without the parts that cannot influence their output. An
        operator is a leaf module, a ``Sequential`` of leaf modules, or a PyTorch operator outside of these,
        together with the shapes of its inputs. Operators are collected from random architectures until 30 in
        a row have no new one. Each round times everything once, in random order, so that changes of the
        machine's speed affect all alike; the result is the median over rounds.

        Args:
            space: The search space or its name.
            device: ``cpu`` or ``cuda``.
            path: File of the table, written every few seconds; an interrupted build resumes from it.
            name: Name of the device in constraints; by default ``device``, with the runtime unless that is
                torch: ``cpu-onnxruntime``.
            batch: Images in a batch.
            image_size: Side of an image in pixels, or words in a sequence; by default that of the space's
                published figures.
            num_classes: Number of outputs, with the same default.
            in_channels: Channels of an image.
            dtype: ``float32``, ``bfloat16``, ``float16`` or ``float64``.
            channels_last: Whether images and convolutions are channels_last.
            runtime: What runs operators and networks: ``torch``, or ``onnxruntime`` (extra ``onnx``; CPU,
                float32), whose graphs are exported from torch and optimised by it: it joins operators, so
                that sums are further from whole networks. See :mod:`pynas.hardware.runtimes`.
            threads: CPU threads; by default torch's current number.
            rounds: Number of rounds.
            seconds: Approximate time per operator or network in a round.
            fit_networks: Number of networks to fit the correction to, spread evenly over multiply-adds.
            held_out: Number of random networks to measure the error on.
            seed: Seed of the architectures and the order.
            block: Tells which modules to time as a whole, in place of the rule above.
            stopwatch: Times a function; by default on ``device`` for ``seconds``.
            on_progress: Called with (number done, total, what).

        Raises:
            UserError: There is no such device, something does not run on it or has no finite time, or
                ``path`` holds a table built with other settings or on another machine.
        """
        from pynas.hardware.build import Builder

        space = spaces.get(space) if isinstance(space, str) else space
        builder = Builder(
            space,
            device,
            task={
                "batch": batch,
                "image_size": image_size,
                "num_classes": num_classes,
                "in_channels": in_channels,
            },
            dtype=dtype,
            channels_last=channels_last,
            runtime=runtime,
            threads=threads,
            rounds=rounds,
            seconds=seconds,
            seed=seed,
            block=block,
            stopwatch=stopwatch,
            on_progress=on_progress or (lambda done, total, note: None),
        )
        default = device if runtime == "torch" else f"{device}-{runtime}"
        return builder.run(cls, name or default, None if path is None else Path(path), fit_networks, held_out)

    # ---- the file --------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the table as JSON, atomically, and return the path."""
        from pynas.hardware import _table_file

        return _table_file.write(self, Path(path))

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], space: SearchSpace | None = None, *, partial: bool = False
    ) -> LatencyTable:
        """Read a table that :meth:`save` wrote.

        Args:
            path: The file.
            space: Its search space; by default the registered space of its name, with its options.
            partial: Whether to accept a table of an interrupted build.

        Raises:
            UserError: The file is absent, damaged, unfinished or of another space, or holds a time that is
                not a positive finite number.
        """
        from pynas.hardware import _table_file

        return _table_file.read(cls, Path(path), space, partial)
