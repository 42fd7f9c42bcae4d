from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from pynas.bench import CASES, Case, Problem, Record, measure, peak
from pynas.bench._harness import percentile

pytestmark = pytest.mark.slow


def problem(check: object = None) -> Problem:
    return Problem(
        implementations={
            "pynas": lambda: time.sleep(0.002),
            "slow": lambda: time.sleep(0.02),
            "mid": lambda: time.sleep(0.004),
        },
        check=check or (lambda: None),  # type: ignore[arg-type]
        flops=2e6,
        bytes=1e6,
    )


def test_ratio_is_against_the_best_other_contender_and_the_floor_is_the_larger_bound() -> None:
    record = measure(Case("x/y", problem, 1.0, 0.5), seconds=0.2, peak=(1e9, 1e9))
    assert record.best_other == "mid"
    assert record.ratio is not None
    assert 0.3 < record.ratio < 0.9
    assert record.floor_seconds == pytest.approx(2e-3)
    assert record.timings["pynas"].rounds == record.timings["slow"].rounds >= 5
    assert record.to_dict()["timings"]["pynas"]["p20"] <= record.to_dict()["timings"]["pynas"]["p80"]


def test_every_other_contender_has_its_ratio_and_targets() -> None:
    case = Case("x/y", problem, targets={"slow": (0.5, 0.2)})
    record = measure(case, seconds=0.1)
    assert record.ratios.keys() == {"slow", "mid"}
    assert record.ratios["slow"][0] <= record.ratios["slow"][1] < record.ratios["mid"][1]
    assert record.to_dict()["targets"] == {"slow": (0.5, 0.2)}


def test_records_are_lines_of_a_file(tmp_path: Path) -> None:
    record = Record.of("x/memory", {"pynas": [1.0, 3.0], "plain": [2.0, 4.0]}, must=0.5, unit="MiB")
    for _ in range(2):
        record.append_to(tmp_path / "new" / "results.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "new" / "results.jsonl").read_text().splitlines()]
    assert lines == [json.loads(json.dumps(record.to_dict()))] * 2
    assert lines[0]["ratio"] == pytest.approx(0.625)
    assert lines[0]["unit"] == "MiB"


def test_a_wrong_result_is_not_timed() -> None:
    def wrong() -> None:
        raise AssertionError("sum: relative error")

    with pytest.raises(AssertionError, match="relative error"):
        measure(Case("x/y", lambda: problem(wrong)), seconds=0.1)


def test_percentiles_interpolate() -> None:
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert percentile([1.0, 2.0], 0.2) == pytest.approx(1.2)


def test_every_quick_case_makes_a_right_result() -> None:
    for name in CASES.names():
        case = CASES.get(name)
        large = name.startswith("mixed_op/") and not name.endswith("64x64x8x8")
        if not case.slow and not large and "512@4" not in name and "256@8" not in name:
            case.make().check()


def test_peak_is_plausible() -> None:
    flops, bandwidth = peak(seconds=0.05)
    assert 1e9 < flops < 1e14
    assert 1e8 < bandwidth < 1e13
