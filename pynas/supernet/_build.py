"""Builds the supernet of a space."""

from __future__ import annotations

from typing import Any

from pynas._errors import UserError
from pynas.nn import NASBench201Supernet
from pynas.spaces import (
    DARTSCNN,
    DARTSRNN,
    NASBench101,
    NASBench201,
    ProxylessNAS,
    SearchSpace,
    SPOSShuffleNet,
    TemplateSpace,
)
from pynas.supernet._base import SharedWeights
from pynas.supernet.cells import CellWeights
from pynas.supernet.chains import ProxylessNASSupernet, SPOSSupernet
from pynas.supernet.nasbench101 import NASBench101Supernet
from pynas.supernet.recurrent import RecurrentSupernet
from pynas.supernet.templates import TemplateSupernet

SPACES = (
    "nasbench101",
    "nasbench201",
    "darts_cnn",
    "darts_rnn",
    "proxylessnas",
    "spos_shufflenet",
    "template",
)


def build(space: SearchSpace, num_classes: int = 10, in_channels: int = 3, **options: Any) -> SharedWeights:
    """Weights for all architectures of ``space``, initialised with torch's global generator.

    Args:
        space: One of ``nasbench101``, ``nasbench201``, ``darts_cnn``, ``darts_rnn``, ``proxylessnas``,
            ``spos_shufflenet``, ``template``; or a space of your own with a method
            ``supernet(num_classes, in_channels, **options)`` that returns :class:`SharedWeights`.
        num_classes: Number of classes; for ``darts_rnn``, size of the vocabulary.
        in_channels: Channels of images; ignored for words.
        options: Options of the class: :class:`NASBench101Supernet`, :class:`~pynas.nn.NASBench201Supernet`,
            :class:`~pynas.nn.DARTSSupernet`, :class:`RecurrentSupernet`, :class:`ProxylessNASSupernet`,
            :class:`SPOSSupernet`, :class:`TemplateSupernet`.

    Raises:
        UserError: There is no supernet of that space.
    """
    if isinstance(space, NASBench201):
        network = NASBench201Supernet(
            space.channels, space.num_cells, num_classes, in_channels=in_channels, **options
        )
        return CellWeights(network, space)
    if isinstance(space, DARTSCNN):
        return CellWeights(space.supernet(num_classes, in_channels, **options), space)
    if isinstance(space, NASBench101):
        return NASBench101Supernet(space, num_classes, in_channels, **options)
    if isinstance(space, DARTSRNN):
        return RecurrentSupernet(space, num_classes, **options)
    if isinstance(space, SPOSShuffleNet):
        return SPOSSupernet(space, num_classes, in_channels, **options)
    if isinstance(space, TemplateSpace):
        return TemplateSupernet(space, num_classes, in_channels, **options)
    if isinstance(space, ProxylessNAS):
        return ProxylessNASSupernet(space, num_classes, in_channels, **options)
    own = getattr(space, "supernet", None)
    if not callable(own):
        raise UserError(
            f"space: there is no supernet of {space.name}; expected one of {', '.join(SPACES)}, or a space "
            "of your own with a method supernet(num_classes, in_channels) that returns "
            "pynas.supernet.SharedWeights"
        )
    weights = own(num_classes, in_channels, **options)
    if not isinstance(weights, SharedWeights):
        raise UserError(
            f"space: supernet() of {space.name} returned {type(weights).__name__}, expected "
            "pynas.supernet.SharedWeights"
        )
    return weights
