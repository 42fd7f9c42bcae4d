"""Random networks out of some hundred operations and parametrisations, against loops over samples.

A wrong number and a raw error fail; a refusal by pynas' own error does not, but few may be refused.
``PYNAS_RANDOM_NETWORKS=2000`` looks for new ones, as ``make evidence`` does.
"""

from __future__ import annotations

import os
from collections import Counter

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.zoo.random_checks import check, check_mixing
from tests.zoo.random_networks import random_network
from tests.zoo.random_parts import BLOCKS

COUNT = int(os.environ.get("PYNAS_RANDOM_NETWORKS", "40"))
REFUSED = 0.2  # of all networks, at most
LONG = "PYNAS_RANDOM_NETWORKS" in os.environ
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread"), pytest.mark.filterwarnings("ignore")]
relaxed = settings(
    deadline=None,
    database=None,
    derandomize=not LONG,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
    phases=[Phase.generate, Phase.shrink] if LONG else [Phase.generate],
)


def test_statistics_and_scores_of_random_networks() -> None:
    answers: Counter[str] = Counter()

    @settings(relaxed, max_examples=COUNT)
    @given(st.data())
    def run(data: st.DataObject) -> None:
        choose = lambda options: data.draw(st.sampled_from(options))  # noqa: E731
        answers[check(random_network(choose), groups=choose((1, 1, 2, 3)))] += 1

    run()
    print(f"\n{dict(answers)}")
    assert answers["refused"] <= REFUSED * answers.total() + 3


def test_samples_that_depend_on_each_other() -> None:
    @settings(relaxed, max_examples=COUNT // 2)
    @given(st.data())
    def run(data: st.DataObject) -> None:
        check_mixing(random_network(lambda options: data.draw(st.sampled_from(options)), mixing=True))

    run()


def test_there_are_blocks_of_many_kinds() -> None:
    assert len({name for makers in BLOCKS.values() for name in makers}) >= 30
