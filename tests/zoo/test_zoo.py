"""Statistics of every network of the zoo against a loop over samples, and their scores."""

from __future__ import annotations

import os

import pytest

from tests.zoo import calls, handwritten
from tests.zoo.networks import Network, all_networks
from tests.zoo.run import measure, scores

QUICK = (
    "mlp", "convolutional_train", "lstm", "classifier", "language_relative", "temporal_convolution",
    "graph_convolution", "deep_sets", "lora_merged", "soft_experts", "tied", "windows",
)  # fmt: skip
SCORED = (
    "mlp",
    "convolutional",
    "lstm",
    "classifier",
    "language_rotary",
    "deep_sets",
    "windows",
    "orthogonal",
)
pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.filterwarnings("ignore")]


def check(network: Network) -> None:
    """Right values, or a UserError, and the model as it was."""
    if not network.available:
        pytest.skip(f"needs {' and '.join(network.packages)}")
    for batch in network.batches:
        outcome = measure(network, batch)
        if outcome.status not in ("refused", "broken"):
            assert outcome.status == "ok", (
                f"{outcome.name}, {batch} samples: {outcome.status}: {outcome.message}"
            )
        assert outcome.status != "broken", f"the network itself fails: {outcome.message}"


@pytest.mark.parametrize("name", QUICK)
def test_small_networks(name: str) -> None:
    network = {n.name: n for n in handwritten.networks()}[name]
    assert measure(network, network.batches[0]).status == "ok"


@pytest.mark.slow
@pytest.mark.skipif(
    "PYNAS_ZOO" not in os.environ, reason="takes minutes: set PYNAS_ZOO=1, as make evidence does"
)
@pytest.mark.parametrize("name", list(all_networks()))
def test_every_network(name: str) -> None:
    check(all_networks()[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", SCORED)
def test_scores(name: str) -> None:
    for outcome in scores({n.name: n for n in handwritten.networks()}[name], 4):
        assert outcome.status in ("ok", "failed"), f"{outcome.name}: {outcome.message}"


def test_names_are_unique_and_families_many() -> None:
    networks = all_networks().values()
    assert len(networks) >= 150
    assert len({n.family for n in networks}) >= 40
    assert {n.family for n in calls.networks()} == {"calls"}
