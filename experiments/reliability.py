"""Attacks pynas and writes docs/reliability.md from what came of it: make reliability.

    python experiments/reliability.py                      # all, about an hour on two cores
    python experiments/reliability.py --only chaos files   # some; the others keep their record
    python experiments/reliability.py --write              # only write the page

Every part can be had by itself: its command stands in the page. A fault ends with exit code 1, and stands in
the record until the part is run again without one.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from records import RESULTS, ROOT, write

RECORD = RESULTS / "reliability.json"
PAGE = ROOT / "docs" / "reliability.md"
MARK = "<!-- From here on written by experiments/reliability.py. -->\n"


def convolutions(count: int) -> dict[str, Any]:
    """As pynas asks for them, and as PyTorch's own users do."""
    found: dict[str, Any] = {"shapes": count, "faults": {}}
    for form, some in (("pynas", []), ("plain", ["--only-1x1"])):
        number = count if form == "pynas" else count // 4
        options = ["--shapes", str(number), "--form", form, "--json", *some]
        output = _json([sys.executable, "tests/reliability/convolution_sweep.py", *options], allow=(0, 1))
        found["faults"][form] = {isa: len(faults) for isa, faults in output["faults"].items()}
        found[f"{form}_examples"] = [fault for faults in output["faults"].values() for fault in faults][:5]
    return found


def operators(count: int) -> dict[str, Any]:
    """Wrong calls of every compiled operator."""
    import torch

    from pynas.testing.operator_fuzz import fuzz

    names = {s.name for s in torch._C._jit_get_all_schemas() if s.name.startswith("pynas::")}
    report = fuzz(count, seed=0)
    faults = [f"{fault.op}: {fault.reason}" for fault in report.faults]
    return {"calls": report.calls, "operators": len(names), "faults": faults}


def files(count: int) -> dict[str, Any]:
    """Files of every format, flipped, cut, repeated, zeroed at ``count`` places each."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    sys.path[:0] = [str(ROOT), *(str(ROOT / folder) for folder in settings["pythonpath"])]
    from tests.damage import findings
    from tests.file_formats import FORMATS

    variants, faults = {}, []
    for form in FORMATS:
        found, variants[form.name] = findings(form, count)
        faults += [f"{form.name}: {finding.kind} at {finding.place}: {finding.reason}" for finding in found]
    return {"places": count, "variants": variants, "faults": faults}


def texts(seconds: float) -> dict[str, Any]:
    """Inputs of every parser and reader, from the kept corpora on."""
    return dict(
        _json([sys.executable, "-m", "pynas.testing.fuzz", "--seconds", str(seconds), "--json"], (0, 1))
    )


def chaos(kills: int) -> dict[str, Any]:
    """Searches, trainings, builds and reports, disturbed at random moments and begun again."""
    command = [sys.executable, "-m", "pynas.testing.chaos", "--kills", str(kills), "--json"]
    jobs = _json(command, allow=(0, 1))
    faults: Counter[str] = Counter()
    for job in jobs:
        faults.update(job["faults"])
    sums = {key: sum(job[key] for job in jobs) for key in ("resumed", "runs", "compared")}
    wrong = {key: sum(job[key] for job in jobs) for key in ("lost", "doubled", "different")}
    problems = [f"{job['job']}: {problem}" for job in jobs for problem in job["problems"]]
    missing = {kind: why for job in jobs for kind, why in job["missing"].items()}
    return {"jobs": len(jobs), "kinds": dict(faults), "missing": missing, **sums, **wrong, "faults": problems}


# By name: what it is, how much of it, and the command for it alone.
PARTS: dict[str, tuple[Callable[[Any], dict[str, Any]], Any]] = {
    "convolutions": (convolutions, 20_000),
    "operators": (operators, 20_000),
    "files": (files, 2_000),
    "texts": (texts, 600),
    "chaos": (chaos, 100),
}


def section(record: Mapping[str, Any]) -> list[str]:
    """The figures."""
    lines = ["| attack | how much | what went wrong |", "|---|---|---|"]
    lines += [row for name in PARTS if name in record for row in ROWS[name](record[name])]
    machines = sorted({f"{part['machine']['device']}, {part['machine']['isa']}" for part in record.values()})
    lines += ["", f"Measured on: {'; '.join(machines)}."]
    return lines


def _row(what: str, much: str, faults: int) -> str:
    return f"| {what} | {much} | {'nothing' if not faults else f'{faults:,} faults'} |"


def _convolutions(part: Mapping[str, Any]) -> list[str]:
    ours, plain = part["faults"]["pynas"], part["faults"]["plain"]
    sets = f"instruction sets {', '.join(ours)}"
    return [
        _row("convolutions as pynas asks for them", f"{part['shapes']:,} kinds, {sets}", sum(ours.values())),
        _row(
            "strided and other 1x1 convolutions as PyTorch runs them",
            f"{part['shapes'] // 4:,} kinds, {sets}",
            sum(plain.values()),
        ),
    ]


def _operators(part: Mapping[str, Any]) -> list[str]:
    much = f"{part['calls']:,} calls of {part['operators']} operators"
    return [_row("wrong calls of compiled operators", much, len(part["faults"]))]


def _files(part: Mapping[str, Any]) -> list[str]:
    much = f"{sum(part['variants'].values()):,} files of {len(part['variants'])} formats"
    return [_row("damaged files", much, len(part["faults"]))]


def _texts(part: Mapping[str, Any]) -> list[str]:
    much = f"{part['inputs']:,} inputs of {part['targets']} parsers and readers"
    return [_row("fuzzed inputs", much, len(part["faults"]))]


def _chaos(part: Mapping[str, Any]) -> list[str]:
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(part["kinds"].items()))
    wrong = part["lost"] + part["doubled"] + part["different"] + len(part["faults"])
    much = (
        f"{sum(part['kinds'].values()):,} faults ({kinds}) in {part['jobs']} kinds of work; "
        f"{part['compared']:,} trials and tensors compared"
    )
    return [_row("work disturbed and begun again", much, wrong)]


ROWS: dict[str, Callable[[Mapping[str, Any]], list[str]]] = {
    "convolutions": _convolutions,
    "operators": _operators,
    "files": _files,
    "texts": _texts,
    "chaos": _chaos,
}


def page() -> str:
    """docs/reliability.md with the figures of the record."""
    head = PAGE.read_text(encoding="utf-8").partition(MARK)[0]
    return head + MARK + "\n" + "\n".join(section(json.loads(RECORD.read_text()))) + "\n"


def _json(command: list[str], allow: tuple[int, ...]) -> Any:
    process = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if process.returncode not in allow:
        raise RuntimeError(f"{' '.join(command)}: exit code {process.returncode}")
    return json.loads(process.stdout)


def main() -> int:
    """Attack, keep the record, write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART")
    parser.add_argument("--write", action="store_true", help="only write the page")
    parser.add_argument("--share", type=float, default=1.0, help="of the usual amounts, for a quick look")
    chosen = parser.parse_args()
    record: dict[str, Any] = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    failed = []
    for name in [] if chosen.write else chosen.only:
        from pynas.bench import describe

        print(f"--- {name}", flush=True)
        attack, amount = PARTS[name]
        start = time.perf_counter()
        part = attack(max(1, round(amount * chosen.share)))
        record[name] = {**part, "seconds": round(time.perf_counter() - start), "machine": describe()}
        write(RECORD, record)
        failed += [name] if _faults(part) else []
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)}" + (f"; faults in: {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0


def _faults(part: Mapping[str, Any]) -> bool:
    faults = part["faults"]["pynas"] if isinstance(part["faults"], dict) else part["faults"]
    wrong = sum(faults.values()) if isinstance(faults, dict) else len(faults)
    return bool(wrong or part.get("lost") or part.get("doubled") or part.get("different"))


if __name__ == "__main__":
    sys.exit(main())
