"""The page docs/models.md from the records of the zoo and of other libraries."""

from __future__ import annotations

import json
import statistics
import textwrap
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

MARK = "<!-- From here on written by experiments/models.py (make models). -->\n"
SOURCES = {
    "torch": "Written by hand", "torchvision": "torchvision", "timm": "timm", "transformers": "transformers",
}  # fmt: skip
# Messages of scores that are not defined for a network or for its batch, with what that means.
UNDEFINED = {
    "calls no ReLU": "no ReLU",
    "are linearly dependent": "equal codes",
    "is singular up to": "singular kernel",
    "do not depend on any weight": "no gradient",
    "has one value per channel": "one value for each channel of a single sample",
    "a batch norm does not see the": "a batch norm that sees other groups than the loss",
    "none of them is floating-point or embedded": "no inputs with a gradient",
    "is complex": "complex weights",
    "(from ": "not finite",
    "whose operations PyTorch's counter cannot count": "operations that nobody counts",
    "no curvature that PyTorch can compute": "no second derivative in PyTorch",
    "does not run in float64": "runs in float32 alone",
    # The networks themselves fail.
    "Given input size": "fails in train mode on so small an image",
}
# The beginnings of reasons for a refusal, by a part of the message.
REASONS = {
    "rows are taken out of the batch": "rows are taken out of the batch by value",
    "where no dimension counts": "tokens are sent to experts by value",
    "has rows for which samples depend on each other": "samples depend on each other or are reordered",
    "with a tensor that has no dimension that counts the samples": "tokens are sent to experts by value",
    "differentiates itself": "the forward differentiates itself",
    "written into a tensor": "parameters are written into a tensor whose samples are lost",
    "depends on the number of samples": "what is called depends on the samples",
}
LIBRARIES = {
    "plain": "plain pass", "pynas": "pynas", "opacus": "Opacus", "opacus_ghost": "Opacus, ghost norms",
    "backpack": "BackPACK", "vmap": "torch.func",
}  # fmt: skip
NAMES = {
    "text": "text: embedding of 20,000 words, mean, two linear layers",
    "cnn": "CNN: three convolutions, images of 32x32",
    "vit": "ViT: four layers of 128 features, 64 patches",
    "resnet18_group_norm": "ResNet-18 with group norm, images of 8x8", "lstm": "LSTM: 128 units, 32 steps",
}  # fmt: skip


def write(models: Path, peers: Path, page: Path) -> None:
    """Replace what follows the mark."""
    text = page.read_text(encoding="utf-8")
    page.write_text(text[: text.index(MARK) + len(MARK)] + "\n" + sections(models, peers), encoding="utf-8")


def lines_of(path: Path) -> list[dict[str, Any]]:
    """The records of a file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def sections(models: Path, peers: Path) -> str:
    """Everything after the mark."""
    rows = lines_of(models)
    real = [r for r in rows if r["source"] != "calls"]
    parts = [*_summary(real, [r for r in rows if r["source"] == "calls"]), *_refused(real)]
    for source, title in SOURCES.items():
        chosen = [r for r in real if r["source"] == source]
        if chosen:
            parts += [f"## {title}", "", *_table(chosen), ""]
    parts += _peers(lines_of(peers)) if peers.exists() else []
    return "\n".join(parts).rstrip() + "\n"


def collected(row: Mapping[str, Any]) -> bool:
    """Whether ``collect`` gave right values of all parameters for every batch."""
    return all(o["status"] == "ok" for o in row["collected"])


def verdicts(row: Mapping[str, Any]) -> dict[str, str]:
    """``ok``, ``partial``, ``undefined`` or ``refused`` by proxy."""
    found = {}
    for proxy, score in row["scores"].items():
        verdict = score["status"] if score["status"] in ("ok", "partial") else "refused"
        if verdict == "refused" and any(part in score["message"] for part in UNDEFINED):
            verdict = "undefined"
        found[proxy] = verdict
    return found


def whole(row: Mapping[str, Any]) -> bool:
    """Whether every proxy that is defined scores it, with coverage 1."""
    scores = row["scores"]
    return all(
        v == "undefined" or (v == "ok" and scores[p]["coverage"] == 1) for p, v in verdicts(row).items()
    )


def passes(row: Mapping[str, Any]) -> float | None:
    """Time of moments in plain passes."""
    return None if row["seconds"] is None else row["seconds"][1] / row["seconds"][0]


def _summary(real: Sequence[Mapping[str, Any]], calls: Sequence[Mapping[str, Any]]) -> list[str]:
    n, families = len(real), len({r["family"] for r in real})
    wrong = [
        r["name"] for r in real if any(o["status"] in ("wrong", "raw", "coupled") for o in r["collected"])
    ]
    times = sorted(t for r in real if (t := passes(r)) is not None)
    large = sorted(t for r in real if (t := passes(r)) is not None and r["seconds"][0] >= 0.05)
    counts = [sum(map(collected, real)), sum(map(whole, real))]
    right = sum(map(collected, calls))
    share = [f"**{count} of {n}** ({count / n:.1%})" for count in counts]
    return [
        f"- {n} networks of {families} families. `collect` gives moments, norms and Gram matrices of all "
        f"parameters for {share[0]}, at every batch size tried; for the others it says why not.",
        f"- Every proxy that is defined scores {share[1]} with coverage 1.",
        "- Wrong values, raw errors of `collect`, models that did not come back bit for bit: "
        f"**{len(wrong)}**.",
        f"- Beside them {len(calls)} small networks of one kind of call each (`tests/zoo/calls.py`): "
        f"{right} are followed, {len(calls) - right} are refused with the reason, most of them because they "
        "reorder the batch or take rows of it.",
        f"- Moments take {statistics.median(times):.1f} plain passes in the median; most of these networks "
        "are so small that this is the time of Python. For the "
        f"{len(large)} whose plain pass takes 50 ms or more it is {statistics.median(large):.1f} "
        f"(80 % of them below {large[int(len(large) * 0.8)]:.1f}).",
        "",
    ]


def _refused(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = ["## What is refused", "", "| network | why |", "|---|---|"]
    for row in rows:
        messages = [o["message"] for o in row["collected"] if o["status"] != "ok"]
        messages += [
            f"{p}: {row['scores'][p]['message']}"
            for p, v in verdicts(row).items()
            if v in ("refused", "partial")
        ]
        if messages:
            found = {text for part, text in REASONS.items() if any(part in m for m in messages)}
            shown = "; ".join(sorted(found)) or _sentence(messages[0])
            failing = [f"`{p}`" for p, v in verdicts(row).items() if v in ("refused", "partial")]
            only = f" ({', '.join(failing)} only)" if collected(row) else ""
            lines.append(f"| `{row['name']}` | {shown}{only} |")
    counts: Counter[str] = Counter()
    for row in rows:
        said: dict[str, list[str]] = defaultdict(list)
        for proxy, verdict in verdicts(row).items():
            if verdict == "undefined":
                message = row["scores"][proxy]["message"]
                said[next(text for part, text in UNDEFINED.items() if part in message)].append(proxy)
        for text, proxies in said.items():
            shown = "every proxy with a pass" if len(proxies) > 5 else ", ".join(f"`{p}`" for p in proxies)
            counts[f"{shown}: {text}"] += 1
    lines += ["", "Scores that are not defined for a network or for its batch, which say so:", ""]
    return [*lines, *(f"- {what} ({n})" for what, n in counts.most_common()), ""]


def _sentence(message: str) -> str:
    """The first statement of a message, whole words of it."""
    return textwrap.shorten(message.partition("; ")[0], 160, placeholder=" ...").replace("|", "\\|")


def _table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    families: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        families[row["family"]].append(row)
    lines = [
        "| family | networks | collected | proxies that work | coverage | plain passes |",
        "|---|---|---|---|---|---|",
    ]
    for family, members in sorted(families.items()):
        good: Counter[str] = Counter()
        defined: Counter[str] = Counter()
        for row in members:
            for proxy, verdict in verdicts(row).items():
                good[proxy] += verdict == "ok"
                defined[proxy] += verdict != "undefined"
        missing = [f"{p} {good[p]}/{defined[p]}" for p in defined if good[p] < defined[p]]
        undefined = [p for p in defined if not defined[p]]
        works = (
            f"all {sum(1 for p in defined if defined[p])}" if not missing else "all but " + ", ".join(missing)
        )
        works += f"; no {', '.join(undefined)}" if undefined else ""
        covered = [
            s["coverage"]
            for row in members
            for s in row["scores"].values()
            if s["status"] in ("ok", "partial")
        ]
        low = min(covered, default=0.0)
        times = [t for row in members if (t := passes(row)) is not None]
        shown = f"{statistics.median(times):.1f}" if times else "-"
        lines.append(
            f"| {family} | {len(members)} | {sum(map(collected, members))} | {works} | {low:.3g} | {shown} |"
        )
    return lines


def _peers(records: Sequence[Mapping[str, Any]]) -> list[str]:
    known = {r["case"]: r for r in records}
    facts = records[0]["machine"]
    lines = [
        "## Beside other libraries", "",
        f"Batches of 64, float32, {facts['device']}, {facts['threads']} thread, PyTorch {facts['torch']}, "
        f"Opacus {facts['opacus']}, BackPACK {facts['backpack-for-pytorch']}. Time in plain passes (pynas: "
        "with the 20th and 80th percentile), and peak memory beyond what was resident, in a process of its "
        "own. Before the timing, results are compared with each other.", "",
        "| network | statistic | library | time, plain passes | MiB |", "|---|---|---|---|---|",
    ]  # fmt: skip
    behind, unmeasured = [], []
    for network, title in NAMES.items():
        for statistic in ("moments", "norms"):
            record = known.get(f"peers/{network}_{statistic}")
            if record is None:
                unmeasured.append(f"{statistic} of {title.partition(':')[0]}")
                continue
            if f"peers/{network}_{statistic}_peak_memory" not in known and statistic == "moments":
                unmeasured.append(f"the memory of {title.partition(':')[0]}")
            memory = known.get(f"peers/{network}_{statistic}_peak_memory", {"timings": {}})["timings"]
            plain = record["ratios"]["plain"]
            times = {"pynas": plain[1]}
            for name in record["timings"]:
                if name not in ("pynas", "plain"):
                    times[name] = record["timings"][name]["p50"] / record["timings"]["plain"]["p50"]
                    ratio = record["ratios"][name]
                    if ratio[1] > 1:
                        shown = f"{ratio[1]:.2f} ({ratio[0]:.2f} to {ratio[2]:.2f})"
                        behind.append(f"{statistic} of `{network}`: {shown} of the time of {LIBRARIES[name]}")
            others = {n: t["p50"] for n, t in memory.items() if n not in ("pynas", "plain")}
            if others and memory["pynas"]["p50"] > min(others.values()):
                least = min(others, key=lambda n: others[n])
                behind.append(
                    f"memory for {statistic} of `{network}`: {memory['pynas']['p50']:.0f} MiB, "
                    f"{LIBRARIES[least]} {others[least]:.0f} MiB"
                )
            first = True
            for name, label in LIBRARIES.items():
                if name == "plain" or (name == "opacus_ghost" and statistic == "moments"):
                    continue
                if name in times:
                    spread = f" ({plain[0]:.2f} to {plain[2]:.2f})" if name == "pynas" else ""
                    shown = f"{times[name]:.2f}{spread}"
                else:
                    shown = "does not run"
                mib = f"{max(memory[name]['p50'], 0):.0f}" if name in memory else ""
                begin = f"{title} | {statistic}" if first else " | "
                lines.append(f"| {begin} | {label} | {shown} | {mib} |")
                first = False
    ahead = (
        "pynas is the fastest in every row, and takes the least memory where that was measured."
        if not behind
        else "pynas is behind in: " + "; ".join(behind) + "."
    )
    if unmeasured:
        ahead += f" Not measured so far: {'; '.join(unmeasured)}."
    return [*lines, "", ahead, ""]
