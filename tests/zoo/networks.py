"""A registry of small networks of many families, each with a batch of inputs and a loss."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils import _pytree as pytree

LossFn = Callable[[Any, Any], Tensor]
CLASSES = 3


def images(size: int = 32, channels: int = 3, frames: int = 0) -> Callable[[int], Tensor]:
    """Makes a batch of images, or of clips where there are ``frames``."""
    shape = (channels, frames, size, size) if frames else (channels, size, size)
    return values(*shape)


def values(*shape: int) -> Callable[[int], Tensor]:
    """Makes a batch of normal values."""
    return lambda batch: torch.randn(batch, *shape, generator=_generator(), dtype=torch.float64)


def tokens(vocabulary: int = 17, length: int = 6, low: int = 0) -> Callable[[int], Tensor]:
    """Makes a batch of sequences of tokens."""
    return lambda batch: torch.randint(low, vocabulary, (batch, length), generator=_generator())


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(11)


def labels(batch: int) -> Tensor:
    """Class labels."""
    return torch.arange(batch) % CLASSES


def cross_entropy(outputs: Any, targets: Tensor) -> Tensor:
    """Mean cross-entropy of the first output, over samples and positions."""
    return F.cross_entropy(first_of(outputs), targets)


def first_of(outputs: Any) -> Tensor:
    """The first floating-point tensor of whatever a model returns."""
    return next(t for t in pytree.tree_leaves(outputs) if isinstance(t, Tensor) and t.is_floating_point())


def energy(outputs: Any, targets: Any = None) -> Tensor:
    """A mean over samples of a smooth function of every output that has samples in front."""
    batch = first_of(outputs).shape[0]
    total = torch.zeros((), dtype=torch.float64)
    for y in pytree.tree_leaves(outputs):
        if not isinstance(y, Tensor) or not (y.is_floating_point() or y.is_complex()) or y.dim() == 0:
            continue
        if y.shape[0] != batch:
            continue
        rows = (torch.view_as_real(y) if y.is_complex() else y).reshape(batch, -1)
        weights = torch.arange(1, rows.shape[1] + 1, dtype=rows.dtype).cos()
        total = total + (0.5 * rows.square() + rows * weights).mean()
    return total


@dataclass(frozen=True)
class Network:
    """One network of the zoo.

    Attributes:
        name: Its name, unique.
        family: What kind it is.
        build: Makes it.
        inputs: Makes a batch of so many samples.
        targets: Makes the targets, if there are any.
        loss: A mean over samples.
        batches: Numbers of samples; one of them should equal some inner dimension.
        tolerance: Relative to the largest value of a statistic; larger where a network computes in float32.
        train: Whether modules stay in train mode (batch norm is frozen, dropout off).
        packages: What must be installed.
        double: Whether it is brought to float64, and its inputs are.
        perturb: Whether parameters that begin as zeros or ones are moved first.
        largest: Parameters of more values are frozen, for the sake of time.
    """

    name: str
    family: str
    build: Callable[[], nn.Module]
    inputs: Callable[[int], Any]
    targets: Callable[[int], Any] | None = None
    loss: LossFn | None = energy
    batches: tuple[int, ...] = (4, 6)
    tolerance: float = 1e-9
    train: bool = False
    packages: tuple[str, ...] = ()
    double: bool = True
    perturb: bool = True
    largest: int | None = None

    @property
    def available(self) -> bool:
        """Whether all packages are there."""
        return all(importlib.util.find_spec(package) is not None for package in self.packages)

    def model(self) -> nn.Module:
        """The network in float64, ready to be measured."""
        torch.manual_seed(0)
        model = self.build()
        model = model.double() if self.double else model
        if self.perturb:
            _perturb(model)
        for p in model.parameters():
            if self.largest is not None and p.numel() > self.largest:
                p.requires_grad_(False)
        for module in model.modules():
            if isinstance(module, nn.modules.dropout._DropoutNd):
                module.p = 0.0
        if not self.train:
            return model.eval()
        return model.train()


def _perturb(model: nn.Module) -> None:
    """Move what begins as zeros or ones, which would hide whole branches, and running statistics."""
    generator = torch.Generator().manual_seed(5)

    def noise(t: Tensor) -> Tensor:
        return torch.randn(t.shape, generator=generator, dtype=torch.float64).to(t.dtype)

    with torch.no_grad():
        for p in model.parameters():
            if not p.numel():
                continue
            scale = 0.1 if p.dim() < 2 or bool((p == p.flatten()[0]).all()) else 0.01
            if p.is_floating_point() or p.is_complex():
                p += scale * noise(p)
        for name, b in model.named_buffers():
            if name.endswith("running_mean"):
                b += 0.1 * noise(b)
            elif name.endswith("running_var"):
                b *= 1 + 0.3 * noise(b).tanh()


@dataclass
class Registry:
    """Networks by name."""

    networks: dict[str, Network] = field(default_factory=dict)

    def add(self, network: Network) -> None:
        """Register a network; names are unique."""
        if network.name in self.networks:
            raise ValueError(f"{network.name} is there already")
        self.networks[network.name] = network

    def extend(self, networks: Iterable[Network]) -> None:
        """Register several."""
        for network in networks:
            self.add(network)


def all_networks() -> dict[str, Network]:
    """Every network, by name; building one imports its packages."""
    from tests.zoo import calls, from_timm, from_torchvision, from_transformers, handwritten

    registry = Registry()
    for source in (handwritten, calls, from_torchvision, from_timm, from_transformers):
        registry.extend(source.networks())
    return registry.networks
