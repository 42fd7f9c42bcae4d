"""The space and the data that a command scores with: ``--space``, ``--images`` and ``--text``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pynas import spaces
from pynas._errors import UserError
from pynas._plural import counted
from pynas.cli import console
from pynas.spaces import TemplateSpace

if TYPE_CHECKING:
    from torch import Tensor

    from pynas.spaces import SearchSpace

DIGITS = "digits"
VOCABULARY = 10_000  # words kept of a text, as in Penn Treebank


@dataclass(frozen=True)
class Inputs:
    """One batch, the same for every network."""

    inputs: Tensor
    targets: Tensor
    num_classes: int
    name: str  # "digits, 256 images"


@dataclass(frozen=True)
class DataOptions:
    """The options of ``rank``, ``search`` and ``score`` that say what to score with."""

    images: str | None
    image_size: int | None
    classes: int | None
    batch: int | None
    seed: int
    text: Path | None = None
    steps: int = 35

    @property
    def config(self) -> dict[str, object]:
        """What of it belongs to a run's identity, besides the seed and the batch that was drawn."""
        if self.text is not None:
            return {"text": str(self.text), "steps": self.steps}
        size = {} if self.image_size is None else {"image_size": self.image_size}
        return {"images": DIGITS if self.images is None else self.images, **size}


def open_space(text: str) -> SearchSpace:
    """The space of ``--space``; :func:`pynas.spaces.open_space` says what that may be."""
    return spaces.open_space(text, "--space")


_OWN = re.compile(r"(?<![\w:.])[^\W\d][\w.]*:[^\W\d][\w.]*")


def own_proxies(text: str) -> str:
    """``text`` with every ``package.module:object`` that is a proxy replaced by the proxy's name."""
    from pynas import proxies
    from pynas.hardware.model import UNITS

    def named(match: re.Match[str]) -> str:
        return match[0] if match[0].partition(":")[0] in UNITS else proxies.get(match[0]).name

    return _OWN.sub(named, text)


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


def load(space: SearchSpace | None, chosen: DataOptions) -> Inputs:
    """Read the images or words to score ``space`` with; None stands for a model of the user's."""
    text = chosen.text
    if space is not None:
        words = not space.example_inputs(1).is_floating_point()
        if words and text is None:
            raise UserError(f"{space.name} reads words, not images: give --text FILE, a .txt or .gz")
        if text is not None and not words:
            raise UserError(f"--text: {space.name} reads images, not words: leave it out")
    from pynas import data

    if text is not None:
        return _words(text, chosen.steps, chosen.batch or data.DEFAULT_BATCH, chosen.seed)
    drawn = data.draw(
        images_or_digits(chosen.images),
        size=chosen.image_size,
        batch=chosen.batch,
        classes=chosen.classes,
        seed=chosen.seed,
        argument="--batch",
    )
    return Inputs(drawn.inputs, drawn.targets, drawn.num_classes, drawn.name)


def images_or_digits(images: str | None) -> str:
    """The value of ``--images``; without one the digits, and a note on stderr that says so."""
    if images is None:
        console.note(
            "no --images: using the embedded digits, 1,797 scans of 8x8 pixels; give --images folder:DIR "
            "for yours"
        )
    return DIGITS if images is None else images


def _words(path: Path, steps: int, batch: int, seed: int) -> Inputs:
    import torch

    from pynas.data.text import Vocabulary, read_words, word_batch

    words = read_words(path)
    known = Vocabulary(words, VOCABULARY)
    inputs, targets = word_batch(known.encode(words), batch, steps, seed)
    name = f"{path.name}, {counted(batch, 'sequence')} of {counted(steps, 'word')}"
    return Inputs(torch.from_numpy(inputs), torch.from_numpy(targets), len(known), name)
