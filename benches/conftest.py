from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pynas.bench import Record


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--record", type=Path, metavar="FILE", help="append every result to FILE, a JSON line each"
    )


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Callable[[Record], None]:
    """Prints a result and appends it to the file of ``--record``, in the format of ``pynas bench --save``."""
    path: Path | None = request.config.getoption("--record")

    def keep(result: Record) -> None:
        best, spread = result.best_other, result.ratio_spread or (0.0, 0.0)
        print(f"\n{result.case}: {result.ratio:.3f} of {best} ({spread[0]:.3f} to {spread[1]:.3f})")
        for name, timing in result.timings.items():
            print(f"   {name:24s} {timing.p50:10.4g} {result.unit} ({timing.rounds} rounds)")
        if path is not None:
            result.append_to(path)

    return keep
