"""Faster equivalents of calls without parameters of their own to observe, for channels_last images on CPU.

A probing pass of a small convolutional network spends half its time between the convolutions. Nothing here changes
what is computed beyond rounding; whatever does not fit runs as the model wrote it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.weak import TensorWeakRef

try:
    import pynas._C  # noqa: F401  (registers the operators)

    HAS_BATCH_NORM = hasattr(torch.ops.pynas, "batch_norm")
except ImportError:
    HAS_BATCH_NORM = False


def is_image(x: Tensor) -> bool:
    """A float32 or bfloat16 batch of images on CPU with its channels innermost."""
    return (
        x.dim() == 4
        and x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.bfloat16)
        and x.is_contiguous(memory_format=torch.channels_last)
        and not torch.is_autocast_enabled("cpu")
    )


def fuses_batch_norm(x: Tensor, *affine: Tensor | None) -> bool:
    """Whether ``torch.ops.pynas.batch_norm`` takes ``x`` with these scales and shifts."""
    return HAS_BATCH_NORM and is_image(x) and all(t is None or t.dtype == torch.float32 for t in affine)


class Memo:
    """Runs a pure function of one tensor once per tensor: cells apply ReLU to a node once for each edge out of it.

    Gradients of all users then meet before the one backward. It holds nothing alive.
    """

    def __init__(self) -> None:
        self._results: dict[tuple[Any, ...], tuple[TensorWeakRef, int, TensorWeakRef, int]] = {}

    def __call__(self, key: tuple[Any, ...], x: Tensor, run: Callable[[], Tensor]) -> Tensor:
        """``run()``, or what it gave for the same unchanged ``x`` and ``key`` before, if that is still unchanged."""
        known = self._results.get((id(x), *key))
        if known is not None:
            source, source_version, result, result_version = known
            y = result()
            if source() is x and x._version == source_version and y is not None and y._version == result_version:
                return y
        y = run()
        self._results[id(x), *key] = (TensorWeakRef(x), x._version, TensorWeakRef(y), y._version)
        return y


@lru_cache(maxsize=16)
def _shares(shape: torch.Size, window: tuple[int, int], whole: bool, dtype: torch.dtype) -> Tensor:
    """1 / (number of pixels that each window averages over), [1, C, H, W]; ``whole`` counts padding too.

    It is spread over channels, innermost in memory, so that multiplying by it runs along whole rows.
    """
    padding = (window[0] // 2, window[1] // 2)
    inside = F.avg_pool2d(torch.ones(1, 1, *shape[2:]), window, 1, padding)  # share of the window inside the image
    shares = (torch.ones_like(inside) if whole else 1 / inside) / (window[0] * window[1])
    return shares.to(dtype).repeat(1, shape[1], 1, 1).contiguous(memory_format=torch.channels_last)


class _Window(torch.autograd.Function):
    """Stride-1 average over an odd window, as a depthwise convolution with ones: PyTorch's own pool is slow on CPU."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, window: tuple[int, int], count_include_pad: bool) -> Tensor:
        padding = (window[0] // 2, window[1] // 2)
        shares = _shares(x.shape, window, count_include_pad, x.dtype)
        ctx.ones, ctx.padding, ctx.shares = x.new_ones(1).expand(x.shape[1], 1, *window), padding, shares
        return torch.conv2d(x, ctx.ones, None, 1, padding, 1, x.shape[1]).mul_(shares)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        shared = grad * ctx.shares
        return torch.conv2d(shared, ctx.ones, None, 1, ctx.padding, 1, grad.shape[1]), None, None


def avg_pool2d(x: Tensor, window: tuple[int, int], padding: tuple[int, int], count_include_pad: bool) -> Tensor | None:
    """The pool of stride 1 that keeps the size; None where that is not what is asked for."""
    same = all(k % 2 == 1 and p == k // 2 for k, p in zip(window, padding, strict=True))
    if not same or not is_image(x):
        return None
    return _Window.apply(x, window, count_include_pad)  # type: ignore[no-any-return, no-untyped-call]
