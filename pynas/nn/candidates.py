"""Candidate operations of cell search spaces as plain PyTorch modules, and the loop over them.

Parameter names are those of the authors' code, so that published state dicts load: ``op.1.weight`` ... for
convolutions, ``conv_1``, ``conv_2``, ``bn`` of a factorised reduction in DARTS, ``convs.0``, ``convs.1``,
``bn`` in NAS-Bench-201, ``1`` for the batch norm that DARTS puts after a pool.

Sources: H. Liu, K. Simonyan, Y. Yang, "DARTS", ICLR 2019, arXiv:1806.09055; X. Dong, Y. Yang,
"NAS-Bench-201", ICLR 2020, arXiv:2001.00326; Y. Duan et al., "TransNAS-Bench-101", CVPR 2021,
arXiv:2105.11871.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pynas.ops.candidates import FAMILIES, resolve


@dataclass(frozen=True)
class NormOptions:
    """Options of a candidate's batch norms; the fields are those of ``nn.BatchNorm2d``."""

    affine: bool = False
    track_running_stats: bool = True
    eps: float = 1e-5
    momentum: float | None = 0.1

    def layer(self, channels: int, *, affine: bool | None = None) -> nn.BatchNorm2d:
        """A batch norm over ``channels``; ``affine`` overrides the option of that name."""
        return nn.BatchNorm2d(
            channels,
            eps=self.eps,
            momentum=self.momentum,
            affine=self.affine if affine is None else affine,
            track_running_stats=self.track_running_stats,
        )


class Zero(nn.Module):
    """``0 x`` at every ``stride``-th pixel; its input gets a gradient of zeros, not None."""

    def __init__(self, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Zeros of the output's shape."""
        return x.mul(0.0) if self.stride == 1 else x[:, :, :: self.stride, :: self.stride].mul(0.0)


class ReLUConvBN(nn.Module):
    """``BN(conv(relu(x)))``; the convolution has no bias and is padded to keep the size at stride 1."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int, norm: NormOptions
    ) -> None:
        super().__init__()
        self.op = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, bias=False),
            norm.layer(out_channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """``[N, out_channels, H', W']``."""
        return cast(Tensor, self.op(x))


def _separable(
    channels: int, kernel_size: int, stride: int, dilation: int, norm: NormOptions
) -> list[nn.Module]:
    """ReLU, depthwise convolution, pointwise convolution, batch norm."""
    padding = dilation * (kernel_size // 2)
    return [
        nn.ReLU(),
        nn.Conv2d(channels, channels, kernel_size, stride, padding, dilation, groups=channels, bias=False),
        nn.Conv2d(channels, channels, 1, bias=False),
        norm.layer(channels),
    ]


class SepConv(nn.Module):
    """Two depthwise separable convolutions, the first of which has the stride."""

    def __init__(self, channels: int, kernel_size: int, stride: int, norm: NormOptions) -> None:
        super().__init__()
        self.op = nn.Sequential(
            *_separable(channels, kernel_size, stride, 1, norm),
            *_separable(channels, kernel_size, 1, 1, norm),
        )

    def forward(self, x: Tensor) -> Tensor:
        """``[N, channels, H', W']``."""
        return cast(Tensor, self.op(x))


class DilConv(nn.Module):
    """A depthwise separable convolution with dilation 2."""

    def __init__(self, channels: int, kernel_size: int, stride: int, norm: NormOptions) -> None:
        super().__init__()
        self.op = nn.Sequential(*_separable(channels, kernel_size, stride, 2, norm))

    def forward(self, x: Tensor) -> Tensor:
        """``[N, channels, H', W']``."""
        return cast(Tensor, self.op(x))


def _halves(in_channels: int, out_channels: int) -> list[nn.Conv2d]:
    """Two 1x1 convolutions of stride 2, each for half of the outputs; the second has the odd one."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Initializing zero-element tensors")
        return [
            nn.Conv2d(in_channels, part, 1, stride=2, bias=False)
            for part in (out_channels // 2, out_channels - out_channels // 2)
        ]


def _reduce(x: Tensor, first: nn.Module, second: nn.Module, bn: nn.Module, channels: int) -> Tensor:
    shifted = second(F.pad(x, (0, 1, 0, 1))[:, :, 1:, 1:])
    return cast(Tensor, bn(shifted if channels == 1 else torch.cat([first(x), shifted], dim=1)))


class FactorizedReduce(nn.Module):
    """``BN(cat[conv_1(relu x), conv_2(relu x shifted by one pixel)])``; both are 1x1 with stride 2.

    Images of odd size are padded with zeros at the bottom and right: the output has ``ceil(H / 2)`` rows.
    """

    def __init__(self, in_channels: int, out_channels: int, norm: NormOptions) -> None:
        super().__init__()
        self.relu = nn.ReLU()
        self.conv_1, self.conv_2 = _halves(in_channels, out_channels)
        self.bn = norm.layer(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, out_channels, ceil(H / 2), ceil(W / 2)]``."""
        return _reduce(self.relu(x), self.conv_1, self.conv_2, self.bn, self.bn.num_features)


class FactorizedReduce201(nn.Module):
    """:class:`FactorizedReduce` under the parameter names of NAS-Bench-201 and TransNAS-Bench-101."""

    def __init__(self, in_channels: int, out_channels: int, norm: NormOptions) -> None:
        super().__init__()
        self.relu = nn.ReLU()
        self.convs = nn.ModuleList(_halves(in_channels, out_channels))
        self.bn = norm.layer(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, out_channels, ceil(H / 2), ceil(W / 2)]``."""
        return _reduce(self.relu(x), self.convs[0], self.convs[1], self.bn, self.bn.num_features)


class AvgPool(nn.Module):
    """3x3 average pooling over the pixels inside the image (``count_include_pad=False``)."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.op = nn.AvgPool2d(3, stride=stride, padding=1, count_include_pad=False)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, H', W']``."""
        return cast(Tensor, self.op(x))


def candidate(
    name: str,
    family: str,
    channels: int,
    stride: int = 1,
    affine: bool = False,
    track_running_stats: bool = True,
    *,
    eps: float = 1e-5,
    momentum: float = 0.1,
) -> nn.Module:
    """The plain PyTorch module of one candidate.

    It maps ``[N, channels, H, W]`` to ``[N, channels, ceil(H / stride), ceil(W / stride)]``.

    Args:
        name: A candidate of the family, such as ``sep_conv_3x3`` or ``nor_conv_1x1``.
        family: ``darts``, ``nasbench201`` or ``transnas``.
        channels: Channels of input and output.
        stride: 1 or 2.
        affine: Whether batch norms have a weight and a bias; those after a pool never do.
        track_running_stats: Whether batch norms keep running statistics.
        eps: Added to the variance in batch norms.
        momentum: Momentum of the running statistics.

    Raises:
        ValueError: There is no such family, or no such candidate in it.
    """
    if family not in FAMILIES:
        raise ValueError(f"family: expected one of {', '.join(FAMILIES)}, got {family!r}")
    if name not in FAMILIES[family]:
        raise ValueError(f"name: {family} has the candidates {', '.join(FAMILIES[family])}, got {name!r}")
    norm = NormOptions(affine, track_running_stats, eps, momentum)
    if name == "none":
        return Zero(stride)
    if name == "skip_connect":
        if stride == 1:
            return nn.Identity()
        reduction = FactorizedReduce if family == "darts" else FactorizedReduce201
        return reduction(channels, channels, norm)
    kernel_size = int(name[-1])
    if name.startswith("sep_conv"):
        return SepConv(channels, kernel_size, stride, norm)
    if name.startswith("dil_conv"):
        return DilConv(channels, kernel_size, stride, norm)
    if name.startswith("nor_conv"):
        return ReLUConvBN(channels, channels, kernel_size, stride, norm)
    if family != "darts":
        return AvgPool(stride)
    pool = (
        nn.MaxPool2d(3, stride=stride, padding=1)
        if name == "max_pool_3x3"
        else nn.AvgPool2d(3, stride=stride, padding=1, count_include_pad=False)
    )
    return nn.Sequential(pool, norm.layer(channels, affine=False))


def weighted_sum(candidates: Iterable[nn.Module], x: Tensor, weights: Sequence[Tensor] | Tensor) -> Tensor:
    """``sum_k weights[k] candidates[k](x)``, one candidate after the other: the definition of a mixture."""
    return cast(Tensor, sum(w * op(x) for w, op in zip(weights, candidates, strict=True)))


class LoopMixedOp(nn.Module):
    """The common form of a mixed operation: ``y = sum_k w_k op_k(x)`` in a Python loop.

    The baseline of :class:`pynas.nn.MixedOp`; the arguments are the same.
    """

    def __init__(
        self,
        channels: int,
        candidates: str | Sequence[str] = "darts",
        stride: int = 1,
        *,
        family: str | None = None,
        affine: bool = False,
        track_running_stats: bool = True,
    ) -> None:
        super().__init__()
        names, family = resolve(candidates, family, "LoopMixedOp")
        self._ops = nn.ModuleList(
            candidate(name, family, channels, stride, affine, track_running_stats) for name in names
        )

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """``[N, C, H', W']`` of ``x`` [N, C, H, W] and ``weights`` [K]."""
        return weighted_sum(self._ops, x, weights)
