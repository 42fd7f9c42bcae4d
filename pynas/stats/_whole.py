"""Gradients of whole batches by plain autograd, for statistics that ask for no sample's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pynas.stats._base import ParameterInfo
from pynas.stats._functions import is_python, name_of
from pynas.stats._loss_watch import LossWatch
from pynas.stats._mixing import outputs_of, tensors_of
from pynas.stats._norm_rules import statistics_for
from pynas.stats._products import GradientProduct
from pynas.stats.data import LossFn, call_model, leaves, loss_of, writable
from pynas.stats.weights import ProductWatch


@dataclass(frozen=True)
class WholeProduct(GradientProduct):
    """The gradient of a batch, of which no part is known by itself."""

    values: Tensor

    @property
    def batch(self) -> int:
        return 1

    def narrow(self, start: int, length: int) -> WholeProduct:
        raise NotImplementedError("the gradient of a whole batch has no samples")

    def gradient(self) -> Tensor:
        return self.values

    def bias_rows(self, group_size: int) -> Tensor:
        raise NotImplementedError("a whole gradient has no bias beside it")


@dataclass(frozen=True)
class WholePass:
    """What one pass found.

    Attributes:
        loss: Of the batch.
        gradients: dL/dw by name, of parameters that the loss depends on.
        weights: Names of parameters that multiply something.
        used: Where parameters were seen.
        unseen: Parameters that the loss depends on by calls that could not be watched.
        output_shape: Shape of the model's output, or of the first of several.
    """

    loss: float
    gradients: Mapping[str, Tensor]
    weights: frozenset[str]
    used: Mapping[str, ParameterInfo]
    unseen: frozenset[str]
    output_shape: tuple[int, ...]


def whole_pass(
    model: nn.Module,
    trainable: Mapping[str, Tensor],
    inputs: Any,
    targets: Any,
    loss_fn: LossFn | None,
    batch: int,
    batch_norm: str,
) -> WholePass:
    """dL/dw of a batch whose samples may depend on each other in any way.

    The weights are those of :func:`pynas.stats.weights.weight_names`.
    """
    inputs = writable(inputs)
    with _Watch(model, inputs, batch_norm) as watch:
        outputs = call_model(model, inputs)
    with LossWatch({id(p): name for name, p in trainable.items()}):
        loss = loss_of(outputs, targets, loss_fn, batch, 1)
    watch.hide([loss])
    first = next((t for t in leaves(outputs) if t.is_floating_point()), None)
    wanted = {name: p for name, p in trainable.items() if p.requires_grad}  # a forward may switch some off
    found: tuple[Tensor | None, ...] = (None,) * len(wanted)
    if loss.requires_grad and wanted:
        with torch.autocast(loss.device.type, enabled=False):
            found = torch.autograd.grad(loss, list(wanted.values()), allow_unused=True)
    gradients = {name: g for name, g in zip(wanted, found, strict=True) if g is not None}
    used = {
        name: ParameterInfo(name, name.rpartition(".")[0], calls[0], trainable[name].shape, len(calls))
        for name, calls in watch.calls.items()
        if name in gradients
    }
    hidden = watch.hidden - watch.inside - watch.found
    unseen = frozenset(gradients) - (set(used) - hidden)
    return WholePass(
        float(loss.detach()), gradients, frozenset(watch.found), used, unseen,
        () if first is None else tuple(first.shape),
    )  # fmt: skip


class _Watch(ProductWatch):
    """Normalises as asked, and notes which calls used which parameter.

    Attributes:
        calls: By name of a parameter, those of the functions in which it, or what is computed from it, met
            samples.
        inside: Names of parameters that met samples where autograd is off, as in the forward of an autograd
            function of the model's own.
    """

    def __init__(self, model: nn.Module, samples: Any, batch_norm: str) -> None:
        super().__init__(model, samples)
        self.calls: dict[str, list[str]] = {}
        self.inside: set[str] = set()
        self._batch_norm = batch_norm

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.batch_norm:
            func, args, kwargs = torch.batch_norm, self._normalising(*args, **kwargs), {}
        elif func is torch.batch_norm:
            x, weight, bias, mean, variance, training, momentum, eps, *_ = args
            args = self._normalising(x, mean, variance, weight, bias, training, momentum, eps)
        result = super().__torch_function__(func, types, args, kwargs)
        if is_python(func):
            return result
        tensors = tensors_of(args, kwargs)
        if not any(map(self.is_sample, tensors)):
            return result
        if any(y.requires_grad for y in outputs_of(func, args, result)):
            for i in {i for t in tensors if t.requires_grad for i in self.sources(t)}:
                self.calls.setdefault(self.names[i], []).append(name_of(func))
        elif not torch.is_grad_enabled():
            self.inside |= {self.names[i] for t in tensors for i in self.sources(t)}
        return result

    def _normalising(
        self,
        input: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
        *_: Any,
    ) -> tuple[Any, ...]:
        """Arguments of ``torch.batch_norm`` by which it normalises as asked and keeps running statistics."""
        mean, variance, own = statistics_for(
            self._batch_norm, input, self.is_sample(input), 1, running_mean, running_var, training
        )
        return input, weight, bias, mean, variance, own, 0.0, eps, torch.backends.cudnn.enabled
