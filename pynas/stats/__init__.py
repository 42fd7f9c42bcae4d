"""Gradient statistics of any model: one probing pass yields all that is asked for.

A statistic is one file here: a frozen subclass of :class:`Statistic` that says what to take of a gradient
product.
"""

from __future__ import annotations

from pynas.ops import Moments
from pynas.stats._base import ParameterInfo, Statistic, Statistics
from pynas.stats._problems import UnsupportedLayerError
from pynas.stats._products import GradientProduct
from pynas.stats.code_agreement import Agreement, CodeAgreement
from pynas.stats.collect import collect
from pynas.stats.curvature import Curvature, curvature
from pynas.stats.grad_gram import GradGram
from pynas.stats.grad_moments import GradMoments
from pynas.stats.grad_norms import GradNorms
from pynas.stats.gradients import Gradients
from pynas.stats.input_gradients import InputGradients
from pynas.stats.output_gram import OutputGram
from pynas.stats.running_grad_moments import RunningGradMoments, RunningMoments
from pynas.stats.saliency import ChannelSaliency
from pynas.stats.weight_norms import WeightNorms

__all__ = [
    "Agreement",
    "ChannelSaliency",
    "CodeAgreement",
    "Curvature",
    "GradGram",
    "GradMoments",
    "GradNorms",
    "GradientProduct",
    "Gradients",
    "InputGradients",
    "Moments",
    "OutputGram",
    "ParameterInfo",
    "RunningGradMoments",
    "RunningMoments",
    "Statistic",
    "Statistics",
    "UnsupportedLayerError",
    "WeightNorms",
    "collect",
    "curvature",
]
