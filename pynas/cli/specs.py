"""The space and the data that a command scores with: ``--space``, ``--images`` and ``--text``."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pynas._errors import UserError
from pynas._plural import counted
from pynas.spaces import TemplateSpace
from pynas.spaces.base import SPACES

if TYPE_CHECKING:
    from torch import Tensor

    from pynas.spaces import SearchSpace

VOCABULARY = 10_000  # words kept of a text, as in Penn Treebank


@dataclass(frozen=True)
class Inputs:
    """One batch, the same for every network."""

    inputs: Tensor
    targets: Tensor
    num_classes: int
    name: str  # "digits, 256 images"


def open_space(text: str) -> SearchSpace:
    """The space of ``NAME`` or ``NAME:option=value,option=value``; of ``template:FILE``.

    Raises:
        UserError: There is no such space, or it has no such option; the message lists them. There is no such
            file, or it holds no template.
    """
    name, _, rest = text.partition(":")
    if name == TemplateSpace.name:
        return TemplateSpace.open(rest)
    parameters = inspect.signature(SPACES.get(name)).parameters
    known = {key: parameter.default for key, parameter in parameters.items()}
    options: dict[str, Any] = {}
    for part in (part.strip() for part in rest.split(",") if part.strip()):
        option, separator, value = part.partition("=")
        if option not in known or not separator:
            listed = ", ".join(f"{key}={default}" for key, default in known.items()) or "none"
            raise UserError(f"--space: expected NAME:option=value, got {part!r}; {name} has options {listed}")
        options[option] = _value(value)
    try:
        return SPACES.get(name)(**options)
    except TypeError as error:  # a value of the wrong type, which the constructor did not check
        raise UserError(f"--space {text}: {error}") from error


def open_template(text: str, **refused: object) -> TemplateSpace | None:
    """The space of ``template:FILE``; None if ``text`` names any other space.

    Args:
        text: The value of ``--space``.
        refused: Values of options that a template has no use for; None if they were not given.

    Raises:
        UserError: There is no such file, it holds no template, or one of these options was given.
    """
    if text.partition(":")[0] != TemplateSpace.name:
        return None
    for option, value in refused.items():
        if value is not None:
            raise UserError(f"--{option}: the template says what it has, got {value}; leave it out")
    return TemplateSpace.open(text.partition(":")[2])


def _value(text: str) -> Any:
    """``text`` as an integer, a float, a bool or itself."""
    for convert in (int, float):
        try:
            return convert(text)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(text.lower(), text)


def load(
    space: SearchSpace | None,
    *,
    images: str,
    image_size: int | None = None,
    text: Path | None = None,
    steps: int = 35,
    batch: int,
    seed: int,
) -> Inputs:
    """Read the images or words to score ``space`` with; None stands for a model of the user's."""
    if space is not None:
        words = not space.example_inputs(1).is_floating_point()
        if words and text is None:
            raise UserError(f"{space.name} reads words, not images: give --text FILE, a .txt or .gz")
        if text is not None and not words:
            raise UserError(f"--text: {space.name} reads images, not words: leave it out")
    if text is not None:
        return _words(text, steps, batch, seed)
    from pynas import data

    source = data.load_images(images) if image_size is None else data.load_images(images, size=image_size)
    inputs, targets = data.batch(source, batch, seed)
    return Inputs(inputs, targets, source.num_classes, f"{source.name}, {counted(batch, 'image')}")


def _words(path: Path, steps: int, batch: int, seed: int) -> Inputs:
    import torch

    from pynas.data.text import Vocabulary, read_words, word_batch

    words = read_words(path)
    known = Vocabulary(words, VOCABULARY)
    inputs, targets = word_batch(known.encode(words), batch, steps, seed)
    name = f"{path.name}, {counted(batch, 'sequence')} of {counted(steps, 'word')}"
    return Inputs(torch.from_numpy(inputs), torch.from_numpy(targets), len(known), name)
