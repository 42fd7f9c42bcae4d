"""Networks without storage: what an architecture looks like, in milliseconds and no memory."""

from __future__ import annotations

import inspect
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from pynas._errors import UserError
from pynas.architecture import Architecture
from pynas.spaces import SearchSpace


@dataclass(frozen=True, slots=True)
class Task:
    """What a network is built for and fed with.

    Attributes:
        num_classes: Outputs.
        in_channels: Channels of an image.
        image_size: Height and width of an image; None is what the space's published figures are about.
        batch: Samples in a batch.
        prune: Whether parts that cannot influence the output are left out, as one would deploy it.
    """

    num_classes: int = 10
    in_channels: int = 3
    image_size: int | None = None
    batch: int = 1
    prune: bool = True

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready record."""
        return asdict(self)


def build(space: SearchSpace, arch: Architecture, task: Task, device: str = "meta") -> nn.Module:
    """The network of ``arch`` in eval mode; on the device ``meta`` without storage or initialisation."""
    with torch.device(device):
        model = space.build(
            arch, num_classes=task.num_classes, in_channels=task.in_channels, prune=task.prune
        )
    return model.to(device).eval()


def example(space: SearchSpace, task: Task, device: str = "meta") -> torch.Tensor:
    """A batch for the networks of ``space``."""
    if not takes_images(space):
        if task.image_size is not None:
            raise UserError(f"image_size: the inputs of {space.name} are not images of a free size")
        return space.example_inputs(task.batch, task.in_channels).to(device)
    size = published_size(space) if task.image_size is None else task.image_size
    return torch.rand(task.batch, task.in_channels, size, size, device=device)


def takes_images(space: SearchSpace) -> bool:
    """Whether the inputs of the networks are images of a free size."""
    return type(space).example_inputs is SearchSpace.example_inputs


def published_size(space: SearchSpace) -> int:
    """The image size that a space's published figures are about: the default of its ``macs``."""
    return int(inspect.signature(space.macs).parameters["image_size"].default)
