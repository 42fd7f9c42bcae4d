"""One set of weights for all architectures of a space."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from pynas import ops
from pynas._errors import UserError
from pynas.architecture import Architecture
from pynas.nn import Supernet
from pynas.spaces import SearchSpace


@dataclass(frozen=True)
class Segment:
    """A piece of one architecture's forward pass.

    Attributes:
        key: Identifies the segment: architectures with equal keys up to here have equal outputs here.
        run: Maps the output of the previous segment (for the first, images or words) to this one's output.
        modules: The modules that it runs, with its parameters and batch norms.
    """

    key: Hashable
    run: Callable[[Any], Any]
    modules: tuple[nn.Module, ...]


class SharedWeights(nn.Module, ABC):
    """A network that holds weights for every architecture of a space, and runs one of them at a time.

    ``model(x, arch)`` returns the logits of ``arch``; so does ``model(x)`` after ``model.select(arch)``.

    Attributes:
        space: Space of the architectures.
    """

    space: SearchSpace
    _selected: Architecture | None = None

    @abstractmethod
    def segments(self, arch: Architecture) -> tuple[Segment, ...]:
        """The forward pass of ``arch`` in segments; UserError if it is not in the space."""

    @abstractmethod
    def classifier(self) -> nn.Linear:
        """The last layer."""

    @abstractmethod
    def _replace_classifier(self, layer: nn.Linear) -> None:
        """Replace the classifier by ``layer``."""

    def settings(self) -> dict[str, Any]:
        """What tells it, beside its class, from others of equal tensors, as JSON values: for checkpoints."""
        return {}

    def select(self, arch: Architecture | None) -> None:
        """Select the architecture that ``model(x)`` runs; None deselects."""
        if arch is not None:
            self.space.check(arch)
        self._selected = arch

    def forward(self, x: Tensor, arch: Architecture | None = None) -> Tensor:
        """Logits ``[N, num_classes]`` of images ``[N, in_channels, H, W]``; for words, see the space.

        Args:
            x: Images, or words ``[N, T]``.
            arch: The architecture; the selected one if None.

        Raises:
            UserError: No architecture is given or selected, or it is not in the space.
        """
        arch = arch or self._selected
        if arch is None:
            raise UserError("arch: expected an architecture, as an argument or by select(), got none")
        with ops.strided_convolutions_of(self):
            for segment in self.segments(arch):
                x = segment.run(x)
        return x

    def classifier_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters of the last layer; all others can be transferred to another data set."""
        return self.classifier().parameters()

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the last layer: weights from N(0, 0.01^2), and a zero bias if there was a bias."""
        if isinstance(num_classes, bool) or not isinstance(num_classes, int) or num_classes < 1:
            raise UserError(f"num_classes: expected a positive integer, got {num_classes!r}")
        old = self.classifier()
        layer = nn.Linear(
            old.in_features,
            num_classes,
            bias=old.bias is not None,
            device=old.weight.device,
            dtype=old.weight.dtype,
        )
        with torch.no_grad():
            nn.init.normal_(layer.weight, 0, 0.01)
            if layer.bias is not None:
                layer.bias.zero_()
        self._replace_classifier(layer)


class MixtureWeights(SharedWeights):
    """Shared weights whose network also runs mixtures and has architecture parameters.

    Attributes:
        network: The network, which remains usable by itself.
    """

    network: Supernet


def call(module: nn.Module) -> Callable[[Any], Any]:
    """``module`` as the ``run`` of a segment."""
    return lambda x: cast(Any, module(x))


def channels_last(x: Tensor) -> Tensor:
    """Images as channels_last: a network that starts in this layout never has to convert."""
    return x.contiguous(memory_format=torch.channels_last)


def without_affine(module: nn.Module) -> None:
    """Remove weight and bias of all batch norms: the paths that share a layer would need different ones."""
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.affine = False
            norm.register_parameter("weight", None)
            norm.register_parameter("bias", None)
