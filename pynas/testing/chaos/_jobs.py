"""The jobs: how to start and resume each, and what it must leave behind."""

from __future__ import annotations

import pickle
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path

from pynas import strategies
from pynas.testing.chaos import _outcomes, _work
from pynas.testing.chaos._outcomes import Outcome

_SEARCH = ("search", "--space", "nats_size", "--batch", "4", "--threads", "1", "--resume", "--json")
_SUPERNET = (
    *("supernet", "--space", "nasbench201", "--image-size", "8", "--limit", "400", "--channels", "4"),
    *("--batch", "16", "--epochs", "1", "--candidates", "2", "--threads", "1"),
    *("--checkpoint-every", "2", "--resume", "--json"),
)


class Job(ABC):
    """A long task that resumes when it is started again.

    Args:
        name: Name on the command line.
        arguments: Arguments of its process; ``FOLDER`` stands for its folder.
        strategy: Its search strategy, if it is a search.
        workers: Number of its worker processes.
    """

    store = False
    """Whether it says that a trial is done when it is in the store."""

    spares = False
    """Whether it ends well without having written everything, where that only saves work later."""

    loads: tuple[str, ...] = ()
    """Modules that take seconds to load, which copies of a process find loaded."""

    def __init__(self, name: str, *arguments: str, strategy: str | None = None, workers: int = 1) -> None:
        self.name, self._arguments = name, arguments
        self.strategy, self.workers = strategy, workers

    def command(self, folder: Path) -> list[str]:
        """The arguments of its process."""
        return [argument.replace("FOLDER", str(folder)) for argument in self._arguments]

    def prepare(self, folder: Path) -> None:  # noqa: B027
        """Write what it reads, below ``SOURCE`` in its folder; once for all its runs."""

    @abstractmethod
    def outcome(self, folder: Path) -> Outcome:
        """What it has left so far; UserError where that is not whole."""

    def check(self, folder: Path, expected: Outcome) -> tuple[Outcome, str]:
        """What an unfinished job has left, and what is wrong with that: nothing if it is a beginning."""
        found = self.outcome(folder)
        return found, str(_outcomes.compare(found, expected, unfinished=True))


class SearchJob(Job):
    """A search, kept in a store."""

    store = True

    def outcome(self, folder: Path) -> Outcome:
        return _outcomes.trials(folder / _work.STORE)


class CheckpointJob(Job):
    """A training, kept in checkpoints, of which only the last two stay."""

    loads = ("torch._dynamo", "sklearn.datasets", "pynas.supernet", "pynas.cli")

    def outcome(self, folder: Path) -> Outcome:
        return _outcomes.checkpoints(folder / _work.CHECKPOINTS)

    def check(self, folder: Path, expected: Outcome) -> tuple[Outcome, str]:
        return self.outcome(folder), ""


class LatencyJob(Job):
    """A latency table."""

    def outcome(self, folder: Path) -> Outcome:
        return _outcomes.times(folder / _work.LATENCIES)


class ReportJob(Job):
    """Reports over older ones."""

    def prepare(self, folder: Path) -> None:
        import pynas
        from pynas.report import write_search_report
        from pynas.testing.strategies import evaluate

        source = folder / _work.SOURCE
        count = max(_work.REPORTS)
        store = source / _work.STORE
        result = pynas.search(_work.SPACE, "random", ["toy"], budget=count, evaluator=evaluate, store=store)
        for count in _work.REPORTS:
            write_search_report(source / f"{count}.html", result.run, result.trials[:count])

    def outcome(self, folder: Path) -> Outcome:
        found = _outcomes.page(folder / _work.REPORT)
        return {} if found is None else {"report": found}

    def check(self, folder: Path, expected: Outcome) -> tuple[Outcome, str]:
        found = self.outcome(folder)
        pages = [_outcomes.page(folder / _work.SOURCE / f"{count}.html") for count in _work.REPORTS]
        if found and found["report"] not in pages:
            return found, f"{_work.REPORT} is neither the old report nor the new one"
        for library in folder.glob("plotly-*.min.js"):  # which pages share
            if library.read_bytes() != (folder / _work.SOURCE / library.name).read_bytes():
                return found, f"{library.name} is not whole"
        return found, ""


class EmbeddingJob(Job):
    """Embeddings in a cache."""

    spares = True

    def outcome(self, folder: Path) -> Outcome:
        found: dict[str, str] = {}
        for path in sorted((folder / "cache").glob("[!.]*.safetensors")):
            found |= {f"{path.stem} {name}": value for name, value in _outcomes.tensors(path).items()}
        return found


class ConversionJob(Job):
    """A table that is converted over an older one."""

    def prepare(self, folder: Path) -> None:
        results = {
            dataset: {f"device{k}_latency": [k + i / 7 for i in range(15_625)] for k in range(2)}
            for dataset in ("cifar10", "cifar100")
        }
        with (folder / _work.SOURCE / "hw.pickle").open("wb") as file:
            pickle.dump({"nasbench201": results}, file, protocol=4)

    def outcome(self, folder: Path) -> Outcome:
        return _outcomes.arrays(folder / _work.TABLE)


def _command_search(strategy: str, workers: int) -> tuple[str, ...]:
    chosen = ("--strategy", strategy, "--workers", str(workers), "--store", f"FOLDER/{_work.STORE}")
    goals = ("--objective", "l2_norm", "--objective", "synflow", "--budget", "24")
    return ("pynas", *_SEARCH, *chosen, *goals)


def _jobs() -> dict[str, Job]:
    jobs: list[Job] = [SearchJob(f"search-{name}", "toy", name, strategy=name) for name in strategies.names()]
    jobs += [
        SearchJob(f"workers-{name}", "toy", name, "2", strategy=name, workers=2)
        for name in ("evolution", "successive_halving")
    ]
    jobs += [
        SearchJob("command", *_command_search("epnas", 1), strategy="epnas"),
        SearchJob("command-workers", *_command_search("evolution", 2), strategy="evolution", workers=2),
    ]
    checkpoint = ("--checkpoint", f"FOLDER/{_work.CHECKPOINTS}")
    jobs += [
        CheckpointJob(f"supernet-{sampling}", "pynas", *_SUPERNET, "--sampling", sampling, *checkpoint)
        for sampling in ("uniform", "softmax")
    ]
    jobs += [
        CheckpointJob("shifting", "shifting"),
        LatencyJob("latencies", "latencies"),
        ReportJob("report", "report"),
        EmbeddingJob("embedding", "embedding"),
        ConversionJob("conversion", "conversion"),
    ]
    return {job.name: job for job in jobs}


JOBS: Callable[[], Mapping[str, Job]] = _jobs
"""All jobs by name: of every strategy that is registered when it is called, and the others."""
