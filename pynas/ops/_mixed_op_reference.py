"""The mixed operation by its definition, layer by layer in plain PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from pynas.ops.candidates import Conv, Layer, Norm, Pool, Reduce, Relu, layers, norms, resolve
from pynas.ops.strided_conv1x1 import subsampling_conv2d


def mixed_op_reference(
    x: Tensor,
    weights: Tensor,
    parameters: Sequence[Tensor] = (),
    *,
    candidates: str | Sequence[str] = "darts",
    family: str | None = None,
    stride: int = 1,
    running: Sequence[Tensor] | None = None,
    num_batches_tracked: Sequence[Tensor] | None = None,
    training: bool = True,
    momentum: float | None = 0.1,
    eps: float = 1e-5,
    affine: bool = False,
    save: str = "products",
    extra: Sequence[Callable[[Tensor], Tensor]] = (),
) -> Tensor:
    """The sum over k of w_k op_k(x), candidate after candidate; arguments as :func:`pynas.ops.mixed_op`."""
    names, family = resolve(candidates, family)
    tensors, buffers = iter(parameters), iter(running or ())
    counts = iter(num_batches_tracked or ())
    y = x.new_zeros(x.shape[0], x.shape[1], *((size + stride - 1) // stride for size in x.shape[2:]))
    factors: list[Tensor] = list(weights.to(x.dtype).unbind())
    values: list[float] = weights.detach().tolist()
    for name, factor, value in zip(names, factors, values, strict=False):
        chain = layers(name, family, stride)
        own = [next(tensors) for _ in range(_parameter_count(chain or (), affine))]
        mine = [
            (next(buffers, None), next(buffers, None), next(counts, None))
            for _ in norms(name, family, stride)
        ]
        if chain is not None and value != 0:
            z = _run(chain, x, iter(own), iter(mine), training, momentum, eps, affine)
            y = y + factor * z
    for function, factor, value in zip(extra, factors[len(names) :], values[len(names) :], strict=True):
        if value != 0:
            y = y + factor * function(x)
    # An all-zero mixture is zero and so are its gradients: it still hangs on its inputs.
    return y + 0 * sum((t.sum() for t in (x[:0], weights[:0], *(p[:0] for p in parameters))), y[:0].sum())


def _parameter_count(chain: Sequence[Layer], affine: bool) -> int:
    count = 0
    for layer in chain:
        if isinstance(layer, Conv):
            count += 1
        elif isinstance(layer, Reduce) or (isinstance(layer, Norm) and affine and not layer.plain):
            count += 2
    return count


Buffers = tuple[Tensor | None, Tensor | None, Tensor | None]


def _run(
    chain: Sequence[Layer],
    x: Tensor,
    parameters: Iterator[Tensor],
    buffers: Iterator[Buffers],
    training: bool,
    momentum: float | None,
    eps: float,
    affine: bool,
) -> Tensor:
    for layer in chain:
        match layer:
            case Relu():
                x = F.relu(x)
            case Conv():
                groups = x.shape[1] if layer.depthwise else 1
                weight = next(parameters).to(x.dtype)
                x = subsampling_conv2d(x, weight, None, layer.stride, layer.padding, layer.dilation, groups)
            case Reduce():
                moved = F.pad(x, (0, 1, 0, 1))[:, :, 1:, 1:]
                halves = [(image, next(parameters).to(x.dtype)) for image in (x, moved)]
                x = torch.cat([subsampling_conv2d(image, w, None, 2) for image, w in halves if len(w) > 0], 1)
            case Pool(kind="max"):
                x = F.max_pool2d(x, 3, layer.stride, 1)
            case Pool():
                x = F.avg_pool2d(x, 3, layer.stride, 1, count_include_pad=False)
            case Norm():
                gamma, beta = None, None
                if affine and not layer.plain:
                    gamma, beta = next(parameters), next(parameters)
                x = _normalise(x, gamma, beta, next(buffers), training, momentum, eps)
    return x


def _normalise(
    x: Tensor,
    gamma: Tensor | None,
    beta: Tensor | None,
    buffers: Buffers,
    training: bool,
    momentum: float | None,
    eps: float,
) -> Tensor:
    mean, var, count = buffers
    if training and count is not None:
        count.add_(1)
    if momentum is None:
        momentum = 1.0 / float(count) if count is not None else 0.0
    return F.batch_norm(x, mean, var, gamma, beta, training or mean is None, momentum, eps)
