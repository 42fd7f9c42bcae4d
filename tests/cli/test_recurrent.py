from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from pynas.data.text import Vocabulary, read_words, unigram_perplexity
from pynas.nn import RecurrentGenotype, RecurrentLanguageModel

pytestmark = pytest.mark.slow

SMALL = ("--features", 24, "--nodes", 3, "--batch", 8, "--steps", 10, "--dropout", 0.05)


@pytest.fixture
def run(run_pynas: Callable[..., Any]) -> Callable[..., Any]:
    return partial(run_pynas, "recurrent")


def sentences(count: int, seed: int) -> str:
    """Counting upwards from anywhere: each word but the first of a line follows from the one before."""
    generator = torch.Generator().manual_seed(seed)
    names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    starts = torch.randint(10, (count,), generator=generator).tolist()
    return "\n".join(" ".join(names[(start + i) % 10] for i in range(9)) for start in starts) + "\n"


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "book.txt.gz"
    path.write_bytes(gzip.compress(sentences(600, 0).encode()))
    return path


@pytest.mark.long
def test_search_learns_the_order_of_words(run: Any, book: Path, tmp_path: Path) -> None:
    test, saved = tmp_path / "test.txt", tmp_path / "cell.safetensors"
    test.write_text(sentences(60, 1))
    code, out, err = run(
        book, "--test", test, "--epochs", 2, "--save", saved, *SMALL, "--learning-rate", 0.02
    )
    assert code == 0, err
    assert "cell: 1 = " in out
    assert "training perplexity" in err
    code, out, err = run(book, "--test", test, "--epochs", 2, *SMALL, "--learning-rate", 0.02, "--json")
    assert code == 0, err
    record = json.loads(out)
    assert 8 < record["unigram_perplexity"] < 11.5
    assert record["perplexity"] < 0.4 * record["unigram_perplexity"]
    assert record["words"] == 12
    genotype = RecurrentGenotype(**json.loads(record["genotype"]))
    assert [list(node) for node in genotype.recurrent] == record["recurrent"]
    assert len(record["mixture"]) == 6

    from safetensors.torch import load_file

    model = RecurrentLanguageModel(12, 24, nodes=3)
    assert model.load_state_dict(load_file(saved), strict=False).missing_keys == ["decoder.weight"]
    assert model.genotype() == genotype


def test_without_a_test_text_the_end_is_held_out(run: Any, book: Path) -> None:
    code, out, err = run(book, "--epochs", 1, *SMALL, "--vocabulary", 6, "--json")
    assert code == 0, err
    record = json.loads(out)
    assert record["test_words"] == 600
    assert record["words"] == 6


@pytest.mark.long
def test_real_text(run: Any, shared_data: Path, tmp_path: Path) -> None:
    """Words of WikiText-2 at the default rates: far below what word frequencies alone reach."""
    text = tmp_path / "train.txt"
    whole = gzip.decompress((shared_data / "wikitext2_valid.txt.gz").read_bytes()).decode()
    text.write_text(whole[:200_000])
    options = ("--features", 32, "--nodes", 2, "--batch", 16, "--vocabulary", 1000, "--dropout", 0)
    code, out, err = run(text, *options, "--epochs", 2, "--json")
    assert code == 0, err
    record = json.loads(out)
    assert record["perplexity"] < 0.8 * record["unigram_perplexity"]


def test_help_shows_an_example(run: Any) -> None:
    code, out, _ = run("--help")
    assert code == 0
    assert "xample" in out
    assert "--json" in out


BAD: dict[str, tuple[str, bytes | None, tuple[object, ...]]] = {
    "missing": ("no such file; give a plain text file", None, ()),
    "empty": ("has no word", b"", ()),
    "blank": ("has no word", b" \n\n \n", ()),
    "binary": ("is not UTF-8 text", b"\xff\xfe\x00\x01" * 9, ()),
    "not gzip": ("cannot be read", b"\x1f\x8bnot gzip", ()),
    "too short": ("has 38 words to train on, expected at least 64 for --batch 8", b"a b c d e\n" * 7, ()),
    "dropout": ("--dropout: expected a probability", b"a b\n" * 99, ("--dropout", 1)),
    "warm-up": ("--warm-up: expected a fraction of the steps", b"a b\n" * 99, ("--warm-up", 1)),
    "rate": ("--learning-rate: expected a positive number", b"a b\n" * 99, ("--learning-rate", 0)),
    "save": ("no such folder", b"a b\n" * 99, ("--save", "/no/such/folder/x.safetensors")),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line(run: Any, tmp_path: Path, case: str) -> None:
    message, content, options = BAD[case]
    path = tmp_path / "text.txt"
    if content is not None:
        path.write_bytes(content)
    code, out, err = run(path, "--batch", 8, *options)
    assert code == 2
    assert out == ""
    assert message in err
    assert len(err.splitlines()) == 1


def test_words_and_their_numbers(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("the cat\n\n the dog the \n")
    words = read_words(path)
    assert words == ["the", "cat", "<eos>", "the", "dog", "the", "<eos>"]
    known = Vocabulary(words, 3)
    assert known.words == ("the", "<eos>", "<unk>")
    assert known.encode(["dog", "the", "mouse"]).tolist() == [2, 0, 2]
    full = Vocabulary(words)
    assert len(full) == 5
    assert unigram_perplexity(full.encode(["a"] * 5), full.encode(["a"]), 5) == pytest.approx(10 / 6)


def test_a_folder_is_named(tmp_path: Path, run: Any) -> None:
    code, _, err = run(tmp_path)
    assert code == 2
    assert "is a folder" in err
