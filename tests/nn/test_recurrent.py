"""The recurrent cells and the language model against the loop that the authors' code writes out."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pynas.nn import RecurrentCell, RecurrentGenotype, RecurrentLanguageModel, RecurrentSearchCell
from pynas.nn.recurrent import edges_of, recurrent_genotype
from pynas.ops import ACTIVATIONS
from pynas.supernet.language_alone import train_cell_alone
from pynas.supernet.language_training import (
    TextSchedule,
    TextStep,
    initial_language_model,
    start_at_unit_scale,
    train_language_model,
)

pytestmark = pytest.mark.slow

FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "identity": lambda x: x,
}
FOUND = RecurrentGenotype(  # the cell that the paper reports for Penn Treebank
    tuple(zip(("relu", "relu", "tanh", "relu", "relu", "identity", "relu", "relu"),
              (0, 1, 2, 3, 4, 1, 5, 1), strict=True))
)  # fmt: skip


def plain_step(
    cell: Any, x: Tensor, previous: Tensor, weights: Tensor | None, bn: nn.BatchNorm1d | None
) -> Tensor:
    """One step of time, activation by activation, without dropout."""
    c, h = (torch.cat((x, previous), -1) @ cell._W0).chunk(2, -1)
    first = previous + c.sigmoid() * (h.tanh() - previous)
    states = [first if bn is None else bn(first)]
    for i, matrix in enumerate(cell._Ws):
        if weights is None:
            name, source = cell.genotype.recurrent[i]
            c, h = (states[source] @ matrix).chunk(2, -1)
            states.append(states[source] + c.sigmoid() * (FUNCTIONS[name](h) - states[source]))
            continue
        total = torch.zeros_like(first)
        for j, state in enumerate(states):
            c, h = (state @ matrix).chunk(2, -1)
            for k, name in enumerate(ACTIVATIONS[1:], start=1):
                candidate = state + c.sigmoid() * (FUNCTIONS[name](h) - state)
                total = total + weights[edges_of(i) + j, k] * candidate
        states.append(total if bn is None else bn(total))
    chosen = range(1, len(states)) if weights is not None else cell.genotype.concat
    return torch.stack([states[i] for i in chosen]).mean(0)


def run_plain(cell: Any, inputs: Tensor, hidden: Tensor, weights: Tensor | None, bn: Any) -> Tensor:
    outputs, last = [], hidden[0]
    for x in inputs:
        last = plain_step(cell, x, last, weights, bn)
        outputs.append(last)
    return torch.stack(outputs)


def search_cell(**options: Any) -> RecurrentSearchCell:
    torch.manual_seed(0)
    cell = RecurrentSearchCell(5, 7, nodes=options.pop("nodes", 4), **options).double()
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.mul_(20)  # far enough from zero that activations differ
    return cell


def data(cell: Any, steps: int = 3, batch: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(steps, batch, cell.inputs, generator=generator, dtype=torch.float64)
    hidden = torch.randn(1, batch, cell.features, generator=generator, dtype=torch.float64)
    weights = torch.randn(edges_of(cell.nodes), 5, generator=generator, dtype=torch.float64).softmax(-1)
    return inputs.requires_grad_(), hidden.requires_grad_(), weights.requires_grad_()


@pytest.mark.parametrize("training", [True, False])
def test_search_cell_is_the_loop(training: bool) -> None:
    cell = search_cell().train(training)
    bn = nn.BatchNorm1d(7, affine=False).double().train(training)
    inputs, hidden, weights = data(cell)
    expected = run_plain(cell, inputs, hidden, weights, bn)
    got, last = cell(inputs, hidden, weights)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)
    assert torch.equal(last[0], got[-1])
    for name, buffer in bn.named_buffers():
        torch.testing.assert_close(cell.bn.get_buffer(name), buffer, rtol=1e-9, atol=1e-9)
    leaves = (inputs, hidden, weights, *cell.parameters())
    cotangent = torch.randn(got.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    pairs = (torch.autograd.grad(y, leaves, cotangent) for y in (got, expected))
    for ours, theirs in zip(*pairs, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-8)


def test_discrete_cell_is_the_loop() -> None:
    torch.manual_seed(0)
    genotype = RecurrentGenotype(
        (("tanh", 0), ("relu", 1), ("identity", 0), ("sigmoid", 2)), concat=(1, 3, 4)
    )
    cell = RecurrentCell(5, 7, genotype).double()
    inputs, hidden, _ = data(cell)
    expected = run_plain(cell, inputs, hidden, None, None)
    got, _ = cell(inputs, hidden)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)
    leaves = (inputs, hidden, *cell.parameters())
    pairs = (torch.autograd.grad(y.square().sum(), leaves) for y in (got, expected))
    for ours, theirs in zip(*pairs, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-8)


def test_one_hot_weights_make_the_discrete_cell() -> None:
    """With statistics that normalise nothing, a mixture of one activation each is the discrete cell."""
    cell = search_cell(nodes=8).eval()
    cell.bn.eps = 0.0
    discrete = RecurrentCell(5, 7, FOUND).double()
    discrete.load_state_dict({k: v for k, v in cell.state_dict().items() if not k.startswith("bn.")})
    weights = torch.zeros(edges_of(8), 5, dtype=torch.float64)
    for i, (name, source) in enumerate(FOUND.recurrent):
        weights[edges_of(i) + source, ACTIVATIONS.index(name)] = 1
    assert recurrent_genotype(weights) == FOUND
    inputs, hidden, _ = data(cell)
    torch.testing.assert_close(cell(inputs, hidden, weights)[0], discrete(inputs, hidden)[0])


def test_none_wins_no_node() -> None:
    weights = torch.tensor([[0.9, 0.1, 0, 0, 0], [0.5, 0, 0.2, 0.3, 0], [0.6, 0.1, 0.05, 0.05, 0.2]])
    assert recurrent_genotype(weights) == RecurrentGenotype((("tanh", 0), ("sigmoid", 0)))


def test_dropout_masks_last_for_all_steps() -> None:
    cell = search_cell(dropout_input=0.5, dropout_hidden=0.5)
    inputs, hidden, weights = data(cell, batch=64)
    same = inputs[:1].expand(2, -1, -1)
    grads = []
    for t in (0, 1):
        x = same.detach().clone().requires_grad_()
        torch.manual_seed(3)
        y, _ = cell(x, hidden, weights)
        grads.append(torch.autograd.grad(y.square().sum(), x)[0][t] == 0)
    assert torch.equal(*grads)
    assert 0.35 < grads[0].double().mean() < 0.65
    cell.eval()
    assert torch.equal(cell(inputs, hidden, weights)[0], cell(inputs, hidden, weights)[0])


def published_names(nodes: int) -> list[str]:
    return [
        "encoder.weight",
        "rnns.0._W0",
        *(f"rnns.0._Ws.{i}" for i in range(nodes)),
        "decoder.weight",
        "decoder.bias",
    ]


def test_published_state_dicts_load() -> None:
    searching = RecurrentLanguageModel(11, 6)
    norms = ["rnns.0.bn.running_mean", "rnns.0.bn.running_var", "rnns.0.bn.num_batches_tracked"]
    assert sorted(searching.state_dict()) == sorted([*published_names(8), *norms, "weights"])
    theirs = {k: torch.randn(v.shape) for k, v in searching.state_dict().items() if k != "weights"}
    theirs["rnns.0.bn.num_batches_tracked"] = torch.tensor(3)
    before = searching.weights.clone()
    searching.load_state_dict(theirs)
    assert torch.equal(searching.rnns[0]._Ws[3], theirs["rnns.0._Ws.3"])
    assert torch.equal(searching.weights, before)
    discrete = RecurrentLanguageModel(11, 6, genotype=FOUND)
    assert sorted(discrete.state_dict()) == sorted(published_names(8))
    assert discrete.decoder.weight is discrete.encoder.weight
    assert discrete.genotype() == FOUND
    assert discrete.arch_parameters() == []


def test_model_predicts_and_carries_its_state() -> None:
    torch.manual_seed(0)
    model = RecurrentLanguageModel(13, 8, nodes=3).eval()
    tokens = torch.randint(13, (6, 4))
    whole, last = model(tokens, model.initial_hidden(4))
    assert whole.shape == (6, 4, 13)
    first, hidden = model(tokens[:2], model.initial_hidden(4))
    second, end = model(tokens[2:], hidden)
    torch.testing.assert_close(torch.cat((first, second)), whole)
    torch.testing.assert_close(end, last)


def test_a_step_learns_and_compiles_whole() -> None:
    torch.manual_seed(0)
    dropouts = {"dropout": 0.1, "dropout_input": 0.1, "dropout_embedding": 0.1, "dropout_hidden": 0.1}
    model = RecurrentLanguageModel(7, 16, nodes=2, dropout_word=0.1, **dropouts)
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    # Counting modulo 7: the next word is certain.
    tokens = (torch.arange(15).view(-1, 1) + torch.arange(16)).remainder(7)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    losses = []
    for _ in range(40):
        logits, _ = compiled(tokens[:-1], model.initial_hidden(16))
        loss = F.cross_entropy(logits.flatten(0, 1), tokens[1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    assert all(parameter.grad is not None for parameter in model.parameters())


BAD_CELL: dict[str, tuple[str, tuple[tuple[int, ...], ...]]] = {
    "inputs": ("inputs: expected .steps, batch, 5.", ((3, 6, 4), (1, 6, 7), (10, 5))),
    "no steps": ("at least one step", ((0, 6, 5), (1, 6, 7), (10, 5))),
    "hidden": (r"hidden: expected \(1, 6, 7\)", ((3, 6, 5), (1, 5, 7), (10, 5))),
    "weights": (r"weights: expected \(10, 5\)", ((3, 6, 5), (1, 6, 7), (9, 5))),
}


@pytest.mark.parametrize("case", BAD_CELL)
def test_bad_shapes_are_named(case: str) -> None:
    message, shapes = BAD_CELL[case]
    with pytest.raises(ValueError, match=message):
        search_cell()(*(torch.zeros(shape, dtype=torch.float64) for shape in shapes))


def test_bad_values_are_named() -> None:
    with pytest.raises(ValueError, match=r"node 2: expected a predecessor in 0\.\.1, got 2"):
        RecurrentGenotype((("tanh", 0), ("relu", 2)))
    with pytest.raises(ValueError, match=r"expected an activation out of tanh.*got 'none'"):
        RecurrentGenotype((("none", 0),))
    with pytest.raises(ValueError, match="at least one"):
        RecurrentGenotype(())
    with pytest.raises(ValueError, match=r"concat: expected states in 0\.\.1"):
        RecurrentGenotype((("tanh", 0),), concat=(2,))
    with pytest.raises(ValueError, match="weights: expected"):
        recurrent_genotype(torch.zeros(4, 5))
    with pytest.raises(ValueError, match="dropout_hidden: expected a probability"):
        RecurrentSearchCell(3, 3, dropout_hidden=1.0)


@pytest.mark.parametrize("genotype", [None, FOUND], ids=["search", "found"])
def test_products_start_at_unit_scale(genotype: RecurrentGenotype | None) -> None:
    """What a word brings into the cell starts as large as what a normalised state brings."""
    torch.manual_seed(0)
    model = RecurrentLanguageModel(500, 96, genotype=genotype)
    start_at_unit_scale(model, 0.05)
    assert model.decoder.weight is model.encoder.weight
    assert model.encoder.weight.abs().amax() <= 0.05
    matrices = dict(model.rnns[0].named_parameters())
    first = matrices.pop("_W0")
    words, states = model.encoder.weight, torch.randn(500, 96)
    for product in (words @ first[:96], states @ first[96:], *(states @ m for m in matrices.values())):
        assert product.var().item() == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize("spread", [0.0, -1.0, float("inf"), float("nan")])
def test_a_scale_that_is_none_is_named(spread: float) -> None:
    with pytest.raises(ValueError, match="spread: expected a positive number"):
        start_at_unit_scale(RecurrentLanguageModel(9, 4, nodes=1), spread)


def test_cells_start_alike_and_know_the_frequencies() -> None:
    tokens = torch.tensor([0, 0, 0, 1, 3])
    state = torch.get_rng_state()
    models = [
        initial_language_model(tokens, 4, 6, genotype=genotype, nodes=8, dropout=0.23, seed=5)
        for genotype in (None, FOUND)
    ]
    assert torch.equal(torch.get_rng_state(), state)
    first, second = (
        {name: p for name, p in model.named_parameters() if name != "weights"} for model in models
    )
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    torch.testing.assert_close(models[1].decoder.bias.exp(), torch.tensor([4 / 9, 2 / 9, 1 / 9, 2 / 9]))
    assert not torch.equal(first["rnns.0._W0"], initial_language_model(tokens, 4, 6).rnns[0]._W0)
    cell = models[1].rnns[0]
    assert (models[1].dropout, models[1].dropout_embedding) == (0.23, 0.2)
    assert (cell.dropout_input, cell.dropout_hidden) == (0.23, 0.23)


def test_alpha_waits_until_the_warm_up_is_over() -> None:
    tokens = torch.arange(120) % 7
    torch.manual_seed(0)
    model = initial_language_model(tokens, 7, 5, nodes=2, dropout=0.0)
    alphas = [model.weights.detach().clone()]

    def remember(step: TextStep) -> None:
        alphas.append(model.weights.detach().clone())

    schedule = TextSchedule(epochs=2, batch_size=4, steps=10, alpha_warm_up=0.4)
    train_language_model(model, tokens, tokens, schedule, remember)
    changed = [not torch.equal(a, b) for a, b in itertools.pairwise(alphas)]
    assert changed == [False] * 3 + [True] * 3  # six steps; 0.4 of them are 2.4
    with pytest.raises(ValueError, match=r"alpha_warm_up: expected a fraction"):
        TextSchedule(alpha_warm_up=1.0)


def test_a_cell_trained_alone_knows_the_order_of_words() -> None:
    tokens = torch.arange(600) % 7
    shuffled = tokens[torch.randperm(600, generator=torch.Generator().manual_seed(0))]
    schedule = TextSchedule(epochs=3, batch_size=4, steps=10, learning_rate=0.02)
    genotype = RecurrentGenotype((("tanh", 0), ("relu", 1)))

    def train(seed: int) -> tuple[float, ...]:
        return train_cell_alone(
            genotype, tokens, (tokens[3:203], shuffled), 7, schedule, features=12, dropout=0.1, seed=seed
        )

    state = torch.get_rng_state()
    ordered, mixed = train(1)
    assert torch.equal(torch.get_rng_state(), state)
    assert ordered < 2
    assert mixed > 6  # nothing is to be known of these, and the unigram's is 7
    torch.rand(3)
    assert train(1) == (ordered, mixed)
    assert train(2) != (ordered, mixed)
