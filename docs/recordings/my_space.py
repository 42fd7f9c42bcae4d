"""A space of 2,250 small networks: what may be chosen, and the function that makes a network of it."""

from torch import nn

import pynas


def network(first, second, third, kernel, blocks, norm, in_channels=3, num_classes=10):
    layers, before = [], in_channels
    for stage, width in enumerate((first, second, third)):
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            layers.append(nn.Conv2d(before, width, kernel, stride, kernel // 2, bias=norm == "none"))
            layers += [nn.BatchNorm2d(width)] if norm == "batch" else []
            layers.append(nn.ReLU())
            before = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, num_classes))


def small():
    return network(8, 16, 16, 3, 1, "batch")


widths = [4, 8, 12, 16, 24]
choices = {"first": widths, "second": widths, "third": widths, "kernel": [1, 3, 5], "blocks": [1, 2, 3]}
space = pynas.spaces.custom(network, {**choices, "norm": ["batch", "none"]}, image_size=16)
