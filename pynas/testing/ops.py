"""The conformance suite of operators in pynas.ops, and a quick run of it: ``python -m pynas.testing.ops``.

Differentiable operators have their own suite, ``pynas.testing.differentiable``.

Each check takes a specification (and a sample, a dtype, a layout) and raises AssertionError with the reason.
The quick run compares every operator with its definition under the instruction set that ``PYNAS_ISA`` names.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

import pynas._C
from pynas._plural import counted
from pynas.testing._op_samples import SPECS, random_conv2d_sample
from pynas.testing._specs import Fill, OpSpec, Sample

__all__ = [
    "DTYPES",
    "LAYOUTS",
    "SPECS",
    "TOLERANCE",
    "Fill",
    "OpSpec",
    "Recorder",
    "Sample",
    "check_compile",
    "check_deterministic",
    "check_forward",
    "check_opcheck",
    "check_signs",
    "check_threads",
    "filler",
    "integers",
    "leaves",
    "random_conv2d_sample",
]

TOLERANCE: dict[torch.dtype, float] = {
    torch.float32: 5e-6,
    torch.bfloat16: 5e-6,  # products of 16-bit values are exact in float32, in which they are summed
    torch.float16: 5e-6,
    torch.float64: 1e-13,
}
"""Largest error against the float64 definition on the same inputs, relative to a result's typical size."""

DTYPES = tuple(TOLERANCE)
LAYOUTS = ("contiguous", "channels_last", "strided", "expanded")


def filler(dtype: torch.dtype, layout: str = "contiguous", seed: int = 0) -> Fill:
    """Standard normal tensors of `dtype` in a memory layout."""
    generator = torch.Generator().manual_seed(seed)

    def fill(shape: Sequence[int]) -> Tensor:
        return _lay_out(torch.randn(tuple(shape), generator=generator).to(dtype), layout)

    return fill


def integers(dtype: torch.dtype, seed: int = 0) -> Fill:
    """Small integers, many of them zero: sums of their products are exact in any dtype, so signs are too."""
    generator = torch.Generator().manual_seed(seed)

    def fill(shape: Sequence[int]) -> Tensor:
        return torch.randint(-2, 3, tuple(shape), generator=generator).to(dtype)

    return fill


def _lay_out(tensor: Tensor, layout: str) -> Tensor:
    if layout == "channels_last" and tensor.dim() >= 3:
        return tensor.movedim(1, -1).contiguous().movedim(-1, 1)
    if layout == "strided" and tensor.dim() >= 1:
        room = tensor.new_full((*tensor.shape[:-1], 2 * tensor.shape[-1] + 3), float("nan"))
        view = room[..., 3::2]
        return view.copy_(tensor)
    if layout == "expanded" and tensor.dim() >= 2 and tensor.shape[-1] > 0:
        return tensor[..., :1].expand(tensor.shape)
    return tensor


def leaves(result: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """The tensors in an operator's result, by field."""
    if isinstance(result, Tensor):
        yield name or "result", result
    elif dataclasses.is_dataclass(result):
        for entry in dataclasses.fields(result):
            yield from leaves(getattr(result, entry.name), f"{name}.{entry.name}".lstrip("."))
    elif isinstance(result, tuple | list):
        for i, item in enumerate(result):
            yield from leaves(item, f"{name}[{i}]")


def _widen(value: Any) -> Any:
    if isinstance(value, Tensor) and value.is_floating_point():
        return value.double()
    return [_widen(item) for item in value] if isinstance(value, list) else value


def check_forward(
    spec: OpSpec, sample: Sample, dtype: torch.dtype, layout: str = "contiguous", device: str = "cpu"
) -> None:
    """The operator agrees with the definition in float64 and returns the dtype of the sums."""
    arguments, options = sample.make(filler(dtype, layout))
    moved = pytree.tree_map_only(Tensor, lambda t: t.to(device), arguments)
    actual = {name: value.cpu() for name, value in leaves(spec.function(*moved, **options))}
    allowed = TOLERANCE[dtype] * (1 if device == "cpu" else 2)  # sums in another order
    expected = dict(leaves(spec.reference(*(_widen(a) for a in arguments), **options)))
    assert actual.keys() == expected.keys(), (
        f"{spec.name}: fields {sorted(actual)}, expected {sorted(expected)}"
    )
    for name, wanted in expected.items():
        got = actual[name]
        where = f"{spec.name}, {sample.name}, {dtype}, {layout}: {name}"
        assert got.shape == wanted.shape, f"{where}: shape {tuple(got.shape)}, expected {tuple(wanted.shape)}"
        if not got.is_floating_point():
            assert torch.equal(got, wanted), f"{where}: {got}, expected {wanted}"
            continue
        sums = torch.float64 if dtype == torch.float64 else torch.float32
        assert got.dtype == sums, f"{where}: {got.dtype}, expected {sums}"
        if got.numel() == 0 or (name.endswith("sign") and dtype != torch.float64):
            continue  # rounding decides the sign of a sum near zero: see check_signs
        power = 2 if spec.quadratic or name.endswith(("square", "centered", "[2]")) else 1
        scale = max(float(wanted.abs().max()), sample.scale**power)
        error = float((got.double() - wanted).abs().max()) / scale
        assert error <= allowed, f"{where}: off by {error:.1e}, allowed {allowed:.0e}"


def check_signs(spec: OpSpec, sample: Sample, dtype: torch.dtype) -> None:
    """On integers, without rounding, sums, absolute sums and signs are exact, including zeros."""
    arguments, options = sample.make(integers(dtype))
    actual = dict(leaves(spec.function(*arguments, **options)))
    expected = dict(leaves(spec.reference(*(_widen(a) for a in arguments), **options)))
    for name, wanted in expected.items():
        if name.endswith(("sum", "abs", "sign")):
            assert torch.equal(actual[name].double(), wanted), (
                f"{spec.name}, {sample.name}, {dtype}: {name} is not exact"
            )


def check_deterministic(spec: OpSpec, sample: Sample) -> None:
    """Two calls agree bit for bit."""
    arguments, options = sample.make(filler(torch.float32))
    first, second = (dict(leaves(spec.function(*arguments, **options))) for _ in range(2))
    for name, value in first.items():
        assert torch.equal(value, second[name]), (
            f"{spec.name}, {sample.name}: {name} differs between two calls"
        )


def check_threads(spec: OpSpec, sample: Sample) -> None:
    """Results with one and two threads agree up to rounding."""
    arguments, options = sample.make(filler(torch.float64))
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(dict(leaves(spec.function(*arguments, **options))))
    finally:
        torch.set_num_threads(before)
    for name, value in results[0].items():
        close = torch.allclose(results[1][name], value, rtol=1e-10, atol=1e-10)
        assert close, f"{spec.name}, {sample.name}: {name} differs between one thread and two"


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records every call of a compiled pynas operator."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func.namespace == "pynas":
            self.calls.append((func, args, dict(kwargs or {})))
        return func(*args, **(kwargs or {}))


def check_opcheck(spec: OpSpec, sample: Sample) -> None:
    """torch.library.opcheck passes for every compiled operator that a call uses."""
    arguments, options = sample.make(filler(torch.float32))
    with Recorder() as recorder:
        spec.function(*arguments, **options)
    for func, args, kwargs in recorder.calls[:1]:
        torch.library.opcheck(func, args, kwargs)


def check_compile(
    spec: OpSpec, sample: Sample, backend: str = "aot_eager", dynamic: bool | None = None
) -> None:
    """torch.compile traces the public function without graph breaks, and the result is the same."""
    arguments, options = sample.make(filler(torch.float32))
    expected = dict(leaves(spec.function(*arguments, **options)))
    torch._dynamo.reset()

    def call(*arguments: Any, **options: Any) -> list[Tensor]:
        return [tensor for _, tensor in leaves(spec.function(*arguments, **options))]

    compile_whole: Any = torch.compile
    compiled = compile_whole(call, fullgraph=True, backend=backend, dynamic=dynamic)
    for tensor, (name, wanted) in zip(compiled(*arguments, **options), expected.items(), strict=True):
        assert torch.equal(tensor, wanted), f"{spec.name}, {sample.name}: {name} differs under torch.compile"


def main() -> None:
    """Compare every operator with its definition in float32 and bfloat16."""
    for spec in SPECS.values():
        for sample in spec.samples:
            for dtype in (torch.float32, torch.bfloat16):
                check_forward(spec, sample, dtype)
                check_signs(spec, sample, dtype)
    number = counted(len(SPECS), "operator")
    print(f"compared with their definitions under {pynas._C.isa()}: {number}, all agree")


if __name__ == "__main__":
    main()
