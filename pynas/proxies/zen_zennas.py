"""Zen score as in the paper."""

from __future__ import annotations

from typing import ClassVar

from pynas.proxies._registry import register
from pynas.proxies._zen import log_terms
from pynas.proxies.zen import Zen
from pynas.stats import Statistics


@register
class ZenZenNAS(Zen):
    """ln D + sum over batch norms of ln sqrt(mean_c var), var the variance of the batch x itself.

    The formula of the Zen-NAS paper, which exactly undoes the division by batch norms. Its code, like
    ``zen``, uses the variances that batch norms track over two passes instead. Both scores share one probe.
    """

    name: ClassVar[str] = "zen_zennas"

    def layers(self, statistics: Statistics) -> dict[str, float]:
        """Logarithms: of D as "feature map", and of each batch norm's scale."""
        return log_terms(statistics, lambda found: found.batch)
