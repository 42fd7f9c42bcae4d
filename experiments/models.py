"""Every network of the zoo: statistics against loops, every proxy, time; writes docs/models.md.

    python experiments/models.py                       # write the page from benches/results/models.jsonl
    python experiments/models.py --measure [--seconds S]

A measurement that was stopped goes on with the networks that have no line yet; delete the file to begin
again. Networks whose packages (extra ``zoo``) are absent are left out. The table of other libraries is of
benches/results/peers.jsonl, which ``benches/test_peers.py --record`` writes.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from dataclasses import asdict
from typing import Any

import torch
from records import RESULTS, ROOT
from torch import Tensor
from torch.utils import _pytree as pytree

sys.path.insert(0, str(ROOT))

from models_page import write

from pynas.stats import GradMoments, collect
from tests.zoo import reference
from tests.zoo.networks import Network, all_networks
from tests.zoo.run import even, measure, scores

FILE = RESULTS / "models.jsonl"
BATCH = 32  # of timings
ROUNDS = 5
NEEDS = [GradMoments(("abs", "square"))]


def passes(network: Network, rounds: int = ROUNDS) -> tuple[float, float] | None:
    """Seconds of a plain pass of 32 samples in float32 and of one with moments; None if one of them fails.

    The medians of alternating rounds, after one that finds out where samples are.
    """
    try:
        model = network.model().float()
        inputs = _single(network.inputs(BATCH))
        targets = None if network.targets is None else _single(network.targets(BATCH))
        reference.frozen(model)

        def plain() -> None:
            model.zero_grad()
            reference.loss_of(model, inputs, targets, network.loss).backward()

        def moments() -> None:
            collect(model, inputs, targets, network.loss, needs=NEEDS, batch_norm="frozen")

        times: dict[Any, list[float]] = {plain: [], moments: []}
        for r in range(rounds + 1):
            for run, seconds in times.items():
                start = time.perf_counter()
                run()
                if r:
                    seconds.append(time.perf_counter() - start)
        return sorted(times[plain])[rounds // 2], sorted(times[moments])[rounds // 2]
    except Exception:
        return None


def _single(value: Any) -> Any:
    return pytree.tree_map_only(Tensor, lambda t: t.float() if t.dtype == torch.float64 else t, value)


def record(name: str, network: Network) -> dict[str, Any]:
    """All that is known of a network, as a line of the file."""
    outcomes = [asdict(measure(network, batch)) for batch in network.batches]
    scored = [asdict(s) for s in scores(network, even(network))]
    kept = ("batch", "status", "message")
    return {
        "name": name,
        "family": network.family,
        "source": (*network.packages, "calls" if network.family == "calls" else "torch")[0],
        "parameters": outcomes[0]["parameters"],
        "collected": [{k: o[k][:300] if k == "message" else o[k] for k in kept} for o in outcomes],
        "scores": {
            s["name"].rpartition("/")[2]: {
                "status": s["status"], "coverage": s["coverage"], "message": s["message"][:300],
            } for s in scored
        },
        "seconds": passes(network),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--measure", action="store_true", help="measure what has no line yet")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so long")
    parser.add_argument("--part", default="0/1", help="K/N: every Nth network from the Kth on")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    if options.measure:
        first, step = map(int, options.part.split("/"))
        known = (
            {json.loads(line)["name"] for line in FILE.read_text().splitlines()} if FILE.exists() else set()
        )
        start = time.monotonic()
        for name, network in list(all_networks().items())[first::step]:
            if name in known or not network.available:
                continue
            if time.monotonic() - start > options.seconds:
                print("not finished: run it again to go on", flush=True)
                return
            line = json.dumps(record(name, network))
            with FILE.open("a") as file:
                file.write(line + "\n")
        print("all measured", flush=True)
    write(FILE, RESULTS / "peers.jsonl", ROOT / "docs" / "models.md")


if __name__ == "__main__":
    main()
