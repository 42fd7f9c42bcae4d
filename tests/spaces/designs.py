"""A template that tests change."""

from __future__ import annotations

from pynas.spaces.template import Block, Layer, Template

THIN = Template(
    (
        Layer((Block("conv"), Block("separable"), Block("residual"), Block("identity")), "first"),
        Layer(
            (
                Block("conv", channels=16, stride=2),
                Block("inverted", channels=16, stride=2, expansion=2),
            ),
            "down",
        ),
        Layer(
            (Block("residual"), Block("shuffle"), Block("dense", convolutions=2), Block("identity")),
            "middle",
        ),
        Layer((Block("conv", kernel=1, channels=32), Block("conv", channels=32), Block("vgg", channels=32))),
    ),
    stem=Block("conv", channels=8),
    image_size=8,
    name="thin",
)
