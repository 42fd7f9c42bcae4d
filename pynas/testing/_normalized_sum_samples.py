"""Sample inputs of normalized_sum."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor

from pynas import ops
from pynas.testing._specs import Call, DifferentiableSample, DifferentiableSpec, Fill


def _sample(
    name: str,
    shape: tuple[int, ...],
    count: int,
    *,
    plain: Sequence[int] = (),
    affine: Sequence[int] = (),
    off: Sequence[int] = (),
    running: bool = False,
    distance: float = 0.0,
    **options: Any,
) -> DifferentiableSample:
    """`plain` inputs are not normalised, `affine` ones have gamma and beta, the weights of `off` are zero."""

    def make(fill: Fill) -> Call:
        channels = shape[1]
        inputs = [fill(shape) + distance for _ in range(count)]
        weights = fill((count,)).clone()
        weights[list(off)] = 0

        def some() -> list[Tensor | None]:
            return [fill((channels,)) if k in affine else None for k in range(count)]

        keywords: dict[str, Any] = {**options, "normalized": [k not in plain for k in range(count)]}
        if affine:
            keywords |= {"gamma": some(), "beta": some()}
        if running:
            keywords["running"] = [(fill((channels,)), 1 + fill((channels,)).abs()) for _ in range(count)]
        return (inputs, weights), keywords

    return DifferentiableSample(name, make, smooth=not off)


def normalized_sum_specs() -> Iterator[DifferentiableSpec]:
    """Images and features, odd and even numbers of channels, training and evaluation, weights of zero."""
    yield DifferentiableSpec(
        "normalized_sum",
        ops.normalized_sum,
        ops.normalized_sum_reference,
        (
            _sample("images", (2, 16, 5, 7), 3, plain=(1,), affine=(0,), running=True),
            _sample("odd channels", (3, 17, 3, 5), 2, affine=(0, 1), running=True, momentum=0.3),
            _sample("three channels", (4, 3, 6, 6), 2, affine=(1,), eps=1e-3),
            _sample("many channels", (2, 129, 3, 3), 2),
            _sample("a weight of zero", (3, 24, 4, 4), 3, affine=(0, 1), off=(1,), running=True),
            _sample("nothing but zeros", (3, 5, 4, 4), 2, affine=(0,), off=(0, 1), running=True),
            _sample("features", (33, 20), 4, plain=(3,), affine=(0, 1, 2)),
            _sample("sequences", (3, 6, 11), 2, affine=(0,), running=True),
            _sample("volumes", (2, 4, 3, 2, 5), 2, affine=(0,)),
            _sample("evaluation", (3, 18, 4, 5), 3, plain=(2,), affine=(1,), running=True, training=False),
            _sample("evaluation without statistics", (3, 8, 4, 5), 2, training=False),
            _sample("a single input, added as it is", (2, 3, 4, 4), 1, plain=(0,)),
            _sample("one value a channel, added as it is", (1, 5, 1, 1), 2, plain=(0, 1)),
            _sample("no samples", (0, 4, 3, 3), 2, affine=(0,)),
            _sample("no channels", (2, 0, 3, 3), 2),
        ),
    )


def far_from_zero(shape: tuple[int, ...], distance: float) -> DifferentiableSample:
    """Means of `distance` standard deviations, where E[z^2] - E[z]^2 would be off."""
    return _sample(f"{shape}, {distance:g} away from zero", shape, 2, distance=distance)
