"""Networks without storage: the structure of an architecture in milliseconds and without memory."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import torch
from torch import nn

from pynas.architecture import Architecture
from pynas.spaces import SearchSpace
from pynas.stats.state import check_initialised, generators_kept


@dataclass(frozen=True, slots=True)
class Task:
    """Shapes of the inputs and outputs of a network.

    Attributes:
        num_classes: Number of outputs; None is the number of the space's published figures.
        in_channels: Channels of an image.
        image_size: Height and width of an image, or words in a sequence; None as for ``num_classes``.
        batch: Samples in a batch.
        prune: Whether to leave out parts that cannot influence the output, as for deployment.
    """

    num_classes: int | None = None
    in_channels: int = 3
    image_size: int | None = None
    batch: int = 1
    prune: bool = True

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready record."""
        return asdict(self)


Followed = TypeVar("Followed")


def follow(
    space: SearchSpace, arch: Architecture, task: Task, run: Callable[[nn.Module, torch.Tensor], Followed]
) -> Followed:
    """``run(network, batch)`` on ``meta``; on the CPU if the network needs values to run."""
    with generators_kept():
        try:
            return run(build(space, arch, task), example(space, task))
        except (RuntimeError, NotImplementedError):
            return run(build(space, arch, task, "cpu"), example(space, task, "cpu"))


def build(space: SearchSpace, arch: Architecture, task: Task, device: str = "meta") -> nn.Module:
    """The network of ``arch`` in eval mode; the device ``meta`` has no storage and no initialisation."""
    classes = published(space, "num_classes") if task.num_classes is None else task.num_classes
    with torch.device(device):
        model = space.build(arch, num_classes=classes, in_channels=task.in_channels, prune=task.prune)
    check_initialised(model)
    return model.to(device).eval()


def example(space: SearchSpace, task: Task, device: str = "meta") -> torch.Tensor:
    """A batch for the networks of ``space``."""
    size = published(space, "image_size") if task.image_size is None else task.image_size
    sized = copy.copy(space)
    vars(sized)["image_size"] = size
    return sized.example_inputs(task.batch, task.in_channels).to(device)


def published(space: SearchSpace, name: str) -> int:
    """The value of ``name`` in the space's published figures: the default of its ``macs``."""
    return int(inspect.signature(space.macs).parameters[name].default)
