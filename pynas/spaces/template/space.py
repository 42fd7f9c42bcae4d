"""Networks drawn from a template: layers of alternative blocks that somebody designed.

Source: A. Tyagi, C. Xie, K. Mueller, "NAS-Navigator: Visual Steering for Explainable One-Shot Deep Neural
Network Synthesis", IEEE TVCG (VIS 2022), arXiv:2009.13008, in which an analyst draws such a template from a
palette of blocks. The paper lists neither sizes nor defaults: the palette here is pynas's own.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from pynas._errors import UserError
from pynas._io.files import shortened
from pynas._plural import counted
from pynas.architecture import Architecture
from pynas.spaces.base import Edge, SearchSpace, check_positive
from pynas.spaces.template.checking import follow, stem_plan
from pynas.spaces.template.design import Template
from pynas.spaces.template.files import from_json, load, to_json
from pynas.spaces.template.plan import Plan, macs, params, side
from pynas.spaces.template.problems import TemplateError
from pynas.spaces.template.ready import READY

if TYPE_CHECKING:
    from torch import nn


class TemplateSpace(SearchSpace):
    """All networks of a template: one alternative of each layer.

    Network: the template's stem, its layers, global average pooling, a linear classifier. Weights of
    convolutions are initialised as by K. He et al. (ICCV 2015) for ReLU, normal by the number of inputs, and
    biases are zero. Images may have another size than the template's; layers without padding need images
    that are large enough.

    The text of an architecture names the block of each layer, ``conv_k5|conv_c32_s2|identity|...``, with the
    properties that are not defaults; a block that a layer has twice is followed by ``~2``.

    :meth:`canonical` finds architectures that run the same operations one after the other: alternatives of
    equal effect, identities in other places, two convolutions in place of a block of two. Blocks that are
    equal by arithmetic only (two ReLUs in place of one) count as different.

    Args:
        template: A :class:`Template`, its JSON text, or the name of a ready one: ``example``, ``digits`` or
            ``fused``; stored as JSON text without names, which is what tells one template from another. On
            the command line ``template:FILE``, a file of ``pynas.spaces.template.save``.

    Attributes:
        design: The :class:`Template`.
    """

    name = "template"
    summary = "networks of layers with alternatives that you design, --space template:FILE (NAS-Navigator)"

    def __init__(self, *, template: Template | str = "example") -> None:
        self.design = _opened(template)
        followed = follow(self.design)
        if followed.problems:
            raise TemplateError(followed.problems)
        self.template = to_json(self.design, names=False)
        self.image_size = self.design.image_size  # type: ignore[misc]
        self._plans = followed.plans
        self._channels = followed.shapes[-1].channels
        self._params = tuple(tuple(map(params, plans)) for plans in self._plans)
        self._labels = tuple(_labels([b.label for b in layer.alternatives]) for layer in self.design.layers)
        self._costs: dict[
            tuple[int, int, int], tuple[int, int]
        ] = {}  # multiply-adds and side of an alternative

    @classmethod
    def open(cls, text: str) -> TemplateSpace:
        """The space of ``--space template:TEXT``: a ready template, or a file; ``example`` if empty."""
        text = text.strip()
        if not text or text in READY:
            return cls(template=text or "example")
        return cls(template=load(Path(text)))

    @property
    def num_choices(self) -> tuple[int, ...]:
        """Alternatives of each layer."""
        return tuple(map(len, self._plans))

    def plans(self, arch: Architecture) -> tuple[Plan, ...]:
        """What each layer computes, stem and classifier left out."""
        return tuple(plans[k] for plans, k in zip(self._plans, self.check(arch), strict=True))

    @property
    def digest(self) -> str:
        """Sixteen hexadecimal digits that tell this template from others; names do not count."""
        return hashlib.sha256(self.template.encode()).hexdigest()[:16]

    def check_image_size(self, image_size: int) -> None:
        """Raise UserError unless every network, and every mixture, runs on images of this size."""
        check_positive(image_size=image_size)
        size = self._fits("the stem", side(stem_plan(self.design.stem, 3), image_size), image_size)
        for i, plans in enumerate(self._plans):
            sides = [
                self._fits(self.design.place(i, k), side(p, size), image_size) for k, p in enumerate(plans)
            ]
            if len(set(sides)) > 1:  # a stride and a large window without padding may agree on one size only
                raise UserError(
                    f"image_size: on images of {image_size} x {image_size} the alternatives of "
                    f"{self.design.place(i)} give sides of {' and '.join(map(str, sorted(set(sides))))}; use "
                    f"images of {self.image_size} x {self.image_size}, or padding='same'"
                )
            size = sides[0]

    def layer_plans(self, layer: int) -> tuple[Plan, ...]:
        """What each alternative of a layer computes."""
        return self._plans[layer]

    @property
    def out_channels(self) -> int:
        """Channels after the last layer, which the classifier reads."""
        return self._channels

    def same(self, layer: int) -> tuple[int, ...]:
        """For each alternative of a layer, the first one that computes the same."""
        plans = self._plans[layer]
        return tuple(plans.index(plan) for plan in plans)

    # ---- identity and notation -------------------------------------------------------------------

    def canonical(self, arch: Architecture) -> Architecture:
        """The first architecture, by decisions, that runs the same operations one after the other."""
        whole = tuple(operation for plan in self.plans(arch) for operation in plan)
        ends = {len(whole)}
        fits = [ends]  # where the layers from each on may begin, so that the rest of the operations is theirs
        for plans in reversed(self._plans):
            begins = {
                end - len(plan)
                for plan in set(plans)
                for end in fits[-1]
                if end >= len(plan) and whole[end - len(plan) : end] == plan
            }
            fits.append(begins)
        fits.reverse()
        begin, decisions = 0, []
        for plans, ends in zip(self._plans, fits[1:], strict=True):
            for k, plan in enumerate(plans):
                end = begin + len(plan)
                if end in ends and whole[begin:end] == plan:
                    decisions.append(k)
                    begin = end
                    break
        return Architecture(self.name, tuple(decisions))

    def format(self, arch: Architecture) -> str:
        """The label of each layer's block, with ``|`` between layers."""
        return "|".join(labels[k] for labels, k in zip(self._labels, self.check(arch), strict=True))

    def parse(self, text: str) -> Architecture:
        """Read what :meth:`format` writes; surrounding blanks are ignored."""
        text = text.strip()
        decisions: list[int] = []
        start = 0
        tokens = text.split("|")
        for i, labels in enumerate(self._labels):
            if i >= len(tokens):
                raise self._parse_error(text, len(text), 0, f"'|' and a block of layer {i}", labels)
            token = tokens[i]
            if token not in labels:
                expected = f"a block of layer {i} out of {', '.join(labels)}"
                raise self._parse_error(text, start, len(token), expected, labels)
            decisions.append(labels.index(token))
            start += len(token) + 1
        if len(tokens) > len(self._labels):
            expected = f"the end of the text after {counted(len(self._labels), 'layer')}"
            raise self._parse_error(text, start - 1, len(text) - start + 1, expected)
        return Architecture(self.name, tuple(decisions))

    def graph(self, arch: Architecture) -> tuple[Edge, ...]:
        """The chain of layers, labelled with their blocks."""
        decisions = self.check(arch)
        return tuple(Edge(i, i + 1, self._labels[i][k]) for i, k in enumerate(decisions))

    # ---- the network -----------------------------------------------------------------------------

    def params(self, arch: Architecture, num_classes: int = 10, in_channels: int = 3) -> int:
        """Parameters: weights, biases, and two per channel of a norm."""
        decisions = self.check(arch)
        check_positive(num_classes=num_classes, in_channels=in_channels)
        layers = sum(counts[k] for counts, k in zip(self._params, decisions, strict=True))
        return params(stem_plan(self.design.stem, in_channels)) + layers + (self._channels + 1) * num_classes

    def macs(
        self, arch: Architecture, num_classes: int = 10, image_size: int = 32, in_channels: int = 3
    ) -> int:
        """Multiply-adds of convolutions and classifier for one square image.

        Raises:
            UserError: A layer without padding does not fit on what is left of images of this size.
        """
        decisions = self.check(arch)
        check_positive(num_classes=num_classes, image_size=image_size, in_channels=in_channels)
        stem = stem_plan(self.design.stem, in_channels)
        total, size = macs(stem, image_size), self._fits("the stem", side(stem, image_size), image_size)
        for i, k in enumerate(decisions):
            key = i, k, size
            if key not in self._costs:
                plan = self._plans[i][k]
                after = self._fits(self.design.place(i, k), side(plan, size), image_size)
                self._costs[key] = macs(plan, size), after
            cost, size = self._costs[key]
            total += cost
        return total + self._channels * num_classes

    def _fits(self, where: str, size: int, image_size: int) -> int:
        if size < 1:
            raise UserError(
                f"image_size: {where} does not fit on what is left of {image_size} x {image_size} pixels; "
                "use larger images or padding='same'"
            )
        return size

    def build(
        self, arch: Architecture, num_classes: int = 10, in_channels: int = 3, prune: bool = False
    ) -> nn.Module:
        """Build the network; ``prune`` has no effect, since every part influences the output."""
        from pynas.spaces.template.network import TemplateNetwork

        plans = self.plans(arch)
        check_positive(num_classes=num_classes, in_channels=in_channels)
        stem = stem_plan(self.design.stem, in_channels)
        return TemplateNetwork(stem, plans, self._channels, num_classes)


def _opened(template: Template | str) -> Template:
    if isinstance(template, Template):
        return template
    if not isinstance(template, str):
        raise UserError(f"template: expected a Template or a text, got {type(template).__name__}")
    if template in READY:
        return READY[template]()
    if template.lstrip().startswith("{"):
        return from_json(template)
    raise UserError(
        f"template: expected a Template, its JSON text or one of {', '.join(READY)}, got "
        f"{shortened(repr(template))}; TemplateSpace.open(FILE) reads a file"
    )


def _labels(labels: list[str]) -> tuple[str, ...]:
    """Labels made different from each other: those that come again get ``~2``, ``~3``."""
    return tuple(
        f"{label}~{seen}" if (seen := labels[: k + 1].count(label)) > 1 else label
        for k, label in enumerate(labels)
    )
