"""Scores of one network by zero-shot proxies."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import torch
from torch import nn

from pynas import data, ops
from pynas import proxies as registry
from pynas._errors import UserError
from pynas._plural import counted
from pynas.evaluate._prepare import (
    Precision,
    autograd,
    cast,
    converted,
    dtype_of,
    floating,
    prepared,
)
from pynas.proxies import BatchProbe, Probe, ProbeCall, Proxy
from pynas.stats import Statistics
from pynas.stats.computed_weights import has_computed_weights, held
from pynas.stats.data import LossFn, check_data, cut, leaves, ordinary
from pynas.stats.eager import check_readable, eager
from pynas.stats.exact_float32 import exact_float32
from pynas.stats.memory_format import in_the_faster_format
from pynas.stats.state import check_initialised, copied, preserved
from pynas.stats.weights import published_names

Weights = Literal["any", "published"]


@dataclass(frozen=True, slots=True)
class Score:
    """The score of one proxy for one network.

    Attributes:
        value: The score; NaN if ``status`` is ``"failed"`` or ``"non_finite"``.
        status: ``"ok"``, ``"failed"`` (see ``message``), ``"non_finite"``, or ``"partial"``: a score of some
            of the weights that its definition counts, which compares with no other network's.
        message: Why there is no score, as text.
        layers: Contribution of each layer, by parameter name, if the proxy is a sum over layers.
        seconds: Wall-clock seconds of the passes that it needed; shared passes count in full.
        coverage: The share of the parameters that the definition counts (the weights: what multiplies its
            input, in whatever module or computation) and that were counted; 1 for scores that count none.
    """

    value: float
    status: Literal["ok", "failed", "non_finite", "partial"] = "ok"
    message: str = ""
    layers: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    coverage: float = 1.0


def score(
    model: nn.Module,
    inputs: Any = None,
    targets: Any = None,
    proxies: Sequence[str | Proxy] = ("zico",),
    *,
    images: Any = None,
    image_size: int | None = None,
    batch: int | None = None,
    classes: int | None = None,
    precision: Precision = "float32",
    seed: int = 0,
    loss_fn: LossFn | None = None,
    micro_batches: int = 2,
    fallback: Sequence[str] = (),
    weights: Weights = "any",
) -> dict[str, Score]:
    """Score an untrained network; proxies that need the same probing pass share it.

    The passes run in train mode; afterwards the model is bit for bit as before. Scores of different
    precisions are not comparable: rank with one precision.

    Args:
        model: Any module.
        inputs: Batch [B, ...]; ``zico`` splits it into ``micro_batches`` equal parts, and leaves out, with a
            warning, the last samples of a batch that does not divide into them.
        targets: Targets of the loss; int64 labels [B] for the default, mean cross-entropy.
        proxies: Names (``pynas proxies`` lists them) or proxy objects.
        images: In place of ``inputs`` and ``targets``: what :func:`pynas.data.load_images` reads, such as
            ``"folder:photos"``, a ``Dataset`` or a ``DataLoader``, of which a batch is drawn by ``seed``.
        image_size: Pixels to resize ``images`` to.
        batch: Number of images to draw, by default 256 or what there is.
        classes: Number of classes of ``images``, where these show only some.
        precision: ``"float32"``, ``"bfloat16"`` (batch statistics and sums stay in float32) or ``"float64"``.
            On CUDA float32 is not TF32, unless ``torch.backends.cuda.matmul.fp32_precision`` asks for that.
        seed: Seed of layers that draw random numbers.
        loss_fn: ``loss_fn(outputs, targets)`` to a scalar.
        micro_batches: Number of successive batches for ``zico``.
        fallback: As in :func:`pynas.stats.collect`.
        weights: What proxies that are sums over weights count: ``"any"`` weight, that is what multiplies its
            input, whatever module or parametrisation holds it; or those that the ``"published"`` code finds,
            the attribute ``weight`` of ``nn.Conv2d`` and ``nn.Linear`` modules (no recurrent layers, no
            attention projections held as plain parameters, no other convolutions).

    Returns:
        A :class:`Score` by proxy name. A failure inside the network becomes a status, never a number.

    Raises:
        UserError: A proxy or the precision is unknown, the data are invalid, or lazy layers wait for a
            first batch.
    """
    chosen = [registry.get(p) if isinstance(p, str) else p for p in proxies]
    if images is not None:
        if inputs is not None:
            raise UserError("images: inputs and targets are given already; leave out one of the two")
        inputs, targets, *_ = data.draw(images, size=image_size, batch=batch, classes=classes, seed=seed)
    elif inputs is None:
        raise UserError("inputs: expected a batch, with its targets, or images= to draw one from")
    if weights not in get_args(Weights):
        raise UserError(f"weights: expected one of {', '.join(get_args(Weights))}, got {weights!r}")
    if splits(chosen):
        check_micro_batches(inputs, targets, micro_batches)
    else:
        check_data(inputs, targets)
    dtype = dtype_of(precision)
    check_initialised(model)

    def scores_of(network: nn.Module, which: Sequence[Proxy], kind: torch.dtype) -> dict[str, Score]:
        return score_prepared(
            network, inputs, targets, which, kind, seed, loss_fn, micro_batches, fallback,
            published_names(network) if weights == "published" else None,
        )  # fmt: skip

    with autograd():
        tensors = floating(model)
        if not any(t.is_inference() for t in tensors):
            with converted(model, dtype, tensors):
                return scores_of(model, chosen, dtype)
        try:
            ready = prepared(copied(model), dtype)
        except UserError as error:
            # Proxies that only read the network still get a score.
            kinds = {t.dtype for t in tensors} or {dtype}
            able = [p for p in chosen if not any(need.needs_pass for need in p.needs)]
            scores = scores_of(model, able, kinds.pop())
            failed = Score(math.nan, "failed", f"UserError: {error}")
            return {p.name: scores.get(p.name, failed) for p in chosen}
        with preserved(model):  # hooks of the copy may reach it
            return scores_of(ready, chosen, dtype)


def score_prepared(
    model: nn.Module,
    inputs: Any,
    targets: Any,
    proxies: Sequence[Proxy],
    dtype: torch.dtype,
    seed: int,
    loss_fn: LossFn | None,
    micro_batches: int,
    fallback: Sequence[str] = (),
    counted: frozenset[str] | None = None,
) -> dict[str, Score]:
    """The scores of a network that is in this precision already, of the parameters ``counted`` if given."""
    inputs, targets = cast(ordinary(inputs), dtype), ordinary(targets)
    scores: dict[str, Score] = {}
    computed = has_computed_weights(model)
    shared: dict[tuple[Probe, bool], list[Proxy]] = {}
    for p in proxies:
        shared.setdefault((p.probe, computed and p.over_weights), []).append(p)
    waiting = list(shared.values())
    while waiting:
        sharing = waiting.pop(0)
        needs = [need for p in sharing for need in p.needs]
        x, y = whole_parts(inputs, targets, micro_batches) if splits(sharing) else (inputs, targets)
        call = ProbeCall(model, x, y, loss_fn, needs, seed, micro_batches, fallback)
        start = time.perf_counter()
        with held(model, seed) if computed and sharing[0].over_weights else nullcontext():
            statistics = _probe(sharing[0].probe, call)
        seconds = time.perf_counter() - start
        if isinstance(statistics, Exception) and len(sharing) > 1:
            waiting += [[p] for p in sharing]  # a failure of one must not fail the others
            continue
        for proxy in sharing:
            if isinstance(statistics, Exception):
                message = f"{type(statistics).__name__}: {statistics}"
                scores[proxy.name] = Score(math.nan, "failed", message, seconds=seconds)
                continue
            seen = statistics if counted is None or not proxy.over_weights else statistics.of(counted)
            scores[proxy.name] = _value(proxy, seen, seconds)
    return {p.name: scores[p.name] for p in proxies}


def _probe(probe: Probe, call: ProbeCall) -> Statistics | Exception:
    try:
        with eager():
            if isinstance(probe, BatchProbe):  # sees to memory formats and strided convolutions itself
                return probe.run(call)
            check_readable(call.model)
            with ops.StridedConvolutions(), exact_float32(call.model):
                return in_the_faster_format(
                    call.model, call.inputs, lambda inputs: probe.run(replace(call, inputs=inputs))
                )[0]
    except MemoryError:
        raise
    except Exception as error:  # a network that cannot run must not end the search
        return error


def _complex(proxy: Proxy, statistics: Statistics, found: Mapping[str, float]) -> str:
    """Why a score of gradients of complex weights is none; empty for others, which may count them."""
    if not any(need.needs_pass for need in proxy.needs):
        return ""
    weights, names = statistics.weights, list(found)
    if any(need.watches == "saliency" for need in proxy.needs):  # which sees nothing of complex products
        names += sorted(statistics.matrices)
    name = next((n for n in names if n in weights and weights[n].is_complex()), None)
    if name is None:
        return ""
    return (
        f"UserError: {proxy.name}: weight {name!r} holds complex numbers, and the score is defined for real "
        "ones; make its real and imaginary parts parameters of their own, or set requires_grad=False on it"
    )


NO_WEIGHT = (
    "UserError: {}: none of the model's parameters is seen to multiply its input, so there is no weight to "
    "count; make products with calls of PyTorch on tensors"
)


def _should_count(proxy: Proxy, statistics: Statistics) -> bool:
    """Whether a sum over weights has found none in a network with parameters that look like some."""
    if not proxy.over_weights or not isinstance(proxy.probe, BatchProbe):
        return False
    if statistics.matrices and any(need.needs_pass for need in proxy.needs):
        return False  # none of which the loss depends on
    return any(w.dim() > 1 for w in statistics.weights.values())


def _value(proxy: Proxy, statistics: Statistics, seconds: float) -> Score:
    start = time.perf_counter()
    try:
        with warnings.catch_warnings():
            if any(w.is_complex() for w in statistics.weights.values()):  # whose scores are refused below
                warnings.simplefilter("ignore")
            found = proxy.layers(statistics)
        unfit = _complex(proxy, statistics, found)
        if unfit:
            return Score(math.nan, "failed", unfit, seconds=seconds)
        if not found and _should_count(proxy, statistics):
            return Score(math.nan, "failed", NO_WEIGHT.format(proxy.name), seconds=seconds)
        layers = {name: found[name] for name in statistics.weights if name in found} | found  # in its order
        value = (
            proxy.score(statistics) if type(proxy).score is not Proxy.score else math.fsum(layers.values())
        )
    except (ArithmeticError, ValueError) as error:
        return Score(math.nan, "failed", f"{type(error).__name__}: {error}", seconds=seconds)
    seconds += time.perf_counter() - start
    if not math.isfinite(value):
        worst = next((n for n, v in layers.items() if not math.isfinite(v)), "the sum")
        return Score(math.nan, "non_finite", f"{proxy.name} is {value} (from {worst})", layers, seconds)
    missing = proxy.left_out(statistics)
    if not missing:
        return Score(value, layers=layers, seconds=seconds)
    sizes = {name: statistics.weights[name].numel() for name in statistics.matrices | missing}
    coverage = 1 - sum(sizes[name] for name in missing) / sum(sizes.values())
    shown = ", ".join(sorted(missing)[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
    message = f"{proxy.name} counts {coverage:.1%} of the weights: {shown} cannot be followed"
    return Score(value, "partial", message, layers, seconds, coverage)


def splits(proxies: Iterable[Proxy]) -> bool:
    return any(isinstance(p.probe, BatchProbe) and p.probe.micro_batches for p in proxies)


def check_micro_batches(inputs: Any, targets: Any, micro_batches: int) -> None:
    batch = check_data(inputs, targets)
    if micro_batches < 1:
        raise UserError(f"micro_batches: expected a positive number of parts, got {micro_batches}")
    if batch < micro_batches:
        raise UserError(
            f"inputs: expected at least one sample for each of {counted(micro_batches, 'part')} "
            f"(micro_batches), got {counted(batch, 'sample')}"
        )
    if rest := batch % micro_batches:
        warnings.warn(
            f"zico divides a batch into {counted(micro_batches, 'equal part')}: it leaves out the last "
            f"{counted(rest, 'sample')} of {batch:,}",
            stacklevel=3,
        )


def whole_parts(inputs: Any, targets: Any, micro_batches: int) -> tuple[Any, Any]:
    """The first samples, as many as divide into ``micro_batches`` equal parts."""
    batch = leaves(inputs)[0].shape[0]
    used = batch - batch % micro_batches
    if used == batch:
        return inputs, targets
    return cut(inputs, 0, used), cut(targets, 0, used)
