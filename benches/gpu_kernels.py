"""Times the CUDA kernels against their floors and against cuDNN's and cuBLAS's ordinary gradients.

    python benches/gpu_kernels.py --save results.jsonl [--seconds 0.5]

The floor of a case is the larger of operations over the rate of the unit that does them and bytes, each
tensor once, over memory bandwidth; both ceilings are measured first, on random data. Inputs rotate among
copies that together exceed the L2 cache. Every case is checked against float64 before it is timed.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

import torch
from torch import Tensor
from torch.nn.grad import conv2d_weight

from pynas import ops

MOMENTS = ("sum", "abs", "square", "sign")


def seconds_per_call(calls: Sequence[Callable[[], object]], budget: float) -> float:
    """Median over calls timed by events, the first rounds left out."""
    for call in calls[:3]:
        call()
    torch.cuda.synchronize()
    times: list[float] = []
    while sum(times) < budget or len(times) < 20:
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        begin.record()
        calls[len(times) % len(calls)]()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / 1e3)
    return statistics.median(times)


@dataclass(frozen=True)
class Ceilings:
    bandwidth: float  # bytes read and written per second by a copy
    rates: dict[torch.dtype, float]  # operations per second of a large matrix product

    @classmethod
    def measure(cls) -> Ceilings:
        source = torch.randn(1 << 28, device="cuda")
        target = torch.empty_like(source)
        bandwidth = 2 * source.nbytes / seconds_per_call([partial(target.copy_, source)], 0.2)
        rates = {}
        for dtype in (torch.bfloat16, torch.float32, torch.float64):
            n = 8192 if dtype == torch.bfloat16 else 4096
            a, b = (torch.randn(n, n, device="cuda", dtype=dtype) for _ in range(2))
            rates[dtype] = 2 * n**3 / seconds_per_call([partial(torch.matmul, a, b)], 0.2)
        return cls(bandwidth, rates)


@dataclass(frozen=True)
class Conv:
    """One convolution layer: [batch, channels, side, side], square kernel, as many outputs as inputs."""

    batch: int
    channels: int
    side: int
    kernel: int = 3
    groups: int = 1
    dtype: torch.dtype = torch.bfloat16
    channels_last: bool = True

    def tensors(self) -> tuple[Tensor, Tensor]:
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        shape = (self.batch, self.channels, self.side, self.side)
        grad, x = (
            torch.randn(shape, device="cuda", dtype=self.dtype).to(memory_format=layout) for _ in range(2)
        )
        return grad, x

    def moments(self, grad: Tensor, x: Tensor, group_size: int = 1) -> ops.Moments:
        kernel = (self.kernel, self.kernel)
        return ops.conv2d_grad_moments(
            grad,
            x,
            kernel,
            padding=self.kernel // 2,
            groups=self.groups,
            moments=MOMENTS,
            group_size=group_size,
        ).weight

    def weight_gradient(self, grad: Tensor, x: Tensor) -> Tensor:
        shape = (self.channels, self.channels // self.groups, self.kernel, self.kernel)
        gradient = conv2d_weight(x, shape, grad, padding=self.kernel // 2, groups=self.groups)  # type: ignore[no-untyped-call]
        return cast(Tensor, gradient)

    def check(self) -> float:
        """Error of the sum and of the squares of two samples, relative, in float64 on the same inputs."""
        grad, x = (t[:2] for t in self.tensors())
        got = self.moments(grad, x)
        rows = torch.stack(
            [self.weight_gradient(grad[b : b + 1].double(), x[b : b + 1].double()) for b in (0, 1)]
        )
        assert got.sum is not None
        assert got.square is not None
        errors = [(got.sum - rows.sum(0)).norm() / rows.sum(0).norm()]
        errors.append((got.square - rows.square().sum(0)).norm() / rows.square().sum(0).norm())
        return max(float(e) for e in errors)

    def floor(self, ceilings: Ceilings) -> float:
        weights = self.channels * (self.channels // self.groups) * self.kernel**2
        operations = 2 * self.batch * self.side**2 * weights
        element = torch.finfo(self.dtype).bits // 8
        bytes_moved = 2 * self.batch * self.channels * self.side**2 * element + 4 * len(MOMENTS) * weights
        return max(operations / ceilings.rates[self.dtype], bytes_moved / ceilings.bandwidth)


def cases() -> list[Conv]:
    shapes = [(16, 32), (32, 16), (64, 8), (128, 16), (256, 8), (512, 4)]
    layers = [Conv(128, c, side, dtype=d) for c, side in shapes for d in (torch.bfloat16, torch.float32)]
    layers += [
        Conv(128, 64, 8, channels_last=False),
        Conv(128, 64, 16, kernel=1),
        Conv(128, 64, 8, dtype=torch.float64),
    ]
    return [*layers, Conv(128, 64, 32, groups=64), Conv(128, 64, 32, groups=64, channels_last=False)]


def run(layer: Conv, ceilings: Ceilings, budget: float) -> dict[str, float]:
    """Seconds of the floor, our moments (of every sample, of two groups) and the ordinary weight gradient."""
    error = layer.check()
    assert error < 1e-4, f"{layer}: relative error {error:.1e}"
    pair_bytes = 2 * layer.tensors()[0].nbytes
    pairs = [layer.tensors() for _ in range(max(2, min(8, (256 << 20) // pair_bytes)))]
    return {
        "error": error,
        "floor": layer.floor(ceilings),
        "pynas": seconds_per_call([partial(layer.moments, *p) for p in pairs], budget),
        "two_groups": seconds_per_call([partial(layer.moments, *p, layer.batch // 2) for p in pairs], budget),
        "weight_gradient": seconds_per_call([partial(layer.weight_gradient, *p) for p in pairs], budget),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--save", type=Path, help="append a JSON line per case")
    parser.add_argument("--seconds", type=float, default=0.3, help="time for each implementation")
    options = parser.parse_args()
    ceilings = Ceilings.measure()
    facts = {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "bandwidth": ceilings.bandwidth,
    }
    facts |= {str(dtype): rate for dtype, rate in ceilings.rates.items()}
    print(json.dumps(facts))
    print(f"{'case':<90} {'error':>8} {'floor us':>9} {'pynas us':>9} {'2 groups':>9} {'cuDNN us':>9}")
    for layer in cases():
        record = run(layer, ceilings, options.seconds)
        times = [
            f"{record[name] * 1e6:>9.1f}" for name in ("floor", "pynas", "two_groups", "weight_gradient")
        ]
        print(f"{layer!s:<90} {record['error']:>8.1e} {' '.join(times)}")
        if options.save is not None:
            with options.save.open("a") as file:
                file.write(json.dumps({**facts, "case": str(layer), **record}) + "\n")


if __name__ == "__main__":
    main()
