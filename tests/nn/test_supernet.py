from __future__ import annotations

import copy

import pytest
import torch
from darts_network import LoopNetwork

import pynas
from pynas.nn import (
    Cell,
    DARTSSupernet,
    Genotype,
    MixedOp,
    NASBench201Cell,
    NASBench201Supernet,
    Supernet,
)
from pynas.nn.genotype import derive_edges
from pynas.supernet import Differentiable, Trainer, TrainingOptions, score_network

pytestmark = pytest.mark.slow

SUPERNETS = (lambda: DARTSSupernet(4, 3, 5), lambda: NASBench201Supernet(4, 1, 5))


@pytest.fixture(params=SUPERNETS, ids=["darts", "nasbench201"])
def network(request: pytest.FixtureRequest) -> Supernet:
    torch.manual_seed(0)
    made: Supernet = request.param()
    return made


def images(count: int = 4, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(count, 3, 8, 8, dtype=dtype, generator=torch.Generator().manual_seed(1))


def test_the_authors_network_loads_and_gives_the_same() -> None:
    torch.manual_seed(0)
    theirs, ours = LoopNetwork(4, 5, 4).double(), DARTSSupernet(4, 4, 5).double()
    alphas = [alpha.detach().clone() for alpha in ours.architecture_parameters()]
    ours.load_state_dict(theirs.state_dict(), strict=True)
    for alpha, before in zip(ours.architecture_parameters(), alphas, strict=True):
        assert torch.equal(alpha, before)
    theirs.alphas_normal, theirs.alphas_reduce = alphas
    x = images(dtype=torch.float64)
    torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=1e-9)
    back = {name: t for name, t in ours.state_dict().items() if not name.startswith("alphas")}
    theirs.load_state_dict(back, strict=True)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x), rtol=0, atol=1e-9)
    DARTSSupernet(4, 4, 5).load_state_dict(ours.state_dict(), strict=True)
    del back["stem.0.weight"]
    with pytest.raises(RuntimeError, match=r"stem\.0\.weight"):
        ours.load_state_dict(back, strict=True)


def test_names_of_the_nasbench201_search_network() -> None:
    names = set(NASBench201Supernet(4, 1).state_dict())
    for name in (
        "arch_parameters",
        "stem.0.weight",
        "cells.0.edges.1<-0.2.op.1.weight",
        "cells.0.edges.3<-2.3.op.2.running_mean",
        "cells.1.conv_a.op.1.weight",
        "cells.1.downsample.1.weight",
        "cells.4.edges.3<-1.3.op.1.weight",
        "lastact.0.weight",
        "classifier.weight",
    ):
        assert name in names


def test_a_fixed_architecture_is_the_network_of_the_space() -> None:
    space = pynas.spaces.NASBench201(channels=4, num_cells=1)
    arch = space.parse(
        "|nor_conv_3x3~0|+|avg_pool_3x3~0|nor_conv_1x1~1|+|skip_connect~0|none~1|nor_conv_3x3~2|"
    )
    supernet = NASBench201Supernet(4, 1, affine=True)
    plain = space.build(arch, num_classes=10, prune=False)
    chosen = {}
    for name, tensor in plain.state_dict().items():
        parts = name.split(".")
        if "layers" in parts:  # cells.N.layers.EDGE.op... is cells.N.edges.j<-i.CANDIDATE.op... there
            source, target = NASBench201Cell.edge_list[int(parts[3])]
            candidate = arch.decisions[int(parts[3])]
            name = ".".join([*parts[:2], "edges", f"{target}<-{source}", str(candidate), *parts[4:]])
        chosen[name] = tensor
    missing, unexpected = supernet.load_state_dict(chosen, strict=False)
    assert not unexpected
    assert missing
    x = images()
    for module in (supernet, plain):
        module.train()
    torch.testing.assert_close(supernet(x, arch), plain(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("how", ["softmax", "gumbel", "gumbel_hard", "single_path"])
def test_samples(network: Supernet, how: str) -> None:
    random = torch.Generator().manual_seed(0)
    mixture = network.sample(how, generator=random)
    again = network.sample(how, generator=torch.Generator().manual_seed(0))
    for weights, same, alpha in zip(mixture, again, network.architecture_parameters(), strict=True):
        assert torch.equal(weights, same)
        assert weights.shape == alpha.shape
        torch.testing.assert_close(weights.sum(1), torch.ones(len(alpha)))
        live = (weights != 0).sum(1)
        assert (live == (1 if how in ("gumbel_hard", "single_path") else alpha.shape[1])).all()
    network(images(), mixture).sum().backward()
    for alpha in network.architecture_parameters():
        assert (alpha.grad is None) == (how == "single_path")
        if alpha.grad is not None:
            assert alpha.grad.any()
            assert alpha.grad.isfinite().all()


def test_hard_samples_follow_the_logits() -> None:
    network = NASBench201Supernet(4, 1)
    with torch.no_grad():
        network.arch_parameters[:, 2] = 2.0  # p = e^2 / (e^2 + 4) of candidate 2
    random = torch.Generator().manual_seed(0)
    drawn = torch.stack([network.sample("gumbel_hard", generator=random)[0] for _ in range(400)])
    share = float(drawn[..., 2].detach().mean())
    assert abs(share - 7.389 / 11.389) < 0.04
    with pytest.raises(ValueError, match="how"):
        network.sample("hard")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="temperature"):
        network.sample(temperature=0.0)


def test_gradients_reach_every_parameter(network: Supernet) -> None:
    network(images()).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    weights = {id(p) for p in network.weight_parameters()}
    assert len(weights) + len(network.architecture_parameters()) == len(list(network.parameters()))


def test_dead_edges_are_not_called() -> None:
    cell = Cell(4, 4, 4).double()
    called: list[int] = []
    for e, edge in enumerate(cell._ops):
        edge.register_forward_hook(lambda *_, e=e: called.append(e))
    x = torch.randn(2, 4, 6, 6, dtype=torch.float64)
    weights = torch.rand(14, 8, dtype=torch.float64)
    weights[[1, 3, 4, 9, 10, 11, 12, 13]] = 0.0
    y = cell(x, x, weights)
    # The last node has no live edge: its first one is called to say what shape zeros have.
    assert called == [0, 2, 5, 6, 7, 8, 9]
    assert y.shape == (2, 16, 6, 6)
    assert not y[:, 12:].any()


def test_a_node_is_the_sum_of_its_edges() -> None:
    cell = NASBench201Cell(4).double().eval()
    x, weights = torch.randn(2, 4, 6, 6, dtype=torch.float64), torch.rand(6, 5, dtype=torch.float64)
    edges = cell.edges
    one = edges["1<-0"](x, weights[0])
    two = edges["2<-0"](x, weights[1]) + edges["2<-1"](one, weights[2])
    three = edges["3<-0"](x, weights[3]) + edges["3<-1"](one, weights[4]) + edges["3<-2"](two, weights[5])
    torch.testing.assert_close(cell(x, weights), three, rtol=0, atol=1e-12)


def test_the_genotype_is_the_strongest_edges_without_none() -> None:
    network = DARTSSupernet(2, 1)
    with torch.no_grad():
        for alpha in network.architecture_parameters():
            alpha.zero_()
            alpha[:, 0] = 9.0  # none is the strongest everywhere and must not be chosen
            alpha[0, 4], alpha[1, 3] = 2.0, 3.0
            alpha[2, 5], alpha[4, 1] = 1.0, 2.0
            alpha[7, 6], alpha[8, 7] = 4.0, 3.0
            alpha[13, 2], alpha[9, 4] = 5.0, 6.0
    expected = (
        ("skip_connect", 1),
        ("sep_conv_3x3", 0),
        ("max_pool_3x3", 2),
        ("sep_conv_5x5", 0),
        ("dil_conv_3x3", 2),
        ("dil_conv_5x5", 3),
        ("sep_conv_3x3", 0),
        ("avg_pool_3x3", 4),
    )
    found = network.derive()
    assert found == Genotype(expected, expected)
    assert Genotype.from_json(found.to_json()) == found
    assert hash(found) == hash(Genotype([list(e) for e in expected], expected))  # type: ignore[arg-type]
    normal, _ = network.choose(found)
    assert normal.sum() == 8
    assert normal[1, 3] == normal[0, 4] == normal[4, 1] == normal[13, 2] == 1
    with pytest.raises(ValueError, match="genotype"):
        Genotype.from_json("[]")
    with pytest.raises(ValueError, match="none"):
        derive_edges([[1.0], [1.0]], ["none"])


def test_bad_architectures_and_weights_are_named(network: Supernet) -> None:
    x = images()
    with pytest.raises(ValueError, match="weights: expected a tuple"):
        network(x, network.sample()[:1] * 3)
    with pytest.raises(ValueError, match="architecture"):
        network.choose("nor_conv_3x3")
    if isinstance(network, DARTSSupernet):
        good = network.derive()
        for bad in (good.normal[:7], (("none_such", 0), *good.normal[1:]), (("none", 2), *good.normal[1:])):
            with pytest.raises(ValueError, match="architecture: normal"):
                network.choose(Genotype(bad, good.reduce))
    else:
        for decisions in ((0, 1), (9,) * 6):
            with pytest.raises(ValueError, match="architecture"):
                network.choose(pynas.Architecture("nasbench201", decisions))
    for make in (DARTSSupernet, NASBench201Supernet):
        with pytest.raises(ValueError, match="channels"):
            make(0)


def test_copies_and_another_precision(network: Supernet) -> None:
    other = copy.deepcopy(network).double()
    torch.testing.assert_close(other(images().double()).float(), network(images()), rtol=1e-3, atol=1e-4)
    assert all(isinstance(m, MixedOp) for m in other.modules() if "MixedOp" in type(m).__name__)


def test_it_learns_digits() -> None:
    source = pynas.data.load_images("digits", size=8)
    inputs, targets = source.inputs, source.targets
    torch.manual_seed(0)
    network = NASBench201Supernet(8, 1)
    before = [alpha.detach().clone() for alpha in network.architecture_parameters()]
    options = TrainingOptions(epochs=4, batch_size=64, learning_rate=0.1)
    method = Differentiable(learning_rate=3e-3)
    found = Trainer(network, inputs[:1400], targets[:1400], method, options).train()
    assert len(found.losses) == 40
    assert found.losses[-1] < found.losses[0]
    assert network.training
    assert score_network(network.eval(), inputs[1400:], targets[1400:]).accuracy > 0.6  # chance is a tenth
    assert all(p.requires_grad for p in network.parameters())
    for alpha, start in zip(network.architecture_parameters(), before, strict=True):
        assert not torch.equal(alpha, start)


def test_hard_samples_learn_too() -> None:
    source = pynas.data.load_images("digits", size=8)
    torch.manual_seed(0)
    options = TrainingOptions(epochs=4, learning_rate=0.1)
    method = Differentiable("gumbel_hard")
    losses = Trainer(NASBench201Supernet(8, 1), source.inputs, source.targets, method, options).train().losses
    assert sum(losses[-10:]) < 0.97 * sum(losses[:10])


def test_one_compilation_serves_all_architectures() -> None:
    torch._dynamo.reset()
    torch.manual_seed(0)
    network = NASBench201Supernet(2, 1)
    cell = network.cells[0]
    expected = copy.deepcopy(cell)
    compiled = torch.compile(cell, fullgraph=True, backend="aot_eager")
    random, x = torch.Generator().manual_seed(0), torch.randn(2, 2, 8, 8)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for _ in range(20):
            (weights,) = network.sample("single_path", generator=random)
            ours, theirs = compiled(x, weights), expected(x, weights)
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    for (name, mine), other in zip(cell.state_dict().items(), expected.state_dict().values(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5, msg=name)
