"""Supernets of search cells, run one architecture at a time."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

from torch import Tensor, nn

from pynas._errors import UserError
from pynas.architecture import Architecture
from pynas.nn import DARTSSupernet, NASBench201Supernet
from pynas.nn.cell import Cell, NASBench201Cell
from pynas.spaces import DARTSCNN, NASBench201, SearchSpace
from pynas.supernet._base import MixtureWeights, Segment, channels_last


class CellWeights(MixtureWeights):
    """A :class:`~pynas.nn.NASBench201Supernet` or :class:`~pynas.nn.DARTSSupernet` as weights of its space.

    Args:
        network: The network, which is trained in place and remains usable by itself, also with mixtures.
        space: The space; if None, ``nasbench201`` or ``darts_cnn`` with the network's channels and cells.
    """

    network: NASBench201Supernet | DARTSSupernet

    def __init__(
        self, network: NASBench201Supernet | DARTSSupernet, space: SearchSpace | None = None
    ) -> None:
        super().__init__()
        if not isinstance(network, (NASBench201Supernet, DARTSSupernet)):
            raise UserError(
                f"network: expected a NASBench201Supernet or a DARTSSupernet, got {type(network).__name__}"
            )
        self.network = network
        self.space = _space(network) if space is None else space
        wanted = NASBench201 if isinstance(network, NASBench201Supernet) else DARTSCNN
        if not isinstance(self.space, wanted):
            raise UserError(f"space: expected {wanted.name} for this network, got {self.space.name}")

    def segments(self, arch: Architecture) -> tuple[Segment, ...]:
        """Stem, cells, head."""
        self.space.check(arch)
        if isinstance(self.network, DARTSSupernet):
            return self._darts(self.network, arch)
        return self._nasbench201(self.network, arch)

    def _nasbench201(self, network: NASBench201Supernet, arch: Architecture) -> tuple[Segment, ...]:
        (weights,) = network.choose(arch)
        found = [Segment("stem", lambda x: network.stem(channels_last(x)), (network.stem,))]
        for i, cell in enumerate(network.cells):
            if isinstance(cell, NASBench201Cell):
                key: Any = (i, arch.decisions)
                found.append(Segment(key, partial(cell, weights=weights), (cell,)))
            else:
                found.append(Segment(i, cell, (cell,)))

        def head(x: Tensor) -> Any:
            return network.classifier(network.global_pooling(network.lastact(x)).flatten(1))

        return (*found, Segment("head", head, (network.lastact, network.classifier)))

    def _darts(self, network: DARTSSupernet, arch: Architecture) -> tuple[Segment, ...]:
        assert isinstance(self.space, DARTSCNN)
        genotype = self.space.genotype(arch)
        weights = network.choose(genotype)

        def stem(x: Tensor) -> tuple[Tensor, Tensor]:
            y = network.stem(channels_last(x))
            return y, y

        def step(cell: Cell) -> Any:
            row = weights[1 if cell.reduction else 0]
            return lambda states: (states[1], cell(*states, row))

        found = [Segment("stem", stem, (network.stem,))]
        for i, cell in enumerate(network.cells):
            assert isinstance(cell, Cell)
            found.append(
                Segment((i, genotype.reduce if cell.reduction else genotype.normal), step(cell), (cell,))
            )

        def head(states: tuple[Tensor, Tensor]) -> Any:
            return network.classifier(network.global_pooling(states[1]).flatten(1))

        return (*found, Segment("head", head, (network.classifier,)))

    def classifier(self) -> nn.Linear:
        """The network's classifier."""
        return self.network.classifier

    def _replace_classifier(self, layer: nn.Linear) -> None:
        self.network.classifier = layer


def _space(network: NASBench201Supernet | DARTSSupernet) -> SearchSpace:
    channels = cast(nn.Conv2d, network.stem[0]).out_channels
    if isinstance(network, NASBench201Supernet):
        cells = sum(isinstance(cell, NASBench201Cell) for cell in network.cells)
        return NASBench201(channels=channels, num_cells=cells // 3)
    return DARTSCNN(channels=channels // 3, num_cells=len(network.cells))
