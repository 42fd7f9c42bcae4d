"""Tables of trained accuracies: the real ones, and files that must be refused."""

from __future__ import annotations

import pickle
import sys
import types
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from pynas import tables
from pynas._errors import UserError
from pynas.spaces import NASBench201
from pynas.tables import analog

SPACE = NASBench201()
Save = Callable[..., str]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Write arrays to an archive and return the spec that reads it."""

    def write(**arrays: Any) -> str:
        path = tmp_path / "table.npz"
        np.savez(path, **arrays)
        return f"npz:{path}"

    return write


STRINGS = np.array([SPACE.format(SPACE.from_index(i)) for i in (7, 3, 11)])


def test_npz_maps_rows_by_string(save: Save) -> None:
    table = tables.load(save(arch_str=STRINGS, test200_cifar10=[80.0, 90.0, np.nan]), SPACE)
    assert len(table) == 2
    assert table.accuracy(SPACE.from_index(7)) == 80
    assert table.accuracy(SPACE.from_index(11)) is None
    assert table.accuracy(SPACE.from_index(0)) is None
    assert table.best() == (SPACE.from_index(3), 90.0)
    accuracies = table.accuracies()
    assert accuracies.shape == (15_625,)
    assert np.flatnonzero(~np.isnan(accuracies)).tolist() == [3, 7]
    assert (table.name, table.metric, table.dataset) == ("table.npz", "test200_cifar10", "cifar10")


def test_npz_metric_by_argument_or_spec(save: Save) -> None:
    spec = save(arch_str=STRINGS.astype("S"), test12_svhn=[1, 2, 3], val=[0.1, 0.2, 0.3])
    by_spec = tables.load(f"{spec}#test12_svhn", "nasbench201")
    by_argument = tables.load(spec, "nasbench201", metric="test12_svhn")
    assert by_spec.values == by_argument.values == {7: 1, 3: 2, 11: 3}
    assert by_spec.dataset == "svhn"
    assert tables.load(spec, SPACE, "val").dataset == "unknown"


def test_npz_path_with_a_hash(tmp_path: Path) -> None:
    path = tmp_path / "a#b.npz"
    np.savez(path, arch_str=STRINGS, test200_cifar10=[1.0, 2.0, 3.0])
    assert len(tables.load(f"npz:{path}", SPACE)) == 3


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": [1.0]}, "numbers in the index order of nasbench201; got the keys x"),
        ({"arch_str": STRINGS, "a_b": [1.0, 2.0]}, "no metric 'test200_cifar10' with one number per arch"),
        ({"arch_str": STRINGS, "a_b": [1.0, 2.0, 3.0]}, "it has: a_b"),
        (
            {"arch_str": STRINGS, "test200_cifar10": [1.0, np.inf, 3.0]},
            "cifar10/test_accuracy@200 of row 1 is inf",
        ),
        ({"arch_str": STRINGS, "test200_cifar10": [np.nan] * 3}, "test200_cifar10 holds no number"),
        ({"arch_str": STRINGS[[0, 1, 0]], "test200_cifar10": [1.0, 2.0, 3.0]}, "row 2 gives"),
        (
            {"arch_str": np.array(["|none~0|+"]), "test200_cifar10": [1.0]},
            "row 0 of arch_str: not a nasbench201 architecture: at position 9 expected '|'",
        ),
        ({"arch_str": np.array(["a", {}], dtype=object)}, "not a readable .npz archive"),
    ],
)
def test_npz_that_is_refused(save: Save, arrays: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        tables.load(save(**arrays), SPACE)
    assert message in str(error.value)


def test_files_that_are_no_archives(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        tables.load(f"npz:{tmp_path / 'absent.npz'}", SPACE)
    with pytest.raises(UserError, match="is a folder, expected a file"):
        tables.load(f"npz:{tmp_path}", SPACE)
    text = tmp_path / "text.npz"
    text.write_text("accuracy")
    with pytest.raises(UserError, match=r"not an \.npz archive"):
        tables.load(f"npz:{text}", SPACE)
    whole = tmp_path / "whole.npz"
    np.savez(whole, arch_str=STRINGS, test200_cifar10=np.arange(3.0))
    damaged = bytearray(whole.read_bytes())
    damaged[200:260] = bytes(60)
    (tmp_path / "damaged.npz").write_bytes(damaged)
    with pytest.raises(UserError, match="not a readable"):
        tables.load(f"npz:{tmp_path / 'damaged.npz'}", SPACE)


def test_unknown_kinds_and_missing_paths() -> None:
    with pytest.raises(UserError, match="unknown kind of table 'csv'; known: analog, hw, nats, nb101"):
        tables.load("csv:file", SPACE)
    with pytest.raises(UserError, match="table npz: give a file"):
        tables.load("npz", SPACE)
    with pytest.raises(UserError, match="takes no argument, got 'x'"):
        tables.load("analog:x", SPACE)
    with pytest.raises(UserError, match="unknown search space"):
        tables.load("analog", "nb")


@pytest.mark.slow
def test_the_published_table(shared_data: Path) -> None:
    table = tables.load(f"npz:{shared_data / 'nb201_accuracy.npz'}", SPACE)
    best, accuracy = table.best()
    assert len(table) == 15_625
    assert (SPACE.index(best), round(accuracy, 2)) == (6111, 94.37)
    assert round(float(table.accuracies().mean()), 2) == 87.06
    cifar100 = tables.load(f"npz:{shared_data / 'nb201_accuracy.npz'}#test200_cifar100", SPACE)
    best, accuracy = cifar100.best()
    assert (SPACE.index(best), round(accuracy, 2), cifar100.dataset) == (9930, 73.51, "cifar100")


# ---- analog ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def analog_table() -> tables.Table:
    try:
        metadata.distribution("analog-nasbench")
    except metadata.PackageNotFoundError:
        pytest.skip("needs the package analog-nasbench (extra: tables)")
    return tables.load("analog", SPACE)


@pytest.mark.slow
def test_analog(analog_table: tables.Table) -> None:
    assert len(analog_table) == 15_625
    assert round(analog_table.best()[1], 2) == 94.07
    assert (analog_table.metric, analog_table.dataset) == ("baseline_accuracy", "cifar10")
    assert "analognasbench" not in sys.modules


@pytest.mark.slow
def test_analog_agrees_with_the_published_table(analog_table: tables.Table, shared_data: Path) -> None:
    published = tables.load(f"npz:{shared_data / 'nb201_accuracy.npz'}", SPACE).accuracies()
    ours = analog_table.accuracies()
    assert round(float(stats.spearmanr(ours, published).statistic), 3) == 0.991
    assert round(float(np.abs(ours - published).mean()), 2) == 0.39


@pytest.mark.slow
def test_analog_other_metrics(analog_table: tables.Table) -> None:
    noisy = tables.load("analog#noisy_accuracy", SPACE)
    assert noisy.values != analog_table.values
    with pytest.raises(
        UserError, match=r"no metric 'accuracy'.*; it has: analog_accuracy, baseline_accuracy"
    ):
        tables.load("analog#accuracy", SPACE)


def test_analog_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> metadata.Distribution:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", absent)
    with pytest.raises(UserError, match=r"pip install 'pynas-torch\[tables\]'"):
        tables.load("analog", SPACE)


def test_analog_is_of_nasbench201() -> None:
    class Unrelated:
        name = "unrelated"

    with pytest.raises(UserError, match="holds architectures of nasbench201, not of unrelated"):
        tables.load("analog", Unrelated())  # type: ignore[arg-type]


@pytest.fixture
def package_classes() -> Iterator[tuple[type, type]]:
    """Classes under the package's names, to write pickles as its authors do."""
    module = types.ModuleType("analognasbench.data")
    for name in ("Architecture", "DriftMeasurement"):
        setattr(module, name, type(name, (), {"__module__": "analognasbench.data"}))
    sys.modules["analognasbench"] = types.ModuleType("analognasbench")
    sys.modules["analognasbench.data"] = module
    yield module.Architecture, module.DriftMeasurement
    del sys.modules["analognasbench.data"], sys.modules["analognasbench"]


def analog_content(architecture: type, drift: type, accuracy: object = 50.0) -> dict[tuple[int, ...], Any]:
    content: dict[tuple[int, ...], Any] = {}
    for i in range(15_625):
        codes = tuple(i // 5**k % 5 for k in range(6))
        record = content[codes] = architecture()
        record.baseline_accuracy = i / 160
        record.baseline_drift_60 = drift()
    record.baseline_accuracy = accuracy
    return content


@pytest.mark.slow
def test_analog_key_order(tmp_path: Path, package_classes: tuple[type, type]) -> None:
    path = tmp_path / "data.anb"
    path.write_bytes(pickle.dumps(analog_content(*package_classes)))
    table = analog.read_file(path, SPACE)
    # Codes 0 skip, 1 none, 2 conv3x3, 3 conv1x1, 4 pool on the edges 01 02 03 12 13 23.
    arch = SPACE.parse("|nor_conv_3x3~0|+|none~0|avg_pool_3x3~1|+|nor_conv_1x1~0|skip_connect~1|none~2|")
    assert table.accuracy(arch) == sum(c * 5**k for k, c in enumerate((2, 1, 3, 4, 0, 1))) / 160


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: list(content), "not the table of analog-nasbench"),
        (lambda content: {(9,) * 6: content[0, 0, 0, 0, 0, 0]}, "not the table of analog-nasbench"),
        (lambda content: {(0,) * 5: content[0, 0, 0, 0, 0, 0]}, "not the table of analog-nasbench"),
        (lambda content: {(0,) * 6: 3.0}, "not the table of analog-nasbench"),
        (lambda content: {(0,) * 6: content[0, 0, 0, 0, 0, 0]}, "expected 15,625 architectures, got 1"),
    ],
)
def test_analog_of_another_shape(
    tmp_path: Path,
    package_classes: tuple[type, type],
    damage: Callable[[dict[tuple[int, ...], Any]], object],
    message: str,
) -> None:
    path = tmp_path / "data.anb"
    path.write_bytes(pickle.dumps(damage(analog_content(*package_classes))))
    with pytest.raises(UserError, match=message):
        analog.read_file(path, SPACE)


@pytest.mark.slow
def test_analog_with_a_bad_number(tmp_path: Path, package_classes: tuple[type, type]) -> None:
    path = tmp_path / "data.anb"
    path.write_bytes(pickle.dumps(analog_content(*package_classes, accuracy=float("nan"))))
    with pytest.raises(UserError, match="baseline_accuracy of an architecture is nan"):
        analog.read_file(path, SPACE)
    path.write_bytes(pickle.dumps(analog_content(*package_classes, accuracy="94")))
    with pytest.raises(UserError, match="no metric 'baseline_accuracy'"):
        analog.read_file(path, SPACE)


class Malicious:
    """Unpickled naively, creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self.path, "w")


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_malicious_pickle_is_not_run(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "data.anb"
    path.write_bytes(pickle.dumps({(0,) * 6: Malicious(tmp_path / "owned")}, protocol))
    with pytest.raises(UserError, match=r"it names _?io\.open, which has no place in such a file"):
        analog.read_file(path, SPACE)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80\x04.",
        b"garbage",
        b"cos\nsystem\n(S'true'\ntR.",
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"canalognasbench.data\nArchitecture.system\n.",
        b"\x80\x02\x82\x01.",  # an extension code
        b"P1\n.",  # a persistent id
    ],
)
def test_a_corrupt_pickle_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "data.anb"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"data\.anb: not the table of analog-nasbench"):
        analog.read_file(path, SPACE)


@pytest.mark.slow
def test_a_truncated_pickle_is_refused(tmp_path: Path, package_classes: tuple[type, type]) -> None:
    whole = pickle.dumps(analog_content(*package_classes))
    path = tmp_path / "data.anb"
    for length in (10, 1000, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match="not the table of analog-nasbench"):
            analog.read_file(path, SPACE)
    path.unlink()
    with pytest.raises(UserError, match=r"data\.anb: no such file"):
        analog.read_file(path, SPACE)
