"""Architectures as vectors, learned only from their graphs.

space = pynas.spaces.get("nasbench201")
training, held_out = pynas.embedding.split(list(space.all()))
embedding = pynas.embedding.Arch2Vec(space)
embedding.train(training)
vectors = embedding.embed(held_out)  # [len(held_out), 16]
"""

from __future__ import annotations

from pynas.embedding._graphs import CellGraphs, NASBench101Graphs, NASBench201Graphs, graphs_of
from pynas.embedding.arch2vec import Arch2Vec, Epoch, Quality, split
from pynas.embedding.cache import cache_folder, trained, training_pool
from pynas.embedding.vgae import VGAE, GINLayer, Reconstruction, vgae_loss

__all__ = [
    "VGAE",
    "Arch2Vec",
    "CellGraphs",
    "Epoch",
    "GINLayer",
    "NASBench101Graphs",
    "NASBench201Graphs",
    "Quality",
    "Reconstruction",
    "cache_folder",
    "graphs_of",
    "split",
    "trained",
    "training_pool",
    "vgae_loss",
]
