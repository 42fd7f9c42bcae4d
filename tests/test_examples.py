"""Each script in examples runs as it stands, warns about nothing, and prints what it promises."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.preloaded import Preloaded, preloaded

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


@pytest.fixture(scope="module")
def python() -> Iterator[Preloaded]:
    with preloaded() as process:
        yield process


@pytest.fixture
def output(python: Preloaded, tmp_path: Path) -> Callable[[str], str]:
    """What a script prints; it must end well, leave no file behind and say nothing on stderr."""

    def printed(script: str) -> str:
        folder = tmp_path / "empty"
        folder.mkdir()
        run = python.run(EXAMPLES / script, folder, ignored=".* held-out networks is|.* differ by")
        assert run.returncode == 0, run.stderr
        assert run.stderr == ""
        assert list(folder.iterdir()) == []
        return run.stdout

    return printed


def numbers(pattern: str, text: str) -> list[float]:
    found = re.search(pattern, text)
    assert found, f"{pattern!r} is not in\n{text}"
    return [float(number.replace(",", "")) for number in found.groups()]


def test_each_is_tested_and_short() -> None:
    tests = Path(__file__).read_text()
    scripts = sorted(EXAMPLES.glob("*.py"))
    assert len(scripts) >= 4
    for script in scripts:
        assert f'output("{script.name}"' in tests, script.name
        assert len(script.read_text().splitlines()) < 60, script.name


@pytest.mark.slow
def test_fused_supernet(output: Callable[[str], str]) -> None:
    text = output("fused_supernet.py")
    loop, fused = numbers(r"loop over candidates (\d+) ms, fused (\d+) ms", text)
    assert fused < loop
    (right,) = numbers(r"(\d+) % of held-out digits are right", text)
    assert right > 70  # chance is a tenth
    edges = re.search(r"edges: (.*)", text)
    assert edges
    assert len(edges[1].split(", ")) == 4
    assert "none" not in edges[1]


@pytest.mark.slow
def test_score_a_model(output: Callable[[str], str]) -> None:
    text = output("score_a_model.py")
    header, *lines = text.splitlines()
    assert header.split() == ["zico", "synflow", "naswot", "snip", "params", "flops"]
    rows = {line[:12].strip(): line[12:].split() for line in lines if not line.startswith("  ")}
    assert set(rows) == {"narrow", "wide", "deep", "deep, plain", "wrong"}
    zico = {name: float(row[0]) for name, row in rows.items()}
    assert zico["narrow"] < zico["wide"] < zico["deep"]
    assert rows["deep"][4:] == rows["deep, plain"][4:], "a shortcut has no parameters and no products"
    assert rows["wrong"][0] == "nan"
    assert "the model reads 1" in lines[-1], "a network that cannot run says why"
    assert "least of zico: 0.weight, of 26 layers" in text


@pytest.mark.slow
def test_search_own_space(output: Callable[[str], str]) -> None:
    text = output("search_own_space.py")
    assert "stopped after 12 trials\nresumed to 30 trials, the same as without a break\n" in text
    front = re.findall(r"zico +([\d.]+), +([\d,]+) parameters: (width=\d+,kernel=\d,depth=\d,act=\w+)", text)
    scores = [float(score) for score, _, _ in front]
    params = [int(count.replace(",", "")) for _, count, _ in front]
    assert len(front) > 2
    assert scores == sorted(scores), "what has more parameters and stands on the front has a higher score"
    assert params == sorted(params)


@pytest.mark.slow
def test_hardware_aware(output: Callable[[str], str]) -> None:
    text = output("hardware_aware.py")
    operators, others = numbers(r"(\d+) operators measured; (\d+) other networks are predicted", text)
    assert (operators, others) == (26, 8)
    assert numbers(r"an error of (\d+) %", text)[0] < 100  # a busy machine has tens
    (limit,) = numbers(r"below ([\d.]+) ms", text)
    found = re.findall(r"zico (\d+), predicted ([\d.]+) ms, measured ([\d.]+) ms: (\|.*\|)", text)
    assert len(found) == 2
    _, (score, predicted, measured, _) = found
    assert float(predicted) <= limit
    assert min(float(score), float(measured)) > 0
