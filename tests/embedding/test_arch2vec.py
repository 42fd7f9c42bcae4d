"""arch2vec against its formulas, and what it learns of NAS-Bench-201's cells."""

from __future__ import annotations

import itertools
import math
import random
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import pynas
from pynas._errors import UserError
from pynas.architecture import Architecture
from pynas.embedding import VGAE, Arch2Vec, Epoch, GINLayer, graphs_of, split, vgae_loss
from pynas.embedding._graphs import isomorphism_hash
from pynas.spaces import NASBench101, NASBench201

pytestmark = pytest.mark.slow

SPACE = NASBench201()


def some(count: int, seed: int = 0) -> list[Architecture]:
    rng = random.Random(seed)
    return [SPACE.sample(rng) for _ in range(count)]


def test_cells_become_graphs_and_back() -> None:
    graphs, cells = graphs_of(SPACE), some(50)
    adjacency, operations = graphs.encode(cells)
    assert adjacency.shape == (50, 8, 8)
    assert operations.shape == (50, 8, 7)
    assert torch.equal(operations.sum(-1), torch.ones(50, 8))
    assert torch.equal(adjacency, adjacency.triu(1))
    for cell, edges, codes in zip(cells, adjacency, operations, strict=True):
        assert graphs.decode(edges > 0, codes.argmax(-1)) == cell


def test_paths_of_the_graph_are_those_of_the_cell() -> None:
    # From input to output a cell has 0-3, 0-1-3, 0-2-3 and 0-1-2-3: one, two, two and three operations.
    adjacency = graphs_of(SPACE).encode(some(1))[0][0].double()
    paths = [int(torch.linalg.matrix_power(adjacency, n)[0, -1]) for n in range(1, 8)]
    assert paths == [0, 1, 2, 1, 0, 0, 0]


def test_what_is_no_cell_does_not_decode() -> None:
    graphs = graphs_of(SPACE)
    adjacency, operations = (t[0] for t in graphs.encode(some(1)))
    edges, codes = adjacency > 0, operations.argmax(-1)
    without_an_edge = edges.clone()
    without_an_edge[0, 1] = False
    assert graphs.decode(without_an_edge, codes) is None
    for node, code in ((0, 3), (7, 3), (4, 0), (4, 6)):
        changed = codes.clone()
        changed[node] = code
        assert graphs.decode(edges, changed) is None
        assert not graphs.passes_published_check(edges, changed)
    first = codes.clone()
    first[1] = 0
    assert graphs.decode(edges, first) is None
    assert graphs.passes_published_check(edges, first), "the authors' check does not look at node 1"


def test_cells_of_nasbench101_become_graphs_and_back() -> None:
    space, rng = NASBench101(), random.Random(0)
    graphs = graphs_of(space)
    small = [space.parse("output:0"), space.parse("maxpool3x3:0+output:0,1")]
    cells = [*small, *(space.sample(rng) for _ in range(40))]
    adjacency, operations = graphs.encode(cells)
    assert torch.equal(adjacency, adjacency.triu(1))
    for cell, edges, codes in zip(cells, adjacency, operations, strict=True):
        matrix, names = space.matrix(cell)
        assert int(edges.sum()) == sum(map(sum, matrix))
        assert codes.sum() == len(names)
        decoded = graphs.decode(edges > 0, codes.argmax(-1))
        assert decoded is not None
        assert graphs.identity(decoded) == space.canonical(cell)
        assert graphs.passes_published_check(edges > 0, codes.argmax(-1)) == (len(names) == 7)
    for broken in (torch.zeros(7, 7), torch.ones(7, 7)):  # no path; 21 edges
        codes = torch.tensor([0, 1, 1, 1, 1, 1, 4])
        assert graphs.decode(broken > 0, codes) is None
        assert not graphs.passes_published_check(broken > 0, codes)
    loose_end = torch.zeros(7, 7, dtype=torch.bool)
    loose_end[0, 6] = True  # vertex 3 is off the path, so that its operation does not matter
    codes = torch.tensor([0, 1, 1, 0, 1, 1, 4])
    assert graphs.passes_published_check(loose_end, codes)
    assert graphs.decode(loose_end, codes) == space.pruned(space.parse("output:0"))


def test_spaces_without_an_encoding_are_refused() -> None:
    with pytest.raises(UserError, match="no graph encoding"):
        graphs_of(pynas.spaces.get("nats_size"))


def gin_by_hand(layer: GINLayer, h: Tensor, adjacency: Tensor) -> Tensor:
    """A layer in evaluation mode, one graph and one node at a time."""
    first, norm, _, second = layer.mlp

    def normalised(x: Tensor, module: nn.BatchNorm1d) -> Tensor:
        assert module.running_mean is not None
        assert module.running_var is not None
        scaled = (x - module.running_mean) / (module.running_var + module.eps).sqrt()
        return scaled * module.weight + module.bias

    result = torch.empty(*h.shape[:2], second.out_features, dtype=h.dtype)
    for b in range(h.shape[0]):
        for n in range(h.shape[1]):
            total = (1 + layer.eps) * h[b, n]
            for other in range(h.shape[1]):
                total = total + adjacency[b, n, other] * h[b, other]
            hidden = normalised(first.weight @ total + first.bias, norm.norm).clamp(min=0)
            result[b, n] = normalised(second.weight @ hidden + second.bias, layer.norm.norm).clamp(min=0)
    return result


@torch.no_grad()
def test_encoder_and_loss_are_the_formulas() -> None:
    torch.manual_seed(0)
    model = VGAE(7, features=9, latent=4).double().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.running_mean = torch.randn(module.num_features).double()
            module.running_var = torch.rand(module.num_features).double() + 0.5
        if isinstance(module, GINLayer):
            module.eps.data.fill_(0.3)
    adjacency, operations = (t.double() for t in graphs_of(SPACE).encode(some(3)))
    h = operations
    for layer in model.gin:
        assert isinstance(layer, GINLayer)
        h = gin_by_hand(layer, h, adjacency + adjacency.transpose(1, 2))
    assert len(model.gin) == 4
    found, mean, log_std = model(adjacency, operations)
    torch.testing.assert_close(mean, h @ model.mean.weight.T + model.mean.bias)
    torch.testing.assert_close(log_std, h @ model.log_std.weight.T + model.log_std.bias)

    entropy = divergence = 0.0
    for b in range(3):
        for i in range(8):
            for k in range(7):
                p, t = found.operations[b, i, k].item(), operations[b, i, k].item()
                entropy -= (t * math.log(p) + (1 - t) * math.log(1 - p)) / (3 * 8 * 7)
            for j in range(i + 1, 8):
                p = 1 / (1 + math.exp(-float(mean[b, i] @ mean[b, j])))
                t = adjacency[b, i, j].item()
                entropy -= (t * math.log(p) + (1 - t) * math.log(1 - p)) / (3 * 8 * 8)
            for d in range(4):
                m, s = mean[b, i, d].item(), log_std[b, i, d].item()
                divergence -= 0.5 * (1 + 2 * s - m * m - math.exp(2 * s)) / (3 * 8)
    loss = vgae_loss(found, mean, log_std, adjacency, operations)
    assert math.isclose(loss.item(), entropy + divergence / (3 * 8), rel_tol=1e-9)


@pytest.mark.long
def test_it_learns_to_reconstruct(one_thread: None) -> None:
    cells = list(SPACE.all())[::5]
    training, held_out = split(cells)
    embedding = Arch2Vec(SPACE, seed=0)
    before = embedding.quality(training, held_out, points=50)
    epochs: list[Epoch] = []
    state = torch.get_rng_state()
    embedding.train(training, epochs=6, learning_rate=5e-3, seed=0, on_epoch=epochs.append)
    assert torch.equal(state, torch.get_rng_state())
    assert [epoch.number for epoch in epochs] == [1, 2, 3, 4, 5, 6]
    assert epochs[-1].loss < 0.6 * epochs[0].loss
    after = embedding.quality(training, held_out, points=200)
    assert before.operation_accuracy < 0.6
    assert after.operation_accuracy > 0.95
    assert after.adjacency_accuracy > 0.95
    assert 0 <= after.validity <= after.published_validity <= 1
    assert embedding.embed(held_out).shape == (len(held_out), 16)


def test_training_repeats_with_its_seed(one_thread: None) -> None:
    cells = some(40)

    def vectors() -> Tensor:
        embedding = Arch2Vec(SPACE, seed=1)
        embedding.train(cells, epochs=1, seed=2)
        return embedding.embed(cells)

    first = vectors()
    torch.rand(3)
    assert torch.equal(first, vectors())


def test_the_published_loop_is_that_of_the_authors_code(one_thread: None) -> None:
    """Written out: one order of batches, training mode with dropout in the first epoch only."""
    cells = some(37)
    embedding = Arch2Vec(SPACE, seed=1)
    expected = Arch2Vec(SPACE, seed=1).model
    optimizer = torch.optim.Adam(expected.parameters(), 1e-3)
    adjacency, operations = graphs_of(SPACE).encode(cells)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        batches = torch.split(torch.randperm(37), 9)  # the last has one graph
        expected.train()
        expected.dropout.p = 0.3
        for _ in range(3):
            seen = []
            for rows in batches:
                optimizer.zero_grad()
                found, mean, log_std = expected(adjacency[rows], operations[rows])
                vgae_loss(found, mean, log_std, adjacency[rows], operations[rows]).backward()
                nn.utils.clip_grad_norm_(expected.parameters(), 5)
                optimizer.step()
                seen.append(mean.detach())
            expected.eval()
    embedding.train(cells, epochs=3, batch_size=9, seed=5, published_loop=True)
    for name, value in expected.state_dict().items():
        assert torch.equal(embedding.model.state_dict()[name], value), name
    assert embedding.model.dropout.p == 0
    assert not embedding.model.training
    points = torch.cat(seen)
    noise = torch.randn(50, 8, 16, generator=torch.Generator().manual_seed(2))
    decoded = expected.decode(noise * points.std(0) + points.mean(0)).operations.argmax(-1)
    inside = [
        row[0] == 0 and row[-1] == 6 and all(0 < code < 6 for code in row[2:-1]) for row in decoded.tolist()
    ]
    quality = embedding.quality(cells[:3], cells, points=50, seed=2)
    assert quality.published_validity == sum(inside) / 50
    plain = Arch2Vec(SPACE, seed=1)
    plain.train(cells, epochs=3, batch_size=9, seed=5)
    assert not torch.equal(plain.embed(cells), embedding.embed(cells))


def test_the_published_hash_counts_isomorphic_graphs_once() -> None:
    """Against a search for a relabelling, on random graphs; what dangles counts, unlike in a cell."""
    rng, graphs = random.Random(3), []
    for _ in range(60):
        edges = torch.tensor([[j > i and rng.random() < 0.5 for j in range(4)] for i in range(4)])
        graphs.append((edges, torch.tensor([0, rng.randrange(1, 3), rng.randrange(1, 3), 4])))
    pairs = 0
    for a, b in itertools.combinations(graphs, 2):
        alike = any(
            torch.equal(a[1][list(order)], b[1]) and torch.equal(a[0][list(order)][:, list(order)], b[0])
            for order in itertools.permutations(range(4))
        )
        pairs += alike
        assert alike == (isomorphism_hash(*a) == isomorphism_hash(*b))
    assert pairs > 5


def test_saved_and_loaded(tmp_path: Path) -> None:
    cells, embedding = some(5), Arch2Vec(SPACE, seed=4)
    path = tmp_path / "embedding.safetensors"
    embedding.save(path)
    assert torch.equal(Arch2Vec.load(path, SPACE).embed(cells), embedding.embed(cells))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="not a readable file of weights"):
        Arch2Vec.load(path, SPACE)
    with pytest.raises(UserError, match="absent: no such file"):
        Arch2Vec.load(tmp_path / "absent", SPACE)
    with pytest.raises(UserError, match="cannot write"):
        embedding.save(tmp_path / "no" / "folder")


def test_bad_input() -> None:
    embedding = Arch2Vec(SPACE)
    with pytest.raises(UserError, match="at least 2"):
        embedding.train(some(1))
    with pytest.raises(UserError, match="at least one"):
        embedding.embed([])
    with pytest.raises(UserError, match="lower learning_rate"):
        embedding.train(some(64), epochs=40, learning_rate=1e6)
