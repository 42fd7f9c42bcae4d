"""Running moments of successive gradients: one pass, Welford."""

from __future__ import annotations

import torch
from torch import Tensor

from pynas.ops._checks import alike, check_fit, check_tensors
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
    check_tensors(_NAME, grad=grad, mean=mean, abs_mean=abs_mean, m2=m2)
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
    states = (mean, abs_mean, m2)
    fits = (
        count >= 1
        and alike(grad)
        and all(state.shape == grad.shape and state.dtype == accumulate_dtype(grad.dtype) for state in states)
    )
    expected = "a grad, states of its shape in the dtype of its sums, and a count of at least 1"
    check_fit(_NAME, fits, expected, grad=grad, mean=mean, abs_mean=abs_mean, m2=m2)


def _fake(grad: Tensor, mean: Tensor, abs_mean: Tensor, m2: Tensor, count: int) -> None:
    _check(grad, mean, abs_mean, m2, count)


register_fake("moments_update", _fake)
