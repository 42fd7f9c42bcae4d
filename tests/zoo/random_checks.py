"""Everything that pynas says of a random network, against plain loops."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

import pynas
from pynas._errors import UserError
from pynas.stats import GradGram, GradMoments, GradNorms, collect
from pynas.stats.weights import weight_names
from tests.zoo import reference
from tests.zoo.networks import Network
from tests.zoo.run import REASONS

VALUED = ("grad_norm", "snip", "plain")
OTHERS = ("zico_per_sample", "grad_sign", "synflow", "fisher", "jacob_cov", "naswot", "grasp", "l2_norm")
FALLBACK = re.compile(r"pass fallback=(\(.*?\)) to take")


class WrongError(AssertionError):
    """A number that is not the loop's, or a model that is not as it was."""


class BrokenError(Exception):
    """The network itself fails, or has gradients that are not finite: a block is to be mended."""


def check(network: Network, groups: int = 1, scored: bool = True) -> str:
    """``"ok"``, or ``"refused"``; with batches of several sizes the model is measured for each.

    Args:
        network: What to measure.
        groups: Into how many groups a batch is split where that is possible; 1: single samples.
        scored: Whether to score it too.

    Raises:
        WrongError: Anything is not as it should be.
    """
    model = network.model()
    answers = [check_batch(network, model, batch, groups) for batch in network.batches]
    if scored:
        check_scores(network, model, network.batches[0])
    return "refused" if "refused" in answers else "ok"


def check_batch(network: Network, model: nn.Module, batch: int, groups: int) -> str:
    """Moments, norms and Gram matrices of one batch, by running statistics."""
    inputs, targets = data_of(network, batch)
    reference.frozen(model)
    buffers = reference.buffers_of(model)
    rows = loop(network, model, inputs, targets, batch)
    reference.restore(buffers)
    size = batch // groups if groups > 1 and batch % groups == 0 else 1
    rows = {n: g.view(-1, size, *g.shape[1:]).sum(1) for n, g in rows.items()}

    def once(fallback: tuple[str, ...] = ()) -> str:
        before = reference.snapshot(model)
        message = ""
        try:
            found = collect(
                model, inputs, targets, network.loss, batch_norm="frozen", fallback=fallback, group_size=size,
                needs=[GradMoments(("sum", "abs", "square")), GradNorms(), GradGram()],
            )  # fmt: skip
            if wrong := reference.differences(found, rows, network.tolerance):
                raise WrongError(f"B={batch}, groups of {size}, {fallback}: {'; '.join(map(str, wrong[:3]))}")
        except UserError as error:
            message = str(error)
        unchanged(before, model)
        return message

    message = once()
    if advised := FALLBACK.search(message):
        once(tuple(re.findall(r"'([^']*)'", advised[1])))  # it may turn out that samples depend on each other
    return "refused" if message else "ok"


def loop(network: Network, model: nn.Module, inputs: Any, targets: Any, batch: int) -> dict[str, Tensor]:
    """Gradients of single samples, [B, *parameter]."""
    try:
        rows = reference.per_sample(model, inputs, targets, network.loss, batch)
        whole = whole_gradients(network, model, inputs, targets)
        if reference.coupled(whole, rows, network.tolerance):  # PyTorch errs for single samples
            rows = reference.per_sample(model, inputs, targets, network.loss, batch, copies=2)
    except Exception as error:
        raise BrokenError(f"{type(error).__name__}: {error}") from error
    if not all(torch.isfinite(g).all() for g in rows.values()):
        raise BrokenError("its gradients are not finite")
    return rows


def whole_gradients(network: Network, model: nn.Module, inputs: Any, targets: Any) -> dict[str, Tensor]:
    """Ordinary gradients of a batch."""
    named = {n: p for n, p in model.named_parameters() if p.requires_grad}
    loss = reference.loss_of(model, inputs, targets, network.loss)
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    return {n: g for n, g in zip(named, found, strict=True) if g is not None}


def check_scores(network: Network, model: nn.Module, batch: int) -> None:
    """Scores in train mode: some against ordinary gradients; the others at least say why there is none."""
    inputs, targets = data_of(network, batch)
    model.train()
    buffers = reference.buffers_of(model)
    names = weight_names(model, inputs)
    gradients = whole_gradients(network, model, inputs, targets)
    reference.restore(buffers)
    weights = {n: p.detach() for n, p in model.named_parameters()}
    before = reference.snapshot(model)
    scores = pynas.score(model, inputs, targets, VALUED + OTHERS, precision="float64", loss_fn=network.loss)
    unchanged(before, model)
    model.eval()
    for name, score in scores.items():
        if score.status == "failed" and not score.message.startswith(REASONS):
            raise WrongError(f"{name}: {score.message}")
    right: Mapping[str, Any] = {
        "grad_norm": lambda w, g: g.norm(), "snip": lambda w, g: (w * g).abs().sum(), "plain": lambda w,
        g: (w * g).sum(),
    }  # fmt: skip
    for name, formula in right.items():
        score = scores[name]
        if score.status not in ("ok", "partial"):
            continue
        # A weight that its layer computes counts once, by the attribute that it is.
        computed = tuple(f"{n.rpartition('.')[0]}." for n in score.layers if n not in weights)
        absent = {n for n in names if n in gradients and gradients[n].any()} - set(score.layers)
        absent = {n for n in absent if not n.startswith(computed)} if computed else absent
        zero = {n for n in absent if float(gradients[n].abs().max()) < 1e-12}
        if score.status == "ok" and absent - zero:
            raise WrongError(f"{name}: counts no {', '.join(sorted(absent - zero))}, and says it is ok")
        for key, value in score.layers.items():
            if key not in weights:
                continue
            g, w = gradients.get(key, torch.zeros_like(weights[key])), weights[key]
            size = float((w * g).abs().sum() if name != "grad_norm" else g.norm())
            floor = 1e-11 * (1 + float(w.norm()))  # a gradient that is zero but for rounding
            if not abs(value - float(formula(w, g))) <= 1e-9 * size + floor:
                raise WrongError(f"{name}: {value} of {key}, a loop gives {float(formula(w, g))}")


def unchanged(before: dict[str, Any], model: nn.Module) -> None:
    """The model is bit for bit as it was."""
    if moved := reference.changed(before, reference.snapshot(model)):
        raise WrongError(f"changed: {', '.join(moved[:4])}")


def check_mixing(network: Network) -> str:
    """Of a network in which samples depend on each other: an error, or rows that sum to the gradient."""
    model, batch = network.model(), network.batches[0]
    inputs, targets = data_of(network, batch)
    reference.frozen(model)
    try:
        whole = whole_gradients(network, model, inputs, targets)
    except Exception as error:
        raise BrokenError(str(error)) from error
    before = reference.snapshot(model)
    try:
        found = collect(
            model, inputs, targets, network.loss, needs=[GradMoments(("sum", "abs"))], batch_norm="frozen"
        )[GradMoments]
    except UserError:
        unchanged(before, model)
        return "refused"
    unchanged(before, model)
    zero = 1e-11 * max(float(g.abs().max()) for g in whole.values())
    for name, g in whole.items():
        moments = found.get(name)
        if moments is None:
            assert float(g.abs().max()) <= zero, f"{name} is missing"
            continue
        assert moments.sum is not None
        assert moments.abs is not None
        if float((moments.sum - g).abs().max()) > 1e-9 * float(moments.abs.max()) + zero:
            raise WrongError(f"{name}: the samples' gradients do not sum to the gradient")
    return "ok"


def data_of(network: Network, batch: int) -> tuple[Any, Any]:
    """Inputs and targets of a batch."""
    return network.inputs(batch), None if network.targets is None else network.targets(batch)
