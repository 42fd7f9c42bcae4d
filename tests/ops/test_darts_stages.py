"""The DARTS edge as a GPU runs it, with weights that only kernels read, in float64 on the CPU.

tests/ops/test_mixed_op.py holds the operator to the same loop of modules; there the host leaves candidates
out, here the stages skip them.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from mixed_op_loop import DARTS, Loop, randomised
from torch import Tensor

import pynas.ops  # noqa: F401  (registers the operators)

SHAPES = [(4, 1, 1, 1), (2, 3, 7, 5), (2, 16, 3, 2), (1, 17, 3, 4), (1, 3, 33, 33)]
WEIGHTS = (0.1, 0.7, -0.4, 0.3, 0.5, 1.2, 0.2, 0.6)


pytestmark = pytest.mark.usefixtures("one_thread")


def compare(
    names: Sequence[str],
    shape: tuple[int, int, int, int],
    stride: int,
    *,
    weights: Sequence[float] = WEIGHTS,
    affine: bool = True,
    training: bool = True,
    save: int = 1,
) -> None:
    generator = torch.Generator().manual_seed(sum(shape))
    loop = randomised(Loop(tuple(names), "darts", shape[1], stride, affine), 1).double().train(training)
    running = [t.clone() for t in loop.running()]
    x = torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()
    w = torch.tensor(weights, dtype=torch.float64).requires_grad_()
    y = loop(x, w)
    grad = torch.randn(y.shape, generator=generator, dtype=torch.float64)
    used = [p for p in loop.tensors() if p.requires_grad]
    found = iter(torch.autograd.grad(y, [x, w, *used], grad, allow_unused=True))
    expected = [y.detach(), next(found), next(found)]
    expected += [next(found) if p.requires_grad else None for p in loop.tensors()]
    with torch.no_grad():
        parameters = [p.detach() for p in loop.tensors()]
        codes = [DARTS.index(name) for name in names]
        options = (codes, stride, affine, training, 1e-5, save, grad)
        y_got, statistics, *gradients = torch.ops.pynas.darts_stages_gated(
            x.detach(), w.detach(), parameters, running, *options
        )
    assert statistics.isfinite().all()
    for i, (got, want) in enumerate(zip([y_got, *gradients], expected, strict=True)):
        want = torch.zeros_like(got) if want is None else want
        assert got.shape == want.shape
        if want.numel() > 0:
            scale = max(1.0, float(want.abs().max()))
            assert float((got - want).abs().max()) <= 1e-10 * scale, f"result {i} of {names}"


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_all_candidates(shape: tuple[int, int, int, int], stride: int) -> None:
    training = shape[0] * -(-shape[2] // stride) * -(-shape[3] // stride) > 1
    compare(DARTS, shape, stride, training=training)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("zeros", [(2, 4), (1, 3, 5, 7), (4, 5, 6, 7), (3,), tuple(range(8))], ids=str)
def test_zero_weights_are_skipped_by_the_kernels(zeros: tuple[int, ...], stride: int) -> None:
    weights = [0.0 if k in zeros else w for k, w in enumerate(WEIGHTS)]
    for training in (True, False):
        compare(DARTS, (2, 5, 6, 7), stride, weights=weights, training=training)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("save", [0, 1, 2])
def test_what_is_saved_changes_nothing(save: int, affine: bool, stride: int) -> None:
    for training in (True, False):
        compare(DARTS, (2, 4, 7, 6), stride, affine=affine, training=training, save=save)


def test_candidates_in_any_number_and_order() -> None:
    """More convolutions than a launch takes, pools that cannot pair, weights that are no neighbours."""
    names = [DARTS[k] for k in (4, 4, 1, 1, 3, 0, 3, 2, 5, 6, 7, 4)]
    for stride in (1, 2):
        compare(names, (2, 3, 6, 5), stride, weights=torch.linspace(-0.5, 1, 12).tolist())
    compare(["skip_connect"], (2, 3, 4, 4), 1, weights=[0.3])


def test_undefined_values_stay_where_they_are() -> None:
    """A candidate of weight zero spreads no NaN of its parameters."""
    loop = randomised(Loop(DARTS, "darts", 4, 1, True), 1).double()
    with torch.no_grad():
        for name in (4, 6):
            for p in loop.ops[name].parameters():
                p.fill_(torch.nan)
    weights = torch.tensor([0.0 if k in (4, 6) else w for k, w in enumerate(WEIGHTS)], dtype=torch.float64)
    x = torch.randn(2, 4, 5, 5, dtype=torch.float64)
    parameters: list[Tensor] = [p.detach() for p in loop.tensors()]
    y, _, *gradients = torch.ops.pynas.darts_stages_gated(
        x, weights, parameters, [], list(range(8)), 1, True, True, 1e-5, 1, torch.ones_like(x)
    )
    for value in (y, gradients[0], gradients[1]):
        assert value.isfinite().all()
