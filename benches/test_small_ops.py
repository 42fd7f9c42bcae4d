"""The memory-bound operators against their plain PyTorch form: norm layers, embeddings, running moments.

The cases of ``pynas bench``, one group each; ``extra_info`` holds the floor: the bytes that any method must
move over the measured bandwidth.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pynas.bench import CASES, describe, peak

TOPICS = ("affine_grad_moments/", "embedding_grad_moments/", "moments_update/")
NAMES = [name for name in CASES.names() if name.startswith(TOPICS)]


@pytest.mark.parametrize("ours", [True, False], ids=["pynas", "other"])
@pytest.mark.parametrize("name", NAMES)
def test_small_ops(benchmark: Any, name: str, ours: bool) -> None:
    torch.manual_seed(0)
    problem = CASES.get(name).make()
    problem.check()
    (other,) = problem.implementations.keys() - {"pynas"}
    benchmark.group = name
    benchmark.extra_info.update(describe(), floor_seconds=problem.bytes / peak(seconds=0.3)[1])
    benchmark(problem.implementations["pynas" if ours else other])
