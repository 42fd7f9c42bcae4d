"""How long it takes from a trial's end until the page of ``pynas steer`` shows it, in a real browser.

    python experiments/steering_latency.py [--record benches/results/steering-latency.json]

A search on NAS-Bench-201 with trials of a tenth of a second runs behind the page, whose charts plotly
draws. Trials count once the drawing library has been read. The evaluator notes when it returns; observers
in the page note when the line of progress and the table of trials show that trial. Both read the clock of
one machine. Quantiles in milliseconds.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from records import ROOT, write

sys.path.insert(0, str(ROOT))

from pynas.architecture import Architecture
from pynas.spaces import NASBench201
from pynas.steer import steer
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


WARM = 10  # trials after the drawing library was read, which takes a second once
ENDED: dict[Architecture, float] = {}


def score(arch: Architecture) -> Evaluation:
    """Any number, after a tenth of a second in which the processor is free."""
    time.sleep(0.1)
    ENDED[arch] = 1000 * time.time()
    total = sum(decision * (i + 1) for i, decision in enumerate(arch.decisions))
    return Evaluation(Status.OK, {"s": float(total % 17)}, {"params": float(total)})


def measure(browser: Any, trials: int, points: int) -> dict[str, Any]:
    """Milliseconds of both views for each trial."""
    ENDED.clear()
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
        # A trial that came together with the next is shown when that is.
        shown = sorted((int(number), at) for number, at in times.items())
        late = []
        for number, decisions in told.items():
            if number < first:
                continue
            at = ENDED[Architecture(space.name, tuple(decisions))]
            first = min((when for other, when in shown if other >= number), default=None)
            if first is not None:
                late.append(first - at)
        record[kind] = {
            "shown": len(late),
            **{f"p{q}": round(float(np.percentile(late, q)), 1) for q in (50, 90, 95, 99, 100)},
        }
    return record


def main() -> None:
    """Measure with a small and with the largest map."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--record", type=Path)
    given = parser.parse_args()
    with chromium(webgl=False) as browser:
        found = [measure(browser, given.trials, points) for points in (2000, 20_000)]
    for each in found:
        print(each)
    if given.record is not None:
        write(given.record, found)


if __name__ == "__main__":
    main()
