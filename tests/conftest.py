from __future__ import annotations

import os
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

from tests.thinning import axes, left_out

# Processes that run tests side by side share the cores; torch reads this when it is imported.
if "PYTEST_XDIST_WORKER_COUNT" in os.environ:
    share = (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, share)))

ROOT = Path(__file__).resolve().parent.parent

# Files that take longest, half a minute of a processor and more. They start first: one that came last would
# keep one process busy while the others wait (make test gives out files in order, --no-loadscope-reorder).
FIRST = (
    *("documentation/test_examples", "cpp/test_emulation_address", "test_workers", "test_run"),
    *("steer/test_actions", "cpp/test_emulation_plain", "cpp/test_emulation_thread"),
    *("cpp/test_cpu_kernels_address", "ops/test_instruction_sets", "test_examples", "supernet/test_trainer"),
    *("steer/test_replay", "chaos/test_chaos", "reliability/test_convolution_sweep", "cli/test_killed"),
    *("steer/test_page_life", "ops/test_mixed_op_contract", "ops/test_operator_fuzz"),
)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with real images and tables; tests that need it skip where it is absent."""
    folder = Path(os.environ.get("PYNAS_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "nb201_accuracy.npz").is_file():
        pytest.skip(f"needs the data folder {folder} (set PYNAS_DATA)")
    return folder


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Tiny operators spend their time waiting for a second thread, on a busy machine most of all."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Searches with several workers evaluate here instead, without the time that processes take to start."""
    from pynas.run import loop

    alone = loop._evaluations
    monkeypatch.setattr(loop, "_evaluations", lambda evaluator, workers, *rest: alone(evaluator, 1, *rest))


@pytest.fixture
def run_pynas(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Call the command line in this process: (exit code, stdout, stderr)."""

    def call(*arguments: object) -> tuple[int, str, str]:
        from pynas.cli import main

        monkeypatch.setattr(sys, "argv", ["pynas", *map(str, arguments)])
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as exit_:
            code = int(exit_.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def pytest_configure(config: pytest.Config) -> None:
    """Take the compiled core from another folder (a sanitizer build) when PYNAS_EXTENSION names one."""
    from pynas.testing._extension import use_extension

    use_extension()


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> Generator[None, object, object]:
    """Mark ``slow`` before -m looks at marks, and thin out what -m and -k have left."""
    _mark_products(items)
    done = yield
    if os.environ.get("PYNAS_LONG") != "1" and "long" not in config.option.markexpr:
        _leave_out(config, items, {item for item in items if item.get_closest_marker("long")})
    if os.environ.get("PYNAS_EVERY_COMBINATION") != "1":
        _leave_out(config, items, set(left_out(items)))
    places = {ROOT / "tests" / f"{name}.py": place for place, name in enumerate(FIRST)}
    items.sort(key=lambda item: places.get(item.path, len(FIRST)))
    return done


def _leave_out(config: pytest.Config, items: list[pytest.Item], out: set[pytest.Item]) -> None:
    """Except tests that the command names by their whole id."""
    named = {argument.replace(os.sep, "/").removeprefix("./") for argument in config.args}
    out = {item for item in out if named.isdisjoint({item.nodeid, item.nodeid.partition("[")[0]})}
    items[:] = [item for item in items if item not in out]
    config.hook.pytest_deselected(items=list(out))


def _mark_products(items: list[pytest.Item]) -> None:
    """Mark ``slow`` all of a test's cross product but a few that show each value of each parameter."""
    values = {item: _values(item) for item in items}
    products = [item for item in items if len(values[item]) > 1]
    seen: set[tuple[str, object, object]] = set()
    kept = set()
    for item in products:  # the diagonal
        if values[item].isdisjoint(seen):
            kept.add(item)
            seen |= values[item]
    for item in products:  # and what it lacks
        if not values[item] <= seen:
            kept.add(item)
            seen |= values[item]
        elif item not in kept:
            item.add_marker(pytest.mark.slow)


def _values(item: pytest.Item) -> set[tuple[str, object, object]]:
    """The parameters of a test, each with the value that it has here."""
    return {(item.nodeid.partition("[")[0], name, value) for name, value in axes(item).items()}
