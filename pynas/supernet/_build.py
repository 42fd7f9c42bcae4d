"""Builds the supernet of a space."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from pynas._errors import UserError
from pynas._io import weights
from pynas.nn import DARTSSupernet, NASBench201Supernet
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
    found = own(num_classes, in_channels, **options)
    if not isinstance(found, SharedWeights):
        raise UserError(
            f"space: supernet() of {space.name} returned {type(found).__name__}, expected "
            "pynas.supernet.SharedWeights"
        )
    return found


def load(path: str | os.PathLike[str]) -> SharedWeights:
    """The supernet in a file of ``pynas supernet --save``, with its weights, in evaluation mode.

    ``model.network`` is the network with its architecture parameters, where it has them. Channels, cells and
    classes are read off the shapes of the weights.

    Raises:
        UserError: The file is absent, damaged, or not of that command.
    """
    file = Path(path)
    tensors, facts = weights.load(file)
    name = facts.get("space", "")
    try:
        model = _like(name.partition(":")[0], tensors, facts)
    except (KeyError, ValueError, IndexError, TypeError) as error:
        raise UserError(f"{file}: not a file of 'pynas supernet --save': {error!r}") from error
    network = getattr(model, "network", model)
    weights.check_fits(tensors, network.state_dict(), f"{file}: not a supernet of {name or 'a known space'}")
    network.load_state_dict(tensors)
    return model.eval()


def _like(name: str, tensors: Mapping[str, Tensor], facts: Mapping[str, str]) -> SharedWeights:
    """A supernet of the sizes of these weights."""
    if name == "template":
        space = TemplateSpace(template=facts["template"])
        classes = len(tensors["classifier.weight"])
        stem = next(v for key, v in tensors.items() if key.startswith("stem.") and v.dim() == 4)
        return TemplateSupernet(space, classes, stem.shape[1])
    if name == "spos_shufflenet":
        usual = SPOSSupernet().state_dict()
        first = next(key for key, value in usual.items() if value.dim() == 4)
        classes = next(len(value) for value in tensors.values() if value.dim() == 2)
        return SPOSSupernet(None, classes, width=len(tensors[first]) / len(usual[first]))
    channels, in_channels = tensors["stem.0.weight"].shape[:2]
    classes = len(tensors["classifier.weight"])
    cells = len({key.split(".")[1] for key in tensors if key.startswith("cells.")})
    if name == "darts":
        return CellWeights(DARTSSupernet(channels // 3, cells, classes, in_channels=in_channels))
    if name == "nasbench201":
        return CellWeights(NASBench201Supernet(channels, (cells - 2) // 3, classes, in_channels=in_channels))
    raise ValueError(f"no supernet of {name!r}")
