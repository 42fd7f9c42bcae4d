"""Random changes to batches of training images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pynas._errors import UserError


@dataclass(frozen=True)
class CropAndFlip:
    """What networks on CIFAR are trained with: each image moved a little, half of them mirrored.

    Row i of image n becomes row ``i + u_n - padding`` of what was there, zero where that lies outside, with
    ``u_n`` uniform over ``0 ... 2 padding``; columns likewise; then columns are reversed with probability
    one half. A ``transform`` for :class:`~pynas.supernet.Trainer` and a task of :mod:`pynas.analysis`; draws
    from torch's global generator, on the CPU.

    Attributes:
        padding: Pixels that an image moves by at most; 4 for images of 32.
        flip: Whether to mirror; not for digits and letters.

    Raises:
        UserError: ``padding`` is negative, or, when called, not smaller than the image.
    """

    padding: int = 4
    flip: bool = True

    def __post_init__(self) -> None:
        if isinstance(self.padding, bool) or not isinstance(self.padding, int) or self.padding < 0:
            raise UserError(f"padding: expected a number of pixels of at least 0, got {self.padding!r}")

    def __call__(self, images: Tensor) -> Tensor:
        """``[N, C, H, W]`` to new ``[N, C, H, W]`` of the same dtype, in channels_last."""
        if images.dim() != 4 or self.padding >= min(images.shape[2:]):
            raise UserError(
                f"images: expected [N, C, H, W] of more than padding={self.padding} pixels, "
                f"got {list(images.shape)}"
            )
        count, _, height, width = images.shape
        down, right = torch.randint(0, 2 * self.padding + 1, (2, count, 1)).to(images.device)
        rows = down + torch.arange(height, device=images.device)
        columns = right + torch.arange(width, device=images.device)
        if self.flip:
            mirrored = torch.rand(count, 1).to(images.device) < 0.5
            columns = torch.where(mirrored, columns.flip(1), columns)
        padded = torch.nn.functional.pad(images, (self.padding,) * 4).permute(0, 2, 3, 1)
        of = torch.arange(count, device=images.device)[:, None, None]
        return padded[of, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
