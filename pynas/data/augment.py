"""Augmentation of batches of training images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pynas._errors import UserError


@dataclass(frozen=True)
class CropAndFlip:
    """The standard augmentation for CIFAR: random crop with zero padding and random horizontal flip.

    Row i of the new image n is row ``i + u_n - padding`` of the old one, or zero if that is outside, with
    ``u_n`` uniform over ``0 ... 2 padding``; columns likewise. Then columns are reversed with probability
    1/2. It is a ``transform`` for :class:`~pynas.supernet.Trainer` and for tasks of :mod:`pynas.analysis`,
    and draws from torch's global generator on the CPU.

    Attributes:
        padding: Largest shift in pixels; 4 for images of 32.
        flip: Whether to flip; not for digits and letters.

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
                f"images: expected [N, C, H, W] with H and W larger than padding={self.padding}, "
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
