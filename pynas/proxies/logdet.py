"""logdet: NASWOT under the survey's name."""

from __future__ import annotations

from typing import ClassVar

from pynas.proxies._registry import register
from pynas.proxies.naswot import Naswot


@register
class Logdet(Naswot):
    """ln det K of ReLU codes: the same number as ``naswot``, under the name that the survey uses.

    The survey's code has the formula of ``naswot`` (as published it returns -inf, because it sums nothing
    without a backward pass). Li, Hoang, Bhardwaj, Lin, Wang, Marculescu: Zero-Shot Neural Architecture
    Search: Challenges, Solutions, and Opportunities, TPAMI 2024.
    """

    name: ClassVar[str] = "logdet"
