"""Images in memory, and the checks shared by all sources of images."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from pynas._errors import UserError
from pynas._plural import counted

# How many images, and numbers, to convert to floating point at a time for statistics and resizing.
_CHUNK, _CHUNK_NUMBERS = 1024, 1 << 22
MAX_CLASSES = 2**20  # larger labels are identifiers; a classifier for them would not fit in memory

Select = Callable[[int], Sequence[int]]  # number of images -> positions of those to keep, in order


class Batch(NamedTuple):
    """Normalised images and their classes."""

    inputs: Tensor  # [N, 3, H, W] float32
    targets: Tensor  # [N] int64


@dataclass(frozen=True, eq=False, repr=False)
class Images:
    """A labelled set of images of one size.

    Attributes:
        pixels: ``[N, C, H, W]``, uint8 (0 to 255) or float32 (any scale). C is 3, except where tensors of
            another number of channels were given.
        targets: ``[N]`` int64, ``0 <= target < num_classes``.
        num_classes: Number of classes.
        name: The source, as in the spec ("digits", "cifar10").
        description: One line of text.
        mean: Mean of each channel, with uint8 pixels scaled to [0, 1].
        std: Standard deviation of each channel on the same scale.
    """

    pixels: Tensor
    targets: Tensor
    num_classes: int
    name: str
    description: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @cached_property
    def inputs(self) -> Tensor:
        """All images normalised, ``(pixel - mean) / std`` per channel: ``[N, C, H, W]`` float32.

        Computed on first use and cached; :func:`batch` normalises only the images that it takes.
        """
        return self._normalised(self.pixels)

    def take(self, positions: Sequence[int]) -> Batch:
        """The images at ``positions``, normalised."""
        chosen = torch.as_tensor(positions, dtype=torch.int64)
        return Batch(self._normalised(self.pixels[chosen]), self.targets[chosen])

    def _normalised(self, pixels: Tensor) -> Tensor:
        mean = torch.tensor(self.mean).view(-1, 1, 1)
        # A constant channel becomes zero, not NaN.
        std = torch.tensor([value or 1.0 for value in self.std]).view(-1, 1, 1)
        return (_as_float(pixels) - mean) / std

    def __len__(self) -> int:
        return len(self.targets)

    def __repr__(self) -> str:
        shape = ", ".join(map(str, self.pixels.shape))
        kind = str(self.pixels.dtype).removeprefix("torch.")
        return f"Images({self.name!r}, [{shape}] {kind}, {counted(self.num_classes, 'class', 'classes')})"


def batch(images: Images, n: int, seed: int) -> Batch:
    """A random subset of ``n`` different images, in random order; the same for the same seed.

    Raises:
        UserError: ``n`` is not positive or larger than the set.
    """
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise UserError(f"n: expected a positive number of images, got {n!r}")
    if n > len(images):
        raise UserError(f"n: {images.name} has {counted(len(images), 'image')}, fewer than {n:,}")
    return images.take(random.Random(seed).sample(range(len(images)), n))


def make_images(
    pixels: NDArray[Any],
    labels: NDArray[Any],
    *,
    name: str,
    what: str,
    size: int | None = None,
    select: Select | None = None,
    num_classes: int | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
) -> Images:
    """Check raw arrays and convert them to :class:`Images`.

    Args:
        pixels: ``[N, H, W, 3]``, ``[N, H, W, 1]`` or ``[N, H, W]``, uint8 or floating point; grey becomes
            RGB.
        labels: ``[N]`` integers.
        name: Name of the source.
        what: Start of error messages: where the arrays come from.
        size: Resize to ``size`` x ``size`` pixels (bilinear, antialiased).
        select: Positions of the images to keep.
        num_classes: Number of classes, if known; otherwise the largest label plus one.
        mean: Channel means to normalise with; by default those of the kept images.
        std: Channel standard deviations, given together with ``mean``.

    Raises:
        UserError: A shape, type, label or value is wrong, or there is no image.
    """
    _check_pixels(pixels, what)
    targets = _check_labels(labels, len(pixels), num_classes, what)
    classes = num_classes if num_classes is not None else int(targets.max()) + 1
    if select is not None:
        positions = np.asarray(select(len(pixels)))
        pixels, targets = pixels[positions], targets[positions]
    if pixels.ndim == 3:
        pixels = pixels[..., None]
    if pixels.dtype.itemsize > 8:
        pixels = pixels.astype(np.float64)  # torch has no longer type
    planes = torch.from_numpy(np.ascontiguousarray(np.moveaxis(pixels, -1, 1)))
    if planes.dtype != torch.uint8:
        planes = planes.float()
        for start, chunk in _images(planes):
            bad = (~chunk.isfinite()).flatten(1).any(1).nonzero()
            if len(bad):
                raise UserError(f"{what}: image {start + int(bad[0])} has a NaN or infinite pixel")
    if size is not None:
        planes = resized(planes, size)
    if planes.shape[1] == 1:
        planes = planes.expand(-1, 3, -1, -1)
    if mean is None or std is None:
        mean, std = channel_statistics(planes)
    height, width = planes.shape[2:]
    number = counted(len(planes), "image")
    description = f"{name}: {number} of {height}x{width} in {counted(classes, 'class', 'classes')}"
    return Images(planes, torch.from_numpy(targets), classes, name, description, mean, std)


def channel_statistics(pixels: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and population standard deviation of each channel of ``[N, C, H, W]``, in float64, two passes."""
    count = pixels.numel() // pixels.shape[1]
    channels = torch.zeros(pixels.shape[1], dtype=torch.float64)
    sums = (_as_float(chunk).double().sum((0, 2, 3)) for chunk in _chunks(pixels))
    mean = sum(sums, channels) / count
    column = mean.view(-1, 1, 1)
    squares = ((_as_float(chunk).double() - column).square().sum((0, 2, 3)) for chunk in _chunks(pixels))
    std = (sum(squares, channels) / count).sqrt()
    return tuple(mean.tolist()), tuple(std.tolist())


def _as_float(pixels: Tensor) -> Tensor:
    """uint8 scaled to [0, 1]; floating point unchanged."""
    return pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels


def _images(pixels: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Chunks of images, each with the position of its first image."""
    step = max(1, min(_CHUNK, _CHUNK_NUMBERS // max(1, pixels[0].numel())))
    for start in range(0, len(pixels), step):
        yield start, pixels[start : start + step]


def _chunks(pixels: Tensor) -> Iterator[Tensor]:
    """All pixels in chunks; large images in chunks of rows."""
    rows = max(1, _CHUNK_NUMBERS // max(1, pixels.shape[1] * pixels.shape[3]))
    for _, chunk in _images(pixels):
        yield from torch.split(chunk, rows, dim=2)


def resized(pixels: Tensor, size: int) -> Tensor:
    """``[N, C, H, W]`` as float32 ``[N, C, size, size]``, bilinear with antialiasing; as it is if it fits."""
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise UserError(f"size: expected a positive number of pixels, got {size!r}")
    if pixels.shape[2:] == (size, size):
        return pixels
    chunks = [
        F.interpolate(_as_float(chunk), (size, size), mode="bilinear", antialias=True)
        for _, chunk in _images(pixels)
    ]
    return torch.cat(chunks)


def _check_pixels(pixels: NDArray[Any], what: str) -> None:
    shape = list(pixels.shape)
    if pixels.dtype != np.uint8 and pixels.dtype.kind != "f":
        raise UserError(f"{what}: images must be uint8 or floating point, got {pixels.dtype}")
    if pixels.ndim == 4 and shape[3] not in (1, 3) and shape[1] in (1, 3):
        raise UserError(
            f"{what}: images must be [N, H, W, 3], got {shape}; transpose(0, 2, 3, 1) makes them so"
        )
    if pixels.ndim not in (3, 4) or (pixels.ndim == 4 and shape[3] not in (1, 3)):
        raise UserError(f"{what}: images must be [N, H, W, 3] or, grey, [N, H, W], got {shape}")
    if 0 in shape:
        raise UserError(f"{what}: no images (shape {shape})")


def _check_labels(labels: NDArray[Any], count: int, num_classes: int | None, what: str) -> NDArray[np.int64]:
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise UserError(f"{what}: labels must be [N] integers, got {labels.dtype} {list(labels.shape)}")
    if len(labels) != count:
        raise UserError(f"{what}: {counted(count, 'image')} but {counted(len(labels), 'label')}")
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest < 0:
        raise UserError(f"{what}: labels must be in 0..C-1, got {lowest} at position {int(labels.argmin())}")
    bound = MAX_CLASSES if num_classes is None else num_classes
    if highest >= bound:
        position = int(labels.argmax())
        raise UserError(f"{what}: labels must be in 0..{bound - 1}, got {highest} at position {position}")
    return labels.astype(np.int64)
