"""Counted nouns, and a scan for f-strings that write a number and a plural without ``counted``."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest

from pynas._plural import counted

PACKAGE = Path(__file__).resolve().parent.parent / "pynas"
# Nouns to look for, besides those that the sources pass to `counted`.
NOUNS = {
    *("architectures", "batches", "bytes", "calls", "candidates", "channels", "checkpoints", "classes"),
    *("decisions", "digits", "draws", "edges", "embeddings", "entries", "epochs", "failures", "groups"),
    *("images", "labels", "layers", "networks", "nodes", "numbers", "operators", "outputs", "pixels"),
    *("processes", "rounds", "rows", "runs", "samples", "seconds", "seeds", "sequences", "steps", "tensors"),
    *("threads", "times", "trials", "values", "vertices", "words", "workers"),
}
# Packages that do not use the helper: stores keep the texts of the first, readers say how many bytes, and
# operators count with symbolic sizes in the words of the C++ core.
UNCONVERTED = {"_identity", "_io", "ops"}
# What looks like a counted noun and is right as it is: file, expression, reason.
ALLOWED = {
    ("analysis/study.py", "self.how"): "a word behind the number of groups, which is at least 2 there",
    ("analysis/study.py", "self.prefix"): "names the folder of a study, which existing studies have",
    ("cli/flags.py", "width"): "height x width",
    ("cli/hardware.py", "correction.per_operator"): "a term of a formula",
    ("data/cifar10.py", "record"): "a constant, 3,073",
    ("data/folder.py", "image.height"): "width x height",
    ("spaces/darts_cnn/network.py", "self.smallest"): "height x width",
    ("spaces/proxylessnas/space.py", "len(BLOCKS)"): "a constant, 6",
    ("spaces/template/checking.py", "size"): "height x width",
    ("spaces/template/space.py", "image_size"): "height x width",
    ("run/identity.py", "len(keys)"): "part of what a store keeps",
    ("supernet/language_training.py", "2 * schedule.batch_size"): "at least 2",
    ("tables/_conventions.py", "rows"): "the size of a space",
    ("tables/conversion/_collector.py", "shown"): "what came in place of a number",
    ("tables/formats/pickle_file.py", "limit"): "a limit of many megabytes",
    ("testing/_op_samples.py", "shape"): "a shape, not a number",
    ("testing/operator_fuzz/_child.py", "patience"): "a limit, not a count",
    ("testing/spaces.py", "space.format(arch)"): "a verb: an edge points backwards",
    ("testing/operator_fuzz/_memory.py", "length"): "whole pages",
}


@pytest.mark.parametrize(
    ("count", "noun", "plural", "expected"),
    [
        (1, "epoch", None, "1 epoch"),
        (0, "epoch", None, "0 epochs"),
        (2, "slow case", None, "2 slow cases"),
        (1234, "architecture", None, "1,234 architectures"),
        (1, "index", "indices", "1 index"),
        (2, "index", "indices", "2 indices"),
    ],
)
def test_counted(count: int, noun: str, plural: str | None, expected: str) -> None:
    assert counted(count, noun, plural) == expected


@cache
def trees() -> dict[str, ast.Module]:
    return {
        path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text()) for path in PACKAGE.rglob("*.py")
    }


@cache
def plurals() -> frozenset[str]:
    """The last words of all plurals that ``counted`` may write, and :data:`NOUNS`."""
    found = set(NOUNS)
    for tree in trees().values():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "counted":
                texts = [str(a.value) for a in node.args[1:] if isinstance(a, ast.Constant)]
                assert texts, f"{ast.unparse(node)}: expected literal nouns"
                found.add((texts[1] if len(texts) > 1 else f"{texts[0]}s").split()[-1])
    return frozenset(found)


def uncounted(tree: ast.AST, nouns: frozenset[str]) -> Iterator[tuple[str, str, int]]:
    """Expression, text behind it and line of each ``{n} nouns`` or ``{n} adjective nouns``."""
    verbs = "and|has|lacks|reads"
    pattern = re.compile(rf" (?:(?!(?:{verbs}) )[a-z-]+ )?(?:{'|'.join(sorted(nouns))})\b")
    for node in ast.walk(tree):
        parts = node.values if isinstance(node, ast.JoinedStr) else []
        for value, text in pairwise(parts):
            if isinstance(value, ast.FormattedValue) and isinstance(text, ast.Constant):
                match, expression = pattern.match(str(text.value)), ast.unparse(value.value)
                is_constant = re.fullmatch(r"_?[A-Z][A-Z_0-9]*", expression) is not None
                if match and not is_constant and not expression.startswith("counted("):
                    yield expression, match[0], value.lineno


@pytest.mark.slow
def test_every_number_with_a_noun_is_counted() -> None:
    nouns = plurals()
    found = {
        (file, expression): f"{file}:{line}: {{{expression}}}{text}"
        for file, tree in trees().items()
        if file.split("/")[0] not in UNCONVERTED
        for expression, text, line in uncounted(tree, nouns)
    }
    assert [where for key, where in found.items() if key not in ALLOWED] == []
    assert ALLOWED.keys() - found.keys() == set(), "no longer there: take these off the list"


@pytest.mark.slow
def test_unconverted_packages_are_listed_only_while_they_are() -> None:
    nouns = plurals()
    left = {file.split("/")[0] for file, tree in trees().items() if any(True for _ in uncounted(tree, nouns))}
    assert UNCONVERTED - left == set(), "use the helper throughout: take these off the list"


@pytest.mark.slow
@pytest.mark.parametrize("text", ["{n} epochs", "{n:,} samples", "{len(x)} held-out networks in {s:.0f} s"])
def test_the_scan_finds(text: str) -> None:
    assert len(list(uncounted(ast.parse(f"f'{text}'"), plurals()))) == 1


@pytest.mark.slow
@pytest.mark.parametrize("text", ["{name} goes", "{_MOST} names", "{counted(n, 'epoch')} steps", "{n}"])
def test_the_scan_leaves(text: str) -> None:
    assert list(uncounted(ast.parse(f'f"{text}"'), plurals())) == []
