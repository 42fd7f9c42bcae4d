"""Latency tables of tiny spaces under a clock that counts work, for the tests of this folder."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from pynas import spaces
from pynas.hardware import LatencyTable, Timing
from pynas.hardware.operator_shapes import OperatorMode, tensors
from pynas.spaces import SearchSpace

SPACE = spaces.get("nasbench201", channels=4, num_cells=1)
QUICK = {"image_size": 8, "batch": 2, "rounds": 2, "fit_networks": 4, "held_out": 3}


class Work(OperatorMode):
    """Elements that operators write: a time that adds up exactly."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def observe(self, func, args, kwargs, outputs):
        if not func.is_view:
            self.elements += sum(t.numel() for t in tensors(outputs))


class Clock:
    """A stopwatch that counts elements: 1 us each, times ``factor``; it counts its calls."""

    def __init__(self, factor=1.0, fail_after=None):
        self.factor, self.fail_after, self.calls = factor, fail_after, 0

    def measure(self, run):
        self.calls += 1
        if self.fail_after is not None and self.calls > self.fail_after:
            raise KeyboardInterrupt
        with torch.no_grad(), Work() as work:
            run()
        ms = self.factor * 1e-3 * max(work.elements, 1e-6)
        return Timing(ms, ms, ms, 1)


class Functional(SearchSpace):
    """Networks with work outside of modules, and modules whose text does not tell them apart."""

    name, summary = "functional", "for tests"
    num_choices = (3, 3)

    def params(self, arch, num_classes=10, in_channels=3):
        return 1

    def macs(self, arch, num_classes=10, image_size=16, in_channels=3):
        return sum(arch.decisions) * image_size

    def build(self, arch, num_classes=10, in_channels=3, prune=False):
        return FunctionalNetwork(arch.decisions, num_classes, in_channels)


class Take(nn.Module):
    def __init__(self, stride):
        super().__init__()
        self.stride = stride

    def forward(self, x):
        return x[:, :, :: self.stride].mul(2.0)


class FunctionalNetwork(nn.Module):
    def __init__(self, decisions, num_classes, in_channels):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(in_channels, 2 + d, 3, padding=1) for d in decisions)
        self.takes = nn.ModuleList(Take(1 + d) for d in decisions)
        self.head = nn.Linear(sum(2 + d for d in decisions), num_classes)

    def forward(self, x):
        parts = [take(F.relu(conv(x))) for conv, take in zip(self.convs, self.takes, strict=True)]
        y = torch.cat([part.mean((2, 3)) for part in parts], dim=1)
        return self.head(F.softmax(y, dim=-1))


def build(space=None, clock=None, **changes):
    chosen = Functional() if space is None else space
    return LatencyTable.build(chosen, stopwatch=clock or Clock(), **QUICK | changes)
