"""Every differentiable operator against its definition: outputs, gradients, buffers, compilation."""

from __future__ import annotations

import pytest
import torch

import pynas._C
from pynas.testing.differentiable import (
    DIFFERENTIABLE,
    DifferentiableSpec,
    check_against_definition,
    check_compile,
    check_deterministic,
    check_finite_differences,
    check_opcheck,
    check_second_derivatives,
    check_threads,
    main,
)
from pynas.testing.ops import DTYPES, LAYOUTS

each_operator = pytest.mark.parametrize("spec", DIFFERENTIABLE.values(), ids=lambda spec: spec.name)


@each_operator
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_against_definition(spec: DifferentiableSpec, dtype: torch.dtype, layout: str) -> None:
    if dtype not in spec.dtypes or layout not in spec.layouts:
        pytest.skip("not for this operator")
    for sample in spec.samples:
        check_against_definition(spec, sample, dtype, layout)


@each_operator
def test_finite_differences(spec: DifferentiableSpec) -> None:
    if torch.float64 not in spec.dtypes:
        pytest.skip("no float64")
    for sample in spec.samples:
        if sample.smooth:
            check_finite_differences(spec, sample)


@each_operator
def test_second_derivatives(spec: DifferentiableSpec) -> None:
    if not spec.second or torch.float64 not in spec.dtypes:
        pytest.skip("no second derivatives in float64")
    for sample in spec.samples:
        check_second_derivatives(spec, sample)


@each_operator
def test_deterministic(spec: DifferentiableSpec) -> None:
    for sample in spec.samples:
        check_deterministic(spec, sample)


@pytest.mark.slow
@each_operator
def test_threads(spec: DifferentiableSpec) -> None:
    if torch.float64 not in spec.dtypes:
        pytest.skip("no float64")
    for sample in spec.samples:
        check_threads(spec, sample)


@pytest.mark.slow
@each_operator
def test_opcheck(spec: DifferentiableSpec) -> None:
    check_opcheck(spec, spec.samples[0])


@pytest.mark.slow
@each_operator
def test_compile(spec: DifferentiableSpec) -> None:
    check_compile(spec, spec.samples[0])


@pytest.mark.every_isa
@pytest.mark.slow
def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    main()
    assert (
        capsys.readouterr()
        .out.strip()
        .startswith(f"compared with their definitions under {pynas._C.isa()}: ")
    )
