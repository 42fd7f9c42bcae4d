"""Calls of every CUDA kernel at sizes that networks have, with what each has to compute and to move."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.grad import conv2d_weight

from pynas import ops

MOMENTS = ("sum", "abs", "square", "sign")
COPIES = 192 << 20  # bytes of inputs in turn: more than the 60 MB of an L2 cache
DTYPES = (torch.bfloat16, torch.float32)
Call = Callable[..., Any]


@dataclass(frozen=True)
class KernelCase:
    """One call of an operator.

    Attributes:
        name: Operator, dtype and size.
        inputs: Makes the arguments anew, on the device.
        run: The operator on them.
        baseline: What PyTorch does on the same arguments, where it has something comparable.
        dtype: Of the inputs; the operations are counted at its rate.
        operations: Floating-point operations that it needs.
        bytes_moved: Bytes that it needs to read and write, each tensor once.
        check: Largest relative error of a small call against float64, where :func:`smoke` has no such call.
    """

    name: str
    inputs: Callable[[], tuple[Any, ...]]
    run: Call
    dtype: torch.dtype
    bytes_moved: float
    operations: float = 0.0
    baseline: Call | None = None
    check: Callable[[], float] | None = None

    def calls(self, call: Call) -> list[Callable[[], object]]:
        """``call`` on inputs that together exceed the L2 cache, eight at most."""
        first = self.inputs()
        size = sum(t.nbytes for t in torch.utils._pytree.tree_leaves(first) if isinstance(t, Tensor))
        more = [self.inputs() for _ in range(min(8, COPIES // max(size, 1)))]
        return [partial(call, *arguments) for arguments in (first, *more)]


def images(*shape: int, dtype: torch.dtype, device: str, channels_last: bool = True) -> Tensor:
    """Random values, [batch, channels, height, width]."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return torch.randn(shape, device=device).to(dtype).contiguous(memory_format=layout)


@dataclass(frozen=True)
class Conv:
    """A convolution of [batch, channels, side, side] with as many outputs as inputs and a square kernel."""

    batch: int
    channels: int
    side: int
    dtype: torch.dtype
    kernel: int = 3
    groups: int = 1
    channels_last: bool = True

    def __str__(self) -> str:
        grouped = f", {self.groups} groups" if self.groups > 1 else ""
        layout = "" if self.channels_last else ", NCHW"
        size = f"{self.batch}x{self.channels}x{self.side}x{self.side}"
        return f"{short(self.dtype)} {size}, {self.kernel}x{self.kernel}{grouped}{layout}"

    def tensors(self, device: str, batch: int | None = None) -> tuple[Tensor, Tensor]:
        """Gradient of the output, and input."""
        shape = (batch or self.batch, self.channels, self.side, self.side)
        make = partial(images, dtype=self.dtype, device=device, channels_last=self.channels_last)
        return make(*shape), make(*shape)

    def moments(self, grad: Tensor, x: Tensor, group_size: int = 1) -> ops.MomentSums:
        return ops.conv2d_grad_moments(
            grad, x, self.kernel, padding=self.kernel // 2, groups=self.groups, moments=MOMENTS,
            group_size=group_size,
        )  # fmt: skip

    def norms(self, grad: Tensor, x: Tensor) -> Any:
        return ops.conv2d_grad_norms(grad, x, self.kernel, padding=self.kernel // 2, groups=self.groups)

    def weight_gradient(self, grad: Tensor, x: Tensor) -> Tensor:
        shape = (self.channels, self.channels // self.groups, self.kernel, self.kernel)
        gradient = conv2d_weight(x, shape, grad, padding=self.kernel // 2, groups=self.groups)  # type: ignore[no-untyped-call]
        return cast(Tensor, gradient)

    def error(self, device: str) -> float:
        """Of the sum and of the squares of two samples, relative, against float64 on the same inputs."""
        grad, x = self.tensors(device, batch=2)
        got = self.moments(grad, x).weight
        rows = torch.stack(
            [self.weight_gradient(grad[b : b + 1].double(), x[b : b + 1].double()) for b in (0, 1)]
        )
        assert got.sum is not None
        assert got.square is not None
        wanted = (rows.sum(0), rows.square().sum(0))
        pairs = zip((got.sum, got.square), wanted, strict=True)
        return max(float((a.double() - b).norm() / b.norm()) for a, b in pairs)

    @property
    def operations(self) -> float:
        """Of one weight gradient; sums over samples are not counted."""
        return 2.0 * self.batch * self.side**2 * self.weights

    @property
    def weights(self) -> int:
        return self.channels * (self.channels // self.groups) * self.kernel**2

    @property
    def bytes_moved(self) -> float:
        element = torch.finfo(self.dtype).bits // 8
        return 2.0 * self.batch * self.channels * self.side**2 * element + 4 * len(MOMENTS) * self.weights


def short(dtype: torch.dtype) -> str:
    """``bfloat16`` of ``torch.bfloat16``."""
    return str(dtype).removeprefix("torch.")


def kernel_cases(device: str = "cuda", small: bool = False) -> Iterator[KernelCase]:
    """All cases; ``small`` ones only to try the script on a CPU."""
    yield from _convolutions(device, small)
    for dtype in DTYPES:
        yield from _stages(device, dtype, (2, 16, 8) if small else (64, 64, 32))
        yield from _normalized(device, dtype, (2, 16, 8) if small else (64, 64, 32))
    yield from _others(device, small)


def _convolutions(device: str, small: bool) -> Iterator[KernelCase]:
    shapes = [(16, 32), (64, 8), (128, 16), (256, 8), (512, 4)]
    layers = [Conv(128, c, side, d) for c, side in shapes for d in DTYPES]
    layers += [
        Conv(128, 64, 8, torch.bfloat16, channels_last=False),
        Conv(128, 64, 16, torch.bfloat16, kernel=1),
        Conv(128, 64, 8, torch.float64),
        Conv(128, 64, 32, torch.bfloat16, groups=64),
    ]
    if small:
        layers = [Conv(4, 8, 6, d) for d in DTYPES]
    for layer in layers:
        common: dict[str, Any] = {
            "inputs": partial(layer.tensors, device), "dtype": layer.dtype, "operations": layer.operations,
            "bytes_moved": layer.bytes_moved, "baseline": layer.weight_gradient,
        }  # fmt: skip
        check = partial(layer.error, device)
        yield KernelCase(f"conv2d moments {layer}", run=layer.moments, check=check, **common)
        if layer.channels_last and layer.groups == 1:
            yield KernelCase(f"conv2d norms {layer}", run=layer.norms, **common)
    layer = layers[0]
    groups = partial(layer.moments, group_size=layer.batch // 2)
    yield KernelCase(
        f"conv2d moments of 2 groups {layer}", run=groups, inputs=partial(layer.tensors, device),
        dtype=layer.dtype, operations=layer.operations, bytes_moved=layer.bytes_moved,
        baseline=layer.weight_gradient,
    )  # fmt: skip


def _stages(device: str, dtype: torch.dtype, size: tuple[int, int, int]) -> Iterator[KernelCase]:
    """The depthwise convolutions and pools of a DARTS edge."""
    batch, channels, side = size
    p = torch.ops.pynas
    dilations = [1, 1, 2, 2]
    make = partial(images, batch, channels, side, side, dtype=dtype, device=device)
    one = float(make().nbytes)
    label = f"{short(dtype)} {batch}x{channels}x{side}x{side}"

    def kernels() -> list[Tensor]:
        return [torch.randn(channels, 1, k, k, device=device).to(dtype) for k in (3, 5, 3, 5)]

    def with_gradients() -> tuple[Any, ...]:
        return make(), kernels(), [make() for _ in dilations]

    def plain(x: Tensor, weights: list[Tensor]) -> list[Tensor]:
        return [
            F.conv2d(x.relu(), w, padding=d * (w.shape[-1] // 2), dilation=d, groups=channels)
            for w, d in zip(weights, dilations, strict=True)
        ]

    def plain_weights(x: Tensor, weights: list[Tensor], grads: list[Tensor]) -> list[Tensor]:
        return [
            torch.ops.aten.convolution_backward(
                g, x, w, None, (1, 1), (d * (w.shape[-1] // 2),) * 2, (d, d), False, (0, 0), channels,
                (False, True, False),
            )[1]
            for g, w, d in zip(grads, weights, dilations, strict=True)
        ]  # fmt: skip

    def forward(x: Tensor, weights: list[Tensor]) -> Any:
        return p.depthwise_relu(x, weights, dilations, 1, None, None, None)

    def inputs_of(x: Tensor, weights: list[Tensor], grads: list[Tensor]) -> Any:
        return p.depthwise_relu_backward_input(x, weights, dilations, 1, None, None, None, grads)

    def weights_of(x: Tensor, weights: list[Tensor], grads: list[Tensor]) -> Any:
        return p.depthwise_relu_backward_weight(x, weights, dilations, 1, None, None, None, grads)

    def pools(x: Tensor) -> tuple[Tensor, Tensor]:
        return F.max_pool2d(x, 3, 1, 1), F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)

    yield KernelCase(
        f"depthwise x4 {label}", lambda: (make(), kernels()), forward, dtype, 5 * one, baseline=plain
    )
    yield KernelCase(f"depthwise x4, input's gradient {label}", with_gradients, inputs_of, dtype, 6 * one)
    yield KernelCase(
        f"depthwise x4, weights' gradients {label}", with_gradients, weights_of, dtype, 5 * one,
        baseline=plain_weights,
    )  # fmt: skip
    yield KernelCase(
        f"pool3x3 {label}", lambda: (make(),), lambda x: p.pool3x3(x, 1, None), dtype, 3 * one, baseline=pools
    )
    yield KernelCase(
        f"pool3x3, gradient {label}", lambda: (make(), make(), make()),
        lambda x, a, b: p.pool3x3_backward(x, 1, None, a, b), dtype, 4 * one,
    )  # fmt: skip


def _normalized(device: str, dtype: torch.dtype, size: tuple[int, int, int]) -> Iterator[KernelCase]:
    batch, channels, side = size
    make = partial(images, batch, channels, side, side, dtype=dtype, device=device)
    one = float(make().nbytes)
    label = f"{short(dtype)} {batch}x{channels}x{side}x{side}"
    weights = torch.rand(4, device=device)

    def four() -> tuple[Any, ...]:
        return ([make() for _ in range(4)],)

    def plain(zs: list[Tensor]) -> Tensor:
        terms = [w * F.batch_norm(z, None, None, training=True) for w, z in zip(weights, zs, strict=True)]
        return cast(Tensor, sum(terms))

    def trained(form: Call, zs: list[Tensor]) -> Any:
        leaves = [z.detach().requires_grad_() for z in zs]
        y = form(leaves)
        return torch.autograd.grad(y, leaves, torch.ones_like(y))

    ours: Call = lambda zs: ops.normalized_sum(zs, weights)  # noqa: E731
    yield KernelCase(f"normalized_sum K=4 {label}", four, ours, dtype, 9 * one, baseline=plain)
    yield KernelCase(
        f"normalized_sum K=4, forward and backward {label}", four, partial(trained, ours), dtype, 23 * one,
        baseline=partial(trained, plain),
    )  # fmt: skip

    def normalised() -> tuple[Tensor, ...]:
        x, g = (torch.randn(batch, channels, side * side, device=device).to(dtype) for _ in range(2))
        return g, x, torch.zeros(1, channels, 1, device=device), torch.ones(1, channels, 1, device=device)

    yield KernelCase(f"affine moments {label}", normalised, ops.affine_grad_moments, dtype, 2 * one)
    yield KernelCase(f"activation_codes {label}", lambda: (make(),), ops.activation_codes, dtype, one)


def _others(device: str, small: bool) -> Iterator[KernelCase]:
    f32 = torch.float32
    size = 1 << (10 if small else 25)

    def state() -> tuple[Tensor, ...]:
        return torch.randn(size, device=device), *(torch.zeros(size, device=device) for _ in range(3))

    yield KernelCase("moments_update float32", state, partial(ops.moments_update, count=2), f32, 28.0 * size)
    batch, channels, side = (4, 8, 6) if small else (64, 64, 32)
    rows = torch.zeros(batch, batch, dtype=torch.int64, device=device)
    x = partial(images, batch, channels, side, side, dtype=f32, device=device)
    yield KernelCase(
        f"code_agreement_update {batch}x{channels}x{side}x{side}", lambda: (x(),),
        lambda t: ops.code_agreement_update(t, rows), f32, float(x().nbytes),
    )  # fmt: skip
    nodes, samples, features = (2, 4, 6) if small else (8, 256, 300)
    weights = torch.rand(nodes, 5, device=device)

    def recurrent() -> tuple[Tensor, Tensor]:
        states = torch.randn(nodes, samples, features, device=device)
        return states, torch.randn(nodes, samples, 2 * features, device=device)

    yield KernelCase(
        f"mixed_activation {nodes}x{samples}x{features}", recurrent,
        lambda s, c: ops.mixed_activation(s, c, weights, normalized=True), f32,
        12.0 * nodes * samples * features,
        baseline=lambda s, c: ops.mixed_activation_reference(s, c, weights, normalized=True),
    )  # fmt: skip
    width = 32 if small else 1024

    def factors() -> tuple[Tensor, Tensor]:
        return torch.randn(128, width, device=device), torch.randn(128, width, device=device)

    def products(g: Tensor, x: Tensor) -> list[Tensor]:
        return [f(g).T @ f(x) for f in (torch.clone, torch.abs, torch.square, torch.sign)]

    yield KernelCase(
        f"linear moments, one position, 128x{width}", factors, ops.linear_grad_moments, f32,
        16.0 * width * width, 8.0 * 128 * width * width, baseline=products,
    )  # fmt: skip
