"""Search spaces: sets of architectures as pure data, and how to build each architecture as a network.

    space = pynas.spaces.get("nasbench201")
    arch = space.sample(random.Random(0))
    model = space.build(arch, num_classes=10)

To add a space: one file with a :class:`SearchSpace` subclass, its import below and its ``register`` line.
:mod:`pynas.testing.spaces` holds the tests that every space passes.
"""

from __future__ import annotations

from typing import Any

from pynas.spaces._custom import CustomSpace, custom
from pynas.spaces._open_ended import OpenEndedSpace
from pynas.spaces._part import facts_of, whole
from pynas.spaces._restricted import Restricted, restrict
from pynas.spaces._subset import Subset, subset
from pynas.spaces.base import SPACES, Edge, SearchSpace
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
    "register",
    "restrict",
    "subset",
    "whole",
]


def register(space: type[SearchSpace]) -> type[SearchSpace]:
    """Register a space under its ``name``; also a class decorator. ValueError if the name is taken."""
    return SPACES.register(space.name, space)


def get(name: str, **options: Any) -> SearchSpace:
    """The search space called ``name``, with the options of its constructor.

    Raises:
        UserError: ``name`` is unknown; the message lists the choices.
    """
    return SPACES.get(name)(**options)


def names() -> tuple[str, ...]:
    """Names of all registered spaces, sorted."""
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
