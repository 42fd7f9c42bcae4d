"""The conformance suite of differentiable operators in pynas.ops; others are in ``pynas.testing.ops``.

To add an operator: write ``pynas/testing/_<family>_samples.py`` with a function that yields
``DifferentiableSpec`` (see ``_normalized_sum_samples.py``), and name it in `_specs` at the end of this file.
``tests/ops/test_differentiable.py`` then compares outputs, every gradient and every updated buffer with the
float64 definition in each dtype, layout and instruction set. It also checks finite differences, second
derivatives, opcheck with and without gradients, torch.compile without graph breaks, determinism, and thread
counts.

A sample makes all its tensors with the given `Fill`, new at each call and in the same order, so that the
suite can choose dtype, layout and values. The suite differentiates with respect to every floating tensor in
the arguments, at any depth, except for options that the specification declares as buffers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

import pynas._C
from pynas._plural import counted
from pynas.testing._mixed_activation_samples import mixed_activation_specs
from pynas.testing._mixed_op_samples import mixed_op_specs
from pynas.testing._normalized_sum_samples import normalized_sum_specs
from pynas.testing._specs import DifferentiableSample, DifferentiableSpec
from pynas.testing.ops import Recorder, filler, leaves

__all__ = [
    "DIFFERENTIABLE",
    "TOLERANCE",
    "DifferentiableSample",
    "DifferentiableSpec",
    "Run",
    "check_against_definition",
    "check_compile",
    "check_deterministic",
    "check_finite_differences",
    "check_opcheck",
    "check_second_derivatives",
    "check_threads",
]

TOLERANCE: dict[torch.dtype, float] = {
    torch.float32: 1e-5,
    torch.bfloat16: 1.2e-2,  # two roundings to 8 bits
    torch.float16: 1.5e-3,
    torch.float64: 1e-11,
}
"""Largest error against the float64 definition on the same inputs, relative to a result's largest entry."""

Call = tuple[tuple[Any, ...], dict[str, Any]]
Change = Callable[[Tensor], Tensor]


class Run:
    """A call with its outputs, the gradients of a fixed weighting of these, and the buffers after it.

    Args:
        spec: Specification of the operator.
        function: The operator, its definition, or a compiled form.
        call: Arguments and options.
        change: Applied to every tensor first, for example to convert or move it.
        higher: Whether to build the graph of the gradients.
    """

    def __init__(
        self,
        spec: DifferentiableSpec,
        function: Callable[..., Any],
        call: Call,
        change: Change = lambda tensor: tensor,
        higher: bool = False,
    ) -> None:
        arguments, options = pytree.tree_map_only(Tensor, lambda t: change(t).detach(), call)
        held = {name: value for name, value in options.items() if name in spec.buffers}
        given = (arguments, {name: value for name, value in options.items() if name not in spec.buffers})
        paths = pytree.tree_flatten_with_path(given)[0]
        self.sources = {
            pytree.keystr(path): tensor.requires_grad_()
            for path, tensor in paths
            if isinstance(tensor, Tensor) and tensor.is_floating_point()
        }
        self.outputs = dict(leaves(function(*arguments, **options)))
        self.buffers = {
            f"{name}{pytree.keystr(path)}": tensor
            for name, value in held.items()
            for path, tensor in pytree.tree_flatten_with_path(value)[0]
            if isinstance(tensor, Tensor)
        }
        pairs = [(y, _upstream(y)) for y in self.outputs.values() if y.requires_grad]
        found: tuple[Tensor | None, ...] = (None,) * len(self.sources)
        if pairs:
            ys, gs = zip(*pairs, strict=True)
            found = torch.autograd.grad(
                ys, tuple(self.sources.values()), gs, create_graph=higher, allow_unused=True
            )
        # An input without influence has a gradient of zeros or None; operators may return either.
        self.gradients = {
            name: torch.zeros_like(source) if gradient is None else gradient
            for (name, source), gradient in zip(self.sources.items(), found, strict=True)
        }

    def results(self) -> Iterator[tuple[str, Tensor]]:
        """All results by which two runs can be compared."""
        yield from self.outputs.items()
        yield from ((f"gradient of {name}", value) for name, value in self.gradients.items())
        yield from ((f"buffer {name}", value) for name, value in self.buffers.items())


def _upstream(y: Tensor) -> Tensor:
    """dL/dy: the same numbers for outputs of equal shape, in any dtype and on any device."""
    values = torch.randn(y.shape, generator=torch.Generator().manual_seed(99))
    return values.bfloat16().to(y)  # exact in every dtype but float16's smallest


def _widen(tensor: Tensor) -> Tensor:
    return tensor.double().contiguous() if tensor.is_floating_point() else tensor


def _compare(where: str, actual: Run, expected: Run, tolerance: float, scale: float) -> None:
    wanted = dict(expected.results())
    found = dict(actual.results())
    assert found.keys() == wanted.keys(), f"{where}: {sorted(found)}, expected {sorted(wanted)}"
    for name, want in wanted.items():
        got = found[name]
        assert got.shape == want.shape, f"{where}: {name}: shape {tuple(got.shape)}, not {tuple(want.shape)}"
        if got.numel() == 0:
            continue
        assert bool(torch.isfinite(got).all()), f"{where}: {name} is not finite"
        size = max(float(want.detach().abs().max()), scale, 1e-3)
        error = float((got.detach().cpu().double() - want.detach()).abs().max()) / size
        assert error <= tolerance, f"{where}: {name} is off by {error:.1e}, allowed {tolerance:.0e}"


def check_against_definition(
    spec: DifferentiableSpec,
    sample: DifferentiableSample,
    dtype: torch.dtype,
    layout: str = "contiguous",
    device: str = "cpu",
    tolerance: float | None = None,
) -> None:
    """Outputs, gradients and buffers agree with the definition in float64 and have the right dtypes."""
    fill = filler(dtype, layout)
    actual = Run(spec, spec.function, sample.make(fill), lambda t: t.to(device))
    expected = Run(spec, spec.reference, sample.make(filler(dtype, layout)), _widen)
    where = f"{spec.name}, {sample.name}, {dtype}, {layout}, {device}"
    for name, value in actual.outputs.items():
        assert value.dtype == dtype, f"{where}: {name}: {value.dtype}, expected that of the inputs"
        assert value.device.type == torch.device(device).type, f"{where}: {name} is on {value.device}"
    allowed = spec.tolerance.get(dtype, TOLERANCE[dtype]) if tolerance is None else tolerance
    _compare(where, actual, expected, allowed, sample.scale)


def check_finite_differences(spec: DifferentiableSpec, sample: DifferentiableSample) -> None:
    """Gradients in float64 agree with finite differences along random directions."""
    arguments, options = sample.make(filler(torch.float64))
    held = {name: value for name, value in options.items() if name in spec.buffers}
    flat, form = pytree.tree_flatten((arguments, {k: v for k, v in options.items() if k not in held}))
    places = [i for i, leaf in enumerate(flat) if isinstance(leaf, Tensor) and leaf.is_floating_point()]

    def call(*tensors: Tensor) -> tuple[Tensor, ...]:
        for place, tensor in zip(places, tensors, strict=True):
            flat[place] = tensor
        positional, keywords = pytree.tree_unflatten(flat, form)
        buffers = pytree.tree_map_only(Tensor, torch.clone, held)
        return tuple(y for _, y in leaves(spec.function(*positional, **keywords, **buffers)))

    inputs = tuple(flat[place].detach().requires_grad_() for place in places)
    assert torch.autograd.gradcheck(call, inputs, fast_mode=True), f"{spec.name}, {sample.name}"


def check_second_derivatives(spec: DifferentiableSpec, sample: DifferentiableSample) -> None:
    """The gradient of the squared gradients agrees with that of the definition."""
    runs = [
        Run(spec, function, sample.make(filler(torch.float64)), higher=True)
        for function in (spec.function, spec.reference)
    ]
    found: list[dict[str, Tensor]] = []
    for run in runs:
        squares = [g.square().sum() for g in run.gradients.values() if g.requires_grad]
        total = torch.stack(squares).sum() if squares else torch.zeros(())
        seconds: tuple[Tensor | None, ...] = (None,) * len(run.sources)
        if total.requires_grad:
            seconds = torch.autograd.grad(total, tuple(run.sources.values()), allow_unused=True)
        zeros = (torch.zeros_like(source) for source in run.sources.values())
        found.append({n: z if s is None else s for n, z, s in zip(run.sources, zeros, seconds, strict=True)})
    for name, want in found[1].items():
        close = torch.allclose(found[0][name], want, rtol=1e-8, atol=1e-8)
        assert close, f"{spec.name}, {sample.name}: the second derivative by {name} differs"


def check_deterministic(spec: DifferentiableSpec, sample: DifferentiableSample) -> None:
    """Two calls agree bit for bit."""
    first, second = (Run(spec, spec.function, sample.make(filler(torch.float32))) for _ in range(2))
    again = dict(second.results())
    for name, value in first.results():
        assert torch.equal(value, again[name]), (
            f"{spec.name}, {sample.name}: {name} differs between two calls"
        )


def check_threads(spec: DifferentiableSpec, sample: DifferentiableSample) -> None:
    """Results with one, two and three threads agree up to rounding."""
    before = torch.get_num_threads()
    runs = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            runs.append(Run(spec, spec.function, sample.make(filler(torch.float64))))
    finally:
        torch.set_num_threads(before)
    for threads, run in zip((2, 3), runs[1:], strict=True):
        where = f"{spec.name}, {sample.name}, {counted(threads, 'thread')}"
        _compare(where, run, runs[0], 1e-11, sample.scale)


def check_opcheck(spec: DifferentiableSpec, sample: DifferentiableSample) -> None:
    """torch.library.opcheck passes for every compiled operator that a call and its backward pass use."""
    with Recorder() as recorder:
        Run(spec, spec.function, sample.make(filler(torch.float32)))
    checked = set()
    for func, args, kwargs in recorder.calls:
        if func in checked:
            continue
        checked.add(func)
        plain = pytree.tree_map_only(Tensor, lambda t: t.detach().clone(), (args, kwargs))
        torch.library.opcheck(func, *plain)
        backward = func.overloadpacket.__name__.endswith("_backward")
        if backward and not spec.second_traced:
            continue
        if any(isinstance(leaf, Tensor) and leaf.requires_grad for leaf in pytree.tree_leaves(args)):
            torch.library.opcheck(
                func,
                *pytree.tree_map_only(
                    Tensor, lambda t: t.detach().clone().requires_grad_(t.requires_grad), (args, kwargs)
                ),
            )
    assert checked or spec.function is spec.reference, f"{spec.name}: no compiled operator was called"


def check_compile(spec: DifferentiableSpec, sample: DifferentiableSample, backend: str = "aot_eager") -> None:
    """torch.compile traces the public function without graph breaks; results and gradients are the same."""
    expected = dict(Run(spec, spec.function, sample.make(filler(torch.float32))).results())
    torch._dynamo.reset()

    def call(*arguments: Any, **options: Any) -> Any:
        return spec.function(*arguments, **options)

    compile_whole: Any = torch.compile
    compiled = compile_whole(call, fullgraph=True, backend=backend)
    actual = Run(spec, compiled, sample.make(filler(torch.float32)))
    for name, value in actual.results():
        assert torch.equal(value, expected[name]), (
            f"{spec.name}, {sample.name}: {name} differs under torch.compile"
        )


def _specs() -> Iterator[DifferentiableSpec]:
    yield from normalized_sum_specs()
    yield from mixed_activation_specs()
    yield from mixed_op_specs()


DIFFERENTIABLE: dict[str, DifferentiableSpec] = {spec.name: spec for spec in _specs()}
"""Every differentiable operator of pynas.ops, by name."""


def main() -> None:
    """Compare every differentiable operator with its definition in float32, bfloat16 and float64."""
    for spec in DIFFERENTIABLE.values():
        for sample in spec.samples:
            for dtype in (torch.float32, torch.bfloat16, torch.float64):
                for layout in ("contiguous", "channels_last"):
                    if dtype in spec.dtypes and layout in spec.layouts:
                        check_against_definition(spec, sample, dtype, layout)
    number = counted(len(DIFFERENTIABLE), "operator")
    print(f"compared with their definitions under {pynas._C.isa()}: {number}, all agree")


if __name__ == "__main__":
    main()
