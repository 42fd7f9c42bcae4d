"""Every operator against its definition, under every dtype, layout, thread count and instruction set."""

from __future__ import annotations

import random

import pytest
import torch

import pynas._C
from pynas import ops
from pynas.testing.differentiable import DIFFERENTIABLE
from pynas.testing.ops import (
    DTYPES,
    LAYOUTS,
    SPECS,
    OpSpec,
    check_compile,
    check_deterministic,
    check_forward,
    check_opcheck,
    check_signs,
    check_threads,
    filler,
    leaves,
    main,
    random_conv2d_sample,
)

# Forward layers of a few layouts and dtypes, with a gradient each, have a test file of their own.
LAYERS = {"avg_pool2d", "batch_norm", "conv1x1", "conv3x3"}

each_operator = pytest.mark.parametrize("spec", SPECS.values(), ids=lambda spec: spec.name)


def test_every_operator_has_a_specification() -> None:
    names = {name.removesuffix("_reference") for name in ops.__all__ if name.endswith("_reference")}
    assert names - LAYERS == set(SPECS) | set(DIFFERENTIABLE)  # these in test_differentiable.py


def test_every_compiled_operator_has_a_fake() -> None:
    compiled = {name for name in torch._C._dispatch_get_all_op_names() if name.startswith("pynas::")}
    missing = {
        name
        for name in compiled
        if torch._library.simple_registry.singleton.find(name).fake_impl.kernel is None
    }
    assert not missing


@each_operator
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_forward(spec: OpSpec, dtype: torch.dtype, layout: str) -> None:
    for sample in spec.samples:
        check_forward(spec, sample, dtype, layout)


@each_operator
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_signs(spec: OpSpec, dtype: torch.dtype) -> None:
    for sample in spec.samples:
        check_signs(spec, sample, dtype)


@each_operator
def test_deterministic(spec: OpSpec) -> None:
    for sample in spec.samples:
        check_deterministic(spec, sample)


@each_operator
def test_threads(spec: OpSpec) -> None:
    for sample in spec.samples:
        check_threads(spec, sample)


@each_operator
def test_opcheck(spec: OpSpec) -> None:
    check_opcheck(spec, spec.samples[0])


@pytest.mark.slow
@each_operator
def test_compile(spec: OpSpec) -> None:
    check_compile(spec, spec.samples[0])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")
def test_compile_with_inductor() -> None:
    check_compile(SPECS["linear_grad_moments"], SPECS["linear_grad_moments"].samples[2], backend="inductor")


@pytest.mark.slow
def test_compile_takes_other_sizes_without_compiling_again() -> None:
    frames = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(ops.conv2d_grad_norms, fullgraph=True, backend=frames, dynamic=True)
    for batch, size in ((4, 8), (6, 9), (8, 12)):
        delta, input = torch.randn(batch, 5, size, size), torch.randn(batch, 3, size, size)
        expected = ops.conv2d_grad_norms(delta, input, 3, padding=1, group_size=2)
        assert torch.equal(compiled(delta, input, 3, padding=1, group_size=2), expected)
    assert frames.frame_count == 1


@pytest.mark.parametrize("seed", range(8))
def test_conv2d_of_any_geometry(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(12):
        sample = random_conv2d_sample(rng)
        dtype, layout = rng.choice(DTYPES), rng.choice(LAYOUTS)
        spec = rng.choice([SPECS[f"conv2d_grad_{quantity}"] for quantity in ("moments", "norms", "gram")])
        check_forward(spec, sample, dtype, layout)
        check_signs(spec, sample, dtype)


@pytest.mark.every_isa
@pytest.mark.slow
def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    main()
    assert (
        capsys.readouterr()
        .out.strip()
        .startswith(f"compared with their definitions under {pynas._C.isa()}: ")
    )


@each_operator
def test_results_carry_no_graph(spec: OpSpec) -> None:
    arguments, options = spec.samples[0].make(filler(torch.float32))
    if spec.name == "moments_update":
        arguments[0][0].requires_grad_()
    else:
        arguments[0].requires_grad_()
    for name, tensor in leaves(spec.function(*arguments, **options)):
        assert not tensor.requires_grad, name


@each_operator
def test_meta_tensors_give_shapes(spec: OpSpec) -> None:
    if spec.name.startswith("embedding") or spec.name == "moments_update":
        pytest.skip("rows depend on the data; states are made by the test")
    arguments, options = spec.samples[0].make(filler(torch.float32))
    expected = dict(leaves(spec.function(*arguments, **options)))
    meta = [value.to("meta") if isinstance(value, torch.Tensor) else value for value in arguments]
    for name, tensor in leaves(spec.function(*meta, **options)):
        assert tensor.is_meta
        assert tensor.shape == expected[name].shape
        assert tensor.dtype == expected[name].dtype
