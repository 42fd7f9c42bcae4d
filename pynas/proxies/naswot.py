"""NASWOT: how well ReLU codes distinguish samples."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from pynas._plural import counted
from pynas.proxies._base import Proxy
from pynas.proxies._registry import register
from pynas.stats import Statistic, Statistics
from pynas.stats.code_agreement import Agreement, CodeAgreement


@register
class Naswot(Proxy):
    """ln det K, K_ij the number of ReLU units that samples i and j switch alike, summed over ReLU layers.

    As in the authors' code (their second version, also called nwot and logdet): one forward pass in train
    mode counts every ReLU call, including those on dead edges. Their hook also counts the inputs of blocks
    with ReLU in their names, which networks of NAS-Bench-201 have: see ``naswot_published``. K = sum of X X^T
    + (1 - X)(1 - X)^T. Two samples with equal codes make K singular: here that is a failure, there it gives
    -inf or rounding noise. Larger batches have larger scores: compare scores of one batch size.

    Mellor, Turner, Storkey, Crowley: Neural Architecture Search without Training, ICML 2021.
    """

    name: ClassVar[str] = "naswot"
    needs: ClassVar[tuple[Statistic[Any], ...]] = (CodeAgreement(),)
    whole_network: ClassVar[bool] = True

    def layers(self, statistics: Statistics) -> dict[str, float]:
        """Empty: the determinant of a sum is no sum over layers."""
        return {}

    def score(self, statistics: Statistics) -> float:
        """The score, by a Cholesky factorisation in float64."""
        return log_determinant(agreement(statistics).kernel)


def agreement(statistics: Statistics) -> Agreement:
    """The network's agreement; ValueError if no ReLU was called."""
    try:
        return statistics[CodeAgreement]["network"]
    except KeyError:
        raise ValueError("the network calls no ReLU, so samples have no codes") from None


def log_determinant(kernel: Tensor) -> float:
    """Log determinant of a positive semidefinite integer matrix; ArithmeticError if it is singular."""
    matrix = kernel.double()
    factor, failed = torch.linalg.cholesky_ex(matrix)
    pivots = factor.diagonal().square()
    # The error of a pivot is at most B eps times the largest diagonal; pivots of a regular K are far larger.
    rounding = len(matrix) * torch.finfo(torch.float64).eps * float(matrix.diagonal().max())
    if int(failed) or float(pivots.min()) <= rounding:
        raise ArithmeticError(
            f"the codes of {counted(len(matrix), 'sample')} are linearly dependent (K is singular), as when "
            "two are equal"
        )
    return math.fsum(pivots.log().tolist())
