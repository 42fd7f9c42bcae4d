"""Per-sample gradients by the plainest means: one sample after another through autograd."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from pynas.stats import GradGram, GradMoments, GradNorms, Statistics
from tests.zoo.networks import LossFn

ROUNDING = 1e-13


def one(value: Any, index: int, copies: int = 1) -> Any:
    """Sample ``index``, as a batch of one, or of some copies of it."""
    return pytree.tree_map_only(Tensor, lambda t: t[[index] * copies], value)


def call(model: nn.Module, inputs: Any) -> Any:
    """``model`` on a tensor, a tuple or a dictionary."""
    if isinstance(inputs, dict):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, tuple | list) else model(inputs)


def loss_of(model: nn.Module, inputs: Any, targets: Any, loss: LossFn | None) -> Tensor:
    """The loss of a batch."""
    outputs = call(model, inputs)
    return nn.functional.cross_entropy(outputs, targets) if loss is None else loss(outputs, targets)


def frozen(model: nn.Module) -> None:
    """Batch norms by their running statistics."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase):
            module.eval()


Buffers = list[tuple[nn.Module, str, Tensor | None, Tensor | None]]


def buffers_of(model: nn.Module) -> Buffers:
    """A model's buffers and copies of them."""
    return [
        (m, k, b, None if b is None else b.clone()) for m in model.modules() for k, b in m._buffers.items()
    ]


def restore(buffers: Buffers) -> None:
    """Put a model's buffers back, which train mode moves and some models replace."""
    with torch.no_grad():
        for module, key, buffer, values in buffers:
            module._buffers[key] = buffer
            if buffer is not None and values is not None:
                buffer.copy_(values)


def forget(model: nn.Module) -> None:
    """Empty what modules keep from one call for the next."""
    for module in model.modules():
        for name, value in vars(module).items():
            if "cache" in name and isinstance(value, dict):
                value.clear()


def per_sample(
    model: nn.Module, inputs: Any, targets: Any, loss: LossFn | None, batch: int, copies: int = 1
) -> dict[str, Tensor]:
    """Gradients [B, *parameter] of each sample's part of a mean loss; parameters without any are left out.

    The mean loss of two copies is that of one. PyTorch 2.13 itself errs with one: the backward pass of
    ``batch_norm`` by running statistics, for a gradient whose channels are last.
    """
    named = {n: p for n, p in model.named_parameters() if p.requires_grad}
    rows: dict[str, list[Tensor | None]] = {name: [] for name in named}
    buffers = buffers_of(model)
    for b in range(batch):
        restore(buffers)
        forget(model)
        value = loss_of(model, one(inputs, b, copies), one(targets, b, copies), loss) / batch
        found = torch.autograd.grad(value, list(named.values()), allow_unused=True)
        for name, g in zip(named, found, strict=True):
            rows[name].append(None if g is None else g.detach())
    return {
        name: torch.stack([torch.zeros_like(named[name]) if g is None else g for g in found])
        for name, found in rows.items()
        if any(g is not None for g in found)
    }


@dataclass(frozen=True)
class Difference:
    """A value that is not the reference's."""

    parameter: str
    statistic: str
    error: float

    def __str__(self) -> str:
        return f"{self.parameter} {self.statistic} {self.error:.1e}"


def coupled(whole: Mapping[str, Tensor], rows: Mapping[str, Tensor], tolerance: float) -> list[str]:
    """Parameters whose gradient of the batch is not the sum of the samples': the network mixes samples."""
    zero = ROUNDING * max((float(g.abs().max()) for g in rows.values() if g.numel()), default=0.0)
    found = []
    for name, g in whole.items():
        if name in rows and g.numel():
            scale = float(rows[name].abs().sum(0).max())
            if float((g - rows[name].sum(0)).abs().max()) > 10 * tolerance * scale + 100 * zero:
                found.append(name)
    return found


def differences(found: Statistics, rows: Mapping[str, Tensor], tolerance: float) -> list[Difference]:
    """Where ``found`` is not what ``rows`` give, the worst first."""
    wrong = []
    # Gradients that are zero but for rounding: of a bias before a normalisation, for one.
    zero = ROUNDING * max((float(g.abs().max()) for g in rows.values() if g.numel()), default=0.0)
    for name, g in rows.items():
        if not g.numel():
            continue
        flat = (torch.view_as_real(g) if g.is_complex() else g).reshape(g.shape[0], -1)
        gram = flat @ flat.T
        expected = {
            "sum": g.sum(0),
            "abs": g.abs().sum(0),
            "square": (g * g.conj()).real.sum(0) if g.is_complex() else g.square().sum(0),
            "norms": gram.diagonal(),
            "gram": gram,
        }
        if name not in found[GradMoments]:
            if g.abs().max() > zero:
                wrong.append(Difference(name, "missing", float("inf")))
            continue
        moments = found[GradMoments][name]
        values = {
            "sum": moments.sum,
            "abs": moments.abs,
            "square": moments.square,
            "norms": found[GradNorms][name],
            "gram": found[GradGram][name],
        }
        for statistic, value in expected.items():
            got = values[statistic]
            if got is None or got.shape != value.shape:
                wrong.append(Difference(name, f"{statistic} shape", float("inf")))
                continue
            # The largest of a sum may cancel; what it is a sum of says how much rounding to expect.
            scale = expected["abs"].max() if statistic == "sum" else value.abs().max()
            error = float((got - value).abs().max())
            floor = zero if statistic in ("sum", "abs") else g[0].numel() * zero**2
            if not error <= tolerance * float(scale) + g.shape[0] * floor:
                wrong.append(Difference(name, statistic, error / max(float(scale), 1e-300)))
    for name, moments in found[GradMoments].items():
        if name not in rows and moments.abs is not None and moments.abs.max() > zero:
            wrong.append(Difference(name, "unexpected", float("inf")))
    return sorted(wrong, key=lambda d: -d.error)


def snapshot(model: nn.Module) -> dict[str, Any]:
    """All of a model's state that a measurement could change."""
    state: dict[str, Any] = {}
    for name, t in [*model.named_parameters(), *model.named_buffers()]:
        state[f"bits of {name}"] = t.detach().clone()
        state[f"flag of {name}"] = (t.requires_grad, id(t))
        state[f"gradient of {name}"] = None if t.grad is None else (id(t.grad), t.grad.clone())
    for name, module in model.named_modules():
        state[f"mode of {name}"] = module.training
        state[f"attributes of {name}"] = tuple(sorted(vars(module)))
        kept = {k: len(v) for k, v in vars(module).items() if isinstance(v, dict) and k[0] != "_"}
        state[f"dictionaries of {name}"] = tuple(kept.items())
        hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
        state[f"hooks of {name}"] = tuple(len(h) for h in hooks)
    state["torch's random state"] = torch.get_rng_state()
    state["Python's random state"] = random.getstate()
    return state


def changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What differs between two snapshots."""
    keys = dict.fromkeys([*before, *after])
    return [k for k in keys if k not in before or k not in after or not _same(before[k], after[k])]


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.shape == b.shape and a.dtype == b.dtype and _bits(a) == _bits(b)
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


def _bits(t: Tensor) -> bytes:
    return t.contiguous().flatten().resolve_conj().view(torch.uint8).numpy().tobytes() if t.numel() else b""
