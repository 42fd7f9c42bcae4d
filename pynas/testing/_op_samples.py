"""Sample inputs of the gradient statistics in pynas.ops: small, with corner cases."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from pynas import ops
from pynas.testing._specs import Call, Fill, OpSpec, Sample


def conv2d_sample(
    name: str,
    shape: tuple[int, int, int, int],
    out_channels: int,
    kernel_size: Any,
    *,
    group_size: int = 1,
    bias: bool = False,
    **geometry: Any,
) -> Sample:
    """A convolution's gradient: `shape` is the input's [B, C, H, W], `geometry` the layer's."""
    probe = torch.empty(1, shape[1], shape[2], shape[3], device="meta")
    groups = geometry.get("groups", 1)
    pair = (kernel_size, kernel_size) if isinstance(kernel_size, int) else tuple(kernel_size)
    weight = torch.empty(out_channels, shape[1] // groups, *pair, device="meta")
    _, _, height, width = torch.nn.functional.conv2d(probe, weight, None, **geometry).shape

    def make(fill: Fill) -> Call:
        arguments = (fill((shape[0], out_channels, height, width)), fill(shape), kernel_size)
        return arguments, {**geometry, "group_size": group_size, "bias": bias}

    return Sample(name, make, (height * width * group_size) ** 0.5)


def random_conv2d_sample(rng: random.Random) -> Sample:
    """A convolution of any geometry that fits, small enough to check against the definition."""
    groups = rng.choice((1, 1, 1, 2, 3))
    in_channels, out_channels = (groups * rng.choice((1, 2, 3, 5, 8, 17)) for _ in range(2))
    kernel = (rng.choice((1, 1, 2, 3, 3, 5)), rng.choice((1, 2, 3, 3, 7)))
    dilation = (rng.choice((1, 1, 2)), rng.choice((1, 1, 3)))
    padding = (rng.randint(0, 3), rng.randint(0, 3))
    stride = (rng.choice((1, 1, 2, 3)), rng.choice((1, 1, 2)))
    size = [
        max(1, dilation[i] * (kernel[i] - 1) + 1 - 2 * padding[i]) + rng.choice((0, 1, 4, 9, 16))
        for i in (0, 1)
    ]
    group_size = rng.choice((1, 1, 2, 3))
    shape = (group_size * rng.choice((1, 2, 5)), in_channels, size[0], size[1])
    geometry = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    name = f"{shape} to {out_channels}, kernel {kernel}, {geometry}, group_size {group_size}"
    return conv2d_sample(
        name, shape, out_channels, kernel, group_size=group_size, bias=rng.random() < 0.5, **geometry
    )


def _conv2d_samples() -> Iterator[Sample]:
    yield conv2d_sample("3x3", (4, 3, 8, 8), 5, 3, padding=1, bias=True)
    yield conv2d_sample("1x1", (3, 17, 5, 5), 33, 1, bias=True)
    yield conv2d_sample("groups of two samples", (6, 4, 7, 9), 8, 3, group_size=2, stride=2, padding=1)
    yield conv2d_sample("one group", (4, 2, 6, 6), 3, 3, group_size=4, padding=1)
    yield conv2d_sample("depthwise", (3, 16, 9, 9), 16, 5, groups=16, padding=2)
    yield conv2d_sample("grouped", (2, 6, 5, 5), 9, 3, groups=3, padding=1, bias=True)
    yield conv2d_sample("dilated", (2, 3, 11, 13), 2, (3, 2), dilation=(3, 2), padding=(2, 1), stride=(1, 3))
    yield conv2d_sample("wide", (2, 129, 4, 4), 64, 3, padding=1)
    yield conv2d_sample("one of everything", (1, 1, 1, 1), 1, 1)
    yield conv2d_sample("more padding than image", (2, 2, 1, 2), 3, 3, padding=3)


def _linear_sample(name: str, lead: tuple[int, ...], out: int, inner: int, **options: Any) -> Sample:
    def make(fill: Fill) -> Call:
        return (fill((*lead, out)), fill((*lead, inner))), {"bias": True, **options}

    positions = torch.Size(lead[1:]).numel() * options.get("group_size", 1)
    return Sample(name, make, max(1, positions) ** 0.5)


def _linear_samples() -> Iterator[Sample]:
    yield _linear_sample("one position", (33,), 17, 3)
    yield _linear_sample("one feature", (2,), 1, 1, bias=False)
    yield _linear_sample("positions", (4, 17), 129, 33)
    yield _linear_sample("grid of positions", (6, 3, 5), 7, 64, group_size=3)
    yield _linear_sample("groups of single positions", (8,), 48, 20, group_size=4)
    yield _linear_sample("one sample", (1, 2), 3, 2)
    yield _linear_sample("no positions", (2, 0), 3, 2)


AFFINE_NORMS: dict[str, Callable[[int, int, int], tuple[int, int, int]]] = {
    "BatchNorm": lambda b, c, t: (1, c, 1),
    "LayerNorm": lambda b, c, t: (b, 1, t),
    "GroupNorm": lambda b, c, t: (b, c // 3 if c % 3 == 0 else 1, 1),
    "InstanceNorm": lambda b, c, t: (b, c, 1),
}


def _affine_sample(
    norm: str, shape: tuple[int, int, int], channels_last: bool = False, **options: Any
) -> Sample:
    def make(fill: Fill) -> Call:
        statistics = AFFINE_NORMS[norm](*shape)
        grad_output, input = (
            fill((shape[0], shape[2], shape[1])).transpose(1, 2) if channels_last else fill(shape)
            for _ in "gx"
        )
        # In the dtype of the sums, as in norm layers; powers of two keep integer inputs exact.
        dtype = torch.float64 if input.dtype == torch.float64 else torch.float32
        mean = fill(statistics).to(dtype).round()
        rstd = torch.exp2(fill(statistics).to(dtype).round().clamp(-1, 1))
        return (grad_output, input, mean, rstd), options

    order = "last" if channels_last else "first"
    scale = (max(1, shape[2]) * options.get("group_size", 1)) ** 0.5
    return Sample(f"{norm} {shape} channels {order} {options}", make, 3 * scale)


def _affine_samples() -> Iterator[Sample]:
    for norm in AFFINE_NORMS:
        yield _affine_sample(norm, (4, 6, 17))
        yield _affine_sample(norm, (4, 33, 49), channels_last=True)
        yield _affine_sample(norm, (6, 3, 129), group_size=3)
        yield _affine_sample(norm, (33, 17, 1), group_size=1)
    yield _affine_sample("BatchNorm", (20, 24, 64), channels_last=True)
    yield _affine_sample("LayerNorm", (18, 48, 2), channels_last=True, group_size=2)
    yield _affine_sample("GroupNorm", (2, 129, 3))
    yield _affine_sample("BatchNorm", (1, 1, 1))
    yield _affine_sample("BatchNorm", (2, 3, 0))


def _embedding_sample(name: str, lead: tuple[int, ...], rows: int, features: int, **options: Any) -> Sample:
    def make(fill: Fill) -> Call:
        indices = torch.randint(rows, lead, generator=torch.Generator().manual_seed(0))
        return (fill((*lead, features)), indices, rows), options

    return Sample(name, make, max(1, torch.Size(lead[1:]).numel()) ** 0.5)


def _embedding_samples() -> Iterator[Sample]:
    yield _embedding_sample("few rows", (6, 7), 3, 17)
    yield _embedding_sample("many rows, most untouched", (5, 4), 1000, 129)
    yield _embedding_sample("padding", (4, 33), 5, 64, padding_idx=2)
    yield _embedding_sample("padding from the end", (4, 3, 2), 5, 3, padding_idx=-1, group_size=2)
    yield _embedding_sample("one look-up a sample", (33,), 4, 16, group_size=3)
    yield _embedding_sample("one row", (2, 5), 1, 1)
    yield _embedding_sample("only padding", (2, 2), 1, 3, padding_idx=0)
    yield _embedding_sample("no look-ups", (2, 0), 4, 3)


def _run_update(update: Callable[..., None], gradients: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    dtype = torch.float64 if gradients[0].dtype == torch.float64 else torch.float32
    mean, abs_mean, m2 = (
        torch.zeros(gradients[0].shape, dtype=dtype, device=gradients[0].device) for _ in range(3)
    )
    for count, gradient in enumerate(gradients, start=1):
        update(gradient, mean, abs_mean, m2, count)
    return mean, abs_mean, m2


def _update_sample(shape: tuple[int, ...]) -> Sample:
    return Sample(str(shape), lambda fill: (([fill(shape) for _ in range(3)],), {}), 1.0)


def _codes_sample(*shape: int, **options: Any) -> Sample:
    return Sample(f"{shape} {options or ''}", lambda fill: ((fill(shape),), options), 1.0)


def _run_agreement(update: Callable[..., None], x: Tensor, times: int = 1) -> Tensor:
    agreement = torch.zeros(x.shape[0], x.shape[0], dtype=torch.int64, device=x.device)
    update(x, agreement, times)
    update(x.flatten(1)[:, :1], agreement)
    return agreement


def _codes_specs() -> Iterator[OpSpec]:
    shapes = ((4, 3, 5, 7), (17, 16, 8, 8), (33, 129), (9, 2, 1025), (1, 1), (2, 64), (3, 0), (0, 5), (5,))
    samples = tuple(_codes_sample(*shape) for shape in shapes)
    yield OpSpec("activation_codes", ops.activation_codes, ops.activation_codes_reference, samples)
    yield OpSpec(
        "code_agreement",
        lambda x: ops.code_agreement(ops.activation_codes(x), x.shape[1:].numel()),
        lambda x: ops.code_agreement_reference(ops.activation_codes_reference(x), x.shape[1:].numel()),
        samples,
    )
    yield OpSpec(
        "code_agreement_update",
        lambda x, **options: _run_agreement(ops.code_agreement_update, x, **options),
        lambda x, **options: _run_agreement(ops.code_agreement_update_reference, x, **options),
        (_codes_sample(6, 3, 5, 7), _codes_sample(18, 130, times=3), *samples[1:-3]),
    )


def _specs() -> Iterator[OpSpec]:
    kinds = {
        "conv2d": tuple(_conv2d_samples()),
        "linear": tuple(_linear_samples()),
        "affine": tuple(_affine_samples()),
        "embedding": tuple(_embedding_samples()),
    }
    for kind, samples in kinds.items():
        for quantity in ("moments", "norms", "gram"):
            name = f"{kind}_grad_{quantity}"
            chosen = samples
            if quantity != "moments" and kind == "affine":
                chosen = tuple(_with_options(sample, bias=True) for sample in samples)
            if quantity == "moments":
                chosen = tuple(_with_options(sample, moments=ops.MOMENTS) for sample in samples)
            function, reference = getattr(ops, name), getattr(ops, f"{name}_reference")
            yield OpSpec(name, function, reference, chosen, quantity != "moments")
    yield OpSpec(
        "moments_update",
        lambda gradients: _run_update(ops.moments_update, gradients),
        lambda gradients: _run_update(ops.moments_update_reference, gradients),
        tuple(_update_sample(shape) for shape in ((1,), (2, 3), (17, 33), (129,), (0, 4), ())),
    )
    yield from _codes_specs()


def _with_options(sample: Sample, **options: Any) -> Sample:
    def make(fill: Fill) -> Call:
        arguments, keywords = sample.make(fill)
        return arguments, {**keywords, **options}

    return Sample(sample.name, make, sample.scale)


SPECS: dict[str, OpSpec] = {spec.name: spec for spec in _specs()}
"""Every operator of pynas.ops that has a reference, by name."""
