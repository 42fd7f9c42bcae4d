"""Shared weights: one network for all architectures of a space, its training and evaluation.

space = pynas.spaces.NASBench201(channels=16, num_cells=1)
model = pynas.supernet.build(space, num_classes=10)
logits = model(images, space.sample(random.Random(0)))
"""

from __future__ import annotations

from pynas.supernet import distributed
from pynas.supernet._base import Segment, SharedWeights
from pynas.supernet._build import build, load
from pynas.supernet.cells import CellWeights
from pynas.supernet.chains import ProxylessNASSupernet, SPOSSupernet
from pynas.supernet.checkpoint import Checkpoint, CheckpointFolder
from pynas.supernet.evaluation import SubnetEvaluator, SubnetScore, score_network
from pynas.supernet.language_training import TextSchedule, TextStep, perplexity, train_language_model
from pynas.supernet.methods import Differentiable, Method, SinglePath
from pynas.supernet.nasbench101 import NASBench101Supernet
from pynas.supernet.options import TrainingOptions
from pynas.supernet.recurrent import RecurrentSupernet
from pynas.supernet.sampling import FairSampler, FlopsBinSampler, Sampler, UniformSampler
from pynas.supernet.templates import TemplateSupernet
from pynas.supernet.trainer import Trainer, TrainingResult, TrainingStep

__all__ = [
    "CellWeights",
    "Checkpoint",
    "CheckpointFolder",
    "Differentiable",
    "FairSampler",
    "FlopsBinSampler",
    "Method",
    "NASBench101Supernet",
    "ProxylessNASSupernet",
    "RecurrentSupernet",
    "SPOSSupernet",
    "Sampler",
    "Segment",
    "SharedWeights",
    "SinglePath",
    "SubnetEvaluator",
    "SubnetScore",
    "TemplateSupernet",
    "TextSchedule",
    "TextStep",
    "Trainer",
    "TrainingOptions",
    "TrainingResult",
    "TrainingStep",
    "UniformSampler",
    "build",
    "distributed",
    "load",
    "perplexity",
    "score_network",
    "train_language_model",
]
