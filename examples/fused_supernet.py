"""A search network of your own with fused edges: timed against the loop, trained, and read off."""

from __future__ import annotations

import time

import torch
from torch import Tensor, nn

import pynas


class Network(nn.Module):
    """A chain of mixed edges between a stem and a classifier; ``edge`` makes one of them."""

    def __init__(self, edge: type[nn.Module], channels: int = 16) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, channels, 3, padding=1), nn.BatchNorm2d(channels))
        self.edges = nn.ModuleList(edge(channels, "darts", stride) for stride in (1, 2, 1, 2))
        self.head = nn.Linear(channels, 10)

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        x = self.stem(x)
        for edge, row in zip(self.edges, weights, strict=True):
            x = edge(x, row)
        return self.head(x.mean((2, 3)))


def milliseconds(model: Network, images: Tensor, weights: Tensor) -> float:
    """Fastest of several forward and backward passes."""
    times = []
    for _ in range(5):
        start = time.perf_counter()
        model(images, weights).square().mean().backward()
        times.append(1e3 * (time.perf_counter() - start))
    return min(times)


torch.manual_seed(0)
digits = pynas.data.load_images("digits", size=16)
images = digits.inputs.contiguous(memory_format=torch.channels_last)
train, held_out = torch.randperm(len(digits)).split([1400, 397])
model, loop = Network(pynas.nn.MixedOp), Network(pynas.nn.LoopMixedOp)
loop.load_state_dict(model.state_dict())  # one format: each loads what the other saved
alphas = torch.zeros(4, 8, requires_grad=True)  # an edge a row, a candidate a column
times = [milliseconds(network, images[:64], alphas.detach().softmax(-1)) for network in (loop, model)]
print(f"forward and backward: loop over candidates {times[0]:.0f} ms, fused {times[1]:.0f} ms")

optimizer = torch.optim.Adam([{"params": model.parameters()}, {"params": [alphas], "lr": 0.03}], lr=3e-3)
for positions in torch.cat((train, train, train)).split(64):
    optimizer.zero_grad()
    outputs = model(images[positions], alphas.softmax(-1))
    nn.functional.cross_entropy(outputs, digits.targets[positions]).backward()
    optimizer.step()
with torch.no_grad():
    found = model.eval()(images[held_out], alphas.softmax(-1)).argmax(1)
print(f"{100 * (found == digits.targets[held_out]).double().mean():.0f} % of held-out digits are right")
best = 1 + alphas[:, 1:].argmax(1)  # column 0 is "none"
print("edges:", ", ".join(edge.candidates[k] for edge, k in zip(model.edges, best.tolist(), strict=True)))
