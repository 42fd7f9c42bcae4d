"""Jobs that are not a command: what runs in their processes, in pynas's own functions."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pynas.architecture import Architecture
from pynas.testing.strategies import ToySpace, evaluate
from pynas.trial import Evaluation

if TYPE_CHECKING:
    from torch import Tensor

STORE, CHECKPOINTS, LATENCIES, REPORT, TABLE = "runs.db", "checkpoints", "latencies.json", "r.html", "t.npz"
SOURCE = "source"  # what a job reads
BUDGET = 60
SPACE = ToySpace(length=5, choices=5)  # 126 forms
REPORTS = (20, 40)  # trials of the reports that are written in turn
CONVERSIONS = 6
_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "bayesian": {"model": "dngo", "embedding": "encoding", "refit_every": 20},  # without botorch's import
    "evolution": {"population_size": 12, "sample_size": 4},
}


@dataclass(frozen=True)
class SlowToy:
    """The toy space's evaluation, in a few milliseconds; a cheaper one is off by some of the score."""

    seconds: float = 0.003
    share: float = 1.0

    def __call__(self, architecture: Architecture) -> Evaluation:
        time.sleep(self.seconds * self.share)
        found = evaluate(architecture)
        scores = {name: self.share * score for name, score in found.scores.items()}
        return Evaluation(found.status, scores, found.metrics, found.message)

    def at_fidelity(self, share: float) -> SlowToy:
        """A cheaper evaluation."""
        return SlowToy(self.seconds, share)


def toy_search(folder: Path, strategy: str, workers: str = "1") -> None:
    """Search the toy space."""
    import pynas

    pynas.search(
        SPACE,
        strategy,
        ["toy"],
        budget=BUDGET,
        evaluator=SlowToy(0.003 * int(workers)),
        store=folder / STORE,
        seed=1,
        resume=True,
        strategy_options=_OPTIONS.get(strategy, {}),
        workers=int(workers),
    )


def shifting(folder: Path) -> None:
    """Supernet Shifting, with a checkpoint after each generation."""
    import torch

    from pynas import spaces
    from pynas.supernet import build
    from pynas.supernet.evaluation import SubnetEvaluator
    from pynas.supernet.shifting import Shifting, ShiftingEvolution, ShiftingOptions

    def images(count: int) -> tuple[Tensor, Tensor]:
        targets = torch.arange(count) % 3
        noise = torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(count))
        return noise + targets.view(-1, 1, 1, 1), targets

    torch.set_num_threads(1)
    torch.manual_seed(0)
    space = spaces.get("nasbench201", channels=4, num_cells=1)
    model = build(space, 3)
    strategy = ShiftingEvolution(space, seed=3, population_size=4, top=2, mutations=2, crossovers=1)
    options = ShiftingOptions(generations=5, steps=2, batch_size=8, learning_rate=0.05)
    evaluate = SubnetEvaluator(model, *images(15))
    checkpoints = folder / CHECKPOINTS
    search = Shifting(
        model, *images(24), evaluate, options, strategy=strategy, seed=3, checkpoints=checkpoints
    )
    search.run(resume=True)


def latencies(folder: Path) -> None:
    """A latency table whose clock counts the work, written after each of its times."""
    import torch

    from pynas import spaces
    from pynas.hardware import LatencyTable, Timing, build
    from pynas.hardware.operator_shapes import OperatorMode, tensors
    from pynas.hardware.stopwatch import Stopwatch

    class Work(OperatorMode):  # type: ignore[no-untyped-call]
        elements = 1

        def observe(self, func: Any, args: Any, kwargs: Any, outputs: Any) -> None:
            if not func.is_view:
                self.elements += sum(tensor.numel() for tensor in tensors(outputs))

    class Counted(Stopwatch):
        def measure(self, run: Callable[[], object]) -> Timing:
            with torch.no_grad(), Work() as work:  # type: ignore[no-untyped-call]
                run()
            ms = 1e-3 * work.elements
            return Timing(ms, ms, ms, 1)

    torch.set_num_threads(1)
    build._SECONDS_BETWEEN_SAVES = 0.0
    LatencyTable.build(
        spaces.get("nasbench201", channels=4, num_cells=1),
        path=folder / LATENCIES,
        image_size=8,
        threads=1,
        rounds=2,
        fit_networks=4,
        held_out=3,
        stopwatch=Counted(),
    )


def report(folder: Path) -> None:
    """The report of a search, again and again over an old one."""
    from pynas.report import write_search_report
    from pynas.store import Store

    with Store(folder / SOURCE / STORE, read_only=True) as store:
        run = store.run()
        trials = store.trials(run)
    for _ in range(2):
        for count in REPORTS:
            write_search_report(folder / REPORT, run, trials[:count])


def embedding(folder: Path) -> None:
    """An embedding that is trained once and then found in the cache."""
    import torch

    from pynas import spaces
    from pynas.embedding import cache

    torch.set_num_threads(1)
    pool = cache.training_pool
    vars(cache)["training_pool"] = lambda space, *, seed: pool(space, limit=300, seed=seed)
    space = spaces.get("nasbench201")
    for seed in range(4):
        cache.trained(space, epochs=2, seed=seed, folder=folder / "cache")


def conversion(folder: Path) -> None:
    """A published table, converted again and again over an old one."""
    from pynas import tables

    for _ in range(CONVERSIONS):
        tables.convert(folder / SOURCE / "hw.pickle", folder / TABLE, overwrite=True)


WORK: Mapping[str, Callable[..., None]] = {
    "toy": toy_search,
    "shifting": shifting,
    "latencies": latencies,
    "report": report,
    "embedding": embedding,
    "conversion": conversion,
}
