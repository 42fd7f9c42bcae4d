"""What random networks are put together from: a registry of blocks by what goes in and what comes out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

T = TypeVar("T")
Choose = Callable[[Sequence[T]], T]  # one of a sequence, by hypothesis or by a random generator
Shape = tuple[int, ...]  # of one sample


class Block(nn.Module):
    """A function with the parameters, modules and buffers that it needs."""

    def __init__(self, function: Callable[[Any, Tensor], Tensor], **parts: Any) -> None:
        super().__init__()
        for name, part in parts.items():
            if isinstance(part, Tensor) and not isinstance(part, nn.Parameter):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


Made = tuple[nn.Module, Shape]
Maker = Callable[[Choose[Any], Shape], Made]


# By the dimensions of a sample: features [D], tokens [T, D], images [C, H, W], clips [C, T, H, W].
BLOCKS: dict[int, dict[str, Maker]] = {1: {}, 2: {}, 3: {}, 4: {}}


def block(*dimensions: int) -> Callable[[Maker], Maker]:
    """Register a maker of blocks for samples of so many dimensions."""

    def added(make: Maker) -> Maker:
        for n in dimensions or (1, 2, 3, 4):
            BLOCKS[n][make.__name__] = make
        return make

    return added


def weight(*shape: int) -> nn.Parameter:
    """A parameter whose products keep the size of what they multiply."""
    fan = shape[-1] if len(shape) > 1 else 4
    return nn.Parameter(torch.randn(*shape) / fan**0.5)


def same(choose: Choose[Any], shape: Shape, depth: int = 1) -> nn.Module:
    """A random block that keeps the shape, for inside of others."""
    keeping = [m for n, m in BLOCKS[len(shape)].items() if n in KEEPS]
    layers = []
    for _ in range(depth):
        made, out = choose(keeping)(choose, shape)
        assert out == shape, (made, shape, out)
        layers.append(made)
    return layers[0] if len(layers) == 1 else nn.Sequential(*layers)


KEEPS: set[str] = set()


def keeping(make: Maker) -> Maker:
    """Say that a maker's blocks keep the shape and hold no other random block."""
    KEEPS.add(make.__name__)
    return make


def broadcast_shape(choose: Choose[Any], shape: Shape) -> Shape:
    """A shape that broadcasts against samples of ``shape``; at times with fewer dimensions or one more."""
    sizes = tuple(choose((n, 1)) for n in shape)
    cut = choose(range(len(sizes)))
    return choose((sizes, sizes[cut:], (1, *sizes), (1, *shape)))


def divisors(n: int) -> list[int]:
    return [d for d in range(1, n + 1) if n % d == 0]
