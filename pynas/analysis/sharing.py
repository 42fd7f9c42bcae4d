"""How much shared weights help: estimates in several settings of sharing, against stand-alone training."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from pynas._errors import UserError
from pynas.analysis.bias import OperationBias, cost_bias, operation_bias, rank_errors
from pynas.analysis.checks import Floats, finite, members
from pynas.analysis.quality import ACCURACY, Quality
from pynas.analysis.selection import Pick, Pruning, overlap, pick, prune
from pynas.analysis.stability import Stability, stability
from pynas.ranking.correlation import Bootstrap, Estimate, kendall, spearman

_Measure = TypeVar("_Measure", Pick, Pruning)


@dataclass(frozen=True, slots=True)
class Protocol:
    """What is measured in every setting.

    Attributes:
        top: Share of the best by ground truth, for correlations within it.
        picks: Numbers of architectures to pick by estimate.
        shares: Shares of the best that picking should find and pruning should keep.
        prunings: Shares to remove.
        confidence: Coverage of the bootstrap intervals, which resample architectures.
        resamples: Number of bootstrap resamples.
        seed: Seed of the bootstrap; resamples are the same for every setting.
    """

    top: float = 0.25
    picks: tuple[int, ...] = (1, 5, 10)
    shares: tuple[float, ...] = (0.01, 0.1)
    prunings: tuple[float, ...] = (0.1, 0.25, 0.5)
    confidence: float = 0.95
    resamples: int = 1000
    seed: int = 0


@dataclass(frozen=True)
class SettingAnalysis:
    """The analysis of one way to share weights.

    All measures except ``averaged`` are of single supernets at their last checkpoint, averaged over seeds.

    Attributes:
        name: Name of the setting.
        estimates: ``[seeds, checkpoints, N]``.
        kendall: Tau-b with the ground truth.
        spearman: Rho with the ground truth.
        kendall_by_seed: Tau-b of each seed.
        kendall_top: Tau-b among the best by ground truth; None if there are fewer than three.
        spearman_top: Rho among them.
        kendall_by_checkpoint: Tau-b at each checkpoint.
        averaged: Tau-b of the mean estimate over all seeds and checkpoints.
        picks: One for each number of picked architectures.
        overlaps: By share, the share of the best by ground truth that is among the best by estimate.
        overlaps_worst: By share, the same for the worst.
        prunings: One for each share that is removed.
        seeds: Stability between seeds; None with one seed.
        checkpoints: Stability between the last checkpoints, for each seed.
        bias: By operation, from rank errors averaged over seeds.
        cost_bias: Spearman's rho of rank errors and each cost.
        against_first: Tau-b minus that of the first setting, with common resamples; None for the first.
    """

    name: str
    estimates: Floats
    kendall: Estimate
    spearman: Estimate
    kendall_by_seed: tuple[float, ...]
    kendall_top: Estimate | None
    spearman_top: Estimate | None
    kendall_by_checkpoint: tuple[float, ...]
    averaged: float
    picks: tuple[Pick, ...]
    overlaps: dict[float, float]
    overlaps_worst: dict[float, float]
    prunings: tuple[Pruning, ...]
    seeds: Stability | None
    checkpoints: tuple[Stability, ...]
    bias: tuple[OperationBias, ...]
    cost_bias: dict[str, Estimate]
    against_first: Estimate | None


@dataclass(frozen=True)
class SharingAnalysis:
    """The analyses of all settings.

    Attributes:
        settings: One for each setting, in the given order.
        chance: Results of random picking.
        chance_prunings: Results of random pruning.
        truth: ``[N]``, the ground truth.
        truth_stability: Stability between repeated stand-alone trainings; None without repeats.
        labels: ``[N]`` names of the architectures.
        protocol: The protocol.
        quality: What estimates and ground truth measure.
    """

    settings: tuple[SettingAnalysis, ...]
    chance: tuple[Pick, ...]
    chance_prunings: tuple[Pruning, ...]
    truth: Floats
    truth_stability: Stability | None = None
    labels: tuple[str, ...] = ()
    protocol: Protocol = field(default_factory=Protocol)
    quality: Quality = ACCURACY

    def to_dict(self) -> dict[str, Any]:
        """All measures as a JSON value; None stands for NaN."""

        def plain(value: Any) -> Any:
            if isinstance(value, float):
                return value if math.isfinite(value) else None
            if isinstance(value, np.ndarray):
                return plain(value.tolist())
            if dataclasses.is_dataclass(value):
                return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
            if isinstance(value, Mapping):
                return {str(key): plain(item) for key, item in value.items()}
            if isinstance(value, (list, tuple)):
                return [plain(item) for item in value]
            return value

        found: dict[str, Any] = plain(self)
        return found


def analyze_sharing(
    estimates: Mapping[str, ArrayLike],
    truth: ArrayLike,
    *,
    operations: Mapping[str, ArrayLike] | None = None,
    costs: Mapping[str, ArrayLike] | None = None,
    labels: Sequence[str] = (),
    protocol: Protocol | None = None,
    quality: Quality = ACCURACY,
) -> SharingAnalysis:
    """Measure how settings of shared weights rank architectures.

    Args:
        estimates: By name of the setting, accuracies or other values of ``quality``:
            ``[seeds, checkpoints, N]``, ``[seeds, N]`` with one checkpoint, or ``[N]`` with one of each;
            checkpoints in order of time.
        truth: Ground truth from stand-alone training, ``[N]``, or ``[repeats, N]``, which is averaged.
        operations: ``[N]`` numbers of copies in each architecture, by operation.
        costs: ``[N]`` costs such as parameters, by name.
        labels: ``[N]`` display names of the architectures.
        protocol: What to measure; the defaults if None. Picks of more than N architectures are left out.
        quality: What estimates and ground truth measure, for display; more must be better.

    Raises:
        UserError: Shapes do not fit, a value is not finite, or there are fewer than three architectures.
    """
    asked = protocol or Protocol()
    array = np.asarray(truth, dtype=np.float64)
    repeats = finite("truth", array[None] if array.ndim == 1 else array, 2)
    known = repeats.mean(axis=0)
    if len(known) < 3:
        raise UserError(f"truth: expected at least 3 architectures, got {len(known):,}")
    if not estimates:
        raise UserError("estimates: expected at least one setting, got none")
    if labels and len(labels) != len(known):
        raise UserError(f"labels: expected {len(known)}, got {len(labels)}")
    shaped = {name: _shaped(name, values, len(known)) for name, values in estimates.items()}
    first = next(iter(shaped.values()))
    equal = np.zeros(len(known))
    return SharingAnalysis(
        settings=tuple(
            _setting(name, values, known, operations or {}, costs or {}, asked, None if i == 0 else first)
            for i, (name, values) in enumerate(shaped.items())
        ),
        chance=tuple(pick(equal, known, k, asked.shares) for k in asked.picks if k <= len(known)),
        chance_prunings=tuple(prune(equal, known, share, asked.shares) for share in asked.prunings),
        truth=known,
        truth_stability=stability(repeats) if len(repeats) > 1 else None,
        labels=tuple(labels),
        protocol=asked,
        quality=quality,
    )


def _shaped(name: str, values: ArrayLike, count: int) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim == 1:
        array = array[None, None]
    elif array.ndim == 2:
        array = array[:, None]
    return finite(f"estimates[{name!r}]", array, 3, count)


def _setting(
    name: str,
    estimates: Floats,
    truth: Floats,
    operations: Mapping[str, ArrayLike],
    costs: Mapping[str, ArrayLike],
    asked: Protocol,
    first: Floats | None,
) -> SettingAnalysis:
    last = estimates[:, -1]
    interval = Bootstrap(asked.resamples, asked.confidence, asked.seed)
    best = truth >= np.sort(truth)[len(truth) - members(asked.top, len(truth), "top")]
    enough = best.sum() >= 3
    errors = rank_errors(last, truth)
    settings = {"confidence": asked.confidence, "resamples": asked.resamples, "seed": asked.seed}
    picks = [k for k in asked.picks if k <= len(truth)]

    def over_seeds(measure: Any, runs: Floats, keep: Any = slice(None)) -> Estimate:
        """The mean over runs of a correlation with the truth; all runs share each resample."""

        def statistic(y: Floats, _: Floats, weights: Floats) -> Floats:
            return np.asarray(np.mean([measure(run[keep], y, weights) for run in runs], axis=0))

        return interval(statistic, truth[keep], truth[keep])

    def difference(y: Floats, _: Floats, weights: Floats) -> Floats:
        assert first is not None
        here, there = (
            np.mean([kendall(run, y, weights) for run in runs], axis=0) for runs in (last, first[:, -1])
        )
        return np.asarray(here - there)

    return SettingAnalysis(
        name=name,
        estimates=estimates,
        kendall=over_seeds(kendall, last),
        spearman=over_seeds(spearman, last),
        kendall_by_seed=tuple(_tau(run, truth) for run in last),
        kendall_top=over_seeds(kendall, last, best) if enough else None,
        spearman_top=over_seeds(spearman, last, best) if enough else None,
        kendall_by_checkpoint=tuple(
            float(np.mean([_tau(run, truth) for run in estimates[:, c]])) for c in range(estimates.shape[1])
        ),
        averaged=_tau(estimates.mean(axis=(0, 1)), truth),
        picks=tuple(_mean([pick(run, truth, k, asked.shares) for run in last]) for k in picks),
        overlaps={s: float(np.mean([overlap(run, truth, s) for run in last])) for s in _with_top(asked)},
        overlaps_worst={
            s: float(np.mean([overlap(-run, -truth, s) for run in last])) for s in _with_top(asked)
        },
        prunings=tuple(_mean([prune(run, truth, s, asked.shares) for run in last]) for s in asked.prunings),
        seeds=stability(last) if len(last) > 1 else None,
        checkpoints=tuple(stability(run) for run in estimates) if estimates.shape[1] > 1 else (),
        bias=operation_bias(errors, operations, **settings),  # type: ignore[arg-type]
        cost_bias={
            key: cost_bias(errors, values, **settings)  # type: ignore[arg-type]
            for key, values in costs.items()
        },
        against_first=None if first is None else interval(difference, truth, truth),
    )


def _with_top(asked: Protocol) -> list[float]:
    return sorted({*asked.shares, asked.top})


def _mean(values: Sequence[_Measure]) -> _Measure:
    """The mean, field by field; counts and shares are equal in all."""
    found: dict[str, Any] = {}
    for item in dataclasses.fields(values[0]):
        column = [getattr(value, item.name) for value in values]
        if isinstance(column[0], dict):
            found[item.name] = {key: float(np.mean([c[key] for c in column])) for key in column[0]}
        elif isinstance(column[0], int):
            found[item.name] = column[0]
        else:
            found[item.name] = float(np.mean(column))
    return type(values[0])(**found)


def _tau(x: Floats, y: Floats) -> float:
    return float(kendall(x, y, np.ones((1, len(x))))[0])
