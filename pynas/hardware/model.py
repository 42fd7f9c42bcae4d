"""The interface of all sources of latencies."""

from __future__ import annotations

from abc import ABC, abstractmethod
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

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """A JSON object that identifies this model in the record of a search."""
