"""What tests of the page do again and again, and the architectures' values behind it."""

from __future__ import annotations

import time
from typing import Any

from pynas.architecture import Architecture
from pynas.trial import Evaluation, Status

PATIENCE = 30_000
"""Milliseconds until a page is given up on: conditions are waited for, and a busy machine takes its time."""

HOSTILE = '<img src=x onerror="document.title=1"><script>document.title=1</script>'


def valued(arch: Architecture) -> Evaluation:
    """Choice 3 of the first decision is good, choice 0 bad; one architecture in 13 fails."""
    total = sum(decision * (i + 1) for i, decision in enumerate(arch.decisions))
    if total % 13 == 5:
        return Evaluation(Status.FAILED, message=f"planted failure {HOSTILE}")
    bonus = {0: -20.0, 3: 20.0}.get(arch.decisions[0], 0.0)
    return Evaluation(Status.OK, {"s": total % 7 + bonus, "t": float(-total)}, {"flops": 1e6 + total})


def slowly(arch: Architecture) -> Evaluation:
    time.sleep(0.15)
    return valued(arch)


def expect(target: Any) -> Any:
    from playwright.sync_api import expect as expected

    expected.set_options(timeout=PATIENCE)
    return expected(target)


def allowed(page: Any) -> list[list[int]]:
    """Choices of each decision."""
    return [list(choices) for choices in page.state()["allowed"]]


def painted(page: Any) -> tuple[str, int]:
    """How the map is drawn, and on how many pixels something is."""
    kind, count = page.evaluate(
        """() => {
            const map = document.querySelector("#map-view canvas");
            const copy = new OffscreenCanvas(map.width, map.height).getContext("2d");
            copy.drawImage(map, 0, 0);
            const { data } = copy.getImageData(0, 0, map.width, map.height);
            const painted = data.filter((v, i) => i % 4 === 3 && v > 0).length;
            return [map.getContext("2d") ? "2d" : "webgl", painted];
        }"""
    )
    return kind, count


def agree(page: Any) -> None:
    page.get_by_role("dialog").get_by_role("button", name="Apply").click()


def block(page: Any, name: str) -> Any:
    return page.locator(f'#template-view [data-block="{name}"]')


def dot(page: Any, name: str) -> Any:
    return page.locator(f'#blocks-view [data-block="{name}"]')


def lit(page: Any) -> list[str]:
    return [
        str(each)
        for each in page.locator("#template-view .block.lit").evaluate_all(
            "all => all.map(e => e.dataset.block)"
        )
    ]
