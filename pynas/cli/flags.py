"""Options that several commands share, so that a name means the same everywhere."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pynas import strategies
from pynas._errors import UserError
from pynas._io.atomic import check_output

if TYPE_CHECKING:
    from torch import Tensor

    from pynas.data import CropAndFlip

Json = Annotated[bool, typer.Option("--json", help="Print data for machines instead of text.")]
TABLE_HELP = (
    "Known accuracies: analog (the 'tables' extra) | npz:FILE | table:FILE, a file of 'pynas tables convert' "
    "(also nb101:, nb201:, nats:, transnas:, hw:)."
)
Images = Annotated[
    str | None,
    typer.Option(
        help="Images: folder:DIR | npz:FILE | cifar10:DIR | package.module:object (a Dataset or DataLoader) "
        "| digits (embedded; without --images a note says that they are used)."
    ),
]
ImageSize = Annotated[int | None, typer.Option(help="Resize images to so many pixels a side.", min=1)]
Classes = Annotated[
    int | None, typer.Option(help="Classes of the task, where the images show only some.", min=1)
]
Table = Annotated[
    str | None,
    typer.Option(help=TABLE_HELP),
]
Metric = Annotated[
    str | None, typer.Option(help="Metric of the table, NAME or NAME@EPOCHS; see 'pynas tables info'.")
]
Dataset = Annotated[str | None, typer.Option(help="Data set or task of the table, such as cifar100.")]
Space = Annotated[
    str,
    typer.Option(
        help="Search space: NAME, NAME:option=value,..., template:FILE, package.module:object; "
        "see 'pynas spaces'."
    ),
]
Strategy = Annotated[
    str,
    typer.Option(help=f"{' | '.join(strategies.names())}, or package.module:class."),
]
PROXIES_HELP = "Comma-separated names, or package.module:object; see 'pynas proxies'."
Text = Annotated[
    Path | None, typer.Option(help="Text for spaces of language models, in place of images: .txt or .gz.")
]
Crop = Annotated[
    int,
    typer.Option(help="Shift training images at random by up to so many pixels; 4 suits 32x32.", min=0),
]
Flip = Annotated[
    bool, typer.Option("--flip", help="Flip half of the training images left to right; not for digits.")
]
Steps = Annotated[int, typer.Option(help="Words in a sequence of --text.", min=1)]
Precision = Annotated[str, typer.Option(help="float32 | bfloat16 | float64. Never mix them in one ranking.")]
Batch = Annotated[
    int | None,
    typer.Option(
        help="Images per evaluation, drawn once; zico compares two halves of them. Default: 256, or what "
        "there is.",
        min=1,
    ),
]
Seed = Annotated[int, typer.Option(help="Seed of initialisation, drawn images and search.")]
Threads = Annotated[int | None, typer.Option(help="CPU threads of torch and of the kernels.", min=1)]
OutputFile = Annotated[Path | None, typer.Option(help="Write an HTML report to this file.")]
Inline = Annotated[
    bool,
    typer.Option(
        "--inline", help="One file for the page: plotly.js, five megabytes, inside it and not beside it."
    ),
]


def comma_separated(text: str) -> list[str]:
    """Split ``"zico, params"`` into its names; empty ones are dropped."""
    return [name for name in (part.strip() for part in text.split(",")) if name]


def transform(crop: int, flip: bool, inputs: Tensor) -> CropAndFlip | None:
    """The transform that ``--crop`` and ``--flip`` ask for, or None; ``inputs`` are the images."""
    from pynas.data import CropAndFlip

    height, width = inputs.shape[-2:]
    if crop >= min(height, width):
        raise UserError(f"--crop {crop}: images have {height} x {width} pixels; use a smaller shift")
    return CropAndFlip(crop, flip) if crop or flip else None


def check_outputs(**paths: Path | None) -> None:
    """Raise UserError, before any work is done, naming the first option whose file cannot be written."""
    options: dict[str, str] = {}
    for name, path in paths.items():
        if path is None:
            continue
        option = f"--{name.replace('_', '-')}"
        check_output(path, option)
        other = options.setdefault(os.path.realpath(path), option)
        if other != option:
            raise UserError(f"{other}, {option}: both are {path}; use two names")


def check_choice(value: str, option: str, choices: Iterable[str]) -> None:
    """Raise UserError if ``value`` is none of the choices."""
    known = tuple(choices)
    if value not in known:
        raise UserError(f"{option}: expected one of {', '.join(known)}, got {value!r}")


def check_rates(**rates: float) -> None:
    """Raise UserError that names the first option which is not a positive, finite number."""
    for name, rate in rates.items():
        if not (math.isfinite(rate) and rate > 0):
            raise UserError(f"--{name.replace('_', '-')}: expected a positive number, got {rate}")
