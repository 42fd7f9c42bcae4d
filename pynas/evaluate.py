"""Scores of networks and architectures by zero-shot proxies."""

from __future__ import annotations

import copy
import hashlib
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pynas import proxies as registry
from pynas._errors import UserError
from pynas.architecture import Architecture
from pynas.proxies import BatchProbe, Probe, ProbeCall, Proxy
from pynas.spaces import SearchSpace
from pynas.stats import Statistics
from pynas.stats._loss import LossFn, check_data
from pynas.trial import Evaluation, Status

Precision = Literal["float32", "bfloat16", "float64"]
PRECISIONS: Mapping[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float64": torch.float64,
}
# Statistics of a batch stay in float32 beside bfloat16 activations; so do the scales and shifts that go
# with them.
NORMALISATIONS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)


@dataclass(frozen=True, slots=True)
class Score:
    """One proxy's verdict on one network.

    Attributes:
        value: The score; NaN unless ``status`` is ``"ok"``.
        status: ``"ok"``, ``"failed"`` (see ``message``) or ``"non_finite"``.
        message: Why there is no score, for people.
        layers: What each layer contributes, by parameter name, where the proxy is a sum over layers.
        seconds: Wall-clock seconds of the passes it needed, shared ones included in full.
    """

    value: float
    status: Literal["ok", "failed", "non_finite"] = "ok"
    message: str = ""
    layers: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0


def score(
    model: nn.Module,
    inputs: Any,
    targets: Any = None,
    proxies: Sequence[str | Proxy] = ("zico",),
    *,
    precision: Precision = "float32",
    seed: int = 0,
    loss_fn: LossFn | None = None,
    micro_batches: int = 2,
    fallback: Sequence[str] = (),
) -> dict[str, Score]:
    """Score an untrained network; proxies that need the same probing pass share it.

    The model is put in train mode for the passes and comes back bit for bit as it was. Scores of different
    precisions are not comparable: rank with one.

    Args:
        model: Any module.
        inputs: Batch [B, ...]; ``zico`` splits it into ``micro_batches`` equal parts.
        targets: Handed to the loss; int64 labels [B] for the default, mean cross-entropy.
        proxies: Names (``pynas proxies`` lists them) or proxy objects.
        precision: ``"float32"``, ``"bfloat16"`` (batch statistics and sums stay in float32) or ``"float64"``.
        seed: For layers that draw random numbers.
        loss_fn: ``loss_fn(outputs, targets)`` to a scalar.
        micro_batches: Number of successive batches for ``zico``.
        fallback: As in :func:`pynas.stats.collect`.

    Returns:
        A :class:`Score` by proxy name. What goes wrong inside the network is a status, never a number.

    Raises:
        UserError: Unknown proxy or precision, or bad data.
    """
    chosen = [registry.get(p) if isinstance(p, str) else p for p in proxies]
    if _splits(chosen):
        _check_micro_batches(inputs, targets, micro_batches)
    else:
        check_data(inputs, targets)
    dtype = _dtype(precision)
    if _needs_copy(model, dtype):
        model = copy.deepcopy(model)
    return _score(
        _prepared(model, dtype), inputs, targets, chosen, dtype, seed, loss_fn, micro_batches, fallback
    )


def _score(
    model: nn.Module,
    inputs: Any,
    targets: Any,
    proxies: Sequence[Proxy],
    dtype: torch.dtype,
    seed: int,
    loss_fn: LossFn | None,
    micro_batches: int,
    fallback: Sequence[str] = (),
) -> dict[str, Score]:
    inputs = _cast(inputs, dtype, _wants_channels_last(model.modules()))
    scores: dict[str, Score] = {}
    waiting = [[p for p in proxies if p.probe == probe] for probe in dict.fromkeys(p.probe for p in proxies)]
    while waiting:
        sharing = waiting.pop(0)
        needs = [need for p in sharing for need in p.needs]
        call = ProbeCall(model, inputs, targets, loss_fn, needs, seed, micro_batches, fallback)
        start = time.perf_counter()
        statistics = _probe(sharing[0].probe, call)
        seconds = time.perf_counter() - start
        if isinstance(statistics, Exception) and len(sharing) > 1:
            waiting += [
                [p] for p in sharing
            ]  # what one of them cannot have is no reason for the others to fail
            continue
        for proxy in sharing:
            if isinstance(statistics, Exception):
                message = f"{type(statistics).__name__}: {statistics}"
                scores[proxy.name] = Score(math.nan, "failed", message, seconds=seconds)
            else:
                scores[proxy.name] = _value(proxy, statistics, seconds)
    return {p.name: scores[p.name] for p in proxies}


def _probe(probe: Probe, call: ProbeCall) -> Statistics | Exception:
    try:
        return probe.run(call)
    except MemoryError:
        raise
    except Exception as error:  # a network that cannot run is a result of the search, not its end
        return error


def _value(proxy: Proxy, statistics: Statistics, seconds: float) -> Score:
    start = time.perf_counter()
    try:
        found = proxy.layers(statistics)
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
    return Score(value, layers=layers, seconds=seconds)


class ProxyEvaluator:
    """Builds architectures of a space and scores them: the evaluator of a training-free search.

    Every architecture is initialised from the same seed and sees the same images. Networks are built
    pruned: edges that cannot influence the output have zero gradients and cost nothing here. Proxies that
    count such edges all the same (``Proxy.whole_network``) get the whole network.

    Args:
        space: The search space.
        inputs: Images [B, C, H, W].
        targets: Labels [B].
        proxies: Names or proxies; ``Evaluation.scores`` has them oriented so that higher is better.
        precision: As in :func:`score`; the same for all architectures.
        seed: Of initialisation and random layers.
        num_classes: Outputs of the networks; by default what the labels need.
        micro_batches: As in :func:`score`.
    """

    def __init__(
        self,
        space: SearchSpace,
        inputs: Tensor,
        targets: Tensor,
        proxies: Sequence[str | Proxy],
        precision: Precision = "float32",
        seed: int = 0,
        num_classes: int | None = None,
        micro_batches: int = 2,
    ) -> None:
        self.space = space
        self.proxies = [registry.get(p) if isinstance(p, str) else p for p in proxies]
        self.dtype = _dtype(precision)
        self.seed = seed
        self.micro_batches = micro_batches
        _check_micro_batches(inputs, targets, micro_batches if _splits(self.proxies) else 1)
        labels = int(targets.max()) + 1
        self.num_classes = labels if num_classes is None else num_classes
        if labels > self.num_classes or int(targets.min()) < 0:
            raise UserError(
                f"targets: labels go from {int(targets.min())} to {labels - 1}, "
                f"but networks have num_classes={self.num_classes} outputs"
            )
        self.inputs, self.targets = inputs, targets

    @property
    def config(self) -> dict[str, Any]:
        """What a score depends on beside the architecture: identifies a search in its store."""
        digest = hashlib.sha256(self.inputs.float().contiguous().numpy(force=True).tobytes())
        digest.update(self.targets.contiguous().numpy(force=True).tobytes())
        return {
            "proxies": [p.name for p in self.proxies],
            "precision": str(self.dtype).removeprefix("torch."),
            "seed": self.seed,
            "num_classes": self.num_classes,
            "micro_batches": self.micro_batches,
            "threads": torch.get_num_threads(),  # rounding depends on them, and ZiCo magnifies rounding
            "data": digest.hexdigest()[:16],
        }

    def at_fidelity(self, share: float) -> ProxyEvaluator:
        """This evaluator with the first ``share`` of the images, at least one for each micro-batch."""
        if not 0 < share <= 1:
            raise UserError(f"share: expected a fraction in (0, 1], got {share}")
        cheaper = copy.copy(self)
        count = max(1, round(share * len(self.inputs) / self.micro_batches)) * self.micro_batches
        cheaper.inputs, cheaper.targets = self.inputs[:count], self.targets[:count]
        return cheaper

    def __call__(self, architecture: Architecture) -> Evaluation:
        """Score one architecture; a failure is a status."""
        start = time.perf_counter()
        known = {
            p.name: p.of_architecture(self.space, architecture, self.num_classes, self.inputs)
            for p in self.proxies
        }
        scores = {name: Score(value) for name, value in known.items() if value is not None}
        measured = [p for p in self.proxies if p.name not in scores]
        for model, sharing in self._networks(architecture, measured):
            scores |= _score(
                model, self.inputs, self.targets, sharing, self.dtype, self.seed, None, self.micro_batches
            )
        signs = {p.name: 1 if p.higher_is_better else -1 for p in self.proxies}
        failures = [f"{n}: {s.message}" for n, s in scores.items() if s.status != "ok"]
        return Evaluation(
            status=Status.FAILED if failures else Status.OK,
            scores={name: signs[name] * scores[name].value for name in signs},
            metrics=self._metrics(architecture),
            message="; ".join(failures),
            seconds=time.perf_counter() - start,
        )

    def _metrics(self, architecture: Architecture) -> dict[str, float]:
        channels, size = self.inputs.shape[1], self.inputs.shape[-1]
        return {
            "params": float(self.space.params(architecture, self.num_classes, channels)),
            "flops": float(self.space.macs(architecture, self.num_classes, size, channels)),
        }

    def _networks(
        self, architecture: Architecture, proxies: Sequence[Proxy]
    ) -> Iterator[tuple[nn.Module, Sequence[Proxy]]]:
        """The networks to score, each with its proxies: the pruned one, the whole one, or one for all."""
        whole = [p for p in proxies if p.whole_network]
        rest = [p for p in proxies if not p.whole_network]
        if not whole:
            yield from [(self.build(architecture), rest)] if rest else []
            return
        network = self.build(architecture, prune=False)
        if rest:
            pruned = self.build(architecture)
            if _names(pruned) == _names(network):  # the same draws, so the same network
                yield pruned, proxies
                return
            yield pruned, rest
        yield network, whole

    def build(self, architecture: Architecture, *, prune: bool = True) -> nn.Module:
        """The network that is scored, in this evaluator's precision and memory layout."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            model = self.space.build(
                architecture, num_classes=self.num_classes, in_channels=self.inputs.shape[1], prune=prune
            )
        if self.inputs.device.type != "cpu":
            model = model.to(self.inputs.device)
        return _prepared(model, self.dtype)


def _splits(proxies: Iterable[Proxy]) -> bool:
    return any(isinstance(p.probe, BatchProbe) and p.probe.micro_batches for p in proxies)


def _check_micro_batches(inputs: Any, targets: Any, micro_batches: int) -> None:
    batch = check_data(inputs, targets)
    if micro_batches < 1 or batch % micro_batches or batch < micro_batches:
        raise UserError(
            f"inputs: {batch} samples do not split into micro_batches={micro_batches} equal parts; "
            "pass a multiple of it"
        )


def _names(model: nn.Module) -> list[str]:
    return [name for name, _ in model.named_parameters()]


def _dtype(precision: str) -> torch.dtype:
    if precision not in PRECISIONS:
        raise UserError(f"precision: expected one of {', '.join(PRECISIONS)}, got {precision!r}")
    return PRECISIONS[precision]


def _wants_channels_last(modules: Iterable[nn.Module]) -> bool:
    """Convolutions run faster with channels innermost, on CPU and GPU, as soon as there are some."""
    return any(isinstance(m, nn.Conv2d) and m.in_channels > 4 for m in modules)


def _needs_copy(model: nn.Module, dtype: torch.dtype) -> bool:
    floating = [p for p in (*model.parameters(), *model.buffers()) if p.is_floating_point()]
    return any(p.dtype != dtype for p in floating) or _wants_channels_last(model.modules())


def _prepared(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Cast ``model``, which is the caller's own, in place."""
    if any(t.dtype != dtype for t in (*model.parameters(), *model.buffers()) if t.is_floating_point()):
        model = model.to(dtype)
    modules = list(model.modules())
    if dtype == torch.bfloat16:
        for module in modules:
            if isinstance(module, NORMALISATIONS):
                module.float()
    if _wants_channels_last(modules):
        for module in modules:
            if isinstance(module, nn.Conv2d):
                module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)
    return model


def _cast(inputs: Any, dtype: torch.dtype, channels_last: bool) -> Any:
    if isinstance(inputs, Tensor):
        cast = inputs.to(dtype) if inputs.is_floating_point() else inputs
        return (
            cast.contiguous(memory_format=torch.channels_last) if channels_last and cast.dim() == 4 else cast
        )
    if isinstance(inputs, dict):
        return {k: _cast(v, dtype, channels_last) for k, v in inputs.items()}
    return type(inputs)(_cast(v, dtype, channels_last) for v in inputs)
