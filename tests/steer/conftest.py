"""Pages with a search behind them, and a browser to open them in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pynas.steer import Page, steer
from tests.steer.browser import Visitor, chromium, missing
from tests.steer.steered import SPACE
from tests.steer.visits import valued


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if missing():
        pytest.skip(missing())
    with chromium(webgl=False) as found:
        yield found


@pytest.fixture
def visitor(browser: Any, served: Callable[..., Page]) -> Iterator[Visitor]:
    # After ``served``, so that it leaves before the search ends: what is asked then is answered by 503.
    found = Visitor(browser)
    yield found
    found.close()
    assert found.complaints == []


@pytest.fixture
def served() -> Iterator[Callable[..., Page]]:
    pages: list[Page] = []

    def serve(evaluator: Any = valued, **options: Any) -> Page:
        given = {"objectives": ["s"], "budget": 40, "seed": 3, "points": 400, **options}
        pages.append(steer(SPACE, evaluator, **given))
        return pages[-1]

    yield serve
    for page in pages:
        page.close()


@pytest.fixture
def finished(served: Callable[..., Page]) -> Page:
    page = served()
    assert page.wait(60)
    return page
