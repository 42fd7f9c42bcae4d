"""A mixture of candidate operations on one edge of a supernet, as one operator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from pynas.ops._checks import check_device, check_float
from pynas.ops._fakes import register_fake
from pynas.ops._mixed_op_reference import mixed_op_reference
from pynas.ops._moments import accumulate_dtype
from pynas.ops.candidates import CODES, FAMILY_CODES, SAVE_CODES, norms, resolve
from pynas.ops.tensors import new_image

_forward = torch.ops.pynas.mixed_op.default
_backward = torch.ops.pynas.mixed_op_backward.default
_track = torch.ops.pynas.track_statistics.default


def mixed_op(
    x: Tensor,
    weights: Tensor,
    parameters: Sequence[Tensor] = (),
    *,
    candidates: str | Sequence[str] = "darts",
    family: str | None = None,
    stride: int = 1,
    running: Sequence[Tensor] | None = None,
    num_batches_tracked: Sequence[Tensor] | None = None,
    training: bool = True,
    momentum: float | None = 0.1,
    eps: float = 1e-5,
    affine: bool = False,
    save: str = "products",
    extra: Sequence[Callable[[Tensor], Tensor]] = (),
) -> Tensor:
    """The mixture y = sum_k w_k op_k(x) over the candidates of one edge.

    A candidate whose weight is exactly zero is not computed: it costs no time and no memory, its batch norms
    are left as they are and all its gradients are zero, that of the weight too. So soft mixtures (DARTS),
    hard samples (GDAS, single path) and a discrete network are one operator with different weights, which
    torch.compile compiles once. With the weights on a GPU nobody waits for their values, and only the
    arithmetic of normalisation and sum is saved; hold hard samples in weights on the CPU to save the rest.

    Liu, Simonyan, Yang: DARTS, ICLR 2019. Dong & Yang: NAS-Bench-201, ICLR 2020. Duan et al.:
    TransNAS-Bench-101, CVPR 2021.

    Args:
        x: [N, C, H, W]; float32, bfloat16, float16 or float64. channels_last is read in place.
        weights: [K], one for each candidate and then one for each of `extra`; any floating dtype; on the
            device of x or on the CPU.
        parameters: of all candidates in the order of their state_dicts; :func:`mixed_op_parameters` lists
            names and shapes. In the dtype of x or another floating one, from which they are converted.
        candidates: "darts", "nasbench201" or "transnas" for all candidates of that family, or names out of
            one.
        family: whose candidates these are, where the names alone do not tell.
        stride: 1 or 2.
        running: running mean and variance [C] of every batch norm in the order of :func:`mixed_op_norms`, two
            tensors each. Updated in place in training; in evaluation they normalise. None: not kept, and
            batch statistics always normalise.
        num_batches_tracked: one int64 for each batch norm, counted up in training.
        training: whether batch norms use the batch's statistics.
        momentum: of the running statistics; None for the average of all batches, by `num_batches_tracked`.
        eps: added to variances.
        affine: whether batch norms have weight and bias (those behind pools never do).
        save: what is kept for backward: "nothing" but x (all is computed again), "products" (what batch norms
            read, but for 1x1 convolutions of "nasbench201" and "transnas": they are a ninth of the others'
            work) or "everything" (these too).
        extra: further candidates in plain PyTorch, each a function or module of x alone whose result has the
            shape of y. Called only when their weight is not zero (under torch.compile always)::

                blur = torch.nn.AvgPool2d(5, stride=1, padding=2)
                y = mixed_op(x, weights, parameters, candidates=("none", "sep_conv_3x3"), extra=[blur])

    Returns:
        [N, C, ceil(H / stride), ceil(W / stride)] in the dtype and layout of x; zeros where all weights are
        zero. Under autocast x and convolutions are cast to its dtype, which is that of the result; statistics
        and sums stay in float32.

    Raises:
        ValueError: weights of the wrong length or NaN, parameters of other shapes, a stride that is not 1 or
            2, tensors on different devices, one value per channel in training.
        TypeError: tensors that are not floating.
    """
    if extra:
        options = {
            "family": family,
            "stride": stride,
            "running": running,
            "num_batches_tracked": num_batches_tracked,
            "training": training,
            "momentum": momentum,
            "eps": eps,
            "affine": affine,
            "save": save,
        }
        return _with_extra(x, weights, parameters, extra, candidates, options)
    _check(x, weights, parameters, stride, save)
    # Dynamo would trace through the cache, and warn that it does.
    plan_of = _plan if torch.compiler.is_compiling() else _cached_plan
    plan = plan_of(candidates if isinstance(candidates, str) else tuple(candidates), family, stride)
    dtype = x.dtype
    device = x.device.type
    if dtype != torch.float64 and device in ("cpu", "cuda") and torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
    # No kernel computes in float16 on the CPU.
    widened = dtype == torch.float16 and device == "cpu"
    planes = x.is_contiguous() and not x.is_contiguous(memory_format=torch.channels_last)
    image = x.to(torch.float32 if widened else dtype).contiguous(memory_format=torch.channels_last)
    batch_statistics = training or running is None
    y: Tensor
    y, statistics, _ = _forward(
        image,
        weights,
        list(parameters),
        [] if batch_statistics or running is None else list(running),
        plan.codes,
        plan.family,
        stride,
        affine,
        batch_statistics,
        float(eps),
        SAVE_CODES[save],
    )
    if training and running is not None and plan.owners:
        values = y.shape[0] * y.shape[2] * y.shape[3]
        counts = list(num_batches_tracked or ())
        _track(list(running), counts, statistics, weights.detach(), plan.owners, momentum, values)
    if widened:
        y = y.to(dtype)
    return y.contiguous() if planes else y


@dataclass(frozen=True)
class _Plan:
    """A mixture as the compiled operator takes it."""

    codes: list[int]
    family: int
    owners: list[int]
    """Of each batch norm, the position of its candidate."""


def _plan(candidates: str | tuple[str, ...], family: str | None, stride: int) -> _Plan:
    names, family = resolve(candidates, family)
    owners = [k for k, name in enumerate(names) for _ in norms(name, family, stride)]
    return _Plan([CODES[name] for name in names], FAMILY_CODES[family], owners)


_cached_plan = cache(_plan)


def _check(x: Tensor, weights: Tensor, parameters: Sequence[Tensor], stride: int, save: str) -> None:
    """What has to hold before the compiled operator, which checks the rest, can be called."""
    check_float("mixed_op", "x", x)
    if x.dim() != 4:
        raise ValueError(f"mixed_op: x: expected [N, C, H, W], got shape {tuple(x.shape)}")
    if stride not in (1, 2):
        raise ValueError(f"mixed_op: stride: expected 1 or 2, got {stride!r}")
    if save not in SAVE_CODES:
        raise ValueError(f"mixed_op: save: expected one of {', '.join(SAVE_CODES)}, got {save!r}")
    # On which device the operator runs is found from all of its tensors.
    if weights.device != x.device and weights.device.type != "cpu":
        check_device("mixed_op", "weights", weights, "x", x)
    for i, parameter in enumerate(parameters):
        if parameter.device != x.device:
            check_device("mixed_op", f"parameters[{i}]", parameter, "x", x)


def _with_extra(
    x: Tensor,
    weights: Tensor,
    parameters: Sequence[Tensor],
    extra: Sequence[Callable[[Tensor], Tensor]],
    candidates: str | Sequence[str],
    options: dict[str, Any],
) -> Tensor:
    names, _ = resolve(candidates, options["family"])
    expected = len(names) + len(extra)
    if weights.dim() != 1 or weights.shape[0] != expected:
        raise ValueError(
            f"mixed_op: weights: expected shape ({expected},), {len(names)} candidates and {len(extra)} "
            f"extra ones, got {tuple(weights.shape)}"
        )
    y = mixed_op(x, weights[: len(names)], parameters, candidates=names, **options)
    for function, weight in zip(extra, weights[len(names) :].unbind(), strict=True):
        if torch.compiler.is_compiling() or weight != 0:
            z = function(x)
            if z.shape != y.shape:
                raise ValueError(
                    f"mixed_op: extra: expected results of shape {tuple(y.shape)}, got {tuple(z.shape)}"
                )
            y = y + weight.to(y.device, y.dtype) * z
    return y


def _fake(
    x: Tensor,
    weights: Tensor,
    parameters: list[Tensor],
    running: list[Tensor],
    candidates: list[int],
    family: int,
    stride: int,
    affine: bool,
    training: bool,
    eps: float,
    save: int,
) -> tuple[Tensor, Tensor, list[Tensor]]:
    if save not in SAVE_CODES.values():
        raise ValueError(f"mixed_op: save: expected 0, 1 or 2, got {save}")
    channels = x.shape[1]
    y = new_image(x, channels, stride)
    count = _norm_count(candidates, family, stride)
    statistics = x.new_empty(count, 3, channels, dtype=accumulate_dtype(x.dtype))
    # How many rows a slot holds depends on which weights are zero.
    context = torch.library.get_ctx()
    saved = [x.new_empty(context.new_dynamic_size(), channels) for _ in range(count * save)]
    return y, statistics, saved


@cache
def _codes() -> tuple[dict[int, str], dict[int, str]]:
    return {code: name for name, code in CODES.items()}, {code: name for name, code in FAMILY_CODES.items()}


def _norm_count(candidates: Sequence[int], family: int, stride: int) -> int:
    names, families = _codes()
    return sum(len(norms(names[code], families[family], stride)) for code in candidates)


def _fake_backward(
    grad_output: Tensor,
    x: Tensor,
    weights: Tensor,
    parameters: list[Tensor],
    *rest: Any,
) -> tuple[Tensor, Tensor, list[Tensor]]:
    needs_x, needs_weights, needs_parameters = rest[-3:]
    dx = torch.empty_like(x, memory_format=torch.channels_last) if needs_x else x.new_empty(0)
    dweights = weights.new_empty(weights.shape[0] if needs_weights else 0)
    dparameters = [p.new_empty(p.shape) for p in parameters] if needs_parameters else []
    return dx, dweights, dparameters


def _fake_track(*arguments: Any) -> None:
    pass


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    grad_output, x, weights, parameters, running, _, saved, *ctx.options = inputs
    ctx.counts = len(parameters), len(running), len(saved)
    ctx.save_for_backward(grad_output, x, weights, *parameters, *running)


def _double_backward(
    ctx: Any,
    grad_dx: Tensor | None,
    grad_dweights: Tensor | None,
    grad_dparameters: list[Tensor | None] | None,
) -> tuple[Any, ...]:
    """Derivatives of the gradients, by differentiating the definition twice."""
    codes, family, stride, affine, training, eps, _, needs_x, needs_weights, needs_parameters = ctx.options
    names, families = _codes()
    parameter_count, running_count, slots = ctx.counts
    first = 3 + parameter_count
    with torch.enable_grad():
        # Views: grad_output may itself hang on x, and only what the definition makes of each is asked for. A
        # tensor that wants no gradient gets a stand-in that does, so that all are treated alike.
        wanted = [
            t.view_as(t) if t.requires_grad else t.detach().requires_grad_()
            for t in ctx.saved_tensors[:first]
        ]
        grad_output, x, weights, *parameters = wanted
        y = mixed_op_reference(
            x,
            weights,
            parameters,
            candidates=[names[code] for code in codes],
            family=families[family],
            stride=stride,
            running=None if training else ctx.saved_tensors[first:],
            training=training,
            eps=eps,
            affine=affine,
        )
        gradients = torch.autograd.grad(y, [x, weights, *parameters], grad_output, create_graph=True)
    cotangents = [grad_dx if needs_x else None, grad_dweights if needs_weights else None]
    cotangents += grad_dparameters if needs_parameters and grad_dparameters else [None] * parameter_count
    pairs = [(g, c) for g, c in zip(gradients, cotangents, strict=True) if c is not None and g.requires_grad]
    result: Sequence[Tensor | None] = [None] * first
    if pairs:
        outputs, grads = zip(*pairs, strict=True)
        result = torch.autograd.grad(
            outputs, wanted, grads, create_graph=torch.is_grad_enabled(), allow_unused=True
        )
    return (*result[:3], list(result[3:]), [None] * running_count, None, [None] * slots, *[None] * 10)


register_fake("mixed_op", _fake, host="weights")
register_fake("mixed_op_backward", _fake_backward, host="weights")
register_fake("track_statistics", _fake_track, host="weights")
torch.library.register_autograd("pynas::mixed_op_backward", _double_backward, setup_context=_keep)
