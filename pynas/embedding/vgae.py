r"""The variational graph isomorphism autoencoder of arch2vec.

Source: S. Yan, Y. Zheng, W. Ao, X. Zeng, M. Zhang, "Does Unsupervised Architecture Representation Learning
Help Neural Architecture Search?", NeurIPS 2020, arXiv:2006.06936, with the sizes and the loss of the authors'
code.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class _PerNode(nn.Module):
    """Batch norm over all nodes of all graphs: [B, N, C] counts as B N samples with C channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.norm(x.flatten(0, 1))).view_as(x)


class GINLayer(nn.Module):
    r"""``h <- ReLU(BN(MLP((1 + eps) h + A h)))``, a graph isomorphism layer (Xu et al., ICLR 2019).

    The MLP is linear, batch norm, ReLU, linear; ``eps`` is learned from 0.
    """

    def __init__(self, in_features: int, features: int) -> None:
        super().__init__()
        self.eps = nn.Parameter(torch.zeros(()))
        self.mlp = nn.Sequential(
            nn.Linear(in_features, features), _PerNode(features), nn.ReLU(), nn.Linear(features, features)
        )
        self.norm = _PerNode(features)

    def forward(self, h: Tensor, adjacency: Tensor) -> Tensor:
        """[B, N, C] and symmetric [B, N, N] to [B, N, features]."""
        return F.relu(self.norm(self.mlp((1 + self.eps) * h + adjacency @ h)))


class Reconstruction(NamedTuple):
    """Output of the decoder: probabilities in [0, 1].

    Attributes:
        operations: [B, N, K].
        adjacency: [B, N, N]; only entries above the diagonal count.
    """

    operations: Tensor
    adjacency: Tensor


class VGAE(nn.Module):
    r"""Encoder of cells to one Gaussian per node, decoder of nodes to operations and edges.

    Encoder: ``layers`` GIN layers on the symmetrised adjacency ``A + A^T``, then linear heads for the mean mu
    and the logarithm s of the standard deviation of each node. Decoder: ``sigmoid(W z + b)`` for operations,
    ``sigmoid(Z Z^T)`` for edges, behind dropout.

    Args:
        operations: K, the number of operations.
        features: Hidden features of the GIN layers.
        latent: Features of a node's Gaussian.
        layers: Number of GIN layers; the authors' code runs 4 (its option says 5).
        dropout: Dropout of the decoder's input. The authors train with 0.3 in the first epoch and, since
            their loop never leaves evaluation mode after it, with none from then on: see
            :meth:`Arch2Vec.train`. Ten epochs in training mode with 0.3 reconstruct 83 % of the operations of
            NAS-Bench-201, so the default here, which stays in training mode, is 0.
    """

    def __init__(
        self, operations: int, features: int = 128, latent: int = 16, layers: int = 4, dropout: float = 0.0
    ) -> None:
        super().__init__()
        widths = [operations] + [features] * layers
        self.gin = nn.ModuleList(GINLayer(a, b) for a, b in itertools.pairwise(widths))
        self.mean = nn.Linear(features, latent)
        self.log_std = nn.Linear(features, latent)
        self.dropout = nn.Dropout(dropout)
        self.operations = nn.Linear(latent, operations)

    def encode(self, adjacency: Tensor, operations: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the standard deviation of every node, [B, N, latent] each."""
        symmetric = adjacency + adjacency.transpose(1, 2)
        h = operations
        for layer in self.gin:
            h = layer(h, symmetric)
        return self.mean(h), self.log_std(h)

    def decode(self, z: Tensor) -> Reconstruction:
        """Probabilities of operations and edges from latent nodes [B, N, latent]."""
        z = self.dropout(z)
        return Reconstruction(self.operations(z).sigmoid(), (z @ z.transpose(1, 2)).sigmoid())

    def forward(self, adjacency: Tensor, operations: Tensor) -> tuple[Reconstruction, Tensor, Tensor]:
        """Reconstruction from a sample (in training) or from the mean, with the mean and log deviation."""
        mean, log_std = self.encode(adjacency, operations)
        z = mean + log_std.exp() * torch.randn_like(mean) if self.training else mean
        return self.decode(z), mean, log_std


def vgae_loss(
    found: Reconstruction, mean: Tensor, log_std: Tensor, adjacency: Tensor, operations: Tensor
) -> Tensor:
    r"""``BCE(operations) + BCE(adjacency) + KL / (B N)``, each a mean.

    ``KL = -0.5 mean_{B,N} sum_d (1 + 2 s - mu^2 - exp(2 s))``; with the authors' factor 1/(B N) it has almost
    no weight. The cross-entropy of edges is a mean over all N^2 entries; those on and below the diagonal are
    zero in both arguments.
    """
    graphs, nodes = mean.shape[:2]
    by_operation = F.binary_cross_entropy(found.operations, operations)
    by_edge = F.binary_cross_entropy(found.adjacency.triu(1), adjacency.triu(1))
    divergence = -0.5 * (1 + 2 * log_std - mean.square() - (2 * log_std).exp()).sum(-1).mean()
    return by_operation + by_edge + divergence / (graphs * nodes)
