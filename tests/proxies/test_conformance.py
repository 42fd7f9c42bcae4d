from __future__ import annotations

import pytest

from pynas import proxies
from pynas.testing.proxies import CASES, CHECKS


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", proxies.names())
def test_conformance(name, check, case):
    check(proxies.get(name), case)
