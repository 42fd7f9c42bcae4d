"""Images that a program gives: datasets, loaders and arrays of the user's own."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from pynas._errors import UserError
from pynas._generators import seeded
from pynas._plural import counted
from pynas.data._base import Images, make_images, resized

_IMAGE = ("image", "images", "img", "pixel_values", "x", "inputs")
_LABEL = ("label", "labels", "target", "targets", "class", "y")
FORMS = "a torch Dataset or DataLoader of (image, label), a pair (images, labels), or pynas.data.Images"


def read(given: Any, name: str, size: int | None, limit: int | None, seed: int) -> Images:
    """Read what ``given`` holds, at most ``limit`` images; of a dataset only these are loaded.

    Raises:
        UserError: It is none of ``FORMS``, it is empty, an image or a label is not what one is, or raises.
    """
    if isinstance(given, Images):
        return _images(given, size, limit, seed)
    if isinstance(given, (tuple, list)) and len(given) == 2:
        items: Iterable[tuple[Any, Any]] = _pair(given[0], given[1], name, limit, seed)
    elif isinstance(given, DataLoader):
        items = _of_batches(given, name, limit, seed)
    elif isinstance(given, IterableDataset):
        items = (_item(item, name) for _, item in zip(range(limit or 2**62), given, strict=False))
    elif isinstance(given, Dataset) or (hasattr(given, "__getitem__") and hasattr(given, "__len__")):
        items = _of_dataset(given, name, limit, seed)
    else:
        raise UserError(f"{name}: expected {FORMS}, got {type(given).__name__}")
    return _collected(items, name, size)


def _chosen(count: int, limit: int | None, seed: int) -> Sequence[int]:
    if limit is None or limit >= count:
        return range(count)
    return sorted(random.Random(seed).sample(range(count), limit))


def _images(given: Images, size: int | None, limit: int | None, seed: int) -> Images:
    at = _chosen(len(given), limit, seed)
    pixels, targets = given.pixels[list(at)], given.targets[list(at)]
    pixels = pixels if size is None else resized(pixels, size)
    return replace(given, pixels=pixels, targets=targets)


def _pair(images: Any, labels: Any, name: str, limit: int | None, seed: int) -> Iterator[tuple[Any, Any]]:
    if not hasattr(images, "__len__") or not hasattr(labels, "__len__") or len(images) != len(labels):
        count = [len(each) if hasattr(each, "__len__") else type(each).__name__ for each in (images, labels)]
        raise UserError(f"{name}: expected as many labels as images, got {count[0]} and {count[1]}")
    return ((images[i], labels[i]) for i in _chosen(len(images), limit, seed))


def _of_dataset(given: Any, name: str, limit: int | None, seed: int) -> Iterator[tuple[Any, Any]]:
    with seeded(seed):  # transforms may draw
        for i in _chosen(len(given), limit, seed):
            try:
                item = given[i]
            except KeyboardInterrupt:
                raise
            except Exception as error:  # of the user's code
                raise UserError(f"{name}: item {i} raised {type(error).__name__}: {error}") from error
            yield _item(item, name)


def _of_batches(given: Any, name: str, limit: int | None, seed: int) -> Iterator[tuple[Any, Any]]:
    """The first batches of a loader, its shuffling seeded."""
    left = 2**62 if limit is None else limit
    with seeded(seed):
        for batch in given:
            images, labels = _item(batch, name)
            for image, label in zip(images, labels, strict=True):
                if left == 0:
                    return
                left -= 1
                yield image, label


def _item(item: Any, name: str) -> tuple[Any, Any]:
    """Image and label of what a dataset gives: the first two of a tuple, or by name in a mapping."""
    if isinstance(item, Mapping):
        found = [next((key for key in keys if key in item), None) for keys in (_IMAGE, _LABEL)]
        if None not in found:
            return item[found[0]], item[found[1]]
        raise UserError(
            f"{name}: expected items with an image ({', '.join(_IMAGE)}) and a label ({', '.join(_LABEL)}), "
            f"got the names {', '.join(map(str, item))}"
        )
    if isinstance(item, (tuple, list)) and len(item) >= 2:
        return item[0], item[1]
    raise UserError(f"{name}: expected items (image, label), got {type(item).__name__}")


def _collected(items: Iterable[tuple[Any, Any]], name: str, size: int | None) -> Images:
    """All images of one kind: arrays and files are normalised, tensors of floats stay as they are."""
    tensors: list[Tensor] = []
    arrays: list[np.ndarray] = []
    labels: list[int] = []
    for number, (image, label) in enumerate(items):
        what = f"{name}, image {number}"
        labels.append(_label(label, what))
        if isinstance(image, Tensor):
            tensors.append(_tensor(image, what, size))
            shape: Sequence[int] = tensors[-1].shape
            first: Sequence[int] = tensors[0].shape
        else:
            arrays.append(_array(image, what, size))
            shape, first = arrays[-1].shape, arrays[0].shape
        if tensors and arrays:
            raise UserError(f"{what}: is a {type(image).__name__}; images before it are not: give one kind")
        if tuple(shape) != tuple(first):
            raise UserError(
                f"{what}: has the shape {list(shape)}, the first one {list(first)}; give a size to resize "
                "all (size=, --image-size)"
            )
    if not labels:
        raise UserError(f"{name}: no images")
    targets = np.array(labels)
    if arrays:
        return make_images(np.stack(arrays), targets, name=name, what=name)
    planes = torch.stack(tensors)
    if planes.dtype == torch.uint8 and planes.shape[1] in (1, 3):
        rows = planes.permute(0, 2, 3, 1).contiguous().numpy()
        return make_images(rows, targets, name=name, what=name)
    planes = planes.float() / (255 if planes.dtype == torch.uint8 else 1)
    if not bool(planes.isfinite().all()):
        raise UserError(f"{name}: an image has a NaN or infinite pixel")
    if int(targets.min()) < 0:
        raise UserError(f"{name}: labels must be in 0..C-1, got {targets.min()}")
    channels, height, width = planes.shape[1:]
    classes = int(targets.max()) + 1
    shape_text = f"{height}x{width}" + (f" with {counted(channels, 'channel')}" if channels != 3 else "")
    description = (
        f"{name}: {counted(len(planes), 'image')} of {shape_text} in {counted(classes, 'class', 'classes')}"
    )
    none, one = (0.0,) * channels, (1.0,) * channels
    return Images(planes, torch.from_numpy(targets), classes, name, description, none, one)


def _label(label: Any, what: str) -> int:
    value = label.item() if hasattr(label, "item") and getattr(label, "size", None) != 0 else label
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise UserError(
            f"{what}: expected a whole number as its label, got {type(value).__name__} {value!r:.60}"
        )
    return int(value)


def _tensor(image: Tensor, what: str, size: int | None) -> Tensor:
    image = image.detach().cpu()
    if image.dim() == 2:
        image = image[None]
    if image.dim() != 3 or 0 in image.shape:
        raise UserError(f"{what}: expected a tensor [C, H, W], got {list(image.shape)}")
    if image.dtype != torch.uint8 and not image.is_floating_point():
        raise UserError(f"{what}: expected uint8 or floating point, got {image.dtype}")
    return image if size is None else resized(image[None], size)[0]


def _array(image: Any, what: str, size: int | None) -> np.ndarray:
    if isinstance(image, np.ndarray):
        found = image
    elif hasattr(image, "convert") and hasattr(image, "mode"):  # of Pillow
        from pynas.data._pillow import pixels_of

        try:
            return pixels_of(image, size)
        except ValueError as error:
            raise UserError(f"{what}: {error}") from error
    else:
        raise UserError(
            f"{what}: expected a tensor, an array or an image of Pillow, got {type(image).__name__}"
        )
    if found.dtype == np.uint16:
        found = found.astype(np.float32) / 65535
    if size is None:
        return found
    one = make_images(found[None], np.array([0]), name=what, what=what, size=size)
    pixels = one.pixels[0].permute(1, 2, 0).numpy()
    return pixels if found.dtype != np.uint8 else np.rint(pixels * 255).astype(np.uint8)
