"""How long it takes from a trial's end until the page of ``pynas steer`` shows it, in a real browser.

    python experiments/steering_latency.py [--against FOLDER] [--record benches/results/steering-latency.json]

A search on NAS-Bench-201 with trials of a tenth of a second runs behind the page, whose charts plotly
draws. Trials count once the drawing library has been read. The evaluator notes when it returns; observers
in the page note when the line of progress and the table of trials show that trial. Both read the clock of
one machine. Quantiles in milliseconds. The record says how busy the machine was, as the load average of the
last minute before and after: with more load than processors it measures the waiting for a processor too.
``--against`` measures by turns the page of a folder too, the ``static`` of an earlier version, under the
same load.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from records import ROOT, write

sys.path.insert(0, str(ROOT))

from pynas.architecture import Architecture
from pynas.spaces import NASBench201
from pynas.steer import _routes, steer
from pynas.trial import Evaluation, Status
from tests.steer.browser import Visitor, chromium

WATCH = """() => {
  window.seen = { progress: {}, table: {} };
  const note = (kind, number) => (window.seen[kind][number] ??= Date.now());
  new MutationObserver(() => {
    const count = /^(\\d+)/.exec(document.querySelector("#progress span").textContent);
    if (count) note("progress", Number(count[1]) - 1);
  }).observe(document.querySelector("#progress"), { childList: true, subtree: true, characterData: true });
  new MutationObserver(() => {
    const first = document.querySelector("#trials-table tbody tr");
    if (first) note("table", Number(first.dataset.trial));
  }).observe(document.querySelector("#trials-table"), { childList: true, subtree: true });
}"""


QUANTILES = (50, 90, 95, 99, 100)
WARM = 10  # trials after the drawing library was read, which takes a second once
ENDED: dict[Architecture, float] = {}


def score(arch: Architecture) -> Evaluation:
    """Any number, after a tenth of a second in which the processor is free."""
    time.sleep(0.1)
    ENDED[arch] = 1000 * time.time()
    total = sum(decision * (i + 1) for i, decision in enumerate(arch.decisions))
    return Evaluation(Status.OK, {"s": float(total % 17)}, {"params": float(total)})


def measure(browser: Any, trials: int, points: int, static: Path) -> dict[str, Any]:
    """Milliseconds of both views for each trial, of the page in a folder."""
    ENDED.clear()
    _routes.STATIC = static
    space = NASBench201(channels=2, num_cells=1)
    options = {"objectives": ["s"], "budget": 1000, "points": points, "begin_at_once": False}
    with steer(space, score, **options) as search:
        visitor = Visitor(browser, charts=True)
        page = visitor.open(search.url)
        page.locator("#trials-charts").scroll_into_view_if_needed()
        page.evaluate(WATCH)
        search.act("resume")
        page.wait_for_selector("#trials-charts .main-svg", timeout=60_000)
        first = len(search.steering.trials()) + WARM
        search.act("budget", trials=first + trials)
        search.wait()
        page.wait_for_timeout(1500)
        seen = page.evaluate("window.seen")
        told = {trial["number"]: trial["decisions"] for trial in search.steering.trials()}
        visitor.close()
    record: dict[str, Any] = {"trials": trials, "points_of_the_map": points}
    for kind, times in seen.items():
        late = delays({int(number): at for number, at in times.items()}, ended(space, told, first))
        record[kind] = {"shown": len(late)}
        if late:
            quantiles = np.percentile(late, QUANTILES)
            record[kind] |= {f"p{q}": round(float(v), 1) for q, v in zip(QUANTILES, quantiles, strict=True)}
    return record


def ended(space: NASBench201, told: dict[int, list[int]], first: int) -> dict[int, float]:
    """When each trial from ``first`` on had been evaluated."""
    return {
        number: ENDED[Architecture(space.name, tuple(decisions))]
        for number, decisions in told.items()
        if number >= first
    }


def delays(shown: dict[int, float], since: dict[int, float]) -> list[float]:
    """Milliseconds until each trial was shown; one that came together with the next is shown when that is."""
    found = []
    for number, at in since.items():
        times = [when for other, when in shown.items() if other >= number]
        if times:
            found.append(min(times) - at)
    return found


def main() -> None:
    """Measure with a small and with the largest map."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--against", type=Path)
    parser.add_argument("--record", type=Path)
    given = parser.parse_args()
    before = round(os.getloadavg()[0], 2)
    pages = {"measured": _routes.STATIC, **({"against": given.against.resolve()} if given.against else {})}
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in pages}
    with chromium(webgl=False) as browser:
        measure(browser, WARM, 200, _routes.STATIC)  # the browser's first page is slower than all others
        for points in (2000, 20_000):
            for name, static in pages.items():
                found[name].append(measure(browser, given.trials, points, static))
    for each in (each for rows in found.values() for each in rows):
        print(each)
        if any(each[kind]["shown"] < given.trials for kind in ("progress", "table")):
            sys.exit(f"of {given.trials} trials the page showed less; see 'shown' above: nothing is recorded")
    if given.record is not None:
        load = {"processors": os.cpu_count(), "load_average": [before, round(os.getloadavg()[0], 2)]}
        write(given.record, {**load, **found})


if __name__ == "__main__":
    main()
