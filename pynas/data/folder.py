"""Image files, one folder per class."""

from __future__ import annotations

import os
import warnings
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pynas._errors import UserError
from pynas._io.files import open_regular, shortened, size_of
from pynas._plural import counted
from pynas.data._base import Images, Select, make_images
from pynas.data._pillow import pixels_of

# By suffix. A file is read only as one of these formats, whatever its content: some of Pillow's other formats
# start programs.
_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
_LARGEST_FILE = 1 << 28
_MOST_PIXELS = 1 << 25  # of one image
_ANY_BYTES, _GROWTH = 1 << 30, 100  # limit of memory for all images: bytes, or a multiple of their files


def read(rest: str, size: int | None, select: Select) -> Images:
    """Read ``folder:DIR``: DIR/CLASS/IMAGE; classes are numbered in the order of their names.

    Where DIR has only subfolders for training and validation (train, val, valid, validation, test, dev), it
    reads DIR/train. Other files and hidden folders are ignored. Without ``size`` all images must have the
    same size. Grey, palettes, alpha and 16 bits are read as :func:`~pynas.data._pillow.pixels_of` says.

    Raises:
        UserError: Pillow is absent, the folder is absent or has no classes, a class has no images, or an
            image is unreadable, of another size, of values without a known scale, or needs too much memory.
    """
    if not rest:
        raise UserError("images folder: give a folder, as in folder:images")
    root = Path(os.path.expanduser(rest))
    if not os.path.isdir(root):
        raise UserError(f"{root}: no such folder")
    try:
        import PIL.Image  # noqa: F401
    except ImportError:
        raise UserError(
            "images folder: needs Pillow to read image files; install it with: "
            "pip install 'pynas-torch[images]'"
        ) from None

    try:
        root = _training(root)
        files = _files(root)
    except OSError as error:
        raise UserError(f"{root}: cannot be read: {error.strerror or error}") from error
    classes = len({label for _, label in files})
    files = [files[position] for position in select(len(files))]
    return make_images(
        _pixels([path for path, _ in files], size),
        np.array([label for _, label in files]),
        name=root.resolve().name,
        what=str(root),
        num_classes=classes,
    )


_SPLITS = {"train", "training", "val", "valid", "validation", "test", "testing", "dev"}


def _training(root: Path) -> Path:
    """The part to train on, where a folder has nothing but such parts; otherwise the folder itself."""
    parts = [place for place in root.iterdir() if place.is_dir() and not place.name.startswith(".")]
    train = [place for place in parts if place.name.lower() in ("train", "training")]
    if len(train) != 1 or not {place.name.lower() for place in parts} <= _SPLITS:
        return root
    has_classes = any(place.is_dir() and not place.name.startswith(".") for place in train[0].iterdir())
    return train[0] if has_classes else root


def _files(root: Path) -> list[tuple[Path, int]]:
    """Every image and the number of its class."""
    classes = sorted(place for place in root.iterdir() if place.is_dir() and not place.name.startswith("."))
    if not classes:
        raise UserError(f"{root}: expected one folder of images per class, found no folder")
    files: list[tuple[Path, int]] = []
    for label, place in enumerate(classes):
        images = sorted(path for path in place.iterdir() if path.suffix.lower() in _SUFFIXES)
        if not images:
            inside = (
                " but with folders: give one of those with folders of classes in it"
                if any(path.is_dir() for path in place.iterdir())
                else ""
            )
            raise UserError(f"{place}: a class without images ({', '.join(sorted(_SUFFIXES))}){inside}")
        files += [(path, label) for path in images]
    return files


def _pixels(paths: list[Path], size: int | None) -> NDArray[Any]:
    """``[N, H, W, 3]``: all images, which must have the size of the first.

    uint8, or float32 in [0, 1] as soon as one has 16 bits.
    """
    pixels: NDArray[Any] | None = None
    in_files = 0
    for number, path in enumerate(paths):
        image, held = _read(path, size)
        in_files += held
        if pixels is None:
            pixels = np.empty((len(paths), *image.shape), image.dtype)  # no memory before it is filled
        if image.shape != pixels.shape[1:]:
            sizes = ["x".join(map(str, shape[:2])) for shape in (image.shape, pixels.shape[1:])]
            raise UserError(
                f"{path}: is {sizes[0]} but {paths[0]} is {sizes[1]}; set a size to resize all "
                "images (size=, --image-size)"
            )
        if size is None and (number + 1) * image.nbytes > max(_ANY_BYTES, _GROWTH * in_files):
            raise UserError(
                f"{path}: the images so far take {counted((number + 1) * image.nbytes, 'byte')} of memory, "
                f"more than {_GROWTH} times the {in_files:,} of their files; set a size to resize all images"
            )
        if image.dtype != pixels.dtype:
            if pixels.dtype == np.uint8:
                scaled = np.empty(pixels.shape, np.float32)
                scaled[:number] = pixels[:number] / np.float32(255)
                pixels = scaled
            else:
                image = image / np.float32(255)
        pixels[number] = image
    assert pixels is not None  # a folder without images was refused
    return pixels


def _read(path: Path, size: int | None) -> tuple[NDArray[Any], int]:
    """The pixels ``[H, W, 3]`` of one file, and its size in bytes."""
    from PIL import Image

    with open_regular(path) as file:
        size_in_file = size_of(file)
        if size_in_file > _LARGEST_FILE:
            raise UserError(
                f"{path}: has {counted(size_in_file, 'byte')}; an image may have at most {_LARGEST_FILE:,}"
            )
        content = BytesIO(file.read(size_in_file))  # never more than the file has
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about unused metadata, and about sizes, which are checked here
        try:
            with Image.open(content, formats=_FORMATS) as image:
                if image.width * image.height > _MOST_PIXELS:
                    raise ValueError(
                        f"it has {image.width}x{image.height} pixels, at most {_MOST_PIXELS:,} may be"
                    )
                return pixels_of(image, size), size_in_file
        except Exception as error:  # a damaged image can raise anything
            what = shortened(str(error) or type(error).__name__)
            raise UserError(f"{path}: not a readable image: {what}") from error
