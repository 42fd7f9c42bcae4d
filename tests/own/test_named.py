"""Objects of a user's own modules and packages: by ``package.module:object`` and by entry points."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import pynas
from pynas import _named, proxies, spaces, strategies
from pynas._errors import UserError, UserNotice
from pynas.spaces.base import SPACES

Run = Callable[..., tuple[int, str, str]]

MINE = """
    from torch import nn
    import pynas
    from pynas.stats import Gradients

    def network(width, depth, in_channels=3, num_classes=10):
        layers = [nn.Conv2d(in_channels, width, 3), nn.ReLU()] * depth
        head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes)]
        return nn.Sequential(*layers[:2], *head)

    space = pynas.spaces.custom(network, {"width": [4, 8, 12], "depth": [1, 2]}, name="mine")
    table = {"a": 1}

    def make():
        return space

    def broken():
        raise LookupError("no such thing")

    class Largest(pynas.proxies.Proxy):
        '''Largest absolute gradient.'''

        name = "largest"
        needs = (Gradients(parameters="weights"),)

        def layers(self, statistics):
            return {name: float(g.abs().max()) for name, g in statistics[Gradients].items()}

    class Backwards(pynas.strategies.SearchStrategy):
        '''From the last index to the first.'''

        def __init__(self, space, *, seed=0, feasible=None, objectives=(), start=0):
            super().__init__(space, seed=seed, feasible=feasible, objectives=objectives)
            self.start = start

        def _propose(self):
            for i in reversed(range(self.space.size - self.start)):
                arch = self.space.from_index(i)
                if self._claim(arch):
                    return arch
            raise pynas.strategies.Exhausted("all proposed")
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a module of the user's own, which is the current one."""
    (tmp_path / "mine_of_user.py").write_text(textwrap.dedent(MINE))
    (tmp_path / "broken_of_user.py").write_text("import math\n\nmath.no_such_function()\n")
    (tmp_path / "needs_other.py").write_text("import not_installed_at_all\n")
    (tmp_path / "ends.py").write_text("raise SystemExit(3)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for registry in (SPACES, proxies.REGISTRY, strategies.REGISTRY):
        monkeypatch.setattr(registry, "_objects", dict(registry._objects))
    yield tmp_path
    for name in ("mine_of_user", "broken_of_user", "needs_other", "ends"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mine_of_user", "space: unknown search space 'mine_of_user'"),
        ("no_such_module:space", "there is no module 'no_such_module' in the current folder or installed"),
        ("mine_of_user:spac", "'mine_of_user' has no 'spac'; did you mean 'space'"),
        ("mine_of_user:zzz", "'mine_of_user' has no 'zzz'; it has: nn, pynas, Gradients"),
        (
            "broken_of_user:space",
            r"importing 'broken_of_user' raised AttributeError: .* at broken_of_user.py:3",
        ),
        (
            "needs_other:space",
            "importing 'needs_other' raised ModuleNotFoundError: No module named 'not_inst",
        ),
        ("ends:space", "importing 'ends' raised SystemExit: 3 at ends.py:1"),
        ("mine_of_user:table", "expected a search space such as pynas.spaces.custom makes.* got dict"),
        (
            "mine_of_user:broken",
            "called without arguments, it raised LookupError: 'no such thing'|no such thing",
        ),
        ("mine_of_user:network", "called without arguments, it raised TypeError"),
    ],
)
def test_what_is_wrong_with_an_object_by_name(mine: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message.removeprefix("space: ")):
        spaces.open_space(text, "--space")


@pytest.mark.parametrize("text", ["mine_of_user:space", "mine_of_user:make"])
def test_a_space_by_name(mine: Path, text: str) -> None:
    space = spaces.open_space(text)
    assert space.name == "mine"
    assert space.size == 6
    assert spaces.open_space("nasbench201:channels=4,num_cells=1").channels == 4  # type: ignore[attr-defined]
    before = list(sys.path)
    assert str(mine) == before[-1]  # behind everything else, so that it shadows nothing later
    spaces.open_space(text)
    assert sys.path == before


def test_commands_take_what_is_named(mine: Path, run_pynas: Run, one_thread: None) -> None:
    search = ("search", "--space", "mine_of_user:space", "--batch", 8, "--budget", 4, "--images", "digits")
    code, out, err = run_pynas(
        *search, "--strategy", "mine_of_user:Backwards", "--objective", "mine_of_user:Largest"
    )
    assert code == 0, err
    assert "width=" in out
    assert "largest" in out
    code, out, err = run_pynas(
        *("score", "width=4,depth=2", "--space", "mine_of_user:space", "--images", "digits", "--batch", 8),
        *("--proxies", "mine_of_user:Largest,params"),
    )  # fmt: skip
    assert code == 0, err
    assert "largest" in out
    assert "162" in out  # (27 + 1) * 4 + (4 + 1) * 10 parameters
    code, out, err = run_pynas("spaces", "mine_of_user:space")
    assert code == 0, err
    assert "a user's own space of width, depth" in out or "custom space" in out
    code, _, err = run_pynas("supernet", "--space", "mine_of_user:space", "--images", "digits")
    assert code == 2
    assert "no supernet of mine" in err
    assert "a method supernet(num_classes, in_channels)" in err


def test_a_store_of_ones_own_space_has_a_page(mine: Path, run_pynas: Run, one_thread: None) -> None:
    command = ("search", "--space", "mine_of_user:space", "--objective", "params", "--budget", 3)
    assert run_pynas(*command, "--store", "runs.db")[0] == 0
    assert run_pynas("report", "runs.db", "--space", "mine_of_user:space")[0] == 0
    assert "width=" in Path("report.html").read_text()
    code, _, err = run_pynas("report", "runs.db", "--space", "nasbench201")
    assert code == 2
    assert "searched mine, not nasbench201" in err


def test_proxies_by_name(mine: Path) -> None:
    import torch

    model = spaces.open_space("mine_of_user:space").build(pynas.Architecture("mine", (1, 0)))
    data = torch.randn(6, 3, 8, 8), torch.arange(6)
    found = pynas.score(model, *data, proxies=["mine_of_user:Largest"])
    assert list(found) == ["largest"]
    assert found["largest"].value > 0
    assert proxies.get("largest").name == "largest"  # known from now on
    with pytest.raises(UserError, match=r"expected a pynas\.proxies\.Proxy or a class of them"):
        proxies.get("mine_of_user:space")


class Package:
    """A stand-in for an installed package with entry points."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **groups: dict[str, str]) -> None:
        from importlib.metadata import EntryPoint

        found = {
            f"pynas.{group}": {
                name: EntryPoint(name, value, f"pynas.{group}") for name, value in points.items()
            }
            for group, points in groups.items()
        }
        monkeypatch.setattr(_named, "offered", lambda group: found.get(group, {}))


@pytest.fixture
def package(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sys.path.insert(0, str(mine))
    Package(
        monkeypatch,
        spaces={"offered": "mine_of_user:space", "faulty": "broken_of_user:space", "nasbench201": "x:y"},
        proxies={"largest": "mine_of_user:Largest", "no_proxy": "mine_of_user:table"},
        strategies={"backwards": "mine_of_user:Backwards", "gone": "not_installed_at_all:Strategy"},
    )


def test_what_packages_offer_is_in_every_list(package: None, run_pynas: Run, one_thread: None) -> None:
    assert "mine_of_user" not in sys.modules, "nothing is imported before it is asked for"
    assert {"offered", "faulty"} <= set(spaces.names())
    assert {"largest", "no_proxy"} <= set(proxies.names())
    assert {"backwards", "gone"} <= set(strategies.names())
    assert "mine_of_user" not in sys.modules
    code, out, err = run_pynas("spaces")
    assert code == 0
    assert "offered" in out
    assert "faulty" not in out
    assert "search space 'faulty' is left out: entry point faulty = broken_of_user:space" in err
    assert len(err.splitlines()) == 1
    code, out, err = run_pynas("proxies", "--json")
    assert code == 0
    assert '"largest"' in out
    assert "proxy 'no_proxy' is left out" in err
    assert "expected a pynas.proxies.Proxy" in err
    code, out, err = run_pynas(
        *("search", "--space", "offered", "--strategy", "backwards", "--objective", "largest"),
        *("--budget", 3, "--batch", 8, "--images", "digits"),
    )  # fmt: skip
    assert code == 0, err
    code, _, err = run_pynas("search", "--strategy", "gone", "--objective", "params")
    assert code == 2
    assert "entry point gone = not_installed_at_all:Strategy: ModuleNotFoundError" in err
    with pytest.warns(UserNotice, match="'gone' is left out"):
        assert "backwards" in strategies.REGISTRY.working()
    assert spaces.get("nasbench201").size == 15625, "what pynas has stays"


def test_entry_points_are_read_from_what_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "nas_extras-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: nas-extras\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[pynas.spaces]\nextra = extras_of_user:space\n")
    (tmp_path / "extras_of_user.py").write_text(
        "import pynas\nspace = pynas.spaces.get('nasbench201', channels=4)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    _named.offered.cache_clear()
    try:
        assert "extra" in spaces.names()
        assert spaces.get("extra").channels == 4  # type: ignore[attr-defined]
        assert "of the package nas-extras" in _named.origin(_named.offered("pynas.spaces")["extra"])
    finally:
        _named.offered.cache_clear()
        SPACES._objects.pop("extra", None)
        sys.modules.pop("extras_of_user", None)


def test_registering(mine: Path) -> None:
    space = spaces.open_space("mine_of_user:space")
    assert spaces.register(space) is space
    assert spaces.get("mine") is space
    with pytest.raises(ValueError, match="registered already"):
        spaces.register(space)
    with pytest.raises(TypeError, match=r"expected a pynas\.spaces\.SearchSpace"):
        spaces.register(3)  # type: ignore[type-var]

    @strategies.register("first_things")
    class First(strategies.RandomSearch):
        pass

    assert strategies.get("first_things") is First
    assert strategies.name_of(First) == "first_things"
    with pytest.raises(TypeError, match="expected a class"):
        strategies.register("no_strategy")(int)  # type: ignore[type-var]
