"""Cases for the memory-bound operators: norm layers, embeddings and running moments."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pynas import ops
from pynas.bench._harness import Problem
from pynas.bench.operators import add, close

NORMS: dict[str, tuple[tuple[int, int, int], bool, bool]] = {
    # ((B, C, T), channels_last, layer norm: statistics per position instead of per channel)
    "batch_norm_64x16x32x32_nchw": ((64, 16, 1024), False, False),
    "batch_norm_64x16x32x32_channels_last": ((64, 16, 1024), True, False),
    "batch_norm_64x128x16x16_nchw": ((64, 128, 256), False, False),
    "batch_norm_64x128x16x16_channels_last": ((64, 128, 256), True, False),
    "batch_norm_128x512x4x4_nchw": ((128, 512, 16), False, False),
    "batch_norm_128x512x4x4_channels_last": ((128, 512, 16), True, False),
    "batch_norm_128x64x32x32_nchw": ((128, 64, 1024), False, False),
    "batch_norm_128x64x32x32_channels_last": ((128, 64, 1024), True, False),
    "batch_norm_512x1024": ((512, 1024, 1), False, False),
    "layer_norm_64x128x768": ((64, 768, 128), True, True),
}
EMBEDDINGS = {  # B, T, rows, features
    "64x128_of_1000x256": (64, 128, 1000, 256),
    "64x128_of_30000x512": (64, 128, 30000, 512),
}


def four_sums(g: Tensor) -> Tensor:
    """The four sums as a user writes them, given the per-sample gradients [B, ...]."""
    return torch.stack([g.sum(0), g.abs().sum(0), g.square().sum(0), g.sign().sum(0)])


def affine_case(shape: tuple[int, int, int], channels_last: bool, layer_norm: bool) -> Problem:
    """Four moments of a normalisation layer's scale and shift against their plain PyTorch form."""
    batch, channels, positions = shape
    generator = torch.Generator().manual_seed(0)
    stored = (batch, positions, channels) if channels_last else shape
    delta, x = (torch.randn(stored, generator=generator) for _ in range(2))
    if channels_last:
        delta, x = delta.transpose(1, 2), x.transpose(1, 2)
    axes = (1,) if layer_norm else (0, 2)
    mean, rstd = x.mean(axes, keepdim=True), x.var(axes, correction=0, keepdim=True).rsqrt()

    def moments() -> ops.MomentSums:
        return ops.affine_grad_moments(delta, x, mean, rstd)

    def plain() -> tuple[Tensor, Tensor]:
        return four_sums((delta * ((x - mean) * rstd)).sum(2)), four_sums(delta.sum(2))

    def check() -> None:
        found, expected = moments(), plain()
        assert found.bias is not None
        for part, sums in zip((found.weight, found.bias), expected, strict=True):
            for k, values in enumerate((part.sum, part.abs, part.square)):
                close(values, sums[k], 1e-4, ("sum", "abs", "square")[k])

    return Problem({"pynas": moments, "eager": plain}, check, bytes=8.0 * x.numel())


def embedding_case(batch: int, positions: int, rows: int, features: int) -> Problem:
    """Four moments against just the ordinary gradient: in plain PyTorch they would need [B, V, D]."""
    generator = torch.Generator().manual_seed(0)
    delta = torch.randn(batch, positions, features, generator=generator)
    indices = torch.randint(rows, (batch, positions), generator=generator)
    touched = len(set(indices.flatten().tolist()))

    def ordinary() -> Tensor:
        result: Tensor = torch.ops.aten.embedding_dense_backward(delta, indices, rows, -1, False)
        return result

    def check() -> None:
        found_rows, found = ops.embedding_grad_moments(delta, indices, rows)
        close(found.weight.sum, ordinary()[found_rows], 1e-4, "sum")

    implementations: dict[str, Callable[[], object]] = {
        "pynas": lambda: ops.embedding_grad_moments(delta, indices, rows),
        "ordinary gradient": ordinary,
    }
    return Problem(implementations, check, bytes=4.0 * delta.numel() + 16.0 * touched * features)


def moments_update_case(n: int) -> Problem:
    """The fused running moments against the same in plain PyTorch."""
    grad = torch.randn(n, generator=torch.Generator().manual_seed(0))
    ours, plain = (tuple(torch.zeros(n) for _ in range(3)) for _ in range(2))

    def fused() -> None:
        ops.moments_update(grad, ours[0], ours[1], ours[2], 2)

    def eager() -> None:
        ops.moments_update_reference(grad, plain[0], plain[1], plain[2], 2)

    def check() -> None:
        fused()
        eager()
        for got, expected in zip(ours, plain, strict=True):
            close(got, expected, 1e-5, "state")

    return Problem({"pynas": fused, "eager": eager}, check, bytes=28.0 * n)


for _name, _arguments in NORMS.items():
    add(f"affine_grad_moments/{_name}", lambda a=_arguments: affine_case(*a))  # type: ignore[misc]
for _name, _sizes in EMBEDDINGS.items():
    add(f"embedding_grad_moments/{_name}", lambda s=_sizes: embedding_case(*s))  # type: ignore[misc]
add("moments_update/100k", lambda: moments_update_case(100_000))
add("moments_update/4M", lambda: moments_update_case(4_000_000))
