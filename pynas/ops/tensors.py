"""Small pieces that operators' Python halves share."""

from __future__ import annotations

import torch
from torch import Tensor


def detached(tensor: Tensor | None) -> Tensor | None:
    """The tensor without its graph, or None."""
    return None if tensor is None else tensor.detach()


def new_image(like: Tensor, channels: int, stride: int = 1) -> Tensor:
    """Room for [N, channels, ceil(H / stride), ceil(W / stride)] of `like` [N, C, H, W], channels_last."""
    height, width = ((size + stride - 1) // stride for size in like.shape[2:])
    shape = (like.shape[0], channels, height, width)
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last)
