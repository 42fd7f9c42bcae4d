"""Modules over the fused operators: mixed operations, search cells, supernets.

edge = pynas.nn.MixedOp(16, candidates="darts", stride=1)
y = edge(x, weights)

report = pynas.nn.replace_mixed_ops(model)  # the same, in code that has its own mixed operations
"""

from __future__ import annotations

from pynas.nn.candidates import LoopMixedOp, candidate
from pynas.nn.cell import Cell, NASBench201Cell
from pynas.nn.darts_supernet import DARTSSupernet
from pynas.nn.genotype import Genotype
from pynas.nn.language_model import RecurrentLanguageModel
from pynas.nn.mixed_op import MixedOp
from pynas.nn.nasbench201_supernet import NASBench201Supernet
from pynas.nn.recurrent import RecurrentCell, RecurrentGenotype, RecurrentSearchCell, recurrent_genotype
from pynas.nn.replace import ReplaceReport, replace_mixed_ops
from pynas.nn.supernet import Supernet

__all__ = [
    "Cell",
    "DARTSSupernet",
    "Genotype",
    "LoopMixedOp",
    "MixedOp",
    "NASBench201Cell",
    "NASBench201Supernet",
    "RecurrentCell",
    "RecurrentGenotype",
    "RecurrentLanguageModel",
    "RecurrentSearchCell",
    "ReplaceReport",
    "Supernet",
    "candidate",
    "recurrent_genotype",
    "replace_mixed_ops",
]
