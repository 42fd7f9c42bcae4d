"""The palette of a template: kinds of blocks, and the properties that each has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, TypeAlias

Value: TypeAlias = int | str | None

MAX_CHANNELS: Final = 8192
MAX_KERNEL: Final = 31


@dataclass(frozen=True, slots=True)
class Property:
    """One property of a kind of blocks.

    Attributes:
        name: Its name.
        default: Its value where none is given.
        text: What it means, in one line.
        code: What stands before its value in a block's label.
        choices: The values that it may have; empty for a range of integers.
        low: Smallest integer.
        high: Largest integer.
        odd: Whether only odd integers are allowed.
        optional: Whether None is allowed.
    """

    name: str
    default: Value
    text: str
    code: str
    choices: tuple[int | str, ...] = ()
    low: int = 1
    high: int = 1
    odd: bool = False
    optional: bool = False

    @property
    def expected(self) -> str:
        """The allowed values in words."""
        if self.choices:
            return f"one of {', '.join(map(str, self.choices))}"
        kind = "an odd integer" if self.odd else "an integer"
        return f"{kind} in {self.low}..{self.high}" + (" or None" if self.optional else "")

    def allows(self, value: object) -> bool:
        """Whether ``value`` is one of the allowed values; True and 1.0 are no integers."""
        if value is None:
            return self.optional
        if self.choices:
            return type(value) in (int, str) and value in self.choices
        if type(value) is not int or not self.low <= value <= self.high:
            return False
        return value % 2 == 1 or not self.odd

    def advice(self, value: object) -> str:
        """What to do instead of ``value``; empty if there is nothing to add to :attr:`expected`."""
        if self.odd and type(value) is int and self.low < value < self.high and value % 2 == 0:
            return f"use {value - 1} or {value + 1}, whose middle is a pixel"
        return ""

    def label(self, value: Value) -> str:
        """``k5``, ``s2``, ``gelu``, ``nonorm``: no two values of the properties of a kind look the same."""
        if isinstance(value, str):
            return f"no{self.code}" if value == "none" else value
        return f"{self.code}{value}"


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of blocks.

    Attributes:
        name: Its name in files and labels.
        title: Its name in words.
        text: What it computes.
        properties: Its properties, in the order of labels.
    """

    name: str
    title: str
    text: str
    properties: tuple[Property, ...] = ()

    def find(self, name: str) -> Property | None:
        """The property of that name, or None."""
        return next((each for each in self.properties if each.name == name), None)


_CHANNELS = Property(
    "channels", None, "output channels; None: as many as come in", "c", high=MAX_CHANNELS, optional=True
)
_KERNEL = Property("kernel", 3, "side of the kernel, in pixels", "k", high=MAX_KERNEL, odd=True)
_STRIDE = Property("stride", 1, "2 halves the image's sides, rounded up", "s", (1, 2))
_DILATION = Property("dilation", 1, "distance between the kernel's taps, in pixels", "d", (1, 2))
_PADDING = Property("padding", "same", "same: zeros around the image; valid: none", "", ("same", "valid"))
_NORM = Property("norm", "batch", "normalisation after each convolution", "norm", ("batch", "group", "none"))
_ACTIVATIONS = ("relu", "relu6", "leaky_relu", "elu", "silu", "gelu", "hardswish", "none")
_ACTIVATION = Property("activation", "relu", "activation after each normalisation", "act", _ACTIVATIONS)
_ORDER = Property(
    "order",
    "post",
    "post: convolution, norm, activation; pre: activation, convolution, norm",
    "",
    ("post", "pre"),
)


def _changed(known: Property, **fields: Any) -> Property:
    values = {name: getattr(known, name) for name in Property.__slots__} | fields
    return Property(**values)


def _count(name: str, default: int, text: str, choices: tuple[int, ...]) -> Property:
    return Property(name, default, text, "n", choices)


KINDS: Final[dict[str, Kind]] = {
    kind.name: kind
    for kind in (
        Kind(
            "conv",
            "Convolution",
            "one convolution",
            (_CHANNELS, _KERNEL, _STRIDE, _PADDING, _NORM, _ACTIVATION, _ORDER),
        ),
        Kind(
            "separable",
            "Separable convolution",
            "a depthwise and a 1x1 convolution, once or twice; the first has the stride",
            (
                _CHANNELS,
                _KERNEL,
                _STRIDE,
                _DILATION,
                _count("repeats", 1, "how many of them follow each other", (1, 2)),
                _PADDING,
                _NORM,
                _ACTIVATION,
                _ORDER,
            ),
        ),
        Kind(
            "depthwise",
            "Depthwise convolution",
            "a convolution of each channel by itself",
            (_KERNEL, _STRIDE, _DILATION, _PADDING, _NORM, _ACTIVATION, _ORDER),
        ),
        Kind(
            "vgg",
            "VGG block",
            "2 or 3 convolutions; stride 2 is a 2x2 max pool after them",
            (
                _CHANNELS,
                _KERNEL,
                _STRIDE,
                _count("convolutions", 2, "number of convolutions", (2, 3)),
                _PADDING,
                _NORM,
                _ACTIVATION,
            ),
        ),
        Kind(
            "run",
            "Run of convolutions",
            "1, 3 or 7 convolutions; the first has the stride",
            (
                _CHANNELS,
                _KERNEL,
                _STRIDE,
                _count("convolutions", 3, "number of convolutions", (1, 3, 7)),
                _PADDING,
                _NORM,
                _ACTIVATION,
                _ORDER,
            ),
        ),
        Kind(
            "residual",
            "Residual block",
            "convolutions beside a shortcut, then the activation; the shortcut is the identity, or a 1x1 "
            "convolution where the shape changes",
            (
                _CHANNELS,
                _KERNEL,
                _STRIDE,
                Property(
                    "form",
                    "basic",
                    "basic: two convolutions; bottleneck: 1x1, kernel, 1x1, inside a quarter of the channels",
                    "",
                    ("basic", "bottleneck"),
                ),
                _NORM,
                _ACTIVATION,
            ),
        ),
        Kind(
            "dense",
            "Dense block",
            "layers that each read everything before them, then a 1x1 transition, with a 2x2 mean at stride "
            "2; norm and activation come before each convolution",
            (
                _CHANNELS,
                _KERNEL,
                _STRIDE,
                Property("convolutions", 3, "number of layers", "n", high=16),
                Property("growth", 8, "channels that each layer adds", "g", high=512),
                _NORM,
                _ACTIVATION,
            ),
        ),
        Kind(
            "inverted",
            "Inverted residual",
            "1x1 to more channels, depthwise, 1x1 without activation; added to the input where shapes are "
            "equal",
            (
                _CHANNELS,
                _KERNEL,
                _STRIDE,
                Property("expansion", 4, "inner channels over channels that come in", "e", high=16),
                _NORM,
                _changed(_ACTIVATION, default="relu6"),
            ),
        ),
        Kind(
            "shuffle",
            "ShuffleNetV2 block",
            "half of the channels passes, the other goes through 1x1, depthwise, 1x1; where the shape "
            "changes both halves are computed; then channels are shuffled",
            (_CHANNELS, _KERNEL, _STRIDE, _NORM, _ACTIVATION),
        ),
        Kind(
            "pool",
            "Pooling",
            "maximum or mean of a window; the mean counts pixels inside of the image only",
            (
                Property("operation", "max", "max or average", "", ("max", "average")),
                _KERNEL,
                _STRIDE,
                _PADDING,
                Property(
                    "norm",
                    "none",
                    "batch: a batch norm without weight and bias after it, as in DARTS",
                    "norm",
                    ("none", "batch"),
                ),
            ),
        ),
        Kind("identity", "Identity", "the input itself: the layer is left out"),
    )
}
"""By name, in the order of the palette."""


def palette() -> list[dict[str, Any]]:
    """Kinds and properties as JSON values, for a page: names, titles, texts, defaults and allowed values."""
    return [
        {
            "kind": kind.name,
            "title": kind.title,
            "text": kind.text,
            "properties": [
                {
                    "name": each.name,
                    "default": each.default,
                    "text": each.text,
                    "optional": each.optional,
                    **({"choices": list(each.choices)} if each.choices else _bounds(each)),
                }
                for each in kind.properties
            ],
        }
        for kind in KINDS.values()
    ]


def _bounds(each: Property) -> dict[str, Any]:
    return {"low": each.low, "high": each.high, "odd": each.odd}
