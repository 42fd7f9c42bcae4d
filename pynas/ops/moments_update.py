"""Running moments of successive gradients: one pass, Welford."""

from __future__ import annotations

import torch
from torch import Tensor

from pynas.ops._checks import check_device, check_float
from pynas.ops._fakes import register_fake
from pynas.ops._moments import accumulate_dtype

_NAME = "moments_update"


def moments_update(grad: Tensor, mean: Tensor, abs_mean: Tensor, m2: Tensor, count: int) -> None:
    """Folds the count-th gradient g into the running mean, mean of |g| and centred second moment, in place.

    delta = g - mean; mean += delta / count; abs_mean += (|g| - abs_mean) / count; m2 += delta (g - mean)

    m2 / count is the population variance so far (Welford, Technometrics 1962). Not differentiable.

    Args:
        grad: any shape; float32, float64, bfloat16 or float16.
        mean: contiguous, of the shape of `grad`, float32 (float64 for a float64 `grad`); zeros at first.
        abs_mean: as `mean`.
        m2: as `mean`.
        count: number of gradients folded in, this one included, so 1 at the first call.

    Raises:
        ValueError: count < 1, or shapes, devices or layouts differ.
        TypeError: wrong dtypes.
    """
    _check(grad, mean, abs_mean, m2, count)
    torch.ops.pynas.moments_update.default(grad.detach(), mean, abs_mean, m2, count)
    return


def moments_update_reference(grad: Tensor, mean: Tensor, abs_mean: Tensor, m2: Tensor, count: int) -> None:
    """The same in three tensor expressions."""
    _check(grad, mean, abs_mean, m2, count)
    g = grad.detach().to(mean.dtype)
    delta = g - mean
    mean += delta / count
    abs_mean += (g.abs() - abs_mean) / count
    m2 += delta * (g - mean)


def _check(grad: Tensor, mean: Tensor, abs_mean: Tensor, m2: Tensor, count: int) -> None:
    check_float(_NAME, "grad", grad)
    if count < 1:
        raise ValueError(
            f"{_NAME}: count: expected the number of gradients including this one, >= 1, got {count}"
        )
    dtype = accumulate_dtype(grad.dtype)
    for name, state in (("mean", mean), ("abs_mean", abs_mean), ("m2", m2)):
        if state.shape != grad.shape:
            raise ValueError(
                f"{_NAME}: {name}: expected the shape {tuple(grad.shape)} of grad, got {tuple(state.shape)}"
            )
        if state.dtype != dtype:
            raise TypeError(
                f"{_NAME}: {name}: expected {dtype} for a grad of {grad.dtype}, got {state.dtype}"
            )
        if not state.is_contiguous():
            raise ValueError(f"{_NAME}: {name}: expected a contiguous tensor; make it with torch.zeros")
        check_device(_NAME, name, state, "grad", grad)


def _fake(grad: Tensor, mean: Tensor, abs_mean: Tensor, m2: Tensor, count: int) -> None:
    return None


register_fake("moments_update", _fake)
