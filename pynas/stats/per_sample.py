"""Statistics of gradients that are held explicitly, a chunk of rows [g, *shape] at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from pynas.ops import Moments


def wide(dtype: torch.dtype) -> torch.dtype:
    """The dtype to accumulate in: float32 for half precisions, the dtype itself otherwise."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def widen(x: Tensor) -> Tensor:
    """``x`` in the dtype that sums of it are taken in."""
    return x.to(wide(x.dtype))


def map_moments(moments: Moments, change: Callable[[Tensor], Tensor]) -> Moments:
    """Apply ``change`` to each sum that is present."""
    tensors = {f.name: getattr(moments, f.name) for f in fields(moments) if f.name != "count"}
    changed: dict[str, Any] = {name: change(t) for name, t in tensors.items() if t is not None}
    return replace(moments, **changed)


def reshape(moments: Moments, shape: torch.Size) -> Moments:
    """The same sums in another shape."""
    return map_moments(moments, lambda t: t.reshape(shape))


def stack(parts: Sequence[Moments], dim: int) -> Moments:
    """Sums of several tensors as those of one, stacked along ``dim``."""
    names = [f.name for f in fields(Moments) if f.name != "count"]
    stacked: dict[str, Any] = {
        name: torch.stack([getattr(part, name) for part in parts], dim)
        for name in names
        if getattr(parts[0], name) is not None
    }
    return replace(parts[0], **stacked)


def _squared(g: Tensor) -> Tensor:
    return g.abs().square() if g.is_complex() else g.square()


def as_real(x: Tensor) -> Tensor:
    """``x``, of complex numbers their real and imaginary parts in a last dimension."""
    return torch.view_as_real(x.resolve_conj()) if x.is_complex() else x


def _real(rows: Tensor) -> Tensor:
    """Rows as vectors; real and imaginary parts of complex ones side by side."""
    return as_real(rows).reshape(rows.shape[0], -1)


_TERMS: dict[str, Callable[[Tensor], Tensor]] = {
    "sum": lambda g: g,
    "abs": torch.abs,
    "square": _squared,
    "sign": torch.sgn,
}


def moments(chunks: Iterable[Tensor], names: Sequence[str]) -> Moments:
    """Sums over all rows of g, |g|, g^2, sign(g) and (g - mean g)^2; chunks merge by Chan's formula.

    Two parts of sizes a, b with means m_a, m_b have the centred sum S_a + S_b + (m_b - m_a)^2 * a b / (a +
    b).
    """
    count = 0
    sums: dict[str, Tensor] = {}
    mean = centered = None
    for chunk in chunks:
        g = widen(chunk)
        rows = g.shape[0]
        for name in names:
            if name != "centered":
                part = _TERMS[name](g).sum(0)
                sums[name] = sums[name] + part if count else part
        if "centered" in names:
            chunk_mean = g.mean(0)
            spread = _squared(g - chunk_mean).sum(0)
            if mean is None or centered is None:
                mean, centered = chunk_mean, spread
            else:
                delta = chunk_mean - mean
                centered = centered + spread + _squared(delta) * (count * rows / (count + rows))
                mean = mean + delta * (rows / (count + rows))
        count += rows
    if centered is not None:
        sums["centered"] = centered
    return Moments(count=count, **{n: sums.get(n) for n in ("sum", "abs", "square", "sign", "centered")})


def norms(rows: Tensor) -> Tensor:
    """Squared norm of each row, [g]."""
    return _real(widen(rows)).square().sum(1)


def gram(rows: Callable[[], Iterator[Tensor]]) -> Tensor:
    """All inner products of rows that come a chunk at a time: a row of blocks per pass over them."""
    blocks: list[Tensor] = []
    for left in rows():
        a = _real(widen(left))
        blocks.append(torch.cat([a @ _real(widen(right)).T for right in rows()], 1))
    return torch.cat(blocks)
