"""Strided 1x1 convolutions as a subsampling and a product.

oneDNN's kernels for the weight gradient of a strided 1x1 convolution leave their memory where images are
channels_last and have few channels: fewer than 16 with AVX-512, 3 and 4 with AVX2 (seen in torch 2.13 and
2.14). The process dies, sometimes later; docs/reliability.md names the sweep that shows it. Here
the subsampling is a pooling of 1x1 windows, so that oneDNN is only asked for the product of stride 1, which
is also faster in that layout. PyTorch's default layout is not affected, and is left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

Sizes = int | tuple[int, ...]


def subsamples(
    input: Tensor, weight: Tensor, stride: Sizes = 1, padding: Sizes | str = 0
) -> tuple[int, int] | None:
    """The strides of a 2-D convolution that is to be a subsampling and a product; None for any other.

    Those are 1x1 convolutions with a stride and without padding, on the CPU, whose input or weight has
    channels innermost (or a layout that PyTorch may take for that).
    """
    if weight.dim() != 4 or weight.shape[2:] != (1, 1) or input.dim() not in (3, 4):
        return None
    steps = _pair(stride)
    padded = padding != "valid" if isinstance(padding, str) else _pair(padding) != (0, 0)
    if steps is None or padded or max(steps) == 1 or input.device.type != "cpu":
        return None
    return None if _is_default(input) and weight.stride(3) == 1 else steps


def subsampling_conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sizes = 1,
    padding: Sizes | str = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Tensor:
    """:func:`torch.nn.functional.conv2d`, y[n,o,i,j] = b_o + sum_c w_oc x[n,c,si,tj] in two steps.

    Arguments, result and gradients of any order are those of ``conv2d``; what is no strided 1x1 convolution
    in channels_last runs as one.
    """
    steps = subsamples(input, weight, stride, padding)
    if steps is None:
        return F.conv2d(input, weight, bias, stride, padding, dilation, groups)
    return F.conv2d(F.avg_pool2d(input, 1, steps), weight, bias, groups=groups)


class StridedConvolutions(TorchFunctionMode):
    """Runs the convolutions of models in its context by :func:`subsampling_conv2d`."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        run = subsampling_conv2d if func is F.conv2d else func
        return run(*args, **(kwargs or {}))


def strided_convolutions_of(model: nn.Module) -> AbstractContextManager[Any]:
    """:class:`StridedConvolutions` where a module of ``model`` has one, else a context that does nothing."""
    for module in model.modules():
        if (
            isinstance(module, nn.Conv2d)
            and module.kernel_size == (1, 1)
            and max(module.stride) > 1
            and module.padding in ((0, 0), "valid")
        ):
            return StridedConvolutions()
    return nullcontext()


def _pair(value: Any) -> tuple[int, int] | None:
    """Two numbers of one or two; None for anything else, which PyTorch may explain."""
    sizes = (value,) if isinstance(value, int) else tuple(value)
    sizes = sizes * 2 if len(sizes) == 1 else sizes
    return (sizes[0], sizes[1]) if len(sizes) == 2 and min(sizes) >= 0 else None


def _is_default(x: Tensor) -> bool:
    """Whether PyTorch sees a dense image whose columns are innermost, and nothing else."""
    return x.is_contiguous() and (x.dim() == 3 or not x.is_contiguous(memory_format=torch.channels_last))
