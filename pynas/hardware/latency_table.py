"""Latencies by addition: each operator of a space timed once, a network predicted as their sum.

The method of look-up tables: H. Cai, L. Zhu, S. Han, "ProxylessNAS", ICLR 2019, arXiv:1812.00332, section
3.4; here with a fitted correction and with its error on networks that were held out.
"""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pynas import spaces
from pynas._identity import brief
from pynas.architecture import Architecture
from pynas.hardware._fit import Correction, PredictionError, prediction_error
from pynas.hardware._model import HardwareModel
from pynas.spaces import SearchSpace

if TYPE_CHECKING:
    from torch import nn

    from pynas.hardware._stopwatch import Stopwatch

Use = Literal["fit", "held out"]


@dataclass(slots=True)
class Measured:
    """A whole network that was timed: in each round a median, in milliseconds."""

    use: Use
    rounds: list[float] = field(default_factory=list)


@dataclass(slots=True)
class OperatorTiming:
    """An operator that was timed: (median, 20th and 80th percentile in ms, samples) in each round."""

    rounds: list[tuple[float, float, float, int]] = field(default_factory=list)

    @property
    def ms(self) -> float:
        """Median over rounds."""
        return statistics.median(r[0] for r in self.rounds)

    @property
    def spread(self) -> tuple[float, float]:
        """Median over rounds of the 20th and of the 80th percentile."""
        return statistics.median(r[1] for r in self.rounds), statistics.median(r[2] for r in self.rounds)


class LatencyTable(HardwareModel):
    """Predicts ``t(arch) = correction(sum over operators of count * ms, sum of counts)``, milliseconds.

    Make one with :meth:`build`, keep it with :meth:`save`, read it with :meth:`load`.

    Attributes:
        space: The search space.
        device: Name of the machine, given to :meth:`build`.
        settings: What was timed and how: task, dtype, threads, rounds.
        machine: Versions, processor or GPU, date.
        operators: Timings by operator.
        networks: Timings of whole networks, those of the fit and those held out.
        correction: The fit.
        complete: Whether the build came to its end.
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
        return f"{len(missing)} of its operators were never timed on {self.device}, such as {missing[0]}"

    def describe(self) -> dict[str, Any]:  # noqa: D102
        fit = [self.correction.slope, self.correction.per_operator, self.correction.constant]
        return {
            "name": self.name,
            "settings": self.settings,
            "machine": self.machine,
            "fit": fit,
            "operators": brief({key: timing.ms for key, timing in sorted(self.operators.items())}),
        }

    def counts(self, arch: Architecture) -> dict[str, int]:
        """How often each operator runs in the network of ``arch``; needs torch, but computes nothing."""
        if arch not in self._counts:
            from pynas.hardware._build import traced

            self._counts[arch] = dict(traced(self.space, arch, self.settings, self._block)[0])
        return self._counts[arch]

    def error(self) -> PredictionError:
        """How predictions compare with the measurements of the networks held out."""
        tested = {arch: net.rounds for arch, net in self.networks.items() if net.use == "held out"}
        sums = [math.nan if self._missing(arch) else self._sum(arch) for arch in tested]
        return prediction_error([self.predict(arch) for arch in tested], sums, list(tested.values()))

    def fit(self) -> None:
        """Fit the correction to the measured networks that are for it."""
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
        operator is a leaf module, a ``Sequential`` of leaf modules, or an operator of PyTorch outside of
        them, with the shapes of its inputs. They are found in random architectures, until 30 in a row have
        nothing new. In each round everything is timed once, in random order, so that a machine that speeds
        up or slows down does so for all alike; the median over rounds counts.

        Args:
            space: The search space or its name.
            device: ``cpu`` or ``cuda``.
            path: Where to keep the table, written every few seconds; a build that was cut off continues
                from there.
            name: Name of the device in constraints; by default ``device``.
            batch: Images in a batch.
            image_size: Pixels along a side, or words in a sequence; by default what the space's published
                figures are about.
            num_classes: Outputs of the networks, with the same default.
            in_channels: Channels of an image.
            dtype: ``float32``, ``bfloat16``, ``float16`` or ``float64``.
            channels_last: Whether images and convolutions have their channels innermost.
            threads: CPU threads; by default torch's present number.
            rounds: How often to time everything.
            seconds: About how long to time one thing in a round.
            fit_networks: Networks to fit the correction to, spread evenly over multiply-adds.
            held_out: Random networks to report the error on.
            seed: Of the architectures and of the order.
            block: Which modules to time as a whole, instead of the rule above.
            stopwatch: Times a function; by default on ``device`` for ``seconds``.
            on_progress: Called with (done, of how many, what).

        Raises:
            UserError: There is no such device, something does not run on it or has no finite time, or
                ``path`` holds a table built with other settings or on another machine.
        """
        from pynas.hardware._build import Builder

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
            threads=threads,
            rounds=rounds,
            seconds=seconds,
            seed=seed,
            block=block,
            stopwatch=stopwatch,
            on_progress=on_progress or (lambda done, total, note: None),
        )
        return builder.run(cls, name or device, None if path is None else Path(path), fit_networks, held_out)

    # ---- the file --------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the table as JSON, whole or not at all; returns the path."""
        from pynas.hardware import _table_file

        return _table_file.write(self, Path(path))

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], space: SearchSpace | None = None, *, partial: bool = False
    ) -> LatencyTable:
        """Read what :meth:`save` wrote.

        Args:
            path: The file.
            space: Its search space; by default the registered one of its name, with its options.
            partial: Whether a table whose build was cut off will do.

        Raises:
            UserError: The file is absent, damaged, unfinished or of another space, or holds a time that is
                not a positive finite number.
        """
        from pynas.hardware import _table_file

        return _table_file.read(cls, Path(path), space, partial)
