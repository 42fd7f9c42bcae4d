"""One forward pass under a recorder, and the backward passes that statistics ask for."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from pynas._errors import UserError
from pynas._plural import counted
from pynas.stats import _fallback
from pynas.stats._base import Statistic
from pynas.stats._call_recorder import CallRecorder
from pynas.stats._dead_parts import Skipping
from pynas.stats._layout import Layout, Where
from pynas.stats._loss_watch import LossWatch
from pynas.stats._mixing import NeedsScoutError
from pynas.stats._scout import put_out
from pynas.stats._second_order import SecondOrderRecorder
from pynas.stats.data import LossFn, call_model, leaves, loss_of, writable


def run(
    recorder: CallRecorder,
    inputs: Any,
    targets: Any,
    loss_fn: LossFn | None,
    fallback: Sequence[str],
    needs: Sequence[Statistic[Any]],
) -> list[float]:
    """One forward and the backward passes that ``needs`` ask for; the loss, where there is one."""
    passes = [of for of in ("outputs", "loss") if any(s.gradient_of == of for s in _differentiated(needs))]
    model, groups = recorder.model, recorder.num_groups if recorder.batch_norm == "group" else 1
    watchers = [s for s in needs if s.watches == "inputs"]
    inputs = _watched(recorder, inputs, watchers)
    # Fused attention has no second derivative.
    attention = sdpa_kernel(SDPBackend.MATH) if isinstance(recorder, SecondOrderRecorder) else nullcontext()
    with torch.set_grad_enabled(bool(passes)), _fallback.installed(recorder, fallback), attention, recorder:
        outputs = _outputs(model, inputs)
    if isinstance(recorder.parts, Skipping):
        recorder.parts.finish(recorder, outputs)
        recorder.parts = None
    recorder.check()
    if recorder.collector.late:
        raise LateWeightError(frozenset(recorder.collector.late))
    first = _first(outputs)
    where = recorder.where(first)
    if loss_fn is None and "loss" in passes and isinstance(where, Layout) and where.dim != 0:
        raise UserError(
            f"model: its outputs {tuple(first.shape)} have the samples in dimension {where.dim}; without "
            "loss_fn they are expected in dimension 0"
        )
    if loss_fn is not None and "loss" in passes:
        _check_put_out(recorder, first, where)
    recorder.output_shape = tuple(first.shape)
    losses, totals = [], {}
    if "outputs" in passes:
        totals["outputs"] = first.sum(dtype=torch.float64)
    if "loss" in passes:
        with LossWatch(recorder.own if recorder.tracks else {}):
            totals["loss"] = loss_of(outputs, targets, loss_fn, recorder.batch, groups)
        losses.append(float(totals["loss"].detach()))
    del outputs, first  # or the logits would live through the backward pass
    try:
        for of in passes:
            _pass(
                recorder, of, totals.pop(of), [s for s in watchers if s.gradient_of == of], of != passes[-1]
            )
    finally:
        if isinstance(recorder, SecondOrderRecorder):
            recorder.forget()
    return losses


def _check_put_out(recorder: CallRecorder, first: Tensor, where: Where) -> None:
    """UserError where the samples of the output are in another dimension for other numbers of samples.

    A reshape to sizes that happen to be those of the batch does that; which sample's a loss takes a row for
    then depends on their number.
    """
    if not isinstance(where, Layout) or where.dim == 0:
        return
    if recorder.measured is None:
        raise NeedsScoutError
    end = recorder.measured[-1]
    known = end.where[0] if end.func is put_out and end.where else where
    if known != where:
        raise UserError(
            f"model: its outputs {tuple(first.shape)} have the {counted(recorder.batch, 'sample')} in "
            f"dimension {where.dim}, but not for other numbers of samples (a reshape that takes its sizes in "
            "the wrong order does that); bring them to the front where they are reshaped"
        )


def _pass(
    recorder: CallRecorder, of: str, total: Tensor, watching: Sequence[Statistic[Any]], retain: bool
) -> None:
    """A backward pass of ``total``, the sum of ``of``, and what those see who watch the inputs."""
    twice = isinstance(recorder, SecondOrderRecorder) and of == "loss"
    recorder.collector.gradient_of, recorder.retain = of, twice or retain
    recorder.collector.open = True
    if watching and not recorder.sources:
        raise UserError("inputs: none of them is floating-point or embedded, so there is no gradient of them")
    if total.requires_grad:
        rows = _backward(recorder, total, watched=bool(watching), twice=twice)
    elif watching:  # nothing of the inputs, such as an order of theirs, reaches the outputs smoothly
        rows = torch.cat([arrange(torch.zeros_like(x)).flatten(1) for x, arrange in recorder.sources], 1)
    recorder.collector.zeros(recorder.batch)
    for statistic in watching:
        statistic.observe_inputs(rows, recorder.collector.results[type(statistic)])


def _backward(recorder: CallRecorder, total: Tensor, *, watched: bool, twice: bool) -> Tensor:
    """A backward pass of ``total``, and if ``twice`` one of that along the gradient of the weights.

    Returns the gradient of the inputs, [B, features], if ``watched``.
    """
    named = recorder.collector.names.values() if recorder.tracks else ()
    # A forward may have switched some off.
    own = {name: recorder.parameters[name] for name in named if recorder.parameters[name].requires_grad}
    sources = recorder.sources if watched else []
    # Recorded calls cut the path to their parameters, so any gradient found here came by another way.
    with torch.autocast(total.device.type, enabled=False):  # statistics keep the precision they accumulate in
        found = torch.autograd.grad(
            total,
            [recorder.anchor, *own.values(), *(x for x, _ in sources)],
            retain_graph=recorder.retain,
            create_graph=twice,
            allow_unused=True,
        )
    recorder.collector.leaked(
        [name for name, gradient in zip(own, found[1:], strict=False) if gradient is not None]
    )
    recorder.collector.flush()
    rows = [
        arrange(torch.zeros_like(x) if g is None else g.detach()).flatten(1)
        for (x, arrange), g in zip(sources, found[1 + len(own) :], strict=True)
    ]
    if twice:
        assert isinstance(recorder, SecondOrderRecorder)
        found = ()  # they know the graph
        with torch.autocast(total.device.type, enabled=False):
            curvature = recorder.differentiate_again()
        for statistic, results in recorder.collector.results.items():
            if statistic.watches == "curvature":
                results.update(curvature)
    return torch.cat(rows, 1) if watched else total


def _watched(recorder: CallRecorder, inputs: Any, watchers: Sequence[Statistic[Any]]) -> Any:
    """Copies of the inputs, known to the recorder; their gradients reach leaves where these are asked for."""

    def leaf(value: Tensor) -> Tensor:
        x = value.detach()
        if watchers and value.is_floating_point():
            recorder.sources.append((x.requires_grad_(), lambda t: t))
        return x

    handed = writable(inputs, leaf)
    if watchers:
        recorder.storages = frozenset(
            t.untyped_storage().data_ptr() for t in leaves(handed) if not t.is_floating_point()
        )
    for x in leaves(handed):
        recorder.marks.sample(x, Layout(0))
    return handed


def _outputs(model: Any, inputs: Any) -> Any:
    try:
        return call_model(model, inputs)
    except RuntimeError as error:
        if "does not require grad" in str(error):
            raise UserError(
                "model: its forward differentiates itself (torch.autograd.grad) by what needs no gradient "
                f"here, which cannot be followed: {error}"
            ) from error
        if "setup_context" not in str(error) and "functorch" not in str(error):
            raise
        raise UserError(
            "model: its forward transforms itself (torch.func), which cannot be followed; pass "
            "fallback=('',) to "
            "take the gradients of the whole model group by group (slower)"
        ) from error


class LateWeightError(Exception):
    """Parameters turned out to be weights after an earlier use of theirs had been passed over."""

    def __init__(self, names: frozenset[str]) -> None:
        super().__init__(", ".join(sorted(names)))
        self.names = names


def _first(outputs: Any) -> Tensor:
    """The outputs, or the first of several: what a network of the literature is said to put out."""
    found = [t for t in leaves(outputs) if t.is_floating_point()]
    if not found:
        raise UserError("model: expected outputs of floating-point numbers to take the gradient of")
    return found[0]


def _differentiated(needs: Sequence[Statistic[Any]]) -> list[Statistic[Any]]:
    return [s for s in needs if s.watches != "relu"]
