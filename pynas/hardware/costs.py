"""Costs of an architecture, and upper bounds on them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from pynas._errors import UserError
from pynas._user_values import Unusable, explained, number, shown
from pynas.architecture import Architecture

if TYPE_CHECKING:
    from pynas.hardware import HardwareModel
    from pynas.spaces import SearchSpace

ALWAYS = ("params", "flops")  # closed forms of every space
PROFILED = ("activations", "memory", "intensity")  # from the shapes in a forward pass

_REMEMBERED = 1024  # size of the cache: costs in bounds are needed again when the trial is recorded


class Costs:
    """Costs of a space's architectures by name, and whether they are within bounds.

    ``params`` is the number of parameters; ``flops`` is the number of multiply-adds, as in the tables of
    NAS-Bench-201. ``activations`` (elements), ``memory`` (peak bytes of activations) and ``intensity``
    (operations per byte moved) refer to inference of one image, by the network without parts that cannot
    influence its output; see :class:`pynas.hardware.Profile`. A model of a device is called
    ``latency:DEVICE``, or just ``latency`` if it is the only one.

    Args:
        space: Space of the architectures.
        bounds: Largest allowed value by name of the cost; UserError for an unknown name or a negative bound.
        models: Latencies and energies of devices.
        wanted: Names of costs that a call returns besides ``params``, ``flops`` and the bounded ones.
        num_classes: Classes of the task.
        image_size: Height and width of an image in pixels.
        in_channels: Channels of an image.
    """

    def __init__(
        self,
        space: SearchSpace,
        bounds: Mapping[str, float] | None = None,
        *,
        models: Sequence[HardwareModel] = (),
        wanted: Sequence[str] = (),
        num_classes: int = 10,
        image_size: int = 32,
        in_channels: int = 3,
    ) -> None:
        self._space = space
        self.of_task(num_classes, image_size, in_channels)
        self._functions: dict[str, Callable[[Architecture], float]] = {
            "params": self._params,
            "flops": self._macs,
            "activations": lambda arch: self._profile(arch)[0]["activations"],
            "memory": lambda arch: self._profile(arch)[0]["memory"],
            "intensity": lambda arch: self._profile(arch)[0]["intensity"],
        }
        self._models: dict[str, HardwareModel] = {}
        for model in models:
            if model.name in self._models:
                raise UserError(f"hardware: {model.name} is given twice")
            self._models[model.name] = model
            if sum(other.quantity == model.quantity for other in models) == 1:
                self._models[model.quantity] = model
        self._functions |= {name: model.predict for name, model in self._models.items()}
        self.bounds = {name: self._bound(name, bound) for name, bound in (bounds or {}).items()}
        self._wanted = tuple(dict.fromkeys((*ALWAYS, *self.bounds, *wanted)))
        self._raised: dict[str, tuple[Architecture, str]] = {}
        self._smallest: dict[str, float] = {}
        self._unknown: dict[str, tuple[int, str]] = {}

    def of_task(self, num_classes: int, image_size: int, in_channels: int) -> None:
        """Change the task of the networks whose costs these are."""
        self._num_classes, self._image_size, self._in_channels = num_classes, image_size, in_channels
        self._profile = lru_cache(maxsize=_REMEMBERED)(self._profiled)
        self._known: dict[tuple[str, Architecture], float] = {}

    def _params(self, architecture: Architecture) -> float:
        return self._space.params(architecture, self._num_classes, self._in_channels)

    def _macs(self, architecture: Architecture) -> float:
        return self._space.macs(architecture, self._num_classes, self._image_size, self._in_channels)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all costs."""
        return tuple(self._functions)

    def _bound(self, name: str, bound: object) -> float:
        self.check(name, f"constraint {name!r}")
        try:
            value = number(bound)
        except Unusable:
            value = math.nan
        if not (math.isfinite(value) and value >= 0):
            raise UserError(
                f"constraint {name!r}: expected an upper bound, a finite number of at least 0, "
                f"got {shown(bound)}"
            )
        return value

    def check(self, name: str, what: str) -> None:
        """Raise UserError, starting with ``what``, unless ``name`` is the name of a cost."""
        if name in self._functions:
            return
        quantity = name.partition(":")[0]
        hint = ""
        if quantity in ("latency", "energy"):
            hint = "; give a source of latencies, such as hw:FILE:DEVICE or table:FILE"
            if any(other.startswith(quantity) for other in self._models):
                hint = ""
        raise UserError(f"{what}: unknown; known: {', '.join(self._functions)}{hint}")

    def want(self, names: Sequence[str], what: str) -> None:
        """Make calls also return these costs; UserError, starting with ``what``, for an unknown name."""
        for name in names:
            self.check(name, f"{what} {name!r}")
        self._wanted = tuple(dict.fromkeys((*self._wanted, *names)))

    def __call__(self, architecture: Architecture) -> dict[str, float]:
        """Costs by name: ``params``, ``flops``, the bounded and the wanted ones; NaN if unknown.

        A cost is unknown if the space or the model raises or returns no number.
        """
        return {name: self._cost(name, architecture) for name in self._wanted}

    def _cost(self, name: str, architecture: Architecture) -> float:
        """One cost; NaN if it is unknown, in which case :meth:`why` says why."""
        known = self._known.get((name, architecture))
        if known is not None:
            return known
        try:
            value = number(self._functions[name](architecture))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # user code may raise anything; the search continues
            self._raised[name] = (architecture, explained(error))
            return math.nan
        if not math.isnan(value):
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[name, architecture] = value
        return value

    def feasible(self, architecture: Architecture) -> bool:
        """Whether every bounded cost is known and at most its bound."""
        # Check profiled costs last: they take a hundred times as long.
        for name, bound in sorted(self.bounds.items(), key=lambda item: item[0] in PROFILED):
            cost = self._cost(name, architecture)
            if math.isnan(cost):
                count, _ = self._unknown.get(name, (0, ""))
                self._unknown[name] = (count + 1, self.why(name, architecture))
                return False
            self._smallest[name] = min(cost, self._smallest.get(name, cost))
            if cost > bound:
                return False
        return True

    def why(self, name: str, architecture: Architecture) -> str:
        """Why a cost of the most recently requested architecture is unknown."""
        failed, reason = self._raised.get(name, (None, ""))
        if failed == architecture:
            return reason
        if name in self._models:
            try:
                return str(self._models[name].explain(architecture))
            except Exception as error:  # a user's own model
                return explained(error)
        return self._profile(architecture)[1] if name in PROFILED else "not finite"

    def explain(self) -> str:
        """The bounds, with the smallest cost and the number of unknown costs that :meth:`feasible` saw."""
        parts = []
        for name, bound in self.bounds.items():
            met = []
            if name in self._smallest:
                met.append(f"smallest met: {_number(self._smallest[name])}")
            if name in self._unknown:
                count, reason = self._unknown[name]
                met.append(f"not known for {count:,}: {reason}")
            parts.append(f"{name} <= {_number(bound)}" + (f" ({'; '.join(met)})" if met else ""))
        return ", ".join(parts)

    def _profiled(self, architecture: Architecture) -> tuple[dict[str, float], str]:
        """The profiled costs, NaN for a network that does not run, and the reason."""
        from pynas import hardware

        try:
            task = hardware.Task(self._num_classes, self._in_channels, self._image_size)
            profile = hardware.profile_architecture(self._space, architecture, task)
        except Exception as error:  # a network that cannot run must not end the search
            return dict.fromkeys(PROFILED, math.nan), explained(error)
        return profile.to_dict(), ""


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == round(value) or abs(value) >= 1e5 else f"{value:.4g}"
