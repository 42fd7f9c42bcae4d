"""Image files, one folder per class."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from pynas._errors import UserError
from pynas.data._base import Images, Select, make_images

_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}


def read(rest: str, size: int | None, select: Select) -> Images:
    """Read ``folder:DIR``: DIR/CLASS/IMAGE; classes are numbered in the order of their names.

    Other files and hidden folders are ignored. Without ``size`` all images must have the same size.

    Raises:
        UserError: Pillow is absent, the folder is absent or has no classes, a class has no images, or an
            image is unreadable or of another size.
    """
    if not rest:
        raise UserError("images folder: say which folder, as in folder:images")
    root = Path(os.path.expanduser(rest))
    if not root.is_dir():
        raise UserError(f"{root}: no such folder")
    try:
        from PIL import Image
    except ImportError:
        raise UserError(
            "images folder: needs Pillow to read image files; install it with: "
            "pip install 'pynas-torch[images]'"
        ) from None

    classes = sorted(place for place in root.iterdir() if place.is_dir() and not place.name.startswith("."))
    if not classes:
        raise UserError(f"{root}: expected one folder of images per class, found no folder")
    files: list[tuple[Path, int]] = []
    for label, place in enumerate(classes):
        images = sorted(path for path in place.iterdir() if path.suffix.lower() in _SUFFIXES)
        if not images:
            raise UserError(f"{place}: a class without images ({', '.join(sorted(_SUFFIXES))})")
        files += [(path, label) for path in images]

    files = [files[position] for position in select(len(files))]
    pixels = []
    for path, _ in files:
        try:
            with Image.open(path) as image:
                colour = image.convert("RGB")
                if size is not None and colour.size != (size, size):
                    colour = colour.resize((size, size), Image.Resampling.BILINEAR)
                pixels.append(np.asarray(colour))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise UserError(f"{path}: not a readable image: {error}") from error
        if pixels[-1].shape != pixels[0].shape:
            sizes = ["x".join(map(str, array.shape[:2])) for array in (pixels[-1], pixels[0])]
            raise UserError(
                f"{path}: is {sizes[0]} but {files[0][0]} is {sizes[1]}; give a size to resize all to"
            )
    return make_images(
        np.stack(pixels),
        np.array([label for _, label in files]),
        name=root.resolve().name,
        what=str(root),
        num_classes=len(classes),
    )
