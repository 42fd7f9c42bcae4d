"""The table of candidates in C++ (csrc/ops/mixed_op/candidates.h) says what the one in Python does."""

from __future__ import annotations

from itertools import pairwise

import pytest

from pynas import _C
from pynas.ops.candidates import (
    CODES,
    FAMILIES,
    FAMILY_CODES,
    Conv,
    Norm,
    Pool,
    Reduce,
    Relu,
    layers,
    norms,
    parameter_shapes,
)

Stage = tuple[str, int, int, int, str]
CANDIDATES = [(name, family) for family, names in FAMILIES.items() for name in names]
each = pytest.mark.parametrize(("name", "family"), CANDIDATES)
strides = pytest.mark.parametrize("stride", [1, 2])


def stages_of(name: str, family: str, stride: int) -> list[Stage]:
    """The layers in stages as C++ has them: what comes before a batch norm, and which norm it is."""
    chain = layers(name, family, stride) or ()
    stages: list[Stage] = []
    for layer, following in pairwise([*chain, None]):
        match layer:
            case Relu():
                # C++ rectifies what convolutions read, and nothing else.
                assert isinstance(following, Conv | Reduce)
                continue
            case Pool(kind=kind, stride=step):
                stages.append((f"{kind}_pool", 3, step, 1, "none"))
            case Conv(depthwise=True, kernel=kernel, stride=step, dilation=dilation):
                assert following == Conv(following.key, 1)  # the pointwise convolution
                stages.append(("separable", kernel, step, dilation, "none"))
            case Conv(kernel=1, stride=1, dilation=1) if stages and stages[-1][0] == "separable":
                assert isinstance(following, Norm)
            case Conv(kernel=kernel, stride=step, dilation=dilation):
                stages.append(("convolution", kernel, step, dilation, "none"))
            case Reduce():
                stages.append(("reduction", 1, 2, 1, "none"))
            case Norm(plain=plain):
                stages[-1] = (*stages[-1][:4], "plain" if plain else "affine")
    return stages


@pytest.mark.parametrize("family", FAMILIES)
def test_codes_and_members(family: str) -> None:
    names = _C.candidate_names(FAMILY_CODES[family])
    assert {name: code for code, name in enumerate(names) if name} == {
        name: CODES[name] for name in FAMILIES[family]
    }
    assert len(names) == len(CODES)


@each
@strides
def test_stages(name: str, family: str, stride: int) -> None:
    compiled = _C.candidate_stages(CODES[name], FAMILY_CODES[family], stride)
    assert compiled == stages_of(name, family, stride)
    assert sum(stage[4] != "none" for stage in compiled) == len(norms(name, family, stride))


@each
@strides
@pytest.mark.parametrize("affine", [False, True])
def test_parameters(name: str, family: str, stride: int, affine: bool) -> None:
    for channels in (1, 2, 5, 16):
        compiled = _C.candidate_parameters(CODES[name], FAMILY_CODES[family], channels, stride, affine)
        expected = parameter_shapes(name, family, channels, stride, affine)
        assert [tuple(shape) for shape in compiled] == [shape for _, shape in expected]


def test_there_is_no_further_code() -> None:
    with pytest.raises(ValueError, match="code: expected 0 to 9, got 10"):
        _C.candidate_stages(len(CODES), 0, 1)
    with pytest.raises(ValueError, match="family: expected 0 to 2, got 3"):
        _C.candidate_stages(0, len(FAMILIES), 1)
