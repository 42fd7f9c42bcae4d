"""Ready templates: where an editor begins, and what examples use."""

from __future__ import annotations

from typing import Final

from pynas.spaces.template.blocks import Block
from pynas.spaces.template.design import Layer, Template


def example() -> Template:
    """Five layers with every kind of block, for images of 32 x 32 pixels: 1,200 combinations.

    The image is halved twice, so that it also runs on images of 8 x 8 pixels, such as the embedded digits.
    """
    return Template(
        (
            Layer(
                (
                    Block("conv"),
                    Block("conv", kernel=5),
                    Block("separable"),
                    Block("residual"),
                    Block("identity"),
                ),
                "first",
            ),
            Layer(
                (
                    Block("conv", channels=32, stride=2),
                    Block("vgg", channels=32, stride=2),
                    Block("inverted", channels=32, stride=2),
                    Block("shuffle", channels=32, stride=2),
                ),
                "down to half",
            ),
            Layer(
                (
                    Block("residual", form="bottleneck"),
                    Block("dense"),
                    Block("shuffle"),
                    Block("run"),
                    Block("identity"),
                ),
                "middle",
            ),
            Layer(
                (
                    Block("conv", channels=64, stride=2),
                    Block("separable", channels=64, stride=2),
                    Block("inverted", channels=64, stride=2),
                ),
                "down to a quarter",
            ),
            Layer(
                (Block("conv"), Block("depthwise"), Block("pool", operation="average"), Block("identity")),
                "last",
            ),
        ),
        name="example",
    )


def digits() -> Template:
    """Four thin layers for the embedded digits, 8 x 8 pixels: 64 networks, trained together in seconds.

    The layer that halves the image has no choice: weights that every network trains make training quick.
    """
    return Template(
        (
            Layer((Block("residual"), Block("separable"), Block("shuffle"), Block("identity")), "first"),
            Layer((Block("conv", channels=24, stride=2),), "down"),
            Layer(
                (Block("residual"), Block("shuffle"), Block("dense", convolutions=2), Block("identity")),
                "middle",
            ),
            Layer(
                (
                    Block("residual"),
                    Block("inverted", expansion=2),
                    Block("pool", operation="average"),
                    Block("identity"),
                ),
                "last",
            ),
        ),
        stem=Block("conv", channels=12),
        image_size=8,
        name="digits",
    )


def fused() -> Template:
    """Four layers, the mixtures of three fused to one operation: candidates of NAS-Bench-201 and DARTS."""
    nasbench201 = (
        Block("conv", order="pre"),
        Block("conv", order="pre", kernel=1),
        Block("pool", operation="average"),
        Block("identity"),
    )
    darts = (
        *(Block("separable", order="pre", repeats=2, kernel=kernel) for kernel in (3, 5)),
        *(Block("separable", order="pre", dilation=2, kernel=kernel) for kernel in (3, 5)),
        *(Block("pool", operation=operation, norm="batch") for operation in ("max", "average")),
        Block("identity"),
    )
    down = tuple(block.replace(stride=2) for block in darts[:-1])
    return Template(
        (
            Layer(nasbench201, "NAS-Bench-201"),
            Layer((Block("conv", channels=32, stride=2, order="pre"),), "wider"),
            Layer(darts, "DARTS"),
            Layer(down, "DARTS, down"),
        ),
        name="fused",
    )


READY: Final = {"example": example, "digits": digits, "fused": fused}
"""Functions that make them, by the names that ``--space template:NAME`` takes."""
