"""Somebody's supernet, with its loop over candidates, before and after one line."""

import sys
import time

import torch
from torch import nn

import pynas

steps, channels = (int(word) for word in sys.argv[1:]) if len(sys.argv) > 1 else (5, 16)
NAMES = ("none", "skip_connect", "avg_pool_3x3", "sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3")


class Mixture(nn.Module):
    def __init__(self):
        super().__init__()
        self.ops = nn.ModuleList(pynas.nn.candidate(name, "darts", channels, 1) for name in NAMES)

    def forward(self, x, weights):
        return sum(w * op(x) for w, op in zip(weights, self.ops))


class Supernet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 3, padding=1)
        self.edges = nn.ModuleList(Mixture() for _ in range(4))
        self.head = nn.Linear(channels, 10)
        self.alphas = nn.Parameter(1e-3 * torch.randn(4, len(NAMES)))

    def forward(self, x):
        x = self.stem(x)
        for edge, weights in zip(self.edges, self.alphas.softmax(-1)):
            x = edge(x, weights)
        return self.head(x.mean((2, 3)))


def milliseconds(model, inputs, targets):
    times = []
    for _ in range(steps):
        started = time.perf_counter()
        nn.functional.cross_entropy(model(inputs), targets).backward()
        times.append(1e3 * (time.perf_counter() - started))
    return sorted(times)[steps // 2]


torch.manual_seed(0)
torch.set_num_threads(1)
model = Supernet()
inputs = torch.randn(32, 3, 32, 32).contiguous(memory_format=torch.channels_last)
targets = torch.randint(0, 10, (32,))
before, logits = milliseconds(model, inputs, targets), model(inputs)
print(pynas.nn.replace_mixed_ops(model))  # the line
after, fused = milliseconds(model, inputs, targets), model(inputs)
print(f"{before:.0f} ms a step with the loop, {after:.0f} ms with the operator: {after / before:.2f} of it")
print(f"largest difference of a logit: {(logits - fused).abs().max():.1e}")
