"""How large the page of a long search is, and how long a browser takes to open it.

    python experiments/report_pages.py [--trials 20000] [--record benches/results/report-pages.json]

Architectures of NAS-Bench-201, drawn at random, with a made-up score, the accuracies of the table and a
failure in a hundred. A page is open when its table can be read, and drawn when the plots in a window of
1280 x 900 are; each opening is by a new context of Chromium, which keeps nothing, without a graphics card.
``processor_ms`` is what the page's own thread computed, which other programs lengthen less. Then the window
goes through the page. The record says how busy the machine was: the load average of the last
minute.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from records import ROOT, write

sys.path.insert(0, str(ROOT))

from pynas import spaces, tables
from pynas.report import write_search_report
from pynas.store import Run, RunConfig
from pynas.trial import Evaluation, Status, Trial
from tests.steer.browser import chromium

MEGABYTE = 1e6
MEASURED = ("table_ms", "open_ms", "processor_ms")
# Plots on the graphics card that are far away are given up again, all but a few.
UNDRAWN = "document.querySelectorAll('.plot:not(.js-plotly-plot):not(.absent)').length < 3"


def trials_of(count: int) -> list[Trial]:
    """Trials as a search with a table has them."""
    space, rng, made = spaces.get("nasbench201"), random.Random(0), []
    table = tables.load("analog", space)
    for number in range(count):
        architecture = space.sample(rng)
        flops, params = float(space.macs(architecture)), float(space.params(architecture))
        metrics = {"flops": flops, "params": params, "accuracy": table.accuracy(architecture) or 0.0}
        score = flops**0.3 + rng.gauss(0, 9)
        failed = number % 100 == 99
        message = "RuntimeError: planted, as one in a hundred" if failed else ""
        status, scores = (Status.FAILED, {}) if failed else (Status.OK, {"score": score})
        made.append(Trial(number, architecture, Evaluation(status, scores, metrics, message, 0.1)))
    return made


def opened(browser: Any, page: Path) -> dict[str, float]:
    """Milliseconds until it is open, and seconds of going through it."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    try:
        tab = context.new_page()
        told = context.new_cdp_session(tab)
        told.send("Performance.enable", {"timeDomain": "threadTicks"})
        started = time.perf_counter()
        tab.goto(page.as_uri(), wait_until="commit")
        tab.wait_for_selector("#all tbody tr")
        table = 1e3 * (time.perf_counter() - started)
        tab.wait_for_selector("html[data-ready]")
        ready = 1e3 * (time.perf_counter() - started)
        metrics = {each["name"]: each["value"] for each in told.send("Performance.getMetrics")["metrics"]}
        started = time.perf_counter()
        height = tab.evaluate("document.documentElement.scrollHeight")
        for top in range(0, height, 450):
            tab.evaluate(f"window.scrollTo(0, {top})")
            tab.wait_for_timeout(50)
        tab.wait_for_function(UNDRAWN)
        through = round(time.perf_counter() - started, 2)
        found = {"table_ms": table, "open_ms": ready, "processor_ms": 1e3 * metrics["TaskDuration"]}
        return {name: round(value) for name, value in found.items()} | {"through_s": through}
    finally:
        context.close()


def measure(count: int, repeats: int) -> dict[str, Any]:
    """The record of pages of ``count`` trials."""
    before = os.getloadavg()[0]
    trials = trials_of(count)
    config = RunConfig("nasbench201", "random", 0, ("score",), {}, {"table": {"dataset": "CIFAR-10"}})
    run, space = Run(1, config, {}), spaces.get("nasbench201")
    with tempfile.TemporaryDirectory() as name, chromium() as browser:
        record: dict[str, Any] = {"trials": count, "browser": f"Chromium {browser.version}"}
        for kind, inline in (("beside", False), ("inline", True)):
            page = Path(name) / f"{kind}.html"
            started = time.perf_counter()
            write_search_report(page, run, trials, space=space, inline=inline)
            seconds = time.perf_counter() - started
            opens = [opened(browser, page) for _ in range(repeats)]
            record[kind] = {
                "megabytes": round(page.stat().st_size / MEGABYTE, 2),
                "write_s": round(seconds, 2),
                **{what: statistics.median(each[what] for each in opens) for what in MEASURED},
                "opens": opens,
            }
        (library,) = Path(name).glob("plotly-*.min.js")
        record["library"] = {"name": library.name, "megabytes": round(library.stat().st_size / MEGABYTE, 2)}
    record["load"] = [round(before, 2), round(os.getloadavg()[0], 2)]
    record["machine"] = {"processors": os.cpu_count(), "python": platform.python_version()}
    return record


def main() -> None:
    """Measure, print, and keep the record."""
    parser = argparse.ArgumentParser(description="Size and opening of a report's page.")
    parser.add_argument("--trials", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--record", type=Path)
    given = parser.parse_args()
    record = measure(given.trials, given.repeats)
    for kind in ("beside", "inline"):
        found = record[kind]
        print(f"{kind}: {found['megabytes']} MB, written in {found['write_s']} s")
        print("  " + ", ".join(f"{what} {found[what]}" for what in MEASURED))
    if given.record:
        write(given.record, record)


if __name__ == "__main__":
    main()
