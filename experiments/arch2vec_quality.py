"""arch2vec on NAS-Bench-201 and NAS-Bench-101: reconstruction, validity, uniqueness, beside the paper's.

    python experiments/arch2vec_quality.py --only nasbench201
    python experiments/arch2vec_quality.py --only nasbench101 --limit 423624 --seeds 1   # all, 19 minutes
    python experiments/arch2vec_quality.py --published-loop    # as the authors' code trains

Each space is learned from nine tenths of its cells, without accuracies; NAS-Bench-101 from as many distinct
cells as ``--limit``. The record is benches/results/arch2vec-quality.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from records import RESULTS, spread, write

from pynas import embedding, spaces
from pynas.cli.embed import PUBLISHED

RECORD = RESULTS / "arch2vec-quality.json"
PUBLISHED_LOOP = "published loop"
EPOCHS = {"nasbench201": 10, "nasbench101": 8}  # the authors'


def run(name: str, seed: int, limit: int, points: int, published: bool) -> dict[str, Any]:
    """Train once and measure."""
    space = spaces.get(name)
    training, held_out = embedding.split(embedding.training_pool(space, limit=limit, seed=seed))
    model = embedding.Arch2Vec(space, seed=seed)
    start = time.perf_counter()
    model.train(
        training,
        epochs=EPOCHS[name],
        seed=seed,
        published_loop=published,
        on_epoch=lambda epoch: print(f"{name}, seed {seed}: epoch {epoch.number}, loss {epoch.loss:.4f}"),
    )
    seconds = time.perf_counter() - start
    quality = model.quality(training, held_out, points=points, seed=seed)
    return asdict(quality) | {"seed": seed, "learned_from": len(training), "seconds": round(seconds, 1)}


def section(record: Mapping[str, Any]) -> list[str]:
    """Lines of Markdown."""
    lines = [
        "## arch2vec: what survives encoding and decoding",
        "",
        "Percent; mean and range over seeds. Reconstruction is of cells held out. Validity is of random",
        "points of the latent space: by the authors' check, which on NAS-Bench-201 looks at operations only,",
        "and with every edge checked; uniqueness is the share of graphs that are not isomorphic among the",
        "points valid by the authors' check. The authors' code never returns to training mode after the",
        "evaluation that ends its first epoch; `published_loop=True` trains so, and the other rows in",
        "training mode throughout.",
        "",
        "| space | cells learned from | epochs | seeds | | operations | edges | whole graphs"
        " | valid, authors' check | unique | valid, every edge | minutes |",
        "|" + "---|" * 12,
    ]
    keys = (
        "operation_accuracy", "adjacency_accuracy", "graph_accuracy", "published_validity",
        "published_uniqueness", "validity",
    )  # fmt: skip
    for key, runs in record["spaces"].items():
        name, _, loop = key.partition(", ")
        cells = [
            # Not known of records that counted isomorphic graphs apart.
            "-"
            if any(one[measure] is None for one in runs)
            else spread([100 * one[measure] for one in runs], 2)
            for measure in keys
        ]
        minutes = f"{statistics.fmean(one['seconds'] for one in runs) / 60:.1f}"
        learned = f"{runs[0]['learned_from']:,}"
        which = f"pynas, {loop}" if loop else "pynas"
        row = [name, learned, str(EPOCHS[name]), str(len(runs)), which, *cells, minutes]
        lines.append(f"| {' | '.join(row)} |")
        reconstruction, validity, uniqueness = PUBLISHED[name]
        if loop or f"{name}, {PUBLISHED_LOOP}" not in record["spaces"]:
            lines.append(f"| | | | | paper | {reconstruction} | | | {validity} | {uniqueness} | | |")
    return [*lines, ""]


def main() -> None:
    """Measure, and keep the record after every training."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default=",".join(EPOCHS), help="spaces, separated by commas")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--limit", type=int, default=60_000, help="architectures of a larger space")
    parser.add_argument("--points", type=int, default=10_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--published-loop", action="store_true", help="train as the authors' code does")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    record: dict[str, Any] = json.loads(RECORD.read_text()) if RECORD.exists() else {"spaces": {}}
    for name in chosen.only.split(","):
        runs: list[dict[str, Any]] = []
        for seed in range(chosen.seeds):
            runs.append(run(name, seed, chosen.limit, chosen.points, chosen.published_loop))
            record["spaces"][f"{name}, {PUBLISHED_LOOP}" if chosen.published_loop else name] = runs
            # Rows of one space stand together.
            rows = record["spaces"].items()
            record["spaces"] = dict(
                sorted(rows, key=lambda row: (not row[0].startswith("nasbench201"), row[0]))
            )
            write(RECORD, record)
    print("\n".join(section(record)))


if __name__ == "__main__":
    main()
