"""Sample inputs of mixed_op."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from pynas import ops
from pynas.ops.candidates import resolve
from pynas.testing._specs import Call, DifferentiableSample, DifferentiableSpec, Fill


def _sample(
    name: str,
    shape: tuple[int, int, int, int],
    candidates: str | Sequence[str],
    *,
    off: Sequence[int] = (),
    running: bool = False,
    **options: Any,
) -> DifferentiableSample:
    """The weights of the candidates `off` are zero."""
    geometry = {key: options[key] for key in ("stride", "affine") if key in options}

    def make(fill: Fill) -> Call:
        channels, stride = shape[1], options.get("stride", 1)
        parameters = [fill(size) for _, size in ops.mixed_op_parameters(candidates, channels, **geometry)]
        names, _ = resolve(candidates)
        weights = fill((len(names),)).clone()
        weights[list(off)] = 0
        keywords: dict[str, Any] = {**options, "candidates": candidates}
        if running:
            count = len(ops.mixed_op_norms(candidates, stride))
            pairs = [(fill((channels,)), 1 + fill((channels,)).abs()) for _ in range(count)]
            keywords["running"] = [buffer for pair in pairs for buffer in pair]
        return (fill(shape), weights, parameters), keywords

    return DifferentiableSample(name, make, scale=1.0, smooth=not off)


def mixed_op_specs() -> Iterator[DifferentiableSpec]:
    """All families, both strides, odd sizes, affine or not, training and evaluation, weights of zero."""
    separable = ("none", "max_pool_3x3", "skip_connect", "sep_conv_3x3", "dil_conv_5x5")
    yield DifferentiableSpec(
        "mixed_op",
        ops.mixed_op,
        ops.mixed_op_reference,
        (
            _sample("darts", (3, 5, 6, 7), "darts", running=True),
            _sample("darts, stride 2, affine", (4, 3, 7, 5), "darts", stride=2, affine=True),
            _sample("darts, candidates off", (3, 17, 5, 5), "darts", off=(1, 4, 7), running=True),
            _sample("darts, evaluation", (2, 4, 5, 6), separable, running=True, training=False),
            _sample("nasbench201", (3, 17, 5, 6), "nasbench201", affine=True, running=True),
            _sample("nasbench201, stride 2", (4, 6, 7, 7), "nasbench201", stride=2),
            _sample("transnas, one candidate", (3, 8, 6, 6), "transnas", off=(0, 1, 2)),
            _sample("nothing but zeros", (3, 4, 5, 5), "transnas", off=(0, 1, 2, 3)),
        ),
        # 16-bit types change which values relu and maxima pass: tests/ops/test_mixed_op.py compares these.
        dtypes=(torch.float32, torch.float64),
        layouts=("contiguous", "channels_last"),
        tolerance={torch.float32: 1e-4},
        second_traced=False,  # the definition skips candidates by their weight's value
    )
