"""The examples of CONTRIBUTING.md are whole: each passes the conformance checks of what it adds."""

from __future__ import annotations

import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pynas import proxies, spaces, strategies
from pynas.spaces.base import SPACES
from pynas.testing import proxies as of_proxies
from pynas.testing import spaces as of_spaces
from pynas.testing import strategies as of_strategies

pytestmark = pytest.mark.slow

PAGE = Path(__file__).resolve().parent.parent / "CONTRIBUTING.md"
EXAMPLES = dict(re.findall(r"<!-- example: (\w+) -->\n```python\n(.*?)```", PAGE.read_text(), re.DOTALL))
REGISTRIES = {"proxy": proxies.REGISTRY, "strategy": strategies.REGISTRY, "space": SPACES}


@pytest.fixture
def added(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name under which an example registers what it defines."""
    kind: str = request.param
    registry: Any = REGISTRIES[kind]
    before = dict(registry._objects)
    module = types.ModuleType(f"contributed_{kind}")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(EXAMPLES[kind], f"{PAGE.name}: {kind}", "exec"), module.__dict__)
    (name,) = registry._objects.keys() - before.keys()
    yield name
    registry._objects.clear()
    registry._objects.update(before)


def test_there_is_one_of_each() -> None:
    assert EXAMPLES.keys() == REGISTRIES.keys()


@pytest.mark.parametrize("added", ["proxy"], indirect=True)
@pytest.mark.parametrize("case", of_proxies.CASES, ids=lambda case: case.name)
def test_the_proxy(added: str, case: of_proxies.Case) -> None:
    for check in of_proxies.CHECKS:
        check(proxies.get(added), case)


@pytest.mark.parametrize("added", ["strategy"], indirect=True)
def test_the_strategy(added: str) -> None:
    for check in of_strategies.CHECKS:
        check(lambda *args, **options: strategies.create(added, *args, **options))


@pytest.mark.parametrize("added", ["space"], indirect=True)
def test_the_space(added: str) -> None:
    for check in of_spaces.CHECKS:
        check(spaces.get(added))
