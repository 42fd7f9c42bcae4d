"""Every registered space under random walks and random text.

Counts suit a test run; ``make evidence`` raises them by the environment variables below.
"""

from __future__ import annotations

import os
import random

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pynas import spaces
from pynas._errors import UserError
from pynas.architecture import Architecture
from pynas.spaces import SearchSpace
from pynas.testing.fuzz._targets import check_text

pytestmark = pytest.mark.slow

STEPS = int(os.environ.get("PYNAS_FUZZ_STEPS", "10000"))  # of a walk in each space
TEXTS = int(os.environ.get("PYNAS_FUZZ_TEXTS", "150"))  # of each kind for each parser
NETWORKS = int(os.environ.get("PYNAS_FUZZ_NETWORKS", "2"))  # of each space

WALKS = 10
SPACES = {name: spaces.get(name) for name in spaces.names()}

every_space = pytest.mark.parametrize("name", spaces.names())
# The same cases in every test run: a failure must be repeatable. Raised counts look for new ones.
relaxed = settings(
    deadline=None,
    database=None,
    derandomize="PYNAS_FUZZ_TEXTS" not in os.environ,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def walk(space: SearchSpace, steps: int, rng: random.Random) -> Architecture:
    """Mutate and cross over, at times with a stranger; every architecture on the way is in the space."""
    arch, mate = space.sample(rng), space.sample(rng)
    for step in range(steps):
        if step % 4 == 3:
            child = space.crossover(arch, mate, rng)
        else:
            child = space.mutate(arch, rng)
            assert child != arch
        space.check(child)
        if step % 16 == 15:
            mate = arch if rng.random() < 0.5 else space.sample(rng)
        arch = child
    return arch


@every_space
def test_mutation_and_crossover_never_leave_the_space(name: str) -> None:
    space = SPACES[name]

    @settings(relaxed, max_examples=WALKS)
    @given(st.integers(0, 2**32))
    def run(seed: int) -> None:
        arch = walk(space, STEPS // WALKS, random.Random(seed))
        assert space.parse(space.format(arch)) == arch
        assert Architecture.from_json(arch.to_json()) == arch
        form = space.canonical(arch)
        assert space.canonical(form) == form
        assert space.params(form) <= space.params(arch)
        assert space.macs(arch) > 0
        assert all(isinstance(value, float) for value in space.encode(arch))

    run()


def parse(space: SearchSpace, text: str) -> None:
    """A text is refused with a UserError, or names an architecture."""
    message = ""
    try:
        check_text(space, text)
    except UserError as error:
        message = str(error)
    assert "\x1b" not in message, "control characters reach the terminal"


@every_space
def test_arbitrary_text(name: str) -> None:
    space = SPACES[name]
    # Half of the texts are of the characters that the space's own notation uses, to get further into it.
    own = "".join(sorted({c for seed in range(5) for c in space.format(space.sample(random.Random(seed)))}))

    @settings(relaxed, max_examples=TEXTS)
    @given(st.text() | st.text(st.sampled_from(own), max_size=40))
    def run(text: str) -> None:
        parse(space, text)

    run()


@st.composite
def edits(draw: st.DrawFn) -> list[tuple[float, float, str]]:
    """Cuts to make in a text, as fractions of it, and what to put there; ``=`` stands for a copied piece."""
    place = st.floats(0, 1, allow_nan=False)
    piece = st.sampled_from(["", "=", "-1", "9" * 30, "٣", "0", "1", "+", " ", "\x1b[31m"]) | st.text(
        max_size=3
    )
    return draw(st.lists(st.tuples(place, place, piece), min_size=1, max_size=3))


@every_space
def test_damaged_text(name: str) -> None:
    space = SPACES[name]

    @settings(relaxed, max_examples=TEXTS)
    @given(st.integers(0, 999), edits())
    def run(seed: int, changes: list[tuple[float, float, str]]) -> None:
        text = space.format(space.sample(random.Random(seed)))
        for place, length, piece in changes:
            start = round(place * len(text))
            end = start + round(length**4 * (len(text) - start))  # small cuts mostly
            text = text[:start] + (text[end : 2 * end - start] if piece == "=" else piece) + text[end:]
        parse(space, text)

    run()


@every_space
def test_any_decisions(name: str) -> None:
    """Decisions are refused with a UserError, or are an architecture that survives its own text."""
    space = SPACES[name]
    numbers = st.integers(-1, 9) | st.integers()

    @settings(relaxed, max_examples=TEXTS)
    @given(
        st.integers(0, 999),
        st.lists(st.tuples(st.floats(0, 1, allow_nan=False), numbers), max_size=3),
        st.integers(-3, 3),
        st.none() | st.lists(numbers, max_size=30),
    )
    def run(seed: int, changes: list[tuple[float, int]], longer: int, others: list[int] | None) -> None:
        decisions = list(space.sample(random.Random(seed)).decisions)
        decisions = decisions + [0] * longer if longer > 0 else decisions[: len(decisions) + longer]
        for place, number in changes if decisions else ():
            decisions[round(place * (len(decisions) - 1))] = number
        arch = Architecture(name, tuple(decisions if others is None else others))
        try:
            space.check(arch)
        except UserError:
            return
        assert space.parse(space.format(arch)) == arch
        space.check(space.mutate(arch, random.Random(seed)))
        assert space.params(space.canonical(arch)) <= space.params(arch)

    run()


@every_space
def test_networks_run_forward_and_backward(name: str) -> None:
    space = SPACES[name]
    for seed in range(NETWORKS):
        arch = space.sample(random.Random(1000 + seed))
        torch.manual_seed(seed)
        network = space.build(arch, num_classes=5, prune=seed % 2 == 1)
        inputs = space.example_inputs(2, 3, torch.Generator().manual_seed(seed))
        outputs = network(inputs)
        assert outputs.shape == space.output_shape(2, 5), space.format(arch)
        outputs.square().mean().backward()
        gradients = [p.grad for p in network.parameters() if p.grad is not None]
        assert gradients, space.format(arch)
        assert all(bool(gradient.isfinite().all()) for gradient in gradients), space.format(arch)
