"""Search spaces: sets of architectures as pure data, and how to build each architecture as a network.

    space = pynas.spaces.get("nasbench201")
    arch = space.sample(random.Random(0))
    model = space.build(arch, num_classes=10)

To add a space: one file with a :class:`SearchSpace` subclass, its import below and its ``register`` line. A
package of your own offers spaces by entry points of the group ``pynas.spaces``.
:mod:`pynas.testing.spaces` holds the tests that every space passes.
"""

from __future__ import annotations

from typing import Any, TypeVar

from pynas.spaces._custom import CustomSpace, custom
from pynas.spaces._open_ended import OpenEndedSpace
from pynas.spaces._opening import open_space
from pynas.spaces._part import facts_of, whole
from pynas.spaces._restricted import Restricted, restrict
from pynas.spaces._subset import Subset, subset
from pynas.spaces.base import SPACES, Edge, InvalidArchitecture, SearchSpace, maker_of
from pynas.spaces.darts_cnn import DARTSCNN
from pynas.spaces.darts_rnn import DARTSRNN
from pynas.spaces.epnas import EPNAS
from pynas.spaces.mbv2_zico import MBV2ZiCo
from pynas.spaces.nasbench101 import NASBench101
from pynas.spaces.nasbench201 import NASBench201
from pynas.spaces.nats_size import NATSSize
from pynas.spaces.proxylessnas import ProxylessNAS
from pynas.spaces.spos_shufflenet import SPOSShuffleNet
from pynas.spaces.template import TemplateSpace
from pynas.spaces.transnas import TransNASMacro, TransNASMicro

__all__ = [
    "DARTSCNN",
    "DARTSRNN",
    "EPNAS",
    "CustomSpace",
    "Edge",
    "InvalidArchitecture",
    "MBV2ZiCo",
    "NASBench101",
    "NASBench201",
    "NATSSize",
    "OpenEndedSpace",
    "ProxylessNAS",
    "Restricted",
    "SPOSShuffleNet",
    "SearchSpace",
    "Subset",
    "TemplateSpace",
    "TransNASMacro",
    "TransNASMicro",
    "custom",
    "facts_of",
    "get",
    "names",
    "open_space",
    "register",
    "restrict",
    "subset",
    "whole",
]


_S = TypeVar("_S", bound="SearchSpace | type[SearchSpace]")


def register(space: _S) -> _S:
    """Register a space, or a class of spaces, under its ``name``; also a class decorator.

    Raises:
        ValueError: The name is taken.
        TypeError: It is neither.
    """
    SPACES.register(getattr(space, "name", ""), maker_of("", space))
    return space


def get(name: str, **options: Any) -> SearchSpace:
    """The search space called ``name``, with the options of its constructor.

    Raises:
        UserError: ``name`` is unknown; the message lists the choices.
    """
    return SPACES.get(name)(**options)


def names() -> tuple[str, ...]:
    """Names of all spaces, registered or offered by packages, sorted."""
    return SPACES.names()


register(DARTSCNN)
register(DARTSRNN)
register(EPNAS)
register(MBV2ZiCo)
register(NASBench101)
register(NASBench201)
register(NATSSize)
register(TransNASMicro)
register(TransNASMacro)
register(SPOSShuffleNet)
register(ProxylessNAS)
register(TemplateSpace)
