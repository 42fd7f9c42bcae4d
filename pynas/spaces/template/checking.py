"""Follows shapes through a template and finds what does not fit."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pynas._plural import counted
from pynas.spaces.template.blocks import Block
from pynas.spaces.template.plan import Conv, Norm, Operation, Plan, Pool, after, params, side, walk
from pynas.spaces.template.problems import Problem, TemplateError, located, refuse

if TYPE_CHECKING:
    from pynas.spaces.template.design import Template

MAX_PARAMETERS: Final = 1 << 31  # of all alternatives together: a supernet of 8 GiB in float32
STEMS: Final = ("conv", "vgg", "run")
_FIXING: Final = ("channels", "stride", "padding", "kernel")  # what may change a shape


@dataclass(frozen=True, slots=True)
class Shape:
    """Channels of an image, and its side in pixels."""

    channels: int
    size: int

    def __str__(self) -> str:
        return f"{self.channels} x {self.size} x {self.size}"


@dataclass(frozen=True, slots=True)
class Followed:
    """A template's shapes and plans, as far as they could be followed, and what is wrong.

    Attributes:
        shapes: After the stem and after each layer.
        plans: Of the alternatives of each layer.
        problems: What is wrong, by layers.
    """

    shapes: tuple[Shape, ...]
    plans: tuple[tuple[Plan, ...], ...]
    problems: tuple[Problem, ...]


def stem_plan(stem: Block, in_channels: int) -> Plan:
    """What the stem computes on images."""
    return stem.plan(in_channels)[0]


def follow(template: Template) -> Followed:
    """Follow shapes from the images to the last layer, or to the first layer that has no shape."""
    try:
        shape = _stem(template)
    except TemplateError as error:
        return Followed((), (), error.problems)
    shapes = [shape]
    plans: list[tuple[Plan, ...]] = []
    problems: list[Problem] = []
    if not template.layers:
        problems += refuse("at least one layer", "none", "add a layer", property="layers").problems
    total = 0
    for i, layer in enumerate(template.layers):
        kept: list[tuple[Plan, Shape]] = []
        for k, block in enumerate(layer.alternatives):
            try:
                with located(template.place(i, k), i, k):
                    found = _after(block, shapes[-1])
                    if kept and found[1] != kept[0][1]:
                        raise _other_shape(block, found[1], layer.alternatives[0], kept[0][1])
                    kept.append(found)
            except TemplateError as error:
                problems += error.problems
                if not kept:
                    break  # alternatives are compared with the first, which has no shape
        if not kept:
            break
        plans.append(tuple(plan for plan, _ in kept))
        shapes.append(kept[0][1])
        total += sum(map(params, plans[-1]))
    if total > MAX_PARAMETERS:
        advice = "use fewer channels, smaller kernels or fewer alternatives"
        expected = f"at most {MAX_PARAMETERS:,} parameters in all alternatives together"
        problems += refuse(expected, f"{total:,}", advice, property="layers").problems
    return Followed(tuple(shapes), tuple(plans), tuple(problems))


def _stem(template: Template) -> Shape:
    stem = template.stem
    with located("stem"):
        if stem.kind not in STEMS:
            raise refuse(f"one of {', '.join(STEMS)}", repr(stem.kind), property="kind")
        channels = stem["channels"]
        if channels is None:
            advice = "set channels=16, for example: layers must not depend on the images' channels"
            raise refuse("a number of channels", "None", advice, property="channels")
        return _after(stem, Shape(3, template.image_size))[1]


def _after(block: Block, shape: Shape) -> tuple[Plan, Shape]:
    """The plan of a block and the shape after it; an error if it does not fit on ``shape``."""
    plan, channels = block.plan(shape.channels)
    for operation, size in walk(plan, shape.size):
        _check_window(block, operation, size)
    return plan, Shape(channels, side(plan, shape.size))


def _check_window(block: Block, operation: Operation, size: int) -> None:
    if isinstance(operation, Norm) and operation.kind == "group" and operation.channels * size**2 == 1:
        advice = "use norm='batch' or more channels"
        raise refuse("a norm over more than one value", "a group of one", advice, property="norm")
    if not isinstance(operation, (Conv, Pool)):
        return
    kernel, pixels = operation.kernel, f"{size} x {size} pixels"
    dilation = operation.dilation if isinstance(operation, Conv) else 1
    if operation.stride > 1 and size < 2:
        advice = "set stride=1, or halve less often before"
        raise refuse("at least 2 x 2 pixels to halve", pixels, advice, property="stride")
    if isinstance(operation, Pool) and operation.ceil:
        return
    reach = dilation * (kernel - 1) + 1
    if operation.padding == 0 and kernel > 1:
        if after(operation, size) < 1:
            advice = f"set kernel={_largest(size, dilation)} or padding='same'"
            raise refuse(
                f"a window of at most {counted(size, 'pixel')}",
                f"{reach} on {pixels}",
                advice,
                property="kernel",
            )
    elif dilation * (kernel // 2) > size - 1:
        largest = _largest(2 * size - 1, dilation)
        what = "its outermost weights would only meet padding"
        advice = f"{what}: set kernel={largest}" if block.has("kernel") else what
        got = f"{kernel} on {pixels}" + (f" with dilation {dilation}" if dilation > 1 else "")
        raise refuse(f"a kernel of at most {largest}", got, advice, property="kernel")


def _largest(pixels: int, dilation: int) -> int:
    """The largest odd kernel that reaches over at most ``pixels``."""
    return 2 * ((pixels - 1) // (2 * dilation)) + 1


def _other_shape(block: Block, found: Shape, first: Block, wanted: Shape) -> TemplateError:
    """The error of an alternative whose output has not the shape of the first one's."""
    expected = f"{wanted}, the output of the layer's first alternative ({first.label})"
    if found.channels != wanted.channels:
        name = "channels"
        advice = f"set channels={wanted.channels}" if block.has(name) else ""
    else:
        name = "stride" if block.has("stride") else ""
        ratio = wanted.size / found.size
        other = 2 if math.isclose(ratio, 0.5, rel_tol=0.2) else 1
        fits = name and block[name] != other and block.properties.get("padding", "same") == "same"
        advice = f"set stride={other}" if fits else ""
    changes = [each for each in _FIXING if block.has(each)]
    advice = advice or f"change its {' or '.join(changes) or 'kind'}, or the first alternative"
    return refuse(expected, str(found), advice, property=name)
