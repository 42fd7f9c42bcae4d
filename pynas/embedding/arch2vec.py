"""arch2vec: architectures as vectors, learned without accuracies.

Source: S. Yan, Y. Zheng, W. Ao, X. Zeng, M. Zhang, "Does Unsupervised Architecture Representation Learning
Help Neural Architecture Search?", NeurIPS 2020, arXiv:2006.06936.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pynas._errors import UserError
from pynas._io import weights
from pynas.architecture import Architecture
from pynas.embedding._graphs import CellGraphs, graphs_of, isomorphism_hash
from pynas.embedding.vgae import VGAE, vgae_loss
from pynas.spaces import SearchSpace

PUBLISHED_DROPOUT = 0.3
"""Dropout of the decoder's input in the authors' trainings, which is in force in their first epoch only."""

_TRAINING_SHARE = 0.9
_CHUNK = 4096


@dataclass(frozen=True)
class Epoch:
    """Progress of training: epoch ``number`` of ``total``, from 1, with the mean ``loss`` of its batches."""

    number: int
    total: int
    loss: float


@dataclass(frozen=True)
class Quality:
    """Accuracy of reconstruction, and validity of decoded random points.

    Attributes:
        operation_accuracy: Share of nodes with the correct most probable operation (the first for padding).
        adjacency_accuracy: Share of entries above the diagonal on the correct side of 0.5.
        graph_accuracy: Share of graphs in which all nodes and edges are correct.
        validity: Share of decoded random points that are cells of the space.
        uniqueness: Share of distinct architectures (canonical forms) among these.
        published_validity: Validity by the authors' check, which ignores the edges on NAS-Bench-201.
        published_uniqueness: Share of distinct graphs among these, by the authors' hash, in which isomorphic
            graphs are one (:func:`isomorphism_hash`) and dangling nodes count.
        points: Number of random points.
    """

    operation_accuracy: float
    adjacency_accuracy: float
    graph_accuracy: float
    validity: float
    uniqueness: float
    published_validity: float
    published_uniqueness: float
    points: int


class Arch2Vec:
    """A trained autoencoder of the cells of one space.

    Args:
        space: A space with a graph encoding.
        seed: Seed of the initial weights; does not change the global random state.
    """

    def __init__(self, space: SearchSpace, seed: int = 0) -> None:
        self.space = space
        self.graphs: CellGraphs = graphs_of(space)
        self._latent: tuple[Tensor, Tensor] | None = None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.model = VGAE(len(self.graphs.operations)).eval()

    def embed(self, architectures: Sequence[Architecture]) -> Tensor:
        """Vectors [B, 16]: averages over nodes of the nodes' means."""
        return self.means(architectures).mean(1)

    @torch.no_grad()
    def means(self, architectures: Sequence[Architecture]) -> Tensor:
        """The mean of every node, [B, N, 16]."""
        if not architectures:
            raise UserError("architectures: expected at least one, got none")
        parts = [architectures[i : i + _CHUNK] for i in range(0, len(architectures), _CHUNK)]
        return torch.cat([self.model.encode(*self.graphs.encode(part))[0] for part in parts])

    def train(
        self,
        architectures: Sequence[Architecture],
        *,
        epochs: int = 10,
        batch_size: int = 32,
        learning_rate: float = 1e-3,
        clip: float = 5.0,
        seed: int = 0,
        published_loop: bool = False,
        on_epoch: Callable[[Epoch], None] | None = None,
    ) -> None:
        """Train with Adam on the autoencoder's loss, without accuracies.

        ``published_loop`` repeats the loop of the authors' code. It switches to evaluation mode after the
        first epoch, to decode random points, and never back: from the second epoch on there is no dropout,
        nothing is sampled (z is mu), and batch norms keep the running statistics of the first epoch. Batches
        are drawn once and are the same in all epochs. The random points of :meth:`quality` then have the mean
        and deviation of the means as the last epoch saw them, batch by batch while the weights moved. By
        default all epochs are in training mode, without dropout, with new batches in each.

        Args:
            architectures: At least two architectures to train on.
            epochs: Number of epochs; the authors take 8 on NAS-Bench-101, 10 on NAS-Bench-201.
            batch_size: Graphs in a step.
            learning_rate: Learning rate of Adam.
            clip: Largest gradient norm.
            seed: Seed of the order, the samples and dropout.
            published_loop: Whether to train as the authors' code does, with dropout 0.3 in the first epoch.
            on_epoch: Called after every epoch.

        Raises:
            UserError: There are fewer than two architectures, or the loss is not finite.
        """
        if len(architectures) < 2 or batch_size < 2 or epochs < 1:
            raise UserError(
                "architectures, batch_size, epochs: expected at least 2, 2 and 1, got "
                f"{len(architectures)}, {batch_size} and {epochs}"
            )
        adjacency, operations = self.graphs.encode(architectures)
        optimizer = torch.optim.Adam(self.model.parameters(), learning_rate)
        self._latent = None
        usual, dropout = self.model.dropout.p, PUBLISHED_DROPOUT if published_loop else self.model.dropout.p
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            order = torch.randperm(len(adjacency)) if published_loop else None
            try:
                self.model.dropout.p = dropout
                for number in range(1, epochs + 1):
                    self.model.train(not published_loop or number == 1)
                    rows = torch.randperm(len(adjacency)) if order is None else order
                    losses, means = [], []
                    for batch in torch.split(rows, batch_size):
                        if len(batch) < 2 and not published_loop:
                            continue
                        loss, mean = self._step(optimizer, adjacency[batch], operations[batch], clip, number)
                        losses.append(loss)
                        means.append(mean)
                    self.model.eval()
                    if on_epoch is not None:
                        on_epoch(Epoch(number, epochs, sum(losses) / len(losses)))
                if published_loop:
                    seen = torch.cat(means)
                    self._latent = seen.mean(0), seen.std(0)
            finally:
                self.model.dropout.p = usual
                self.model.eval()

    def _step(
        self, optimizer: torch.optim.Optimizer, adjacency: Tensor, operations: Tensor, clip: float, epoch: int
    ) -> tuple[float, Tensor]:
        """One step on a batch; its loss, and the means of its nodes."""
        found, mean, log_std = self.model(adjacency, operations)
        if not all(t.isfinite().all() for t in found):
            raise UserError(f"epoch {epoch}: the loss is not finite; lower learning_rate")
        loss = vgae_loss(found, mean, log_std, adjacency, operations)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), clip)
        optimizer.step()
        return loss.item(), mean.detach()

    @torch.no_grad()
    def quality(
        self,
        training: Sequence[Architecture],
        held_out: Sequence[Architecture],
        *,
        points: int = 10_000,
        seed: int = 0,
    ) -> Quality:
        """Reconstruction of ``held_out``; validity and uniqueness of random points.

        As in the authors' code, points are Gaussian: for each node and feature, with the mean and standard
        deviation of the means of ``training``; after ``train(published_loop=True)``, with those of its last
        epoch, and ``training`` is not read.
        """
        adjacency, operations = self.graphs.encode(held_out)
        found = self.model.decode(self.means(held_out))
        upper = torch.ones(adjacency.shape[1:], dtype=torch.bool).triu(1)
        right_operations = found.operations.argmax(-1) == operations.argmax(-1)
        right_edges = ((found.adjacency > 0.5) == (adjacency > 0.5))[:, upper]
        if self._latent is None:
            means = self.means(training)
            mean, deviation = means.mean(0), means.std(0)
        else:
            mean, deviation = self._latent
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(points, *mean.shape, generator=generator)
        decoded = self.model.decode(noise * deviation + mean)
        valid: list[Architecture] = []
        published: list[int] = []
        edges, codes = (decoded.adjacency > 0.5) & upper, decoded.operations.argmax(-1)
        for edge, code in zip(edges, codes, strict=True):
            architecture = self.graphs.decode(edge, code)
            if architecture is not None:
                valid.append(self.graphs.identity(architecture))
            if self.graphs.passes_published_check(edge, code):
                published.append(isomorphism_hash(edge, code))
        return Quality(
            operation_accuracy=right_operations.double().mean().item(),
            adjacency_accuracy=right_edges.double().mean().item(),
            graph_accuracy=(right_operations.all(1) & right_edges.all(1)).double().mean().item(),
            validity=len(valid) / points,
            uniqueness=len(set(valid)) / max(1, len(valid)),
            published_validity=len(published) / points,
            published_uniqueness=len(set(published)) / max(1, len(published)),
            points=points,
        )

    def save(self, path: Path) -> None:
        """Write the weights (safetensors) with the space's name and operations, atomically."""
        metadata = {"space": self.space.name, "operations": " ".join(self.graphs.operations)}
        weights.save(path, self.model.state_dict(), metadata)

    @classmethod
    def load(cls, path: Path, space: SearchSpace) -> Arch2Vec:
        """Read a file that :meth:`save` wrote; UserError if it is damaged or of another space."""
        state, metadata = weights.load(path)
        if metadata.get("space") != space.name:
            raise UserError(
                f"{path}: an embedding of space {metadata.get('space')!r}, expected {space.name!r}"
            )
        made = cls(space)
        # Older files have only the number of operations, which the shapes of the weights also show.
        operations = " ".join(made.graphs.operations)
        if metadata.get("operations", operations) != operations:
            raise UserError(
                f"{path}: an embedding of the operations {metadata['operations']}, expected {operations}"
            )
        weights.check_fits(state, made.model.state_dict(), f"{path}: not an embedding of this version")
        if not all(bool(tensor.isfinite().all()) for tensor in state.values()):
            raise UserError(f"{path}: an embedding with weights that are not finite; train it again")
        made.model.load_state_dict(state)
        return made


def split(architectures: Sequence[Architecture]) -> tuple[list[Architecture], list[Architecture]]:
    """The first nine tenths, for training, and the rest: split by order, as the authors do."""
    cut = int(_TRAINING_SHARE * len(architectures))
    return list(architectures[:cut]), list(architectures[cut:])
