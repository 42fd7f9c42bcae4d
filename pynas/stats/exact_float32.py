"""float32 that is float32 on a GPU too, and the same bits when it is computed again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


@contextmanager
def exact_float32(model: nn.Module) -> Iterator[None]:
    """Convolutions of a model on CUDA as exact as its matrix products, by deterministic kernels, meanwhile.

    cuDNN's convolutions and recurrent layers round float32 to TF32's 10 bits by default, matrix products do
    not. Statistics that subtract nearly equal numbers (the differences of ``zen``, the standard deviations of
    ``zico``) lose their digits to that. Here PyTorch's setting for matrix products decides for both:
    ``torch.backends.cuda.matmul.fp32_precision = "tf32"`` asks for TF32 everywhere, as it does in pynas' own
    kernels. On a CPU nothing changes.
    """
    cuda: Any = torch.cuda
    if not cuda.is_initialized() or not any(p.is_cuda for p in model.parameters()):
        yield
        return
    with _deterministic(), _float32_convolutions():
        yield


@contextmanager
def _deterministic() -> Iterator[None]:
    """Weight gradients of cuDNN differ from call to call by the order of atomic sums, unless told not to."""
    cudnn: Any = torch.backends.cudnn
    before = cudnn.deterministic
    cudnn.deterministic = True
    try:
        yield
    finally:
        cudnn.deterministic = before


@contextmanager
def _float32_convolutions() -> Iterator[None]:
    if torch.backends.cuda.matmul.fp32_precision == "tf32":
        yield
        return
    cudnn: Any = torch.backends.cudnn
    try:
        allowed = cudnn.allow_tf32
    except RuntimeError:  # somebody set it by fp32_precision: the older flag can be neither read nor written
        before = cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision
        cudnn.conv.fp32_precision = cudnn.rnn.fp32_precision = "ieee"
        try:
            yield
        finally:
            cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision = before
        return
    cudnn.allow_tf32 = False
    try:
        yield
    finally:
        cudnn.allow_tf32 = allowed
