"""The shared weights that fit a space."""

from __future__ import annotations

from typing import Any

from pynas._errors import UserError
from pynas.nn import NASBench201Supernet
from pynas.spaces import DARTSCNN, NASBench201, ProxylessNAS, SearchSpace, SPOSShuffleNet
from pynas.supernet._base import SharedWeights
from pynas.supernet.cells import CellWeights
from pynas.supernet.chains import ProxylessNASSupernet, SPOSSupernet

SPACES = ("nasbench201", "darts_cnn", "spos_shufflenet", "proxylessnas")


def build(space: SearchSpace, num_classes: int = 10, in_channels: int = 3, **options: Any) -> SharedWeights:
    """Weights for all architectures of ``space``, drawn with torch's global random numbers.

    Args:
        space: One of ``nasbench201``, ``darts_cnn``, ``spos_shufflenet``, ``proxylessnas``.
        num_classes: Logits.
        in_channels: Channels of images.
        options: As of the class: :class:`~pynas.nn.NASBench201Supernet`, :class:`~pynas.nn.DARTSSupernet`,
            :class:`SPOSSupernet`, :class:`ProxylessNASSupernet`.

    Raises:
        UserError: No supernet of that space is known.
    """
    if isinstance(space, NASBench201):
        network = NASBench201Supernet(
            space.channels, space.num_cells, num_classes, in_channels=in_channels, **options
        )
        return CellWeights(network, space)
    if isinstance(space, DARTSCNN):
        return CellWeights(space.supernet(num_classes, in_channels, **options), space)
    if isinstance(space, SPOSShuffleNet):
        return SPOSSupernet(space, num_classes, in_channels, **options)
    if isinstance(space, ProxylessNAS):
        return ProxylessNASSupernet(space, num_classes, in_channels, **options)
    raise UserError(f"space: there is no supernet of {space.name}; expected one of {', '.join(SPACES)}")
