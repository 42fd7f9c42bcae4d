"""Supernet edges as one operator against the loop over candidates: time, and what is saved for backward.

pytest benches/test_mixed_op.py --benchmark-enable -s [--record FILE]

Forward and backward in training mode. Times are the cases of ``pynas bench mixed --slow``: the eager loop in
both memory formats and under torch.compile, a step of a whole supernet, normalized_sum, mixed_activation.
Results and gradients are checked first; rounds alternate in random order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pynas.bench import CASES, Record, describe, measure, peak
from pynas.bench.mixed_edges import EDGES, edge_data
from pynas.nn import LoopMixedOp, MixedOp

TOPICS = ("mixed_op/", "mixed_activation/", "mixed_supernet/", "normalized_sum/")
NAMES = [name for name in CASES.names() if name.startswith(TOPICS)]
UNITS = {"products": (7.0, 5.0), "nothing": (None, None), "everything": (None, None)}  # inputs: must, aim
LOOP = 30.0  # inputs that the eager loop over the candidates of DARTS keeps


@pytest.mark.parametrize("name", NAMES)
def test_time(name: str, request: pytest.FixtureRequest, record: Callable[[Record], None]) -> None:
    case = CASES.get(name)
    if request.config.getoption("benchmark_enable"):
        rounds = 3 if "supernet" in name else 9
        record(measure(case, seconds=5.0, min_rounds=rounds, peak=peak(), machine=describe()))
    elif case.slow or not name.endswith("64x64x8x8"):
        pytest.skip("a measurement: run with --benchmark-enable")
    else:
        record(measure(case, seconds=0.01, min_rounds=1))


def saved_bytes(run: Callable[[], Tensor], beside: Iterable[Tensor]) -> int:
    """Bytes that autograd keeps from forward to backward in memory other than that of ``beside``."""
    known = {tensor.untyped_storage().data_ptr() for tensor in beside}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.nbytes() and storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = run()
        total = sum(kept.values())
    del y
    return total


@pytest.mark.parametrize("save", UNITS)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("family", ["darts", "nasbench201"])
def test_saved_for_backward(family: str, stride: int, save: Any, record: Callable[[Record], None]) -> None:
    """In units of the input, which counts where it is kept."""
    torch.manual_seed(0)
    channels, side = EDGES[0]
    kept = {}
    edges: dict[str, nn.Module] = {
        "pynas": MixedOp(channels, family, stride, family=family, save=save),
        "loop, channels_last": LoopMixedOp(channels, family, stride, family=family),
    }
    for name, edge in edges.items():
        edge = edge.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        candidates = len(edge._ops)  # type: ignore[arg-type]
        x, weights, _ = edge_data(channels, side, stride, candidates, torch.channels_last)
        beside = [weights, *edge.parameters(), *edge.buffers()]
        kept[name] = [saved_bytes(partial(edge, x, weights), beside) / x.nbytes]
    must, aim = UNITS[save] if (family, stride) == ("darts", 1) else (None, None)
    name = f"mixed_op/{family}{'_stride2' if stride == 2 else ''}_64x{channels}x{side}x{side}_saved_{save}"
    result = Record.of(
        name,
        kept,
        must=must and must / LOOP,
        aim=aim and aim / LOOP,
        machine=describe(),
        unit="inputs",
    )
    record(result)
    assert kept["pynas"][0] < kept["loop, channels_last"][0]
