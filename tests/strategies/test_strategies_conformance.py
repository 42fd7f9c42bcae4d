"""Every registered strategy passes the conformance checks; so does one written by somebody else."""

from __future__ import annotations

from functools import partial

import pytest

from pynas import strategies
from pynas.testing.strategies import CHECKS

VARIANTS = {name: partial(strategies.create, name) for name in strategies.names()} | {
    "evolution-crossover": partial(
        strategies.create, "evolution", population_size=8, sample_size=3, crossover=0.5
    ),
}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
@pytest.mark.parametrize("name", VARIANTS)
def test_strategy(name, check):
    check(VARIANTS[name])
