"""Dictionaries of Once-for-all as architectures of ProxylessNAS: read where their meaning is certain."""

from __future__ import annotations

import random
from typing import Any

import pytest

import pynas
from pynas._errors import UserError

SPACE = pynas.spaces.get("proxylessnas")
STAGES = (4, 4, 4, 4, 4, 1)


def drawn(rng: random.Random) -> dict[str, list[int]]:
    return {
        "ks": [rng.choice((3, 5, 7)) for _ in range(21)],
        "e": [rng.choice((3, 6)) for _ in range(21)],
        "d": [rng.randint(1, 4) for _ in range(5)],
    }


def written(found: dict[str, list[int]]) -> str:
    """In the space's own notation."""
    names, stages = [f"{k}x{k}_MBConv{e}" for k, e in zip(found["ks"], found["e"], strict=True)], []
    for count, depth in zip(STAGES, [*found["d"], 1], strict=True):
        stage, names = names[:count], names[count:]
        stages.append(",".join([*stage[:depth], *["Zero"] * (count - depth)]))
    return "|".join(stages)


def test_dictionaries_are_read() -> None:
    rng = random.Random(0)
    for _ in range(20):
        found = drawn(rng)
        assert SPACE.parse(repr(found)) == SPACE.parse(written(found))
        assert SPACE.parse(repr(found | {"d": [*found["d"], 1], "wid": None, "r": [224]})) == SPACE.parse(
            written(found)
        )


def test_what_lies_beyond_the_depth_does_not_count() -> None:
    found = drawn(random.Random(1)) | {"d": [1, 1, 1, 1, 1]}
    arch = SPACE.parse(repr(found))
    found["ks"][1], found["e"][3] = 11, 4
    assert SPACE.parse(repr(found)) == arch


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"ks": [3] * 20},
            "ks: expected 21 integers, got 20; 20 are those of OFA's MobileNetV3, another space",
        ),
        ({"e": [4] * 21}, "place 0 has kernel . and expansion 4; this space has kernels 3, 5, 7 and"),
        ({"ks": [1] * 21}, "place 0 has kernel 1"),
        ({"d": [0, 1, 1, 1, 1]}, "d: stage 0 has 1 to 4 blocks, got 0"),
        ({"d": [5, 1, 1, 1, 1]}, "d: stage 0 has 1 to 4 blocks, got 5"),
        ({"d": [1, 1, 1, 1, 1, 2]}, "d: stage 5 has 1 to 1 blocks, got 2"),
        ({"d": [1] * 4}, "d: expected 5 or 6 integers, got 4"),
        ({"e": 6}, "e: expected a list of integers, got 6"),
        ({"e": [True] * 21}, "e: expected a list of integers"),
        ({"w": [1]}, "expected the lists ks, e and d, it has w too"),
        ({"wid": 1.2}, "wid: the width of this space is an option"),
    ],
)
def test_other_dictionaries_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        SPACE.parse(repr(drawn(random.Random(2)) | change))
    assert str(caught.value).startswith("not a proxylessnas architecture: ")


@pytest.mark.parametrize("text", ["{", "{}", "{1, 2}", "{'ks': [3]}", "{" * 400, "{'a': " + "1" * 3000 + "}"])
def test_what_is_no_such_dictionary(text: str) -> None:
    with pytest.raises(UserError, match="not a proxylessnas architecture: expected "):
        SPACE.parse(text)
