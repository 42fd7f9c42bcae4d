"""Dictionaries ``{"ks": [...], "e": [...], "d": [...]}`` in the style of Once-for-all.

H. Cai, C. Gan, T. Wang, Z. Zhang, S. Han, "Once-for-All: Train One Network and Specialize it for Efficient
Deployment", ICLR 2020, arXiv:1908.09791. Kernel sizes and expansions are listed for every place of a network
of the largest depth, stage after stage; ``d`` says how many places of each stage are used, from its start.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from typing import Any, Final

from pynas._errors import UserError
from pynas._io.files import shortened

KERNELS: Final = (3, 5, 7)
EXPANSIONS: Final = (3, 6)
LONGEST: Final = 2000
_ZERO: Final = len(KERNELS) * len(EXPANSIONS)
_IGNORED: Final = ("wid", "r", "resolution", "image_size")  # of the network or the images, not of its blocks


def once_for_all(text: str, blocks: Sequence[int]) -> tuple[int, ...]:
    """Decisions of a dictionary whose meaning in stages of so many ``blocks`` is certain.

    That is: ``ks`` and ``e`` have an entry for each place, ``d`` one for each stage of several blocks (or for
    each stage), and every value that counts is one of the space. Places beyond the depth are ``Zero``.

    Raises:
        UserError: Another dictionary; the message says what of it this space does not have.
    """
    found = _literal(text)
    places, several = sum(blocks), sum(count > 1 for count in blocks)
    unknown = sorted(map(str, found.keys() - {"ks", "e", "d", *_IGNORED}))
    if unknown or not {"ks", "e", "d"} <= found.keys():
        what = (
            f"it has {', '.join(unknown)} too" if unknown else f"got {', '.join(map(str, found)) or 'none'}"
        )
        raise _refused(f"expected the lists ks, e and d, {what}")
    if found.get("wid") not in (None, 1):
        raise _refused(f"wid: the width of this space is an option, not a choice, got {found['wid']!r}")
    kernels, expansions = (_integers(found[name], name, (places,)) for name in ("ks", "e"))
    depths = _integers(found["d"], "d", (several, len(blocks)))
    depths += (1,) * (len(blocks) - len(depths))  # the last stage has a single block
    decisions: list[int] = []
    for stage, (count, depth) in enumerate(zip(blocks, depths, strict=True)):
        if not 1 <= depth <= count:
            raise _refused(f"d: stage {stage} has 1 to {count} blocks, got {depth}")
        for block in range(count):
            place = len(decisions)
            if block >= depth:
                decisions.append(_ZERO)
                continue
            kernel, expansion = kernels[place], expansions[place]
            if kernel not in KERNELS or expansion not in EXPANSIONS:
                raise _refused(
                    f"place {place} has kernel {kernel} and expansion {expansion}; this space has kernels "
                    f"{', '.join(map(str, KERNELS))} and expansions {', '.join(map(str, EXPANSIONS))}"
                )
            decisions.append(KERNELS.index(kernel) * len(EXPANSIONS) + EXPANSIONS.index(expansion))
    return tuple(decisions)


def _refused(why: str) -> UserError:
    return UserError(f"not a proxylessnas architecture: {why}")


def _literal(text: str) -> Mapping[Any, Any]:
    try:
        if len(text) > LONGEST:
            raise ValueError
        value = ast.literal_eval(text)
        if not isinstance(value, dict):
            raise ValueError
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise _refused(f"expected a dictionary of lists ks, e and d, got {shortened(repr(text))}") from None
    return value


def _integers(value: Any, name: str, lengths: Sequence[int]) -> tuple[int, ...]:
    if not isinstance(value, list | tuple) or any(type(each) is not int for each in value):
        raise _refused(f"{name}: expected a list of integers, got {shortened(repr(value))}")
    if len(value) not in lengths:
        expected = " or ".join(f"{length:,}" for length in dict.fromkeys(lengths))
        hint = (
            "; 20 are those of OFA's MobileNetV3, another space" if len(value) == 20 and name != "d" else ""
        )
        raise _refused(f"{name}: expected {expected} integers, got {len(value):,}{hint}")
    return tuple(value)
