"""Cases for activation codes and their agreement: packed bits against products of 0/1 matrices."""

from __future__ import annotations

import torch
from torch import Tensor

from pynas import ops
from pynas.bench._harness import Problem
from pynas.bench.operators import add

SHAPES = {
    "64x16x32x32": (64, 16, 32, 32),
    "64x32x16x16": (64, 32, 16, 16),
    "64x64x8x8": (64, 64, 8, 8),
    "128x16x32x32": (128, 16, 32, 32),
    "128x64x56x56": (128, 64, 56, 56),
}


def published_form(x: Tensor, agreement: Tensor) -> None:
    """One layer as in the published code: X X^T + (1 - X)(1 - X)^T."""
    on = x.flatten(1).gt(0).float()
    off = 1 - on
    agreement += on @ on.T + off @ off.T


def one_product(x: Tensor, agreement: Tensor) -> None:
    """The same with signs and one product, (F + S S^T) / 2, as a careful user writes it."""
    signs = torch.where(x.flatten(1) > 0, 1.0, -1.0)
    agreement += (signs.shape[1] + signs @ signs.T) / 2


def agreement_case(shape: tuple[int, ...]) -> Problem:
    """The agreement of one layer, channels_last, added to a running sum."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    x = x.contiguous(memory_format=torch.channels_last)
    batch = shape[0]
    ours = torch.zeros(batch, batch, dtype=torch.int64)
    sums = [torch.zeros(batch, batch) for _ in range(2)]

    def check() -> None:
        found = torch.zeros_like(ours)
        ops.code_agreement_update(x, found)
        for form in (published_form, one_product):
            expected = torch.zeros(batch, batch)
            form(x, expected)
            assert torch.equal(found, expected.long()), f"{form.__name__}: another agreement"

    return Problem(
        {
            "pynas": lambda: ops.code_agreement_update(x, ours),
            "two products": lambda: published_form(x, sums[0]),
            "one product": lambda: one_product(x, sums[1]),
        },
        check,
        bytes=4.0 * x.numel(),
    )


def packing_case(shape: tuple[int, ...]) -> Problem:
    """Packing only; the baseline just compares and writes bytes."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))

    def check() -> None:
        assert torch.equal(ops.activation_codes(x), ops.activation_codes_reference(x))

    return Problem(
        {"pynas": lambda: ops.activation_codes(x), "gt": lambda: x > 0}, check, bytes=(4 + 1 / 8) * x.numel()
    )


for _name, _shape in SHAPES.items():
    add(f"code_agreement_update/{_name}", lambda s=_shape: agreement_case(s))  # type: ignore[misc]
for _name in ("64x16x32x32", "128x64x56x56"):
    add(f"activation_codes/{_name}", lambda s=SHAPES[_name]: packing_case(s))  # type: ignore[misc]
