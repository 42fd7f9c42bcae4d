"""A weighted sum of batch-normalised tensors, such as the candidates of an edge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor
from torch._prims_common import suggest_memory_format

from pynas.ops._checks import check_float
from pynas.ops._fakes import register_fake
from pynas.ops._moments import accumulate_dtype
from pynas.ops._normalized_sum_gradients import bits, mask_of, signed

OP = "normalized_sum"
MAX_INPUTS = 64

Optionals: TypeAlias = Sequence[Tensor | None]
Running: TypeAlias = Sequence[tuple[Tensor, Tensor] | None]


def normalized_sum(
    inputs: Sequence[Tensor],
    weights: Tensor,
    *,
    normalized: Sequence[bool] | None = None,
    gamma: Optionals | None = None,
    beta: Optionals | None = None,
    running: Running | None = None,
    training: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Normalise and add: y = sum_k w_k n_k(z_k), n_k(z) = gamma_k (z - mean_k) / sqrt(var_k + eps) + beta_k.

    The statistics are each channel's. Training reads every z_k twice and writes y once; the backward pass
    reads g = dL/dy and every z_k twice and writes every dL/dz_k once. Nothing but the inputs is kept for it.
    An input whose weight is exactly zero is not read at all, and its gradients (dL/dw_k among them) are zeros
    by definition. The statistics are shifted sums merged in float64, so large means cost no accuracy. Second
    derivatives are those of the definition in PyTorch's own operators.
    Liu, Simonyan & Yang, ICLR 2019 (the mixture); Ioffe & Szegedy, ICML 2015 (batch normalisation).

    Args:
        inputs: 1 to 64 tensors z_k of one shape, [N, C], [N, C, H, W] (read in place in both memory formats)
            or [N, C, ...], of one dtype and device. float32, float64, bfloat16 or float16; sums are float32,
            and float64 for float64. Under autocast different dtypes are brought to the widest of them.
        weights: [K] floating, on the device of the inputs.
        normalized: which inputs are batch-normalised (all by default); for the others n_k(z) = z.
        gamma: a [C] tensor or None (ones) for each input.
        beta: a [C] tensor or None (zeros) for each input.
        running: (mean, var), two [C] buffers, or None, for each input. In training they are updated in place
            as torch.nn.BatchNorm2d does, with the unbiased variance, unless the weight is zero; in evaluation
            they normalise.
        training: normalise by the batch's statistics. Without running statistics these serve evaluation too.
        momentum: share of the batch in the new running statistics.
        eps: added to the biased variance.

    Returns:
        y like inputs[0]: same shape, dtype and memory format.

    Raises:
        ValueError: lengths, shapes or devices do not fit; one value per channel in training; NaN among the
            weights of a CPU call (on a GPU looking would mean to wait for it, so there NaN reaches y).
        TypeError: integer inputs or weights, or different dtypes outside of autocast.
    """
    zs = _same_dtype(list(inputs))
    _check(zs, weights, normalized, gamma, beta, running)
    mask = mask_of([True] * len(zs) if normalized is None else [bool(flag) for flag in normalized])
    scales, shifts = _given(gamma, mask), _given(beta, mask)
    statistics = [] if running is None else list(running)
    means = [pair[0] for k, pair in enumerate(statistics) if pair is not None and mask >> k & 1]
    variances = [pair[1] for k, pair in enumerate(statistics) if pair is not None and mask >> k & 1]
    tracked = mask_of([pair is not None for pair in statistics]) & mask
    batch_statistics = training or tracked == 0
    values = zs[0].numel() // max(1, zs[0].shape[1])
    if training and mask and values == 1:
        raise ValueError(
            f"{OP}: inputs: Expected more than 1 value per channel when training, "
            f"got input size {zs[0].shape}"
        )
    if not batch_statistics and tracked != mask:
        raise ValueError(
            f"{OP}: running: expected (mean, var) for every normalised input in evaluation, or for none, "
            f"got None at {[k for k in range(len(zs)) if (mask & ~tracked) >> k & 1]}"
        )
    y, mean, _, var = torch.ops.pynas.normalized_sum.default(
        zs,
        weights,
        signed(mask),
        scales,
        signed(mask_of([t is not None for t in gamma or ()]) & mask),
        shifts,
        signed(mask_of([t is not None for t in beta or ()]) & mask),
        [] if batch_statistics else means,
        [] if batch_statistics else variances,
        batch_statistics,
        float(eps),
    )
    if training and tracked:
        with torch.no_grad():
            torch.ops.pynas.normalized_sum_update_running.default(
                means, variances, weights.detach(), mean, var, signed(tracked), float(momentum), values
            )
    result: Tensor = y
    return result


def normalized_sum_reference(
    inputs: Sequence[Tensor],
    weights: Tensor,
    *,
    normalized: Sequence[bool] | None = None,
    gamma: Optionals | None = None,
    beta: Optionals | None = None,
    running: Running | None = None,
    training: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """The same as a loop over PyTorch's batch_norm, differentiable any number of times."""
    zs = _same_dtype(list(inputs))
    wide = accumulate_dtype(zs[0].dtype)
    y = torch.zeros_like(zs[0], dtype=wide)
    for k, z in enumerate(zs):
        if weights[k] == 0:
            continue  # not computed; its statistics stay as they are
        term = z.to(wide)
        if normalized is None or normalized[k]:
            statistics = None if running is None else running[k]
            mean, var = (None, None) if statistics is None else statistics
            term = torch.nn.functional.batch_norm(
                term,
                mean,
                var,
                None if gamma is None else _widened(gamma[k], wide),
                None if beta is None else _widened(beta[k], wide),
                training or mean is None,
                momentum,
                eps,
            )
        y = y + weights[k].to(wide) * term
    return y.to(zs[0].dtype)


def _widened(tensor: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if tensor is None else tensor.to(dtype).contiguous()  # batch_norm ignores strides here


def _same_dtype(inputs: list[Tensor]) -> list[Tensor]:
    """The inputs, brought to their widest dtype under autocast."""
    if len(inputs) < 2 or not all(isinstance(z, Tensor) for z in inputs):
        return inputs
    if not torch.is_autocast_enabled(inputs[0].device.type):
        return inputs
    widest = inputs[0].dtype
    for z in inputs[1:]:
        widest = torch.promote_types(widest, z.dtype)
    return [z.to(widest) for z in inputs]


def _check(
    inputs: list[Tensor],
    weights: Tensor,
    normalized: Sequence[bool] | None,
    gamma: Optionals | None,
    beta: Optionals | None,
    running: Running | None,
) -> None:
    count = len(inputs)
    if not 1 <= count <= MAX_INPUTS:
        raise ValueError(f"{OP}: inputs: expected 1 to {MAX_INPUTS} tensors, got {count}")
    for k, z in enumerate(inputs):
        check_float(OP, f"inputs[{k}]", z)
        if z.dtype != inputs[0].dtype:
            raise TypeError(
                f"{OP}: inputs[{k}]: expected the dtype of inputs[0], {inputs[0].dtype}, got {z.dtype}; "
                f"convert it with .to({inputs[0].dtype})"
            )
        if z.shape != inputs[0].shape or z.dim() < 2:
            raise ValueError(
                f"{OP}: inputs[{k}]: expected [N, C, ...] of the shape of inputs[0], "
                f"{list(inputs[0].shape)}, got {list(z.shape)}"
            )
        if z.device != inputs[0].device:
            raise ValueError(
                f"{OP}: inputs[{k}]: expected the device of inputs[0], {inputs[0].device}, got {z.device}"
            )
    check_float(OP, "weights", weights)
    if weights.shape != (count,) or weights.device != inputs[0].device:
        raise ValueError(
            f"{OP}: weights: expected [{count}] on {inputs[0].device}, one for each input, "
            f"got {list(weights.shape)} on {weights.device}"
        )
    for name, values in (("normalized", normalized), ("gamma", gamma), ("beta", beta), ("running", running)):
        if values is not None and len(values) != count:
            raise ValueError(f"{OP}: {name}: expected {count} entries, one for each input, got {len(values)}")
    channels = inputs[0].shape[1]
    per_channel = [
        (f"{name}[{k}]", t) for name, ts in (("gamma", gamma), ("beta", beta)) for k, t in enumerate(ts or ())
    ]
    per_channel += [(f"running[{k}]", t) for k, pair in enumerate(running or ()) for t in pair or ()]
    for name, tensor in per_channel:
        if tensor is None:
            continue
        check_float(OP, name, tensor)
        if tensor.shape != (channels,) or tensor.device != inputs[0].device:
            raise ValueError(
                f"{OP}: {name}: expected [{channels}] on {inputs[0].device}, a value for each channel, "
                f"got {list(tensor.shape)} on {tensor.device}"
            )


def _given(tensors: Optionals | None, mask: int) -> list[Tensor]:
    return [tensor for k, tensor in enumerate(tensors or ()) if tensor is not None and mask >> k & 1]


def _fake(
    inputs: list[Tensor],
    weights: Tensor,
    normalized: int,
    gamma: list[Tensor],
    gamma_of: int,
    beta: list[Tensor],
    beta_of: int,
    running_mean: list[Tensor],
    running_var: list[Tensor],
    batch_statistics: bool,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    first = inputs[0]
    table = first.new_empty((len(inputs), first.shape[1]), dtype=accumulate_dtype(first.dtype))
    var = torch.empty_like(table) if batch_statistics else table.new_empty(0)
    return _empty_like_first(first), table, torch.empty_like(table), var


def _empty_like_first(first: Tensor) -> Tensor:
    return torch.empty_like(first, memory_format=suggest_memory_format(first))


def _fake_backward(
    grad_output: Tensor,
    inputs: list[Tensor],
    weights: Tensor,
    normalized: int,
    gamma: list[Tensor],
    gamma_of: int,
    beta: list[Tensor],
    beta_of: int,
    mean: Tensor,
    rstd: Tensor,
    batch_statistics: bool,
    eps: float,
    wanted: int,
) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
    table = inputs[0].new_empty(mean.shape, dtype=mean.dtype)
    gradients = [_empty_like_first(inputs[0]) for _ in bits(wanted, len(inputs))]
    return torch.empty_like(weights), table, torch.empty_like(table), gradients


def _fake_update_running(
    running_mean: list[Tensor],
    running_var: list[Tensor],
    weights: Tensor,
    mean: Tensor,
    var: Tensor,
    which: int,
    momentum: float,
    values: int,
) -> None:
    return None


register_fake("normalized_sum", _fake)
register_fake("normalized_sum_backward", _fake_backward)
register_fake("normalized_sum_update_running", _fake_update_running)
