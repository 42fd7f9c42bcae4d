"""The cases of ``pynas bench`` under pytest-benchmark: one group a case, one row a contender."""

from __future__ import annotations

from typing import Any

import pytest

from pynas.bench import CASES


@pytest.mark.parametrize("name", [name for name in CASES.names() if not CASES.get(name).slow])
def test_case(name: str, benchmark: Any, request: pytest.FixtureRequest) -> None:
    # pytest-benchmark times one function a test: this row is pynas's. The contenders, alternated with it in random
    # order, come from the harness and stand in extra_info, with the ratio and its spread.
    from pynas.bench import measure

    case = CASES.get(name)
    record = measure(case, seconds=1.0)
    problem = case.make()
    benchmark.group = name
    benchmark.extra_info.update(record.to_dict())
    benchmark.pedantic(problem.contenders["pynas"], rounds=5, warmup_rounds=1)
