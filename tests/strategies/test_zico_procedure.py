"""Children of ``zico_evolution`` on ``mbv2_zico`` come as often as the authors' code draws them."""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from collections.abc import Iterable

import pytest

from pynas import strategies
from pynas.architecture import Architecture
from pynas.spaces import MBV2ZiCo
from pynas.spaces.mbv2_zico.blocks import RATIOS, SPLIT_FROM, TYPES, Block
from pynas.strategies import ZiCoEvolution
from pynas.trial import Evaluation, Status, Trial

SPACE = MBV2ZiCo(max_layers=None)
DRAWS = 6000


def near(found: int, draws: int, probability: float) -> bool:
    """Within 4.5 standard deviations of a binomial count: one test in 150,000 fails by chance."""
    return abs(found - draws * probability) <= 4.5 * math.sqrt(draws * probability * (1 - probability)) + 1e-9


def probabilities_of_types() -> dict[str, float]:
    """The list of the authors' code, made as it is there: its states share their tails."""
    kept: list[list[str]] = []
    growing: list[str] = []
    for kind in (
        "E1K3",
        "E2K3",
        "E4K3",
        "E6K3",
        "E1K5",
        "E2K5",
        "E4K5",
        "E6K5",
        "E1K7",
        "E2K7",
        "E4K7",
        "E6K7",
    ):
        growing.append(kind)  # also the last one kept, which this list still is
        growing = list(dict.fromkeys(growing))
        kept.append(growing)
    everything = [kind for state in kept for kind in state]
    return {kind: count / len(everything) for kind, count in Counter(everything).items()}


def widths(width: int) -> set[int]:
    return {max(8, round(width * ratio / 8) * 8) for ratio in RATIOS}


def unchanged(block: Block) -> float:
    """Probability that a replacement is the block itself."""
    depths = [layers for layers in range(block.layers - 2, block.layers + 3) if layers > 0]
    choices = len(widths(block.width)) * len(widths(block.bottleneck)) * len(depths)
    return probabilities_of_types()[TYPES[block.kind]] / choices


def places_changed(before: Architecture, after: Architecture) -> int:
    """How many of stem and super-blocks are others; a block of six or seven sub-layers has become two."""
    old, new = list(SPACE.blocks(before)), list(SPACE.blocks(after))
    changed = int(before.decisions[0] != after.decisions[0])
    merged: list[Block] = []
    while new:
        block = new.pop(0)
        splits = bool(new) and block.layers == SPLIT_FROM // 2 and new[0].stride == 1
        alike = splits and block[:2] == new[0][:2] and block.bottleneck == new[0].bottleneck
        if alike and len(merged) + 1 + len(new) > len(old):
            block = block._replace(layers=block.layers + new.pop(0).layers)
        merged.append(block)
    assert len(merged) == len(old)
    return changed + sum(a != b for a, b in zip(old, merged, strict=True))


def distribution_of_changes(arch: Architecture, replacements: int) -> dict[int, float]:
    """Exact: over all ordered draws of places, and over what stays the same in them."""
    blocks = SPACE.blocks(arch)
    stays = [1 / len(widths(arch.decisions[0])), *map(unchanged, blocks), 1.0]
    found: Counter[int] = Counter()
    for drawn in itertools.product(range(len(stays)), repeat=replacements):
        places = sorted(set(drawn))
        for kept in itertools.product((True, False), repeat=len(places)):
            share = math.prod(
                stays[place] if same else 1 - stays[place] for place, same in zip(places, kept, strict=True)
            )
            found[kept.count(False)] += share / len(stays) ** replacements
    return dict(found)


def test_the_list_of_types_is_the_published_one() -> None:
    known = probabilities_of_types()
    assert [round(known[kind], 3) for kind in ("E1K3", "E2K3", "E6K7")] == [0.135, 0.135, 0.022]
    by_kernel = [round(sum(share for kind, share in known.items() if kind.endswith(k)), 2) for k in "357"]
    assert by_kernel == [0.51, 0.34, 0.16]


@pytest.mark.parametrize("replacements", [1, 2])
def test_how_many_places_change(replacements: int) -> None:
    start, rng = SPACE.start(), random.Random(replacements)
    expected = distribution_of_changes(start, replacements)
    if replacements == 2:
        assert [round(expected[k], 2) for k in (0, 1, 2)] == [0.07, 0.49, 0.44]
    found: Counter[int] = Counter()
    for _ in range(DRAWS):
        child = SPACE.replace(start, replacements, rng)
        assert child is not None
        found[places_changed(start, child)] += 1
    assert set(found) <= set(range(replacements + 1))
    for changed, probability in expected.items():
        assert near(found[changed], DRAWS, probability), (changed, found[changed] / DRAWS, probability)


def test_types_widths_and_depths_of_replacements() -> None:
    """Given that one block alone was replaced: its type by the list, the rest uniform."""
    block = Block(TYPES.index("E2K5"), 96, 2, 48, 5)
    arch = Architecture("mbv2_zico", (32, 2048, *block))
    rng = random.Random(5)
    found = []
    while len(found) < 4000:
        child = SPACE.replace(arch, 1, rng)
        assert child is not None
        if child.decisions[0] == 32 and child != arch:
            first, *second = SPACE.blocks(child)
            found.append(first._replace(layers=sum(one.layers for one in (first, *second))))
            assert child.decisions[1] == 2048
            if second:  # six sub-layers are split 3 and 3, seven 3 and 4
                assert (first.layers, second[0].stride) == (3, 1)
                assert second[0].layers in (3, 4)
    keep = 1 - unchanged(block)  # the block itself was left out above
    for kind, share in probabilities_of_types().items():
        expected = (share - (unchanged(block) if kind == "E2K5" else 0)) / keep
        assert near(sum(TYPES[one.kind] == kind for one in found), len(found), expected), kind
    for name, values in (("width", widths(96)), ("bottleneck", widths(48)), ("layers", set(range(3, 8)))):
        counts = Counter(getattr(one, name) for one in found)
        assert set(counts) == values
        for value, count in counts.items():
            share = 1 / len(values) - (unchanged(block) if value == getattr(block, name) else 0)
            assert near(count, len(found), share / keep), (name, value)


def told(search: ZiCoEvolution, proposals: Iterable[Architecture]) -> None:
    for number, arch in enumerate(proposals):
        search.tell(Trial(number, arch, Evaluation(Status.OK, scores={"score": float(number)})))


def test_the_first_phase_changes_at_most_one_place_of_the_start_network() -> None:
    search = strategies.create("zico_evolution", SPACE, seed=1)
    found = []
    for number in range(11):
        found.append(search.ask())
        search.tell(Trial(number, found[-1], Evaluation(Status.OK, scores={"score": 1.0})))
    changed = [places_changed(SPACE.start(), arch) for arch in found]
    assert max(changed) == 1
    assert changed.count(0) <= 1, "a replacement may be the block itself, and no network is proposed twice"


def test_a_rejected_child_is_bred_from_another_parent() -> None:
    """One member in eleven has children within the bound; the same parent again would never end."""
    narrow = MBV2ZiCo(max_layers=None)
    search = ZiCoEvolution(narrow, seed=3, feasible=lambda arch: len(narrow.blocks(arch)) == 3, first=2)
    four = [narrow.start(), narrow.replace(narrow.start(), 1, random.Random(0))]
    assert four[1] is not None
    fitting = Architecture("mbv2_zico", narrow.start().decisions[:17])
    told(search, [four[0], four[1], *[fitting] * 2])
    proposed = [search.ask() for _ in range(20)]
    assert len(set(proposed)) == 20
    assert all(places_of(fitting, arch, narrow) for arch in proposed)


def places_of(parent: Architecture, child: Architecture, space: MBV2ZiCo) -> bool:
    """Whether ``child`` is ``parent`` with at most two places replaced, and no block split."""
    return len(space.blocks(parent)) == len(space.blocks(child)) and 0 < places_changed(parent, child) <= 2


def test_outside_the_limits_there_is_no_child() -> None:
    limited, rng = MBV2ZiCo(max_layers=6), random.Random(2)
    children = [limited.replace(limited.start(), 2, rng) for _ in range(300)]
    inside = [child for child in children if child is not None]
    assert 0 < len(inside) < 300
    assert all(limited.depth(child) <= 6 for child in inside)
