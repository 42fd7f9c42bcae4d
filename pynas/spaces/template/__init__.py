"""A space of one's own design: layers of alternative blocks, drawn from a palette.

from pynas.spaces import template

design = template.example().add_alternative(0, template.Block("vgg"))
template.save(design, "mine.json")  # pynas search --space template:mine.json
space = template.TemplateSpace(template=design)
"""

from __future__ import annotations

from pynas.spaces.template.blocks import Block
from pynas.spaces.template.checking import Shape
from pynas.spaces.template.design import Layer, Template
from pynas.spaces.template.files import from_json, from_record, load, save, to_json, to_record
from pynas.spaces.template.history import History
from pynas.spaces.template.kinds import KINDS, Kind, Property, palette
from pynas.spaces.template.problems import Problem, TemplateError
from pynas.spaces.template.ready import READY, digits, example, fused
from pynas.spaces.template.space import TemplateSpace

__all__ = [
    "KINDS",
    "READY",
    "Block",
    "History",
    "Kind",
    "Layer",
    "Problem",
    "Property",
    "Shape",
    "Template",
    "TemplateError",
    "TemplateSpace",
    "digits",
    "example",
    "from_json",
    "from_record",
    "fused",
    "load",
    "palette",
    "save",
    "to_json",
    "to_record",
]
