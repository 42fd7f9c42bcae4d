"""Recognises which candidate a module is: by its layers or, where it has none, by what it computes.

Names of classes and attributes do not count: a separable convolution is two times ReLU, depthwise
convolution, pointwise convolution and batch norm, however these are nested. Layers do not prove what
``forward`` does with them, so :mod:`pynas.nn.replace` also compares values.
"""

from __future__ import annotations

import copy
import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from pynas._plural import counted
from pynas.nn.candidates import NormOptions

DARTS_ONLY = frozenset({"darts"})
OTHERS = frozenset({"nasbench201", "transnas"})
ANY = DARTS_ONLY | OTHERS


class UnknownCandidateError(Exception):
    """The module is no candidate that the operator knows; the message completes "candidate 3: ..."."""


@dataclass(frozen=True)
class Recognised:
    """A candidate and the layers that hold its parameters, in the order of its state dict.

    Attributes:
        name: Name of the candidate.
        families: Families in which the operator computes this candidate as the module does.
        stride: 1 or 2; for ``none``, 1 if it keeps the size.
        channels: Number of channels; None if it has no parameters.
        norm: Options of its batch norms; None if it has none that could be affine.
        layers: Its convolutions and batch norms.
    """

    name: str
    families: frozenset[str]
    stride: int
    channels: int | None = None
    norm: NormOptions | None = None
    pool_norm: NormOptions | None = None
    layers: tuple[nn.Conv2d | nn.BatchNorm2d, ...] = ()


def recognise(module: nn.Module) -> Recognised:
    """The candidate that ``module`` looks like.

    Raises:
        UnknownCandidateError: It looks like none.
    """
    leaves = [part for part in module.modules() if not any(True for _ in part.children())]
    layers = [leaf for leaf in leaves if type(leaf) not in (nn.ConstantPad2d, nn.ZeroPad2d, nn.Identity)]
    normalises = any(isinstance(layer, nn.BatchNorm2d) for layer in layers)  # may hold no tensor at all
    if not normalises and next(module.parameters(), None) is None and next(module.buffers(), None) is None:
        return _without_state(module, layers)
    owners = [part for part in module.modules() if part._parameters or part._buffers]
    if any(type(owner) not in (nn.Conv2d, nn.BatchNorm2d) for owner in owners):
        names = sorted({type(o).__name__ for o in owners if type(o) not in (nn.Conv2d, nn.BatchNorm2d)})
        raise UnknownCandidateError(f"holds parameters of other layers: {', '.join(names)}")
    kinds = "".join(_kind(layer) for layer in layers)
    stateful = tuple(layer for layer in layers if isinstance(layer, (nn.Conv2d, nn.BatchNorm2d)))
    if kinds in ("mb", "ab"):
        return _normalised_pool(layers)
    if kinds == "rccb":
        second = layers[2]
        assert isinstance(second, nn.Conv2d)
        return _reduce(stateful, second) if second.stride == (2, 2) else _separable(stateful)
    if kinds == "rccbrccb":
        return _separable(stateful)
    if kinds == "rcb":
        return _conv(stateful)
    raise UnknownCandidateError(
        "its layers are " + (", ".join(type(leaf).__name__ for leaf in layers) or "none")
    )


def call_alone(module: nn.Module, x: Tensor) -> Any:
    """``module(x)``, with None for whatever else its forward insists on."""
    parameters = inspect.signature(module.forward).parameters.values()
    required = [p for p in parameters if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
    return module(x, *[None] * (len(required) - 1))


def refuse_hooks(module: nn.Module) -> None:
    """Raise UnknownCandidateError if ``module`` has hooks: a fused operator would not run them."""
    for name in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"):
        if getattr(module, name):
            raise UnknownCandidateError(f"has hooks ({type(module).__name__}{name})")
    if "parametrizations" in module._modules:
        raise UnknownCandidateError(f"has parametrised weights ({type(module).__name__})")


def _kind(layer: nn.Module) -> str:
    kinds = {nn.ReLU: "r", nn.Conv2d: "c", nn.BatchNorm2d: "b", nn.MaxPool2d: "m", nn.AvgPool2d: "a"}
    return kinds.get(type(layer), "?")


def _without_state(module: nn.Module, layers: list[nn.Module]) -> Recognised:
    if any(
        isinstance(part, _DropoutNd) for part in module.modules()
    ):  # with p = 0 too: p may be raised later
        raise UnknownCandidateError("has dropout, which stays outside of the kernel")
    if len(layers) == 1 and isinstance(layers[0], (nn.MaxPool2d, nn.AvgPool2d)):
        stride = _pool_stride(layers[0])
        if isinstance(layers[0], nn.MaxPool2d):
            raise UnknownCandidateError("is a max pool without batch norm")
        return Recognised("avg_pool_3x3", frozenset({"nasbench201"}), stride)
    # Only running the module tells the identity from zeros. In training mode, so that dropout shows.
    x = torch.linspace(-1.5, 2.0, 8 * 3 * 4 * 4).reshape(8, 3, 4, 4)
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            y = call_alone(copy.deepcopy(module).train(), x.clone())
    except Exception as error:
        raise UnknownCandidateError(f"cannot be tried on an image: {error}") from error
    if isinstance(y, Tensor) and y.shape == x.shape and torch.equal(y, x):
        return Recognised("skip_connect", ANY, 1)
    for stride in (1, 2):
        if isinstance(y, Tensor) and y.shape == x[:, :, ::stride, ::stride].shape and not y.any():
            return Recognised("none", ANY, stride)
    raise UnknownCandidateError("has no parameters and is neither the identity nor zero")


def _pair(value: int | tuple[int, ...] | str) -> tuple[int, ...]:
    return (value, value) if isinstance(value, int) else tuple(int(v) for v in value)


def _pool_stride(pool: nn.MaxPool2d | nn.AvgPool2d) -> int:
    stride = _pair(pool.stride if pool.stride is not None else pool.kernel_size)
    if _pair(pool.kernel_size) != (3, 3) or _pair(pool.padding) != (1, 1) or stride not in ((1, 1), (2, 2)):
        raise UnknownCandidateError(
            f"is a pool of {_pair(pool.kernel_size)} with padding {_pair(pool.padding)} and stride {stride}, "
            "not 3x3 with padding 1 and stride 1 or 2"
        )
    if pool.ceil_mode:
        raise UnknownCandidateError("is a pool with ceil_mode")
    if isinstance(pool, nn.MaxPool2d) and (_pair(pool.dilation) != (1, 1) or pool.return_indices):
        raise UnknownCandidateError("is a max pool with dilation or indices")
    if isinstance(pool, nn.AvgPool2d) and (pool.count_include_pad or pool.divisor_override):
        raise UnknownCandidateError("is a mean that counts padding (count_include_pad=True)")
    return stride[0]


def _normalised_pool(layers: list[nn.Module]) -> Recognised:
    pool, bn = layers
    assert isinstance(pool, (nn.MaxPool2d, nn.AvgPool2d))
    assert isinstance(bn, nn.BatchNorm2d)
    if bn.affine:
        raise UnknownCandidateError("is a pool with an affine batch norm")
    name = "max_pool_3x3" if isinstance(pool, nn.MaxPool2d) else "avg_pool_3x3"
    return Recognised(
        name, DARTS_ONLY, _pool_stride(pool), bn.num_features, pool_norm=_norm((bn,)), layers=(bn,)
    )


Stateful = tuple[nn.Conv2d | nn.BatchNorm2d, ...]


def _convolutions(layers: Stateful) -> list[nn.Conv2d]:
    return [layer for layer in layers if isinstance(layer, nn.Conv2d)]


def _plain(conv: nn.Conv2d, *, kernel: int, dilation: int, stride: int, groups: int) -> None:
    """Raise UnknownCandidateError unless ``conv`` is exactly that, padded to keep the size; biases may be."""
    padding = dilation * (kernel // 2)
    wanted = ((kernel, kernel), (dilation, dilation), (stride, stride), (padding, padding), groups, "zeros")
    got = (
        conv.kernel_size,
        conv.dilation if kernel > 1 else (dilation, dilation),
        conv.stride,
        conv.padding if isinstance(conv.padding, str) else _pair(conv.padding),
        conv.groups,
        conv.padding_mode,
    )
    if got != wanted:
        raise UnknownCandidateError(
            "has a convolution of another form (kernel, dilation, stride, padding, groups, mode): "
            f"{got}, where {wanted} is known"
        )


def _channels(layers: Stateful) -> int:
    counts = {
        count
        for layer in layers
        for count in (
            (layer.in_channels, layer.out_channels) if isinstance(layer, nn.Conv2d) else (layer.num_features,)
        )
    }
    if len(counts) != 1:
        raise UnknownCandidateError(f"changes the number of channels ({sorted(counts)})")
    return counts.pop()


def _norm(layers: Stateful) -> NormOptions:
    options = set()
    for bn in layers:
        if isinstance(bn, nn.BatchNorm2d):
            options.add(NormOptions(bn.affine, bn.running_mean is not None, bn.eps, bn.momentum))
    if len(options) != 1:
        raise UnknownCandidateError(f"has batch norms that differ: {sorted(map(str, options))}")
    return options.pop()


def _conv(layers: Stateful) -> Recognised:
    (conv,) = _convolutions(layers)
    channels = _channels(layers)
    kernel, stride = conv.kernel_size[0], conv.stride[0]
    if kernel not in (1, 3) or stride not in (1, 2):
        raise UnknownCandidateError(f"is a convolution of kernel {conv.kernel_size} and stride {conv.stride}")
    _plain(conv, kernel=kernel, dilation=1, stride=stride, groups=1)
    return Recognised(f"nor_conv_{kernel}x{kernel}", OTHERS, stride, channels, _norm(layers), layers=layers)


def _reduce(layers: Stateful, second: nn.Conv2d) -> Recognised:
    first = _convolutions(layers)[0]
    channels = first.in_channels
    halves = (first.out_channels, second.out_channels)
    if second.in_channels != channels or halves != (channels // 2, channels - channels // 2):
        wide = counted(channels, "channel")
        raise UnknownCandidateError(f"is a reduction of {wide} to {halves[0]} + {halves[1]}")
    for conv in (first, second):
        _plain(conv, kernel=1, dilation=1, stride=2, groups=1)
    return Recognised("skip_connect", ANY, 2, channels, _norm(layers), layers=layers)


def _separable(layers: Stateful) -> Recognised:
    convolutions = _convolutions(layers)
    channels = _channels(layers)
    kernel, stride = convolutions[0].kernel_size[0], convolutions[0].stride[0]
    separable = len(convolutions) == 4
    if kernel not in (3, 5) or stride not in (1, 2):
        raise UnknownCandidateError(
            f"is a separable convolution of kernel {convolutions[0].kernel_size} and stride "
            f"{convolutions[0].stride}, where 3x3 and 5x5 of stride 1 and 2 are known"
        )
    dilation = 1 if separable else 2
    for i, conv in enumerate(convolutions):
        if i % 2:
            _plain(conv, kernel=1, dilation=1, stride=1, groups=1)
        else:
            _plain(conv, kernel=kernel, dilation=dilation, stride=1 if i else stride, groups=channels)
    name = f"{'sep' if separable else 'dil'}_conv_{kernel}x{kernel}"
    return Recognised(name, DARTS_ONLY, stride, channels, _norm(layers), layers=layers)
