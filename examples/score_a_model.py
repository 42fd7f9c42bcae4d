"""Score networks of your own before training them, and see which layer a score comes from."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import pynas

PROXIES = ("zico", "synflow", "naswot", "snip", "params", "flops")


class Block(nn.Module):
    """Two convolutions, with or without a shortcut around them."""

    def __init__(self, channels: int, shortcut: bool) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) for _ in range(2))
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        y = self.norms[1](self.second(self.norms[0](self.first(x)).relu()))
        return (x + y if self.shortcut else y).relu()


def network(channels: int, depth: int, shortcut: bool = True) -> nn.Module:
    """A stem, ``depth`` blocks, and a classifier of ten classes."""
    stem = nn.Conv2d(3, channels, 3, stride=2, padding=1)
    blocks = [Block(channels, shortcut) for _ in range(depth)]
    return nn.Sequential(stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))


digits = pynas.data.load_images("digits")
inputs, targets = pynas.data.batch(digits, 64, seed=0)
networks = {
    "narrow": lambda: network(8, depth=3),
    "wide": lambda: network(32, depth=3),
    "deep": lambda: network(16, depth=12),
    "deep, plain": lambda: network(16, depth=12, shortcut=False),
    "wrong": lambda: nn.Sequential(nn.Conv2d(1, 8, 3), nn.Flatten(), nn.Linear(8, 10)),
}
print(" " * 12 + "".join(f"{name:>14}" for name in PROXIES))
for name, make in networks.items():
    torch.manual_seed(0)
    model = make()
    scores = pynas.score(model, inputs, targets, proxies=PROXIES)
    print(f"{name:12}" + "".join(f"{score.value:14,.1f}" for score in scores.values()))
    if scores["zico"].status == "failed":  # a status and a message, never a number that could be ranked
        print(f"  {scores['zico'].message.splitlines()[0]}")
    if name == "deep":
        layers = scores["zico"].layers
        print(f"  least of zico: {min(layers, key=layers.__getitem__)}, of {len(layers)} layers")
