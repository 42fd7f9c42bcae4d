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
from pynas.spaces import SearchSpace


@dataclass(frozen=True)
class Segment:
    """A piece of one architecture's forward pass.

    Attributes:
        key: What the piece depends on: where all keys up to here are equal, so is what comes out.
        run: From what the piece before returned (images or words, for the first) to what the next one takes.
        modules: What it runs, so where its parameters and batch norms are.
    """

    key: Hashable
    run: Callable[[Any], Any]
    modules: tuple[nn.Module, ...]


class SharedWeights(nn.Module, ABC):
    """A network that holds weights for every architecture of a space, and runs one of them at a time.

    ``model(x, arch)`` are the logits of ``arch``; so are ``model(x)`` after ``model.select(arch)``.

    Attributes:
        space: Whose architectures it runs.
    """

    space: SearchSpace
    _selected: Architecture | None = None

    @abstractmethod
    def segments(self, arch: Architecture) -> tuple[Segment, ...]:
        """The forward pass of ``arch``, in pieces; UserError says why it is not in the space."""

    @abstractmethod
    def classifier(self) -> nn.Linear:
        """The last layer."""

    @abstractmethod
    def _replace_classifier(self, layer: nn.Linear) -> None:
        """Put ``layer`` in its place."""

    def select(self, arch: Architecture | None) -> None:
        """Make ``arch`` the one that ``model(x)`` runs; None takes that back."""
        if arch is not None:
            self.space.check(arch)
        self._selected = arch

    def forward(self, x: Tensor, arch: Architecture | None = None) -> Tensor:
        """Logits ``[N, num_classes]`` of images ``[N, in_channels, H, W]``; of words as the space says.

        Args:
            x: Images, or words ``[N, T]``.
            arch: The architecture; the selected one if None.

        Raises:
            UserError: There is none, or it is not in the space.
        """
        arch = arch or self._selected
        if arch is None:
            raise UserError("arch: expected an architecture, here or by select(), got none")
        with ops.strided_convolutions_of(self):
            for segment in self.segments(arch):
                x = segment.run(x)
        return x

    def classifier_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters of the last layer; all others are reused on another data set."""
        return self.classifier().parameters()

    def reset_classifier(self, num_classes: int) -> None:
        """A new last layer: weights drawn from N(0, 0.01^2), a bias of zero where there was one."""
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


def call(module: nn.Module) -> Callable[[Any], Any]:
    """``module`` as the ``run`` of a segment."""
    return lambda x: cast(Any, module(x))


def channels_last(x: Tensor) -> Tensor:
    """Images in rows of channels: a network that starts with them never has to turn them round."""
    return x.contiguous(memory_format=torch.channels_last)


def without_affine(module: nn.Module) -> None:
    """Take weight and bias from all batch norms: paths that share a layer would pull them to and fro."""
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.affine = False
            norm.register_parameter("weight", None)
            norm.register_parameter("bias", None)
