"""Gradient statistics of any model from one forward and backward pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal, get_args

import torch
from torch import nn

from pynas._errors import UserError
from pynas._plural import counted
from pynas.stats._base import Statistic, Statistics
from pynas.stats._call_recorder import AmbiguousLayoutError, CallRecorder
from pynas.stats._collector import Collector
from pynas.stats._passes import run
from pynas.stats._rules import RULES
from pynas.stats._second_order import SecondOrderRecorder
from pynas.stats.data import LossFn, call_model, check_data, cut, ordinary
from pynas.stats.grad_moments import GradMoments
from pynas.stats.gradients import Gradients
from pynas.stats.state import preserved, seed_generators

BatchNorm = Literal["batch", "group", "frozen"]
MATRIX_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.Conv3d)


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

    Samples are the first dimension of ``inputs``. Inside the model they may be elsewhere as long as one
    dimension has the size of the batch.

    With a loss that is a mean over the batch each g_b carries its factor 1/B.

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
        fallback: Names of layers (as in ``model.named_modules()``) without a rule, to be treated by
            torch.func group by group: slower, and their samples must not depend on each other.
        training: Put all modules in this mode for the passes; None leaves modes alone.
        seed: Seed torch's generators with it for the passes (dropout); None draws from their present state.

    Returns:
        Statistics: ``statistics[GradMoments]["layer.weight"]`` and so on.

    Raises:
        UserError: Bad data (empty, NaN, labels out of range, sizes that do not divide), a model without
            trainable parameters, or a parameter in a layer without a rule (the message says what to do).
    """
    batch = check_data(inputs, targets)
    needs = _merged(needs)
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

    values: dict[type[Statistic[Any]], dict[str, Any]] = {type(s): {} for s in needs}
    taken = [s for s in needs if s.needs_pass]
    parameters = dict(model.named_parameters())
    trainable = {id(p): name for name, p in parameters.items() if p.requires_grad}
    if len(curved) == len(needs):  # along all weights, whoever trains them
        trainable = {id(parameters[name]): name for name in matrix_names(model)}
    seen, losses = {}, []
    shape: tuple[int, ...] = ()
    with preserved(model), gradients_on(model, training, seed):
        inputs, targets = ordinary(inputs), ordinary(targets)
        strict, matrices = _strictly(model, trainable, taken)
        for p in parameters.values():
            p.requires_grad_(id(p) in strict)

        def recording() -> CallRecorder:
            collector = Collector(taken, group_size, trainable, matrices, values)
            kind = SecondOrderRecorder if curved else CallRecorder
            return kind(collector, model, parameters, strict, size, batch_norm, taken, rules=RULES)

        for i in range(passes if taken else 0):
            recorder = recording()
            part = (
                (cut(inputs, i * size, size), cut(targets, i * size, size))
                if passes > 1
                else (inputs, targets)
            )
            try:
                losses += run(recorder, *part, loss_fn, fallback, taken)
            except AmbiguousLayoutError:
                shapes = few_shapes(recorder, part[0])
                values |= {type(s): {} for s in taken if not s.successive}
                recorder = recording()
                recorder.few_shapes = shapes
                losses += run(recorder, *part, loss_fn, fallback, taken)
            seen.update(recorder.collector.seen)
            shape = recorder.output_shape
        for statistic in needs:
            if not statistic.needs_pass:
                values[type(statistic)] = statistic.observe_model(model, inputs)
    weights = {name: p.detach() for name, p in parameters.items()}
    for statistic in needs:
        values[type(statistic)] = statistic.finish(values[type(statistic)])
    return Statistics(size, group_size, tuple(losses), seen, weights, values, targets, shape)


def few_shapes(recorder: CallRecorder, inputs: Any) -> list[torch.Size]:
    """Input shapes of all calls in a forward pass of a few samples; leaves no trace."""
    few = recorder.few
    mode = "batch" if few > 1 else "frozen"
    watch = CallRecorder(
        recorder.collector, recorder.model, recorder.parameters, frozenset(), few, mode, rules=recorder.rules
    )
    watch.watching = True
    with preserved(recorder.model), torch.no_grad(), watch:
        call_model(recorder.model, cut(inputs, 0, few))
    return watch.shapes


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
    plain = batch_norm == "batch" and not fallback and not torch.is_autocast_enabled("cpu")
    return weights_only and trained and plain


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


def _strictly(
    model: nn.Module, trainable: dict[int, str], needs: Sequence[Statistic[Any]]
) -> tuple[frozenset[int], frozenset[str]]:
    """Which parameters must be covered by a rule, and which count as weights whatever uses them."""
    matrices = {id(model.get_parameter(name)) for name in matrix_names(model)}
    of_weights = [s for s in needs if s.watches in ("weights", "saliency", "curvature")]
    if any(s.parameters == "all" for s in of_weights if s.watches != "curvature"):
        strict = set(trainable)
    else:
        strict = matrices & trainable.keys() if of_weights else set()
    return frozenset(strict), frozenset(trainable[i] for i in matrices & trainable.keys())


def matrix_names(model: nn.Module) -> list[str]:
    """The weights of convolution and linear layers, attention's among them, by name; a shared one once."""
    found: dict[int, None] = {}
    for module in model.modules():
        own: tuple[str, ...] = ("weight",) if isinstance(module, MATRIX_LAYERS) else ()
        if isinstance(module, nn.MultiheadAttention):
            own = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
        for key in own:
            weight = module._parameters.get(key)
            if weight is not None:
                found[id(weight)] = None
    names = {id(p): name for name, p in model.named_parameters()}
    return [names[i] for i in found]


@contextmanager
def gradients_on(model: nn.Module, training: bool | None, seed: int | None) -> Iterator[None]:
    """Autograd on whatever the caller's mode; modules and generators as asked."""
    with torch.inference_mode(False), torch.enable_grad():
        if training is not None:
            model.train(training)
        if seed is not None:
            seed_generators(seed)
        yield
