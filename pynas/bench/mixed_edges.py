"""Cases for supernets: edges, their sum, recurrent nodes and a whole step, forward and backward."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pynas import ops
from pynas._C import isa
from pynas.bench._harness import CASES, Case, Problem
from pynas.bench.operators import close
from pynas.nn import Cell, DARTSSupernet, LoopMixedOp, MixedOp

BATCH = 64
EDGES = ((16, 32), (32, 16), (64, 8))  # (channels, side)
NCHW, CHANNELS_LAST, COMPILED = "loop, NCHW", "loop, channels_last", "compiled loop, channels_last"

Targets = dict[str, tuple[float, float]]
# Speed-up (must, aim) over the eager loop for each of EDGES, by instruction set.
DARTS_FASTER = {
    "avx512": ((10.0, 20.0), (7.0, 13.0), (6.0, 11.0)),
    "avx2": ((5.0, 9.0), (4.0, 6.0), (3.0, 5.0)),
}


def edge_pair(family: str, channels: int, stride: int, device: str = "cpu") -> tuple[MixedOp, LoopMixedOp]:
    """The fused edge and the loop, with equal parameters."""
    torch.manual_seed(0)
    fused = MixedOp(channels, family, stride, family=family)
    loop = LoopMixedOp(channels, family, stride, family=family)
    loop.load_state_dict(fused.state_dict())
    return fused.to(device), loop.to(device)


def edge_data(
    channels: int,
    side: int,
    stride: int,
    candidates: int,
    layout: torch.memory_format,
    device: str = "cpu",
) -> tuple[Tensor, Tensor, Tensor]:
    """Input, mixture weights of a softmax and the gradient of the result."""
    generator = torch.Generator().manual_seed(1)
    out = -(-side // stride)
    x, grad = (
        torch.randn(BATCH, channels, n, n, generator=generator).to(device, memory_format=layout)
        for n in (side, out)
    )
    weights = torch.softmax(torch.randn(candidates, generator=generator), 0).to(device)
    return x.requires_grad_(), weights.requires_grad_(), grad


def step(
    edge: Callable[[Tensor, Tensor], Tensor], parameters: Sequence[Tensor], data: tuple[Tensor, ...]
) -> Tensor:
    """Forward and backward; gradients are fresh tensors, as after ``zero_grad``."""
    x, weights, grad = data
    for tensor in (x, weights, *parameters):
        tensor.grad = None
    y = edge(x, weights)
    y.backward(grad)  # type: ignore[no-untyped-call]
    return y


def check_edge(family: str, channels: int, side: int, stride: int, device: str = "cpu") -> None:
    """Result and every gradient against the loop in float64."""
    fused, loop = edge_pair(family, channels, stride, device)
    data = edge_data(channels, side, stride, len(loop._ops), torch.channels_last, device)
    y = step(fused, list(fused.parameters()), data)
    wide = tuple(t.detach().double() for t in data)
    for t in wide[:2]:
        t.requires_grad_()
    loop = loop.double()
    close(y, step(loop, [], wide), 1e-4, "output")
    pairs = {"x": (data[0], wide[0]), "weights": (data[1], wide[1])}
    expected = dict(loop.named_parameters())
    pairs |= {name: (p, expected[name]) for name, p in fused.named_parameters()}
    for name, (got, wanted) in pairs.items():
        if wanted.grad is not None and wanted.grad.norm() > 1e-6:
            # Where rounding flips the sign of a ReLU's argument, gradients change by far more than rounding.
            close(got.grad, wanted.grad, 5e-3, f"gradient of {name}")


def edge_work(family: str, channels: int, side: int, stride: int) -> tuple[float, float]:
    """Operations and bytes that every implementation of an edge needs, forward and backward.

    Multiply-adds per output pixel: k^2 C for a k x k depthwise convolution, C^2 for a pointwise one; backward
    needs 2 times as many, for input and weight. Bytes: x is read 2 times; y, its gradient and that of x once.
    """
    c, pixels = channels, BATCH * (-(-side // stride)) ** 2
    reduction = c * c if stride == 2 else 0
    products = 102 * c + 6 * c * c if family == "darts" else 10 * c * c
    return 6.0 * pixels * (products + reduction), 4.0 * (3 * BATCH * side**2 + 2 * pixels) * c


def edge_case(
    family: str, channels: int, side: int, stride: int, others: Sequence[str], device: str = "cpu"
) -> Problem:
    """One edge of a supernet against the loop over its candidates."""
    runs: dict[str, Callable[[], object]] = {}
    if COMPILED in others:  # or a module of a class that was compiled for another size gets dynamic shapes
        torch.compiler.reset()
    for name in ("pynas", *others):
        fused, loop = edge_pair(family, channels, stride, device)
        layout = torch.contiguous_format if name == NCHW else torch.channels_last
        module = cast(nn.Module, fused if name == "pynas" else loop)
        module = module.to(memory_format=layout)  # type: ignore[call-overload]
        data = edge_data(channels, side, stride, len(loop._ops), layout, device)
        edge = torch.compile(module) if name == COMPILED else module
        runs[name] = partial(step, edge, list(module.parameters()), data)
    flops, bytes_moved = edge_work(family, channels, side, stride)
    return Problem(runs, partial(check_edge, family, channels, side, stride, device), flops, bytes_moved)


def sum_case(channels: int, side: int, inputs: int = 4) -> Problem:
    """The fused normalised weighted sum against batch norms, products and sums, channels_last."""
    generator = torch.Generator().manual_seed(0)
    shape = (BATCH, channels, side, side)
    zs, grad = (
        [
            torch.randn(shape, generator=generator).contiguous(memory_format=torch.channels_last)
            for _ in range(n)
        ]
        for n in (inputs, 1)
    )
    leaves = [z.requires_grad_() for z in zs]
    weights = torch.softmax(torch.randn(inputs, generator=generator), 0).requires_grad_()

    def plain(zs: Sequence[Tensor], weights: Tensor) -> Tensor:
        terms = (w * F.batch_norm(z, None, None, training=True) for z, w in zip(zs, weights, strict=True))
        return cast(Tensor, sum(terms))

    def run(form: Callable[[Sequence[Tensor], Tensor], Tensor]) -> list[Tensor]:
        y = form(leaves, weights)
        return [y, *torch.autograd.grad(y, [*leaves, weights], grad[0])]

    def check() -> None:
        for i, (got, expected) in enumerate(zip(run(ops.normalized_sum), run(plain), strict=True)):
            close(got, expected, 1e-4, f"result {i}")

    count = zs[0].numel()
    # Forward reads every input and writes one; backward reads them and the gradient and writes as many.
    return Problem(
        {"pynas": partial(run, ops.normalized_sum), "eager, channels_last": partial(run, plain)},
        check,
        bytes=4.0 * count * (3 * inputs + 2),
    )


def activation_case(states: int = 8, batch: int = 256, width: int = 300) -> Problem:
    """One node of the recurrent cell of DARTS on Penn Treebank against its definition."""
    generator = torch.Generator().manual_seed(0)
    s, products = (
        torch.randn(states, batch, n, generator=generator).requires_grad_() for n in (width, 2 * width)
    )
    weights = torch.softmax(torch.randn(states, 5, generator=generator), -1).requires_grad_()
    grad = torch.randn(batch, width, generator=generator)

    def run(form: Callable[..., Tensor]) -> list[Tensor]:
        y = form(s, products, weights, normalized=True)
        return [y, *torch.autograd.grad(y, [s, products, weights], grad)]

    def check() -> None:
        pairs = zip(run(ops.mixed_activation), run(ops.mixed_activation_reference), strict=True)
        for i, (got, expected) in enumerate(pairs):
            close(got, expected, 1e-4, f"result {i}")

    return Problem(
        {"pynas": partial(run, ops.mixed_activation), "eager": partial(run, ops.mixed_activation_reference)},
        check,
        bytes=4.0 * 9 * s.numel(),
    )


def looped(network: DARTSSupernet) -> DARTSSupernet:
    """The network with plain loops over candidates in place of its fused edges, with the same parameters."""
    for cell in cast(Iterable[Cell], network.cells):
        channels = cast(nn.Conv2d, cell.preprocess1.op[1]).out_channels
        for e, (source, _) in enumerate(cell.edges):
            loop = LoopMixedOp(channels, "darts", 2 if cell.reduction and source < 2 else 1)
            loop.load_state_dict(cell._ops[e].state_dict())
            cell._ops[e] = loop
    return network


def supernet_case(channels: int = 16, cells: int = 8, side: int = 32, batch: int = BATCH) -> Problem:
    """A weight step of DARTS: forward, loss, backward, clipping, SGD with momentum."""

    def implementation(fused: bool) -> Callable[[], Tensor]:
        torch.manual_seed(0)
        network = DARTSSupernet(channels, cells)
        network = (network if fused else looped(network)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        weights = list(network.weight_parameters())
        optimizer = torch.optim.SGD(weights, lr=0.025, momentum=0.9, weight_decay=3e-4)
        generator = torch.Generator().manual_seed(1)
        x = torch.randn(batch, 3, side, side, generator=generator)
        x = x.contiguous(memory_format=torch.channels_last)
        targets = torch.randint(0, 10, (batch,), generator=generator)

        def run() -> Tensor:
            optimizer.zero_grad()
            loss = F.cross_entropy(network(x), targets)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(weights, 5.0)
            optimizer.step()
            return loss.detach()

        return run

    def check() -> None:
        losses = [[float(run()) for _ in range(2)] for run in (implementation(True), implementation(False))]
        for got, expected in zip(*losses, strict=True):
            assert abs(got - expected) < 1e-2 * expected, f"losses of two steps: {losses}"

    return Problem({"pynas": implementation(True), CHANNELS_LAST: implementation(False)}, check)


def _at_least(factors: Mapping[str, tuple[float, float]]) -> Targets:
    return {name: (1 / must, 1 / aim) for name, (must, aim) in factors.items()}


def _add(name: str, make: Callable[[], Problem], targets: Targets | None = None, slow: bool = False) -> None:
    CASES.register(name, Case(name, make, slow=slow, targets=targets or {}))


def _add_edges() -> None:
    lower = isa() != "avx512"
    for (channels, side), faster in zip(EDGES, DARTS_FASTER["avx2" if lower else "avx512"], strict=True):
        shape = f"{BATCH}x{channels}x{side}x{side}"
        eager = (NCHW, CHANNELS_LAST)
        # Lower instruction sets have to reach only the first of these.
        against = {NCHW: faster} if lower else {NCHW: faster, CHANNELS_LAST: (4.0, 6.5)}
        edges: dict[str, tuple[str, int, Mapping[str, tuple[float, float]]]] = {
            "darts": ("darts", 1, against),
            "darts_stride2": ("darts", 2, {NCHW: (5.0, 10.0)}),
            "nasbench201": ("nasbench201", 1, {NCHW: (3.0, 5.0)}),
        }
        for kind, (family, stride, targets) in edges.items():
            _add(
                f"mixed_op/{kind}_{shape}",
                partial(edge_case, family, channels, side, stride, eager),
                _at_least(targets),
            )
            compiled = {COMPILED: (3.5, 6.0)} if kind == "darts" and not lower else {}
            _add(  # compiling takes a minute
                f"mixed_op/{kind}_{shape}_compiled",
                partial(edge_case, family, channels, side, stride, (COMPILED,)),
                _at_least(compiled),
                slow=True,
            )


_add_edges()
_add("normalized_sum/64x16x32x32", partial(sum_case, 16, 32))
_add("normalized_sum/64x64x8x8", partial(sum_case, 64, 8))
_add("mixed_activation/8x256x300", activation_case)
_add("mixed_supernet/darts_8_cells", supernet_case, _at_least({CHANNELS_LAST: (2.5, 5.0)}), slow=True)
