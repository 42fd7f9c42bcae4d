"""Templates: layers of alternative blocks as immutable values, and the changes that an editor makes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final

from pynas._errors import printable
from pynas._io.files import shortened
from pynas.spaces.template.blocks import Block
from pynas.spaces.template.checking import Shape, follow
from pynas.spaces.template.problems import Problem, TemplateError, located, refuse

MAX_LAYERS: Final = 64
MAX_ALTERNATIVES: Final = 32
MAX_IMAGE_SIZE: Final = 1024
MAX_NAME: Final = 80  # characters


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer: an architecture takes one of its alternatives.

    Args:
        alternatives: At least one block; a single one is a fixed layer.
        name: Shown in pages and messages; may be empty.

    Raises:
        TemplateError: There is no alternative, too many, or something that is no block.
    """

    alternatives: tuple[Block, ...]
    name: str = ""

    def __post_init__(self) -> None:
        single = isinstance(self.alternatives, Block)
        blocks = (self.alternatives,) if single else _tuple(self.alternatives, "alternatives", Block)
        object.__setattr__(self, "alternatives", blocks)
        if not 1 <= len(blocks) <= MAX_ALTERNATIVES:
            advice = "" if blocks else "a layer without blocks is left out"
            expected = f"1 to {MAX_ALTERNATIVES} blocks"
            raise refuse(expected, f"{len(blocks)}", advice, property="alternatives")
        _check_name(self.name)


@dataclass(frozen=True, slots=True)
class Template:
    """A network of layers with alternatives, from which a space draws architectures.

    The network: the stem, the layers, global average pooling, a linear classifier. Channels are carried from
    layer to layer. Every change returns a new template; layers and alternatives are counted from 0, and a
    negative index counts from the end. A change may leave a template whose shapes do not fit, which
    :meth:`problems` tells and :meth:`check` refuses.

    Args:
        layers: At most 64.
        stem: The first block, which reads the images: ``conv``, ``vgg`` or ``run`` with its channels given.
        image_size: Side of the images, in pixels, for which shapes are checked.
        name: Shown in pages and messages; may be empty.

    Raises:
        TemplateError: A value is none of these.
    """

    layers: tuple[Layer, ...]
    stem: Block = field(default_factory=lambda: Block("conv", channels=16))
    image_size: int = 32
    name: str = ""

    def __post_init__(self) -> None:
        layers = tuple(_as_layer(each) for each in _tuple(self.layers, "layers"))
        object.__setattr__(self, "layers", layers)
        if len(layers) > MAX_LAYERS:
            raise refuse(f"at most {MAX_LAYERS}", f"{len(layers)}", property="layers")
        if not isinstance(self.stem, Block):
            raise refuse("a Block", type(self.stem).__name__, property="stem")
        if type(self.image_size) is not int or not 1 <= self.image_size <= MAX_IMAGE_SIZE:
            expected = f"an integer in 1..{MAX_IMAGE_SIZE}"
            raise refuse(expected, shortened(repr(self.image_size)), property="image_size")
        _check_name(self.name)

    # ---- what it is --------------------------------------------------------------------------------

    def problems(self) -> tuple[Problem, ...]:
        """All that keeps it from being a space, by layers; after a layer without a shape nothing is known."""
        return follow(self).problems

    def check(self) -> Template:
        """Return the template itself; TemplateError if there are problems."""
        problems = self.problems()
        if problems:
            raise TemplateError(problems)
        return self

    def shapes(self) -> tuple[Shape, ...]:
        """Shapes after the stem and after each layer, up to the first layer that has none."""
        return follow(self).shapes

    def place(self, layer: int, alternative: int | None = None) -> str:
        """``layers[2] 'down', alternatives[1] conv_s2``, for messages."""
        found = self.layers[layer]
        text = f"layers[{layer}]" + (f" {found.name!r}" if found.name else "")
        if alternative is None:
            return text
        return f"{text}, alternatives[{alternative}] {found.alternatives[alternative].label}"

    # ---- layers ------------------------------------------------------------------------------------

    def add_layer(self, layer: Layer | Block | Iterable[Block], at: int | None = None) -> Template:
        """Insert a layer before index ``at``; at the end if it is None."""
        at = len(self.layers) if at is None else _index(at, len(self.layers) + 1, "at")
        return self._with((*self.layers[:at], _as_layer(layer), *self.layers[at:]))

    def remove_layer(self, layer: int) -> Template:
        """Leave a layer out."""
        i = self._layer(layer)
        return self._with((*self.layers[:i], *self.layers[i + 1 :]))

    def duplicate_layer(self, layer: int) -> Template:
        """Insert a copy of a layer after it."""
        i = self._layer(layer)
        return self._with((*self.layers[: i + 1], *self.layers[i:]))

    def move_layer(self, layer: int, to: int) -> Template:
        """Take a layer out and insert it so that its index becomes ``to``."""
        i, to = self._layer(layer), _index(to, len(self.layers), "to")
        rest = [*self.layers[:i], *self.layers[i + 1 :]]
        return self._with((*rest[:to], self.layers[i], *rest[to:]))

    def rename_layer(self, layer: int, name: str) -> Template:
        """Give a layer a name."""
        return self._change(layer, lambda found: replace(found, name=name))

    # ---- alternatives ------------------------------------------------------------------------------

    def add_alternative(self, layer: int, block: Block, at: int | None = None) -> Template:
        """Insert an alternative before index ``at`` of a layer; at its end if that is None."""
        blocks = self.layers[self._layer(layer)].alternatives
        at = len(blocks) if at is None else _index(at, len(blocks) + 1, "at")
        return self._blocks(layer, (*blocks[:at], block, *blocks[at:]))

    def remove_alternative(self, layer: int, alternative: int) -> Template:
        """Leave an alternative out; the last one of a layer is refused."""
        blocks, k = self._alternative(layer, alternative)
        if len(blocks) == 1:
            with self._at(layer, k):
                raise refuse("another alternative besides it", "none", "remove the layer instead")
        return self._blocks(layer, (*blocks[:k], *blocks[k + 1 :]))

    def replace_alternative(self, layer: int, alternative: int, block: Block) -> Template:
        """Put another block in an alternative's place."""
        blocks, k = self._alternative(layer, alternative)
        return self._blocks(layer, (*blocks[:k], block, *blocks[k + 1 :]))

    def set(self, layer: int, alternative: int | None = None, **properties: Any) -> Template:
        """Set properties of an alternative.

        If ``alternative`` is None they are set in every alternative of the layer that has them all.

        Raises:
            TemplateError: A property is not allowed, or no alternative of the layer has them all.
        """
        i = self._layer(layer)
        if alternative is None:
            blocks = self.layers[i].alternatives
            chosen = [k for k, block in enumerate(blocks) if all(map(block.has, properties))]
            if not chosen:
                with self._at(i):
                    names = ", ".join(map(shortened, properties))
                    raise refuse("an alternative with these properties", "none", "", property=names)
        else:
            blocks, k = self._alternative(i, alternative)
            chosen = [k]
        changed = list(blocks)
        for k in chosen:
            with self._at(i, k):
                changed[k] = blocks[k].replace(**properties)
        return self._blocks(i, tuple(changed))

    # ---- the rest ----------------------------------------------------------------------------------

    def set_stem(self, **properties: Any) -> Template:
        """Set properties of the stem."""
        with located("stem"):
            return replace(self, stem=self.stem.replace(**properties))

    def replace(self, **fields: Any) -> Template:
        """Other fields: ``stem``, ``image_size`` or ``name``."""
        unknown = sorted(fields.keys() - {"layers", "stem", "image_size", "name"})
        if unknown:
            raise refuse("one of layers, stem, image_size, name", repr(unknown[0]), property="fields")
        return replace(self, **fields)

    def _with(self, layers: tuple[Layer, ...]) -> Template:
        return replace(self, layers=layers)

    def _change(self, layer: int, change: Any) -> Template:
        i = self._layer(layer)
        with self._at(i):
            changed = change(self.layers[i])
        return self._with((*self.layers[:i], changed, *self.layers[i + 1 :]))

    def _blocks(self, layer: int, blocks: tuple[Block, ...]) -> Template:
        return self._change(layer, lambda found: replace(found, alternatives=blocks))

    def _layer(self, layer: int) -> int:
        return _index(layer, len(self.layers), "layer")

    def _alternative(self, layer: int, alternative: int) -> tuple[tuple[Block, ...], int]:
        i = self._layer(layer)
        blocks = self.layers[i].alternatives
        with self._at(i):
            return blocks, _index(alternative, len(blocks), "alternative")

    @contextmanager
    def _at(self, layer: int, alternative: int | None = None) -> Iterator[None]:
        i = self._layer(layer)
        with located(self.place(i, alternative), i, alternative):
            yield


def _as_layer(layer: Any) -> Layer:
    return layer if isinstance(layer, Layer) else Layer(layer)


def _tuple(values: Any, what: str, kind: type = object) -> tuple[Any, ...]:
    """``values`` as a tuple; TemplateError if they are no sequence of ``kind``."""
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise refuse("a sequence", shortened(repr(values)), property=what)
    found = tuple(values)
    for each in found:
        if not isinstance(each, kind):
            raise refuse(f"each a {kind.__name__}", shortened(repr(each)), property=what)
    return found


def _index(index: Any, count: int, what: str) -> int:
    if type(index) is not int or not -count <= index < count:
        expected = f"an index from {-count} to {count - 1}" if count else "no index, for there is nothing yet"
        raise refuse(expected, shortened(repr(index)), property=what)
    return index % count


def _check_name(name: Any) -> None:
    if not isinstance(name, str) or len(name) > MAX_NAME or printable(name) != name:
        expected = f"a text of at most {MAX_NAME} characters on one line"
        raise refuse(expected, shortened(repr(name)), property="name")
