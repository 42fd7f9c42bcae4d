"""The interface of all sources of latencies."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

from pynas.architecture import Architecture

UNITS = {"latency": "ms", "energy": "mJ"}


class HardwareModel(ABC):
    """A quantity of each architecture on one device: latency in milliseconds, energy in millijoules.

    Attributes:
        quantity: ``latency`` or ``energy``.
        device: Short name of the device, such as ``raspi4``.
    """

    quantity: str
    device: str

    @property
    def name(self) -> str:
        """``quantity:device``, the key in constraints and objectives."""
        return f"{self.quantity}:{self.device}"

    @property
    def unit(self) -> str:
        """Unit of :meth:`predict`."""
        return UNITS.get(self.quantity, "")

    @abstractmethod
    def predict(self, arch: Architecture) -> float:
        """The quantity of ``arch``; NaN if it is unknown, in which case :meth:`explain` says why."""

    @abstractmethod
    def explain(self, arch: Architecture) -> str:
        """Why ``predict(arch)`` is NaN, as text; empty if it is a number."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(str(value) for value in self.facts().values() if value)})"

    @property
    def doubts(self) -> tuple[str, ...]:
        """Why predictions may mislead, in sentences that a search repeats; by default nothing is known."""
        return ()

    def facts(self) -> dict[str, Any]:
        """What the numbers are, for people: name, device and unit, and what a subclass adds."""
        return {"name": self.name, "device": self.device, "unit": self.unit}

    def unlike(self, dataset: str) -> str:
        """How the networks measured differ from those for ``dataset``; empty if they do not, or may not."""
        return ""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """A JSON object that identifies this model in the record of a search."""


def cautions(models: Sequence[HardwareModel], dataset: str | None) -> Iterator[str]:
    """What to know before numbers of ``models`` are set beside accuracies on ``dataset``; None for none."""
    for model in models:
        if dataset is not None and (other := model.unlike(dataset)):
            yield f"{model.name} is set beside accuracies on {dataset}, but {other}"
        yield from (f"{model.name}: {doubt}" for doubt in model.doubts)
