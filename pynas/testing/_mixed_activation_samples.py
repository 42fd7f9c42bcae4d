"""Sample inputs of mixed_activation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from pynas import ops
from pynas.testing._specs import Call, DifferentiableSample, DifferentiableSpec, Fill


def _sample(
    name: str,
    sizes: tuple[int, int, int],
    *,
    off: Sequence[int] = (),
    dead: Sequence[int] = (),
    running: bool = False,
    **options: Any,
) -> DifferentiableSample:
    """`sizes` are J, B, D; the weights of the columns `off` and of the predecessors `dead` are zero."""

    def make(fill: Fill) -> Call:
        predecessors, batch, features = sizes
        states, products = fill((predecessors, batch, features)), fill((predecessors, batch, 2 * features))
        weights = fill((predecessors, len(options.get("activations", ops.ACTIVATIONS)))).clone()
        weights[:, list(off)] = 0
        weights[list(dead)] = 0
        keywords = dict(options)
        if running:
            keywords["running"] = (fill((features,)).clone(), 1 + fill((features,)).abs())
        return (states, products, weights), keywords

    return DifferentiableSample(name, make, scale=1.0, smooth=not off and not dead)


def mixed_activation_specs() -> Iterator[DifferentiableSpec]:
    """Rows shorter than a vector and not a multiple of one, normalised or not, weights of zero."""
    yield DifferentiableSpec(
        "mixed_activation",
        ops.mixed_activation,
        ops.mixed_activation_reference,
        (
            _sample("normalised", (3, 20, 37), normalized=True, running=True),
            _sample("one number", (1, 1, 1)),
            _sample("short rows", (3, 9, 5), normalized=True, running=True, momentum=0.3),
            _sample("long rows", (2, 3, 300)),
            _sample("several blocks", (2, 150, 65), normalized=True, eps=1e-3),
            _sample("evaluation", (3, 4, 33), normalized=True, running=True, training=False),
            _sample("a predecessor and two activations off", (3, 12, 18), off=(1, 3), dead=(2,)),
            _sample("nothing but zeros", (2, 9, 20), dead=(0, 1), normalized=True, running=True),
            _sample("one activation", (2, 5, 16), activations=("relu",)),
            _sample("another order", (2, 5, 17), activations=("identity", "sigmoid", "none", "tanh")),
            _sample("no rows", (2, 0, 7)),
        ),
        dtypes=(torch.float32, torch.bfloat16, torch.float64),  # float16 only on a GPU
    )
