"""The networks of the space ``epnas`` in plain PyTorch modules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn

from pynas.spaces.epnas.layers import OPERATIONS, Plan


class GrownLayer(nn.Module):
    """An operation and its shortcut: ``relu(norm(conv(x)) + s)``, or ``pool(x) + s``."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.skip = plan.layer.skip
        self.op = _operation(plan)
        self.shortcut = _shortcut(plan) if self.skip else None
        self.activation: nn.Module = nn.Identity() if plan.layer.pools else nn.ReLU()

    def forward(self, x: Tensor, source: Tensor) -> Tensor:
        """The layer's output; ``x`` is the previous layer's, ``source`` the start of the shortcut."""
        y = self.op(x)
        if self.shortcut is not None:
            y = y + self.shortcut(source)
        return cast(Tensor, self.activation(y))


class EPNASNetwork(nn.Module):
    """Layers in a chain with shortcuts, global average pooling, classifier."""

    def __init__(self, plans: Sequence[Plan], num_classes: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(GrownLayer(plan) for plan in plans)
        self.global_pooling = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(plans[-1].width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``[B, num_classes]`` of images ``[B, in_channels, H, W]``."""
        outputs = [x]
        for layer in self.layers:
            skip = cast(GrownLayer, layer).skip
            outputs.append(layer(outputs[-1], outputs[-1 - skip]))
        return cast(Tensor, self.classifier(self.global_pooling(outputs[-1]).flatten(1)))


def _operation(plan: Plan) -> nn.Module:
    layer = plan.layer
    if layer.pools:
        if OPERATIONS[layer.operation] == "max_pool_3x3":
            return nn.MaxPool2d(3, stride=2, padding=1)
        return nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False)
    kernel, padding = layer.kernel, layer.kernel // 2
    if not layer.is_separable:
        convolutions = [nn.Conv2d(plan.before, plan.width, kernel, padding=padding, bias=False)]
    else:
        convolutions = [
            nn.Conv2d(plan.before, plan.before, kernel, padding=padding, groups=plan.before, bias=False),
            nn.Conv2d(plan.before, plan.width, 1, bias=False),
        ]
    return nn.Sequential(*convolutions, nn.BatchNorm2d(plan.width))


def _shortcut(plan: Plan) -> nn.Module:
    """Average pooling to the layer's resolution (rounded up, as its poolings do), then to its width."""
    modules: list[nn.Module] = []
    if plan.halvings:
        modules.append(nn.AvgPool2d(2**plan.halvings, ceil_mode=True))
    if plan.is_projected:
        modules += [nn.Conv2d(plan.shortcut, plan.width, 1, bias=False), nn.BatchNorm2d(plan.width)]
    return nn.Sequential(*modules)
