"""Quantisation-aware training: ranges that observers take from a batch are constants to gradients."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pynas.stats import Gradients, GradNorms, collect

quantization = pytest.importorskip("torch.ao.quantization")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("version", [0, 1])
def test_observed_networks(version: int) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        quantization.QuantStub(), nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3), quantization.DeQuantStub(),
    ).train()  # fmt: skip
    network.qconfig = quantization.get_default_qat_qconfig("fbgemm", version=version)
    network = quantization.prepare_qat(quantization.fuse_modules_qat(network, [["1", "2", "3"]]))
    x, targets = torch.randn(4, 3, 8, 8), torch.arange(4) % 3
    network(torch.randn(4, 3, 8, 8))  # observers have a range
    for m in network.modules():
        if isinstance(m, nn.modules.batchnorm._BatchNorm):
            m.eval()
    found = collect(network, x, targets, needs=[Gradients(), GradNorms()], batch_norm="frozen")
    observed = copy.deepcopy(network)
    F.cross_entropy(observed(x), targets).backward()
    for name, p in observed.named_parameters():
        torch.testing.assert_close(found[Gradients][name], p.grad, rtol=1e-4, atol=1e-6)
    # By now the copy has the ranges of this batch: one sample at a time has them, too.
    observed.apply(quantization.disable_observer)
    for name, p in observed.named_parameters():
        rows = [
            torch.autograd.grad(F.cross_entropy(observed(x[b : b + 1]), targets[b : b + 1]) / 4, p)[0]
            for b in range(4)
        ]
        expected = torch.stack(rows).flatten(1).square().sum(1)
        torch.testing.assert_close(found[GradNorms][name], expected, rtol=1e-3, atol=1e-9)
