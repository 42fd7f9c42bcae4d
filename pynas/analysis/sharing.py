"""How much shared weights help: estimates of sub-networks in several settings, beside training alone."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from pynas._correlation import Bootstrap, Estimate, kendall, spearman
from pynas._errors import UserError
from pynas.analysis._checks import Floats, finite, members
from pynas.analysis.bias import OperationBias, cost_bias, operation_bias, rank_errors
from pynas.analysis.quality import ACCURACY, Quality
from pynas.analysis.selection import Pick, Pruning, overlap, pick, prune
from pynas.analysis.stability import Stability, stability

_Measure = TypeVar("_Measure", Pick, Pruning)


@dataclass(frozen=True, slots=True)
class Protocol:
    """What is asked of every setting.

    Attributes:
        top: Share of the best by truth in which correlations are taken again.
        picks: How many are picked by estimate, for regret and what is found.
        shares: The best shares that picking should hit and pruning should spare.
        prunings: Shares that are removed.
        confidence: Coverage of the bootstrap intervals, which resample architectures.
        resamples: Bootstrap resamples.
        seed: Of the bootstrap; the same resamples for every setting.
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
    """One way to share weights.

    All measures but ``averaged`` are of single supernets, after their last checkpoint, and means over seeds.

    Attributes:
        name: Of the setting.
        estimates: ``[seeds, checkpoints, N]``.
        kendall: Tau-b with the truth.
        spearman: Rho.
        kendall_by_seed: Tau-b of each seed.
        kendall_top: Tau-b among the best by truth; None where there are fewer than three.
        spearman_top: Rho among them.
        kendall_by_checkpoint: Tau-b after each checkpoint.
        averaged: Tau-b of the estimates' mean over all seeds and checkpoints.
        picks: For each number of picked ones.
        overlaps: By share, how many of the best by truth are among the best by estimate.
        overlaps_worst: By share, the same of the worst.
        prunings: For each share that is removed.
        seeds: Stability between seeds; None with one seed.
        checkpoints: Stability between the last checkpoints, of each seed.
        bias: By operation, of rank errors averaged over seeds.
        cost_bias: Spearman's rho of rank errors and each cost.
        against_first: Tau-b minus that of the first setting, resampled together; None for the first.
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
    """Settings beside each other.

    Attributes:
        settings: In the order given.
        chance: What picking at random gives.
        chance_prunings: What pruning at random gives.
        truth: ``[N]``.
        truth_stability: Between repeated stand-alone trainings, where there are some.
        labels: ``[N]`` names of the architectures.
        protocol: What was asked.
        quality: What estimates and truth are.
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
        """All measures as JSON has them; None stands for NaN."""

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
        estimates: By name of the setting accuracies, or what ``quality`` is, ``[seeds, checkpoints, N]``,
            ``[seeds, N]`` with one checkpoint, ``[N]`` with one of each; checkpoints in order of time.
        truth: ``[N]`` of the architectures trained alone, or ``[repeats, N]``, which are averaged.
        operations: ``[N]`` how often each architecture holds an operation, by name.
        costs: ``[N]`` such as parameters, by name.
        labels: ``[N]`` names for people.
        protocol: What to ask; its defaults if None. Picks of more than N architectures are left out.
        quality: What estimates and truth are, for people; more must be better.

    Raises:
        UserError: Shapes do not fit, something is not finite, or there are fewer than three architectures.
    """
    asked = protocol or Protocol()
    array = np.asarray(truth, dtype=np.float64)
    repeats = finite("truth", array[None] if array.ndim == 1 else array, 2)
    known = repeats.mean(axis=0)
    if len(known) < 3:
        raise UserError(f"truth: expected at least 3 architectures, got {len(known)}")
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
        """The mean over runs of a correlation with the truth; each resample is one of all runs alike."""

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
    """Field by field; counts and shares are the same in all."""
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
