"""Binary codes of activations, 64 units to a word, and how many units agree between samples."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pynas.ops._checks import alike, check_fit, check_tensors, detached
from pynas.ops._fakes import register_fake

WORD = 64


def activation_codes(x: Tensor) -> Tensor:
    """Bits (x > 0) of each sample, packed.

    Bit k of word w of row b is (x_bf > 0) of unit f = 64 w + k; bits beyond the last unit are 0.

    Units count in memory order where samples lie densely one behind the other (contiguous or channels_last,
    say), so that nothing is copied, and in the order of indices elsewhere; nothing that compares samples
    depends on it. NaN is not above zero. Not differentiable.

    Args:
        x: Activations [B, ...] or what goes into a ReLU, which has the same bits; float32, float64, bfloat16
            or float16.

    Returns:
        int64 [B, ceil(F / 64)], F the number of units of a sample.

    Raises:
        TypeError: wrong dtype.
        ValueError: a scalar.
    """
    (x,) = detached("activation_codes", x=x)
    codes: Tensor = torch.ops.pynas.activation_codes.default(x)
    return codes


def activation_codes_reference(x: Tensor) -> Tensor:
    """The same in tensor expressions."""
    _check("activation_codes", x)
    positive = _rows(x.detach()) > 0
    missing = -positive.shape[1] % WORD
    bits = torch.nn.functional.pad(positive, (0, missing)).long()
    return (bits.view(len(bits), bits.shape[1] // WORD, WORD) << torch.arange(WORD, device=x.device)).sum(2)


def code_agreement(codes: Tensor, features: int) -> Tensor:
    """How many units have the same bit, for each pair of samples.

    K_ij = F - popcount(c_i xor c_j)

    Args:
        codes: int64 [B, ceil(F / 64)] of :func:`activation_codes`.
        features: F.

    Returns:
        int64 [B, B], symmetric, F on its diagonal.

    Raises:
        TypeError: wrong dtype.
        ValueError: `codes` has another number of words than F units pack into.
    """
    check_tensors("code_agreement", codes=codes)
    batch = codes.shape[0] if codes.dim() else 0
    agreement = torch.zeros(batch, batch, dtype=torch.int64, device=codes.device)
    torch.ops.pynas.code_agreement.default(codes, features, agreement)
    return agreement


def code_agreement_reference(codes: Tensor, features: int) -> Tensor:
    """The same as two products of 0/1 matrices; exact up to 2^53 units."""
    _check_codes(codes, features)
    bits = (codes[:, :, None] >> torch.arange(WORD, device=codes.device)) & 1
    on = bits.flatten(1).double()
    return (features - on @ (1 - on).T - (1 - on) @ on.T).long()


def code_agreement_update(x: Tensor, agreement: Tensor, times: int = 1) -> None:
    """Adds the agreement of one layer's codes to a running sum over layers, in place.

    K_ij += times * #{f : (x_if > 0) = (x_jf > 0)}, which is X X^T + (1 - X)(1 - X)^T for X = (x > 0)

    Summed over the ReLU layers of a network it is the kernel of Mellor, Turner, Storkey, Crowley: Neural
    Architecture Search without Training, ICML 2021. Codes are packed on the way and not kept. Not
    differentiable.

    Args:
        x: Activations [B, ...] as in :func:`activation_codes`.
        agreement: Contiguous int64 [B, B]; zeros at first.
        times: Number of layers with these activations.

    Raises:
        TypeError: wrong dtypes.
        ValueError: shapes, devices or layouts differ.
    """
    check_tensors("code_agreement_update", x=x, agreement=agreement)
    torch.ops.pynas.code_agreement_update.default(x.detach(), agreement, times)
    return


def code_agreement_update_reference(x: Tensor, agreement: Tensor, times: int = 1) -> None:
    """The same as two products of 0/1 matrices; exact up to 2^53 units."""
    _check_update(x, agreement)
    on = _rows(x.detach()).gt(0).double()
    agreement += times * (on @ on.T + (1 - on) @ (1 - on).T).long()


def _rows(x: Tensor) -> Tensor:
    """[B, F], units in the order that :func:`activation_codes` promises."""
    if x.dim() < 2:
        return x.unsqueeze(1)
    inner = sorted(range(1, x.dim()), key=x.stride().__getitem__, reverse=True)
    dense = x.permute(0, *inner)
    return (dense if dense.is_contiguous() else x).flatten(1)


def _check(op: str, x: Tensor) -> None:
    check_fit(op, alike(x) and x.dim() > 0, "activations [B, ...]", x=x)


def _check_codes(codes: Tensor, features: int) -> None:
    words = (features + WORD - 1) // WORD
    fits = codes.dtype == torch.int64 and codes.dim() == 2 and features >= 0 and codes.shape[1] == words
    check_fit(
        "code_agreement", fits, f"int64 codes [B, {words}] of {features} units, {WORD} a word", codes=codes
    )


def _check_agreement(op: str, agreement: Tensor, batch: int) -> None:
    fits = agreement.dtype == torch.int64 and agreement.shape == (batch, batch)
    check_fit(op, fits, f"an int64 agreement [{batch}, {batch}] of pairs of samples", agreement=agreement)


def _check_update(x: Tensor, agreement: Tensor) -> None:
    _check("code_agreement_update", x)
    _check_agreement("code_agreement_update", agreement, x.shape[0])


def _fake_codes(x: Tensor) -> Tensor:
    _check("activation_codes", x)
    features = math.prod(x.shape[1:])
    return x.new_empty((x.shape[0], (features + WORD - 1) // WORD), dtype=torch.int64)


def _fake_agreement(codes: Tensor, features: int, agreement: Tensor) -> None:
    _check_codes(codes, features)
    _check_agreement("code_agreement", agreement, codes.shape[0])


def _fake_update(x: Tensor, agreement: Tensor, times: int = 1) -> None:
    _check_update(x, agreement)


register_fake("activation_codes", _fake_codes)
register_fake("code_agreement", _fake_agreement)
register_fake("code_agreement_update", _fake_update)
