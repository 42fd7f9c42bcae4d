"""Gradient statistics of any model from one forward and backward pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, get_args

import torch
from torch import nn

from pynas._errors import UserError
from pynas._plural import counted
from pynas.stats._attempts import Attempts
from pynas.stats._base import Statistic, Statistics
from pynas.stats._problems import UnsupportedLayerError
from pynas.stats._remedy import remedy
from pynas.stats._scout import OtherPathError
from pynas.stats.data import LossFn, check_data, ordinary, plain
from pynas.stats.eager import check_readable
from pynas.stats.exact_float32 import exact_float32
from pynas.stats.grad_moments import GradMoments
from pynas.stats.gradients import Gradients
from pynas.stats.memory_format import in_the_faster_format, like_parameters
from pynas.stats.weights import matrix_names

BatchNorm = Literal["batch", "group", "frozen"]


def collect(
    model: nn.Module,
    inputs: Any,
    targets: Any = None,
    loss_fn: LossFn | None = None,
    *,
    needs: Sequence[Statistic[Any]],
    group_size: int = 1,
    batch_norm: BatchNorm = "batch",
    micro_batches: int = 1,
    fallback: Sequence[str] = (),
    training: bool | None = None,
    seed: int | None = None,
) -> Statistics:
    r"""Statistics of the gradients g_b that samples b (or groups of samples) contribute to dL/dw = sum_b g_b.

    One probing pass yields everything in ``needs``: a forward, and a backward of the loss, of the sum of all
    outputs, or none, as the statistics want it (with none of the loss, ``targets`` are not read). The
    ordinary weight gradient is computed only when a statistic asks for it, and nothing of size [B, P] is
    held. A weight used by several calls (tied weights, a module called twice) has as g_b the sum over its
    uses, taken before any absolute value or square. The model comes back bit for bit as it was: weights,
    buffers, ``.grad``, flags, modes, hooks, and random states too.

    Samples are the first dimension of ``inputs``. Where they are inside the model is followed through its
    calls, and measured by two or three passes of 2 and 4 samples where it does something unusual; it is never
    guessed from a size. Whatever the model computes from parameters alone (weight norm, low-rank updates,
    masks, position tables) is followed until it meets samples, and each sample's gradient is brought back
    from there.

    With a loss that is a mean over the batch each g_b carries its factor 1/B.

    On CUDA convolutions are computed in float32 by deterministic kernels, and in TF32 only where
    ``torch.backends.cuda.matmul.fp32_precision`` asks for it. Networks with 2-D convolutions run in
    channels_last, in which they are faster, unless they turn out to
    need another memory format; results come in that of the model's parameters.

    Args:
        model: Any module. Parameters with ``requires_grad=False`` are left out.
        inputs: Tensor [B, ...], or a tuple or dictionary of such tensors.
        targets: Handed to the loss; for the default loss int64 labels [B] or probabilities.
        loss_fn: ``loss_fn(outputs, targets)`` to a scalar; default: mean cross-entropy.
        needs: The statistics to take.
        group_size: m consecutive samples form one group, whose gradient is the sum over them; divides B.
        batch_norm: How batch norm normalises, whatever mode its module is in. ``"batch"``: by the
            statistics of the whole batch, so that samples are coupled and g_b is sample b's contribution to
            the batch gradient. ``"group"``: each group by its own statistics, and the loss of each group by
            itself, summed: g is exactly the gradient of a forward pass of that group alone. ``"frozen"``:
            by the running statistics.
        micro_batches: Split the batch into so many equal parts and make one pass of each, for statistics over
            successive gradients (:class:`RunningGradMoments`).
        fallback: Names of layers (as in ``model.named_modules()``, ``""`` for the whole model) to be treated
            by torch.func group by group: slower, and their samples must not depend on each other. Only for
            layers that an error names.
        training: Put all modules in this mode for the passes; None leaves modes alone.
        seed: Seed torch's generators with it for the passes (dropout); None draws from their present state.

    Returns:
        Statistics: ``statistics[GradMoments]["layer.weight"]`` and so on.

    Raises:
        UserError: Bad data (empty, NaN, labels out of range, sizes that do not divide), a model without
            trainable parameters, or parameters whose samples' gradients cannot be told apart (the message
            names all of them, and a fallback that was tried).
    """
    inputs, targets = plain(inputs), plain(targets)
    batch = check_data(inputs, targets)
    needs = _merged(needs)
    if any(s.needs_pass for s in needs):
        check_readable(model)
    passes = _divided("micro_batches", micro_batches, batch)
    size = batch // passes
    _divided("group_size", group_size, size)
    curved = [s for s in needs if s.watches == "curvature"]
    if batch_norm not in get_args(BatchNorm):
        raise UserError(f"batch_norm: expected one of {', '.join(get_args(BatchNorm))}, got {batch_norm!r}")
    if len(curved) == len(needs):
        fallback = ()
    else:
        _check_model(model, fallback)
    for statistic in needs:
        statistic.check(size, group_size, passes)
    if curved and not _one_pass(model, needs, batch_norm, fallback):
        alone = collect(model, inputs, targets, loss_fn, needs=curved, training=training, seed=seed)
        found = collect(
            model, inputs, targets, loss_fn, needs=[s for s in needs if s not in curved],
            group_size=group_size, batch_norm=batch_norm, fallback=fallback, training=training, seed=seed,
        )  # fmt: skip
        return replace(found, values={**found.values, **alone.values})

    targets = ordinary(targets)

    def run(inputs: Any) -> Statistics:
        asked = Attempts(
            model, inputs, targets, loss_fn, needs, batch, group_size, batch_norm, passes, tuple(fallback),
            training, seed,
        )  # fmt: skip
        return _collected(asked)

    with torch.inference_mode(False), exact_float32(model):
        found, converted = in_the_faster_format(model, ordinary(inputs), run)
        return _as_given(found, model) if converted else found


def _collected(asked: Attempts) -> Statistics:
    def attempt(fallback: tuple[str, ...]) -> Statistics:
        return asked.few(fallback).collect()

    try:
        return asked.collect()
    except UnsupportedLayerError as error:
        raise error.advised(remedy(asked.model, error.layers, attempt)) from None
    except OtherPathError as error:
        raise UserError(f"{error}; {remedy(asked.model, (error.layer,), attempt)}") from None
    except NotImplementedError as error:
        reason = str(error).partition(". ")[0]
        raise UserError(
            f"model: PyTorch lacks an operator that gradients of samples need here ({reason}); set "
            "requires_grad=False on the parameters that it is about, or write the layer with dense tensors"
        ) from error


def _as_given(found: Statistics, model: nn.Module) -> Statistics:
    """Results in the memory format of the caller's model, and that model's weights."""
    own = {name: p.detach() for name, p in model.named_parameters()}
    values = {kind: like_parameters(results, own) for kind, results in found.values.items()}
    return replace(found, weights=own, values=values)


def _merged(needs: Sequence[Statistic[Any]]) -> list[Statistic[Any]]:
    merged: dict[type[Statistic[Any]], Statistic[Any]] = {}
    for statistic in needs:
        if not isinstance(statistic, Statistic):
            raise TypeError(f"needs: expected statistics such as GradMoments(), got {statistic!r}")
        known = merged.get(type(statistic))
        merged[type(statistic)] = statistic if known is None else known.merge(statistic)
    if not merged:
        raise UserError("needs: expected at least one statistic, got none")
    moments = merged.get(GradMoments)
    if isinstance(moments, GradMoments) and Gradients in merged:
        # Their sum is the whole gradient, which then need not be formed by itself.
        merged[GradMoments] = replace(moments, moments=(*moments.moments, "sum"))
    return list(merged.values())


def _one_pass(
    model: nn.Module, needs: Sequence[Statistic[Any]], batch_norm: BatchNorm, fallback: Sequence[str]
) -> bool:
    """Whether a pass that can be differentiated twice serves all of ``needs``."""
    others = [s for s in needs if s.needs_pass and s.watches != "curvature"]
    if not others:
        return True
    weights_only = all(s.parameters == "weights" for s in others if s.watches == "weights")
    trained = all(model.get_parameter(name).requires_grad for name in matrix_names(model))
    casts = any(map(torch.is_autocast_enabled, ("cpu", "cuda")))
    return weights_only and trained and batch_norm == "batch" and not fallback and not casts


def _divided(argument: str, parts: int, batch: int) -> int:
    if parts < 1 or batch % parts:
        raise UserError(f"{argument}: expected a divisor of the {counted(batch, 'sample')}, got {parts}")
    return parts


def _check_model(model: nn.Module, fallback: Sequence[str]) -> None:
    if not any(p.requires_grad for p in model.parameters()):
        raise UserError(
            "model: it has no trainable parameters, so there are no gradients to take statistics of"
        )
    modules = dict(model.named_modules()) if fallback else {}
    for name in (fallback,) if isinstance(fallback, str) else fallback:
        if name not in modules:
            raise UserError(
                f"fallback: no layer {name!r} in the model; layers: {', '.join(filter(None, modules))}"
            )
    if isinstance(fallback, str):
        raise UserError(f"fallback: expected a sequence of layer names, got the string {fallback!r}")
