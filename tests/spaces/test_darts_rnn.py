from __future__ import annotations

import math
import random

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import pynas
from pynas._errors import UserError
from pynas.architecture import Architecture
from pynas.evaluate import ProxyEvaluator
from pynas.spaces import DARTSRNN, Edge
from pynas.spaces.darts_rnn.space import ACTIVATIONS
from pynas.stats import GradNorms, collect
from pynas.testing.spaces import CHECKS, Check

SPACE = DARTSRNN()
DRY = {
    "dropout": 0.0,
    "dropout_embedding": 0.0,
    "dropout_input": 0.0,
    "dropout_hidden": 0.0,
    "dropout_word": 0.0,
}
TINY = DARTSRNN(features=6, **DRY)

# The first-order cell as the authors' code writes it.
V1 = (
    "Genotype(recurrent=[('relu', 0), ('relu', 1), ('tanh', 2), ('relu', 3), ('relu', 4), ('identity', 1), "
    "('relu', 5), ('relu', 1)], concat=range(1, 9))"
)
COMPACT = "relu~0|relu~1|tanh~2|relu~3|relu~4|identity~1|relu~5|relu~1"


def samples(count: int, space: DARTSRNN = SPACE) -> list[Architecture]:
    rng = random.Random(0)
    return [space.sample(rng) for _ in range(count)]


def test_size() -> None:
    assert SPACE.size == math.factorial(8) * 4**8 == 2_642_411_520


def test_published_parameters() -> None:
    """The authors' README: 22.960M at 10,000 words and 850 units."""
    arch = SPACE.parse("DARTS_V2")
    assert SPACE.params(arch) == 22_960_000
    with torch.device("meta"):
        model = SPACE.build(arch, 10_000)
    assert sum(p.numel() for p in model.parameters()) == 22_960_000


def test_genotypes_in_every_notation() -> None:
    arch = SPACE.parse(V1)
    assert SPACE.format(arch) == V1
    assert SPACE.compact(arch) == COMPACT
    assert arch == SPACE.parse("DARTS_V1") == SPACE.parse(COMPACT) == SPACE.parse(f"DARTS = {V1}")
    assert arch == SPACE.parse(V1.replace("range(1, 9)", "[1, 2, 3, 4, 5, 6, 7, 8]"))
    for other in samples(20):
        genotype = SPACE.genotype(other)
        assert other == SPACE.parse(genotype) == SPACE.parse(genotype.to_json())


@pytest.mark.parametrize(
    ("old", "new", "marked", "message"),
    [
        ("('relu', 0)", "('none', 0)", "none", "an operation out of tanh, relu, sigmoid, identity"),
        ("('tanh', 2)", "('tanh', 3)", "3", "a source in 0..2, found '3'"),
        ("('tanh', 2)", "('tahn', 2)", "tahn", "did you mean 'tanh'?"),
        ("range(1, 9)", "range(0, 9)", "range", "range(1, 9): every node is part of the output"),
        ("range(1, 9)", "[2, 9]", "9", "a node in 1..8"),
        (V1, COMPACT[:-2], " ", "expected '~', found the end of the text"),
        (V1, f"{COMPACT}|relu~1", "|relu~1", "the end of the text"),
    ],
)
def test_malformed_genotypes(old: str, new: str, marked: str, message: str) -> None:
    text = V1.replace(old, new, 1)
    with pytest.raises(UserError) as error:
        SPACE.parse(text)
    sentence, shown, carets = str(error.value).split("\n")
    assert message in sentence
    assert f"{shown} "[carets.index("^") : len(carets)] == marked


def test_canonical_forms_are_coloured_trees() -> None:
    """As many as rooted trees whose other nodes have 4 colours: f_0 = 1, t_n = 4 f_{n-1}.

    f_n counts forests of n nodes: f_1 = 4, f_2 = t_2 + (4 + 1 over 2) = 26,
    f_3 = t_3 + t_2 t_1 + (4 + 2 over 3) = 104 + 64 + 20.
    """
    for nodes, trees in ((1, 4), (2, 26), (3, 188)):
        space = DARTSRNN(nodes=nodes)
        assert sum(1 for _ in space.unique()) == trees
        assert len({space.canonical(arch) for arch in space.all()}) == trees


@pytest.mark.slow
def test_renumbered_cells_have_one_canonical_form_and_one_function() -> None:
    rng = random.Random(1)
    for arch in samples(20, TINY):
        cell = TINY.cell(arch)
        # Number the nodes anew, each after its predecessor: old numbers in their new order.
        order: list[int] = []
        while len(order) < 8:
            ready = [i for i in range(1, 9) if i not in order and cell[i - 1][1] in (0, *order)]
            order.append(rng.choice(ready))
        name = {0: 0, **{old: new for new, old in enumerate(order, start=1)}}
        text = "|".join(f"{ACTIVATIONS[cell[old - 1][0]]}~{name[cell[old - 1][1]]}" for old in order)
        other = TINY.parse(text)
        assert TINY.canonical(other) == TINY.canonical(arch)
        torch.manual_seed(0)
        a, b = TINY.build(arch, 9), TINY.build(other, 9)
        state = a.state_dict()
        for new, old in enumerate(order):
            state[f"model.rnns.0._Ws.{new}"] = a.state_dict()[f"model.rnns.0._Ws.{old - 1}"]
        b.load_state_dict(state)
        tokens = torch.randint(9, (3, 4))
        torch.testing.assert_close(b(tokens), a(tokens))


def written_out(model: nn.Module, genotype: list[tuple[str, int]], tokens: Tensor) -> Tensor:
    """The language model from the paper's formulas."""
    functions = {"tanh": torch.tanh, "relu": torch.relu, "sigmoid": torch.sigmoid, "identity": lambda x: x}
    state = {name.removeprefix("model."): p for name, p in model.state_dict().items()}
    hidden = state["encoder.weight"].new_zeros(tokens.shape[0], state["encoder.weight"].shape[1])
    logits = []
    for words in tokens.T:
        x = state["encoder.weight"][words]
        c, h = (torch.cat([x, hidden], 1) @ state["rnns.0._W0"]).chunk(2, 1)
        states = [hidden + c.sigmoid() * (h.tanh() - hidden)]
        for i, (function, source) in enumerate(genotype):
            c, h = (states[source] @ state[f"rnns.0._Ws.{i}"]).chunk(2, 1)
            states.append(states[source] + c.sigmoid() * (functions[function](h) - states[source]))
        hidden = torch.stack(states[1:]).mean(0)
        logits.append(hidden @ state["encoder.weight"].T + state["decoder.bias"])
    return torch.stack(logits, 2)


@pytest.mark.parametrize("name", ["DARTS_V1", "DARTS_V2"])
def test_network_against_the_written_out_form(name: str) -> None:
    arch = TINY.parse(name)
    torch.manual_seed(0)
    model = TINY.build(arch, 11).double()
    for parameter in model.parameters():
        parameter.data += torch.randn_like(parameter)
    tokens = torch.randint(11, (5, 7))
    genotype = list(TINY.genotype(arch).recurrent)
    torch.testing.assert_close(model(tokens), written_out(model, genotype, tokens))


def test_parameter_names_are_those_of_the_authors() -> None:
    model = TINY.build(TINY.parse("DARTS_V1"), 9)
    names = set(model.get_submodule("model").state_dict())
    assert names == {"encoder.weight", "decoder.weight", "decoder.bias", "rnns.0._W0"} | {
        f"rnns.0._Ws.{i}" for i in range(8)
    }


def test_dropouts_hold_for_a_sequence() -> None:
    """The embedding drops a word everywhere in the batch; the cell's masks are those of the sequence."""
    arch = TINY.parse("DARTS_V1")
    tokens = torch.zeros(200, 3, dtype=torch.int64)
    for name in DRY:
        model = DARTSRNN(features=6, **{**DRY, name: 0.5}).build(arch, 9)
        torch.manual_seed(0)
        assert not torch.equal(model(tokens), model(tokens)), name
        model.eval()
        assert torch.equal(model(tokens), model(tokens)), name
    model = DARTSRNN(features=6, **{**DRY, "dropout": 0.5}).build(arch, 9).get_submodule("model")
    seen = []
    model.get_submodule("decoder").register_forward_hook(lambda module, args, output: seen.append(args[0]))
    model(tokens.T, torch.zeros(1, 200, 6))
    dropped = seen[0] == 0  # [T, B, H]
    assert bool((dropped == dropped[:1]).all())
    assert 0.4 < float(dropped.float().mean()) < 0.6
    words = DARTSRNN(features=6, **{**DRY, "dropout_word": 0.5}).build(arch, 9).get_submodule("model")
    read = []
    words.get_submodule("rnns.0").register_forward_hook(lambda module, args, output: read.append(args[0]))
    words(torch.arange(9).repeat(4, 2).T, torch.zeros(1, 4, 6))
    zeros = (read[0] == 0).all(2)  # [18, 4]: the words 0..8 twice, the same in every row
    assert bool((zeros == zeros[:9].repeat(2, 1)).all())
    assert bool((zeros == zeros[:, :1]).all())
    assert 0 < int(zeros[:9, 0].sum()) < 9


def test_graph() -> None:
    graph = SPACE.graph(SPACE.parse(V1))
    assert graph[2] == Edge(2, 3, "tanh")
    assert graph[-1] == Edge(8, 9, "mean")
    assert len(graph) == 16


def test_the_supernet_speaks_this_space() -> None:
    torch.manual_seed(0)
    space = DARTSRNN(features=6, nodes=3)
    supernet = space.supernet(9, dropout=0.0)
    assert supernet.dropout == 0.0
    found = space.parse(supernet.genotype())
    assert space.genotype(found) == supernet.genotype()


def test_proxies_of_language_models() -> None:
    """Recurrent matrices, tied embedding and decoder have rules: no fallback is needed."""
    torch.manual_seed(0)
    model = TINY.build(TINY.parse("DARTS_V2"), 20)
    tokens, targets = torch.randint(20, (2, 8, 5))
    names = ["zico", "snip", "grad_norm", "grad_sign", "params", "flops"]
    scores = pynas.score(model, tokens, targets, proxies=names)
    assert {name: s.status for name, s in scores.items()} == dict.fromkeys(names, "ok")
    assert "model.rnns.0._Ws.7" in scores["zico"].layers
    # Another loss: the last word only.
    last = pynas.score(
        model, tokens, targets, ["grad_norm"], loss_fn=lambda y, t: F.cross_entropy(y[:, :, -1], t[:, -1])
    )
    model.zero_grad()
    F.cross_entropy(model(tokens)[:, :, -1], targets[:, -1]).backward()
    norms = [
        p.grad.norm()
        for n, p in model.named_parameters()
        if p.grad is not None and n in last["grad_norm"].layers
    ]
    assert last["grad_norm"].value == pytest.approx(float(sum(norms)), rel=1e-5)
    assert len(norms) >= 9


def test_the_fallback_agrees_with_the_rules() -> None:
    """The cell as one layer without rules, whose gradients torch.func takes word sequence by sequence."""
    torch.manual_seed(0)
    model = TINY.build(TINY.parse("DARTS_V2"), 20).double()
    for parameter in model.parameters():
        parameter.data += 0.5 * torch.randn_like(parameter)
    tokens, targets = torch.randint(20, (2, 8, 5))
    ruled = collect(model, tokens, targets, needs=[GradNorms()])[GradNorms]
    whole = collect(model, tokens, targets, needs=[GradNorms()], fallback=("model.rnns.0",))[GradNorms]
    assert ruled.keys() == whole.keys()
    for name in ruled:
        torch.testing.assert_close(whole[name], ruled[name])


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_small_cell_is_enumerated(check: Check) -> None:
    check(DARTSRNN(nodes=3, features=4))


def test_searching_language_models() -> None:
    tokens, targets = torch.randint(20, (2, 8, 5), generator=torch.Generator().manual_seed(0))
    evaluator = ProxyEvaluator(TINY, tokens, targets, ["zico", "params"], num_classes=20)
    result = pynas.search(TINY, strategy="random", objectives=["zico"], evaluator=evaluator, budget=3, seed=0)
    assert result.best is not None
    assert result.best.evaluation.metrics["params"] == TINY.params(result.best.architecture, 20)


def test_bad_arguments() -> None:
    with pytest.raises(UserError, match="features: expected a positive integer, got 0"):
        DARTSRNN(features=0)
    with pytest.raises(UserError, match=r"dropout_hidden: expected a probability in \[0, 1\), got 1"):
        DARTSRNN(dropout_hidden=1)
    model = TINY.build(samples(1)[0], 9)
    for bad in (
        torch.zeros(2, 3),
        torch.zeros(2, 3, 4, dtype=torch.int64),
        torch.zeros(2, 0, dtype=torch.int64),
    ):
        with pytest.raises(UserError, match=r"inputs: expected words \[B, T\] of int64"):
            model(bad)
