"""Whether estimates can be trusted: accuracies with shared weights against stand-alone training.

    found = pynas.analysis.analyze_sharing({"all shared": estimates}, truth)
    found.settings[0].kendall, found.settings[0].picks[0].regret

Pure NumPy. :mod:`pynas.analysis.study` trains the supernets, :mod:`pynas.analysis.standalone` the
architectures that are in no table.
"""

from __future__ import annotations

from pynas.analysis.bias import OperationBias, cost_bias, operation_bias, rank_errors
from pynas.analysis.quality import ACCURACY, LOG_LIKELIHOOD, Quality
from pynas.analysis.selection import Pick, Pruning, in_top, overlap, pick, prune
from pynas.analysis.sharing import Protocol, SettingAnalysis, SharingAnalysis, analyze_sharing
from pynas.analysis.stability import Stability, stability

__all__ = [
    "ACCURACY",
    "LOG_LIKELIHOOD",
    "OperationBias",
    "Pick",
    "Protocol",
    "Pruning",
    "Quality",
    "SettingAnalysis",
    "SharingAnalysis",
    "Stability",
    "analyze_sharing",
    "cost_bias",
    "in_top",
    "operation_bias",
    "overlap",
    "pick",
    "prune",
    "rank_errors",
    "stability",
]
