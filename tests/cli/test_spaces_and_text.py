"""Commands on spaces with options, and on spaces that read words."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from pynas.cli.specs import open_space
from pynas.spaces import DARTSCNN, DARTSRNN

Run = Callable[..., tuple[int, str, str]]

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """Three hundred words."""
    rng = random.Random(0)
    path = tmp_path / "words.txt"
    path.write_text("\n".join(" ".join(rng.choice("abcdefg") for _ in range(9)) for _ in range(30)))
    return path


def test_options_of_a_space() -> None:
    space = open_space("darts_cnn:network=imagenet, num_cells=5,auxiliary=true,drop_path=.2")
    assert isinstance(space, DARTSCNN)
    assert (space.network, space.channels, space.num_cells) == ("imagenet", 48, 5)
    assert space.auxiliary is True
    assert space.drop_path == 0.2
    plain = open_space("darts_rnn")
    assert isinstance(plain, DARTSRNN)
    assert plain.features == 850


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ("darts", "unknown search space 'darts'"),
        ("darts_rnn:feature=3", "got 'feature=3'; darts_rnn has options nodes=8, features=850, dropout=0.75"),
        ("darts_rnn:features", "expected NAME:option=value, got 'features'"),
        ("darts_rnn:features=many", "features: expected a positive integer, got 'many'"),
        ("darts_cnn:drop_path=often", "drop_path: expected a probability in [0, 1), got 'often'"),
    ],
)
def test_bad_options_of_a_space(run_pynas: Run, space: str, message: str) -> None:
    code, _, error = run_pynas("score", "DARTS_V1", "--space", space)
    assert code == 2
    assert message in error
    assert len(error.strip().splitlines()) == 1


@pytest.mark.slow
def test_score_a_published_cell(run_pynas: Run) -> None:
    code, out, _ = run_pynas(
        "score", "DARTS_V2", "--space", "darts_cnn:channels=2,num_cells=3", "--batch", 8, "--json"
    )
    assert code == 0
    space = DARTSCNN(channels=2, num_cells=3)
    arch = space.parse("DARTS_V2")
    scores = json.loads(out)
    assert scores["zico"]["status"] == "ok"
    assert scores["params"]["value"] == space.params(arch)
    assert scores["flops"]["value"] == space.macs(arch)


@pytest.mark.slow
def test_score_a_language_model(run_pynas: Run, text: Path) -> None:
    space = "darts_rnn:features=8"
    options = ("--space", space, "--text", text, "--steps", 6, "--batch", 10)
    code, out, _ = run_pynas("score", "DARTS_V1", *options, "--json")
    assert code == 0
    scores = json.loads(out)
    words = 9  # seven letters, <eos> and <unk>
    rnn = DARTSRNN(features=8)
    assert scores["params"]["value"] == rnn.params(rnn.parse("DARTS_V1"), words)
    assert scores["flops"]["value"] == rnn.macs(rnn.parse("DARTS_V1"), words, 6)
    assert scores["zico"]["status"] == "ok"
    code, out, _ = run_pynas("score", "DARTS_V1", *options)
    assert code == 0
    assert "words.txt" in out


@pytest.mark.slow
def test_search_language_models(run_pynas: Run, text: Path) -> None:
    code, out, _ = run_pynas(
        "search", "--space", "darts_rnn:features=8", "--text", text, "--steps", 6, "--batch", 10,
        "--budget", 3, "--json",
    )  # fmt: skip
    assert code == 0
    best = json.loads(out)["best"]
    DARTSRNN().parse(best["architecture"])


@pytest.mark.slow
def test_words_and_images_are_told_apart(run_pynas: Run, text: Path) -> None:
    for command in (("score", "DARTS_V1"), ("search",)):
        code, _, error = run_pynas(*command, "--space", "darts_rnn")
        assert code == 2
        assert "darts_rnn reads words, not images: give --text FILE" in error
        code, _, error = run_pynas(*command, "--space", "darts_cnn", "--text", text)
        assert code == 2
        assert "--text: darts_cnn reads images, not words" in error
    code, _, error = run_pynas("score", "DARTS_V1", "--space", "darts_rnn", "--text", text, "--batch", 290)
    assert code == 2
    assert "a text of 300 words is too short for 290 sequences of 35 words" in error


def test_spaces_are_listed(run_pynas: Run) -> None:
    code, out, _ = run_pynas("spaces", "--json")
    assert code == 0
    records = {record["name"]: record for record in json.loads(out)}
    assert records["darts_rnn"]["size"] == 2_642_411_520
    assert records["darts_cnn"]["size"] == 1_037_664_180**2


def test_one_space_is_shown(run_pynas: Run) -> None:
    code, out, _ = run_pynas("spaces", "darts_cnn")
    assert code == 0
    assert "ICLR 2019" in out
    assert "Genotype(normal=[" in out
    assert "drop_path" in out
    code, out, _ = run_pynas("spaces", "darts_rnn:nodes=2", "--json")
    assert code == 0
    record = json.loads(out)
    assert record["size"] == 2 * 4**2
    assert {option["name"]: option["default"] for option in record["options"]}["features"] == 850
    code, _, error = run_pynas("spaces", "darts")
    assert code == 2
    assert "unknown search space" in error
