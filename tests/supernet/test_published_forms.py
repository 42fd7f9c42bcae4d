"""What the codes of GDAS, SPOS, Supernet Shifting and AutoDL-Projects compute, each by its definition."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import pynas
from pynas._errors import UserError
from pynas.nn import DARTSSupernet, MixedOp, NASBench201Supernet, Supernet
from pynas.spaces import NASBench201, SPOSShuffleNet
from pynas.strategies import SPOSEvolution
from pynas.supernet import Differentiable, SubnetEvaluator, Trainer, TrainingOptions, build
from pynas.supernet.evaluation import batch_norms
from pynas.supernet.shifting import Shifting, ShiftingEvolution, ShiftingOptions
from pynas.trial import Evaluation, Status, Trial

SPACE = NASBench201(channels=4, num_cells=1)


def mixture(network: Supernet) -> tuple[Tensor, ...]:
    hard = network.sample("gumbel_hard", generator=torch.Generator().manual_seed(7))
    return tuple(w.detach().requires_grad_() for w in hard)


@pytest.mark.slow
@pytest.mark.parametrize("make", [lambda: NASBench201Supernet(4, 1, 5), lambda: DARTSSupernet(4, 3, 5)])
def test_undrawn_candidates_have_the_gradient_of_gdas_code(make: Callable[[], Supernet]) -> None:
    """In ``sum(w_k op_k(x) if k is drawn else w_k)`` it is the sum of the gradient of the edge's output."""
    torch.manual_seed(0)
    network = make().double()
    x, y = torch.randn(3, 3, 16, 16).double(), torch.tensor([0, 3, 1])
    outputs: list[tuple[MixedOp, Tensor, Tensor]] = []

    def keep(edge: nn.Module, arguments: tuple[Tensor, Tensor], output: Tensor) -> None:
        assert isinstance(edge, MixedOp)
        output.retain_grad()
        outputs.append((edge, arguments[1], output))

    handles = [m.register_forward_hook(keep) for m in network.modules() if isinstance(m, MixedOp)]
    weights = mixture(network)
    plain = network(x, weights)
    loss = nn.functional.cross_entropy(plain, y)
    loss.backward()
    by_drawn = [w.grad for w in weights if w.grad is not None]
    expected = [g.clone() for g in by_drawn]
    for _, row, output in outputs:
        assert output.grad is not None
        kind = next(i for i, w in enumerate(weights) if row.data_ptr() in [r.data_ptr() for r in w])
        number = [r.data_ptr() for r in weights[kind]].index(row.data_ptr())
        expected[kind][number][weights[kind][number] == 0] += output.grad.sum()
    for handle in handles:
        handle.remove()
    published = network(x, weights, published_gradient=True)
    assert torch.equal(published, plain), "zeros are added"
    found = torch.autograd.grad(nn.functional.cross_entropy(published, y), weights)
    for one, other, drawn, w in zip(found, expected, by_drawn, weights, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
        assert torch.equal(drawn[w == 0], torch.zeros_like(drawn[w == 0])), "not in the derivative"
        assert one[w == 0].abs().max() > 1e-6
    assert not any(m._forward_hooks for m in network.modules()), "hooks stay"


def test_training_by_gdas_code_differs_and_is_refused_without_cells() -> None:
    x, y = torch.randn(16, 3, 8, 8), torch.arange(16) % 10
    alphas = []
    for mixing in ("gumbel_hard", "gumbel_hard_published"):
        torch.manual_seed(1)
        model = build(SPACE)
        method = Differentiable(mixing, learning_rate=0.1)  # type: ignore[arg-type]
        assert method.describe()["mixing"] == mixing
        Trainer(model, x, y, method, TrainingOptions(epochs=2, batch_size=4)).train()
        alphas.append(model.network.architecture_parameters()[0].detach())  # type: ignore[attr-defined]
    assert not torch.equal(*alphas)
    drawn = build(pynas.spaces.get("template"))
    with pytest.raises(UserError, match="search cells of nasbench201 and darts_cnn"):
        Differentiable("gumbel_hard_published").check(drawn)
    with pytest.raises(ValueError, match="TemplateMixture has none"):
        drawn.network(torch.randn(2, 3, 32, 32), published_gradient=True)  # type: ignore[operator]


def test_the_supernet_of_autodl_projects_loads_with_its_biases() -> None:
    """A bias before a batch norm: in evaluation it moves what the running mean is compared with."""
    torch.manual_seed(2)
    network = NASBench201Supernet(4, 1, 5).double()
    x = torch.randn(6, 3, 8, 8).double()
    weights = network.sample("softmax")
    network.train()
    network(x, weights)
    network.eval()
    state = {name: value.clone() for name, value in network.state_dict().items()}
    expected, added = network(x, weights), 0
    for name in list(state):
        if name.endswith(".op.1.weight") and ".edges." in name:
            bias = torch.randn(len(state[name])).double()
            state[name.replace("weight", "bias")] = bias
            state[name.replace("1.weight", "2.running_mean")] += bias  # which saw it during training
            added += 1
    assert added == 3 * 6 * 2
    other = NASBench201Supernet(4, 1, 5).double().eval()
    assert not other.load_state_dict(state, strict=True).unexpected_keys
    torch.testing.assert_close(other(x, weights), expected, rtol=1e-12, atol=1e-12)
    state["stem.0.bias"] = torch.zeros(4)
    with pytest.raises(RuntimeError, match="stem"):
        other.load_state_dict(state, strict=True)


def test_spos_mutates_as_its_code_does() -> None:
    """Of 20 genes with four choices, each redrawn with .1: 1.5 / (1 - .925^20) changed, given that any is."""
    space = SPOSShuffleNet()
    search = SPOSEvolution(space, population_size=2, top=1, mutations=2, crossovers=0, seed=3)
    rng = random.Random(0)
    for number in range(2):
        arch = space.sample(rng)
        search.tell(Trial(number, arch, Evaluation(Status.OK, scores={"score": float(number)})))
    changed = [space.distance(arch, search._mutant()) for _ in range(3000)]
    expected = 1.5 / (1 - 0.925**20)
    assert round(expected, 2) == 1.9
    assert min(changed) == 1
    variance = (20 * 0.075 * 0.925 + 1.5**2) / (1 - 0.925**20) - expected**2
    assert abs(sum(changed) / 3000 - expected) < 4.5 * math.sqrt(variance / 3000)
    moves = SPOSEvolution(space, mutation="moves", seed=3)
    moves._parents = search._parents
    assert sum(space.distance(arch, moves._mutant()) for _ in range(3000)) / 3000 > expected + 0.05
    with pytest.raises(UserError, match="mutation: expected one of genes, moves, got 'bits'"):
        SPOSEvolution(space, mutation="bits")  # type: ignore[arg-type]


def test_recalibration_by_momentum_is_that_of_spos_code() -> None:
    torch.manual_seed(0)
    model = build(SPACE).double()
    arch = SPACE.sample(random.Random(5))
    batches = [torch.randn(5, 3, 8, 8).double() for _ in range(3)]
    x, y = torch.randn(7, 3, 8, 8).double(), torch.arange(7) % 10
    (found,) = SubnetEvaluator(model, x, y, calibration=batches, calibration_momentum=0.1)([arch])
    (mean,) = SubnetEvaluator(model, x, y, calibration=batches)([arch])
    for norm in batch_norms(model):  # as there: reset, then batches in train mode with momentum 0.1
        norm.reset_running_stats()
        assert norm.momentum == 0.1
    model.train()
    with torch.no_grad():
        for batch in batches:
            model(batch, arch)
        model.eval()
        expected = nn.functional.cross_entropy(model(x, arch), y).item()
    assert found.loss == pytest.approx(expected, rel=1e-9)
    assert mean.loss != pytest.approx(expected, rel=1e-3)
    with pytest.raises(UserError, match="calibration_momentum: expected a number in"):
        SubnetEvaluator(model, x, y, calibration=batches, calibration_momentum=0.0)


@pytest.mark.parametrize("decay", [False, True])
def test_shifting_decays_matrices_and_computes_float64_in_float64(decay: bool) -> None:
    """One step of one candidate with a loss without gradients to its norms: what remains is decay."""
    torch.manual_seed(0)
    model = build(SPACE, affine=True).double()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    x, y = torch.randn(6, 3, 8, 8).double(), torch.arange(6) % 10
    options = ShiftingOptions(
        generations=0, steps=1, batch_size=6, learning_rate=0.1, momentum=0.0, weight_decay=0.5,
        label_smoothing=0.0, decay_vectors=decay,
    )  # fmt: skip
    strategy = ShiftingEvolution(SPACE, seed=3, population_size=1, top=1, mutations=0, crossovers=0)
    seen: list[torch.dtype] = []
    usual = nn.functional.cross_entropy

    def looking(logits: Tensor, *arguments: object, **settings: object) -> Tensor:
        seen.append(logits.dtype)
        return usual(logits, *arguments, **settings)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.functional, "cross_entropy", looking)
        result = Shifting(model, x, y, SubnetEvaluator(model, x, y), options, strategy=strategy).run()
    assert set(seen) == {torch.float64}
    (candidate,) = result.candidates
    torch.manual_seed(0)
    twin = build(SPACE, affine=True).double().train()
    usual(twin(x, candidate.architecture), y).backward()
    for name, p in twin.named_parameters():
        if p.grad is None or not p.grad.any():
            assert torch.equal(dict(model.named_parameters())[name], before[name]), name
            continue
        decayed = decay or p.dim() > 1
        step = p.grad + (0.5 * before[name] if decayed else 0)
        torch.testing.assert_close(
            dict(model.named_parameters())[name], before[name] - 0.1 * step, rtol=1e-9, atol=1e-12
        )
