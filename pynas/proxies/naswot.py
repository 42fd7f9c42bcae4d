"""NASWOT: how well ReLU codes tell samples apart."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from pynas.proxies._base import Proxy
from pynas.proxies._registry import register
from pynas.stats import Statistic, Statistics
from pynas.stats.code_agreement import Agreement, CodeAgreement


@register
class Naswot(Proxy):
    """ln det K, K_ij the number of ReLU units that samples i and j switch alike, summed over ReLU layers.

    As in the authors' code (their second version, also called nwot and logdet): one forward pass in train
    mode, every ReLU call counted, those on dead edges included; K = sum of X X^T + (1 - X)(1 - X)^T. Two
    samples with equal codes make K singular, which is a failure here and -inf or rounding there. Larger
    batches have larger scores: compare at one size.

    Mellor, Turner, Storkey, Crowley: Neural Architecture Search without Training, ICML 2021.
    """

    name: ClassVar[str] = "naswot"
    needs: ClassVar[tuple[Statistic[Any], ...]] = (CodeAgreement(),)
    whole_network: ClassVar[bool] = True

    def layers(self, statistics: Statistics) -> dict[str, float]:
        """None: a determinant of a sum."""
        return {}

    def score(self, statistics: Statistics) -> float:
        """By Cholesky in float64."""
        return log_determinant(agreement(statistics).kernel)


def agreement(statistics: Statistics) -> Agreement:
    """The network's agreement; ValueError where nothing was switched."""
    try:
        return statistics[CodeAgreement]["network"]
    except KeyError:
        raise ValueError("the network calls no ReLU, so samples have no codes") from None


def log_determinant(kernel: Tensor) -> float:
    """Logarithm of the determinant of integers that are positive semidefinite; ArithmeticError if 0."""
    matrix = kernel.double()
    factor, failed = torch.linalg.cholesky_ex(matrix)
    pivots = factor.diagonal().square()
    # A pivot is off by B eps times the largest diagonal at most; where K is regular none comes near that.
    rounding = len(matrix) * torch.finfo(torch.float64).eps * float(matrix.diagonal().max())
    if int(failed) or float(pivots.min()) <= rounding:
        raise ArithmeticError(
            f"the {len(matrix)} samples' codes are linearly dependent (K is singular), as when two are equal"
        )
    return math.fsum(pivots.log().tolist())
