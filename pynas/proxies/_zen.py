"""The probe of Zen scores: how much a perturbed input changes the feature map of a Gaussian network."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pynas._errors import UserError
from pynas.proxies._base import Probe, ProbeCall
from pynas.stats import Statistic, Statistics
from pynas.stats.data import call_model, cut, leaves
from pynas.stats.forwards import FORWARDS
from pynas.stats.state import copied, generators_kept, seed_generators
from pynas.stats.weights import MATRIX_LAYERS, check_real

PERTURBATION = 0.01
POOLS = {F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d}
MEANS = {torch.mean, Tensor.mean}


@dataclass(frozen=True)
class FeatureChange(Statistic[float]):
    """D = mean over samples of ||f(x) - f(x + 0.01 x')||_1, f being the feature map before global pooling."""


@dataclass(frozen=True)
class NormVariance:
    """Mean over channels of a batch norm's variances.

    Attributes:
        running: Mean of ``running_var`` after both forward passes.
        batch: Mean of the unbiased variances of the batch x.
    """

    running: float
    batch: float


@dataclass(frozen=True)
class NormVariances(Statistic[NormVariance]):
    """:class:`NormVariance` by the name of the batch norm."""


@dataclass(frozen=True)
class ZenProbe(Probe):
    """Two forward passes in train mode, without gradients, of a copy with weights from N(0, 1).

    x and x' are standard normal with the shape of the inputs; biases are 0 and batch norms reset. f is the
    input of the last pooling over whole maps; without one, the input of the last linear layer; without that,
    the output. Copies of half-precision networks compute in float32.

    Attributes:
        samples: Largest number of samples; 16 rank NAS-Bench-201 cells as 64 do.
    """

    samples: int = 16

    def run(self, call: ProbeCall) -> Statistics:
        """Draw, forward x and x + 0.01 x', compare."""
        generator = torch.Generator().manual_seed(call.seed)
        model = gaussian_copy(call.model, generator)
        like = cut(call.inputs, 0, min(self.samples, len(next(iter(leaves(call.inputs))))))
        x, other = normal_like(like, generator), normal_like(like, generator)
        moved = _map(lambda a, b: a + PERTURBATION * b, x, other)
        norms = {
            name: m for name, m in model.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)
        }
        before = {name: _mean_variance(m) for name, m in norms.items()}
        maps, means = [], []
        with generators_kept(), torch.no_grad():
            for inputs in (x, moved):
                seed_generators(call.seed)  # drop the same units in both passes
                with _FeatureMap() as watch:
                    outputs = call_model(model, inputs)
                maps.append(watch.found(outputs))
                means.append({name: _mean_variance(m) for name, m in norms.items()})
        change = (maps[0] - maps[1]).flatten(1).abs().sum(1, dtype=torch.float64).mean()
        variances = {
            name: NormVariance(means[1][name], _fresh(before[name], means[0][name], m.momentum))
            for name, m in norms.items()
        }
        values: Mapping[type[Statistic[Any]], Mapping[str, Any]] = {
            FeatureChange: {"feature map": float(change)},
            NormVariances: variances,
        }
        return call.statistics(values, batch=len(maps[0]))


def log_terms(statistics: Statistics, variance: Callable[[NormVariance], float]) -> dict[str, float]:
    """Logarithms of D and of each sqrt(variance); ArithmeticError if the map does not change."""
    change = statistics[FeatureChange]["feature map"]
    if change == 0:
        raise ArithmeticError("the feature map does not depend on the input")
    terms = {"feature map": math.log(change) if change > 0 else change}
    for name, found in statistics[NormVariances].items():
        value = variance(found)
        if value == 0:
            raise ArithmeticError(f"batch norm {name!r} sees no variance")
        terms[name] = 0.5 * math.log(value) if value > 0 else value
    return terms


class _FeatureMap(TorchFunctionMode):
    """Records the inputs of poolings over whole maps and of linear calls, and speeds up some operators."""

    def __init__(self) -> None:
        super().__init__()
        self.pooled: Tensor | None = None
        self.read: Tensor | None = None

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if args and isinstance(args[0], Tensor):
            if func is F.linear:
                self.read = args[0]
            elif (func in POOLS and _to_one(*args[1:2], **kwargs)) or (
                func in MEANS and _over_map(args[0], *args[1:2], **kwargs)
            ):
                self.pooled = args[0]
        faster = FORWARDS.get(func)
        y = None if faster is None else faster(*args, **kwargs)
        return func(*args, **kwargs) if y is None else y

    def found(self, outputs: Any) -> Tensor:
        """The feature map of the forward pass with these ``outputs``."""
        for candidate in (self.pooled, self.read):
            if candidate is not None:
                return candidate
        return next(t for t in leaves(outputs) if t.is_floating_point())


def _to_one(output_size: Any = None, **_: Any) -> bool:
    sizes = output_size if isinstance(output_size, tuple | list) else (output_size,)
    return all(size == 1 for size in sizes)


def _over_map(x: Tensor, dim: Any = None, **_: Any) -> bool:
    """Whether a mean over ``dim`` leaves samples and one axis of channels."""
    if dim is None or x.dim() < 3:
        return False
    axes = {d % x.dim() for d in (dim if isinstance(dim, tuple | list) else (dim,))}
    return 0 not in axes and len(axes) == x.dim() - 2


def gaussian_copy(model: nn.Module, generator: torch.Generator) -> nn.Module:
    """A copy in train mode: weights from N(0, 1), zero biases, reset batch norms; at least float32."""
    check_real(model, "a network of weights from N(0, 1)")
    model = copied(model).train()
    halves = (torch.bfloat16, torch.float16)
    if any(p.dtype in halves for p in model.parameters()):
        model = model.float()
    for module in model.modules():
        if isinstance(module, MATRIX_LAYERS):
            draw = torch.randn(module.weight.shape, generator=generator)
            module.weight.data.copy_(draw)
            if module.bias is not None:
                module.bias.data.zero_()
        elif isinstance(module, nn.modules.batchnorm._BatchNorm):
            if not module.track_running_stats:
                module.track_running_stats = True
                like = next(model.parameters())
                module.running_mean = like.new_zeros(module.num_features)
                module.running_var = like.new_ones(module.num_features)
                module.num_batches_tracked = torch.zeros((), dtype=torch.long, device=like.device)
            module.reset_running_stats()
            if module.affine:
                nn.init.ones_(module.weight)
                nn.init.zeros_(module.bias)
    return model


def normal_like(inputs: Any, generator: torch.Generator) -> Any:
    """Standard normal inputs of these shapes; UserError for integers."""

    def draw(value: Tensor) -> Tensor:
        if not value.is_floating_point():
            raise UserError(
                f"inputs: expected floating point, since N(0, 1) replaces them, got {value.dtype}"
            )
        dtype = torch.float64 if value.dtype == torch.float64 else torch.float32
        noise = torch.randn(value.shape, generator=generator, dtype=dtype)
        return torch.empty_like(value, dtype=dtype).copy_(noise)

    return _map(draw, inputs)


def _map(function: Callable[..., Tensor], *trees: Any) -> Any:
    first = trees[0]
    if isinstance(first, Tensor):
        return function(*trees)
    if isinstance(first, dict):
        return {key: _map(function, *(tree[key] for tree in trees)) for key in first}
    return type(first)(_map(function, *parts) for parts in zip(*trees, strict=True))


def _mean_variance(norm: nn.modules.batchnorm._BatchNorm) -> float:
    assert norm.running_var is not None
    return float(norm.running_var.mean(dtype=torch.float64))


def _fresh(before: float, after: float, momentum: float | None) -> float:
    """The batch's mean variance u, solved from ``after = (1 - momentum) before + momentum u``."""
    rate = 1.0 if momentum is None else momentum  # a cumulative mean equals the first batch's
    return (after - (1 - rate) * before) / rate if rate else math.nan
