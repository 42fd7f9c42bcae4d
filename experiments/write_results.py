"""Write docs/results.md from the records in benches/results; with --data, measure first.

    python experiments/write_results.py                        # write only
    python experiments/write_results.py --data FOLDER          # hours: every measurement, one after the other

FOLDER holds real CIFAR images and WikiText-2, and tables of NAS-Bench-101 and NAS-Bench-201; each script's
docstring names its files and options. A measurement that was killed goes on where it was, a record that is
there is measured again. One that fails is reported at the end, and its old record stays.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import arch2vec_quality
import darts_genotypes_section
import lissnas_shrinking
import proxy_ranking
import search_regret
import supernet_shifting
import weight_sharing_section
from records import RESULTS, ROOT

PAGE = ROOT / "docs" / "results.md"

SECTIONS: dict[str, Callable[[Mapping[str, Any]], list[str]]] = {
    "regret-nasbench201.json": search_regret.section,
    "arch2vec-quality.json": arch2vec_quality.section,
    "lissnas-nasbench201.json": lissnas_shrinking.section,
    "weight-sharing.json": weight_sharing_section.section,
    "supernet-shifting.json": supernet_shifting.section,
    "darts-genotypes.json": darts_genotypes_section.section,
}


def commands(data: Path) -> list[list[str]]:
    """What measures everything."""
    table = str(data / "nb201_accuracy.npz")
    images = f"npz:{data / 'cifar10_train_4k.npz'}"
    published = ["--published", str(data / "nb201_proxies.npz")]
    cells = ["--matrices", str(data / "nb101_sample15k.npz")]
    small = ["--space", "nasbench101:channels=16", "--sample", "150"]
    valid = [
        "--subset",
        "valid",
        "--sample",
        "400",
        "--proxies",
        ",".join(proxy_ranking.OF_VALID),
        *published,
    ]
    basic = "zico,zico_per_sample,naswot,synflow,jacob_cov,snip,grad_norm,fisher,layers,params,flops"
    return [
        ["proxy_ranking.py", "--images", images, "--table", f"npz:{table}#test200_cifar10", *published],
        ["proxy_ranking.py", "--images", images, "--table", f"npz:{table}#test200_cifar10", *valid],
        ["proxy_ranking.py", "--images", images, *cells, *small, "--proxies", basic],
        ["search_regret.py", "--table", table],
        ["arch2vec_quality.py", "--only", "nasbench201"],
        ["arch2vec_quality.py", "--only", "nasbench201", "--published-loop"],
        ["arch2vec_quality.py", "--only", "nasbench101", "--limit", "423624", "--seeds", "1"],
        ["lissnas_shrinking.py", "--table", table],
        ["weight_sharing.py", "--data", str(data)],
        ["supernet_shifting.py", "--data", str(data)],
        ["darts_genotypes.py", "--data", str(data), "--only", "cifar10"],
        ["darts_genotypes.py", "--data", str(data), "--only", "text"],
    ]


def page() -> str:
    """docs/results.md of all records."""
    lines = [
        "# What was measured",
        "",
        "Made by `make results` from the records in `benches/results`; intervals are 95 % bootstrap ones.",
        "Kernel and supernet speeds are in the [README](../README.md#how-fast).",
        "",
        *proxy_ranking.section(),
    ]
    for name, section in SECTIONS.items():
        path = RESULTS / name
        if path.exists():
            lines += [*section(json.loads(path.read_text())), ""]
    return "\n".join(lines).rstrip() + "\n"


def main() -> int:
    """Measure where there is a folder of data, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, help="folder of real images, text and tables")
    chosen = parser.parse_args()
    failed = []
    for script, *options in commands(chosen.data.resolve()) if chosen.data else []:
        print(f"--- {script} {' '.join(options)}", flush=True)
        if subprocess.run([sys.executable, str(Path(__file__).with_name(script)), *options]).returncode:
            failed.append(script)
    PAGE.write_text(page())
    print(f"wrote {PAGE.relative_to(ROOT)}" + (f"; failed: {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
