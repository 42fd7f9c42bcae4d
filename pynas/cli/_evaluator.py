"""What ``search`` and ``rank`` share: names checked early, data loaded once, an evaluator over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pynas import benchmarks
from pynas._errors import UserError
from pynas.cli import _inputs

if TYPE_CHECKING:
    from pynas.benchmarks import Table
    from pynas.evaluate import ProxyEvaluator
    from pynas.spaces import SearchSpace


@dataclass(frozen=True)
class Setting:
    """Everything an evaluation depends on beside the architecture."""

    space: SearchSpace
    evaluator: ProxyEvaluator
    table: Table | None
    config: Mapping[str, Any]  # identifies the run in a store


def prepare(
    space: str,
    proxies: Sequence[str],
    *,
    images: str,
    text: Path | None = None,
    steps: int = 35,
    batch: int,
    table: str | None,
    metric: str | None = None,
    dataset: str | None = None,
    precision: str,
    seed: int,
    threads: int | None,
) -> Setting:
    """Check all names before anything slow happens, then load tables and images."""
    import torch

    from pynas import proxies as proxy_registry
    from pynas.evaluate import ProxyEvaluator

    if not proxies:
        raise UserError(f"no proxies given; known: {', '.join(proxy_registry.names())}")
    chosen = _inputs.open_space(space)
    for name in proxies:
        proxy_registry.get(name)
    if threads is not None:
        torch.set_num_threads(threads)
    if table is None and (metric is not None or dataset is not None):
        raise UserError("--metric and --dataset choose from a table: give --table")
    known = None if table is None else benchmarks.load(table, chosen, metric, dataset=dataset)
    source = _inputs.load(chosen, images=images, text=text, steps=steps, batch=batch, seed=seed)
    evaluator = ProxyEvaluator(
        chosen,
        source.inputs,
        source.targets,
        proxies,
        precision=cast(Any, precision),
        seed=seed,
        num_classes=source.num_classes,
    )
    read = {"images": images} if text is None else {"text": str(text), "steps": steps}
    config = {**read, "batch": batch}
    return Setting(chosen, evaluator, known, config)
