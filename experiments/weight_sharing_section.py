"""What docs/results.md says of weight sharing; the record is that of weight_sharing.py."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
TITLES = {
    "nasbench101": "NAS-Bench-101",
    "nasbench201": "NAS-Bench-201",
    "darts_cnn": "DARTS, CIFAR-10",
    "darts_rnn": "DARTS, text",
    "proxylessnas": "ProxylessNAS",
}


def section(record: Mapping[str, Any]) -> list[str]:
    """Lines of Markdown: settings, correlations, biases, and the paper's findings beside the figures."""
    spaces = record["spaces"]
    return [
        "## How much weight sharing helps",
        "",
        'Supernets of the spaces of "How Does Weight Sharing Help in Neural Architecture Search?"',
        "(arXiv:2010.08219), trained by uniform single paths, compared with stand-alone training. Networks",
        "and trainings are far smaller than the paper's, so the figures are those of this protocol. If two",
        "stand-alone trainings of the same architectures agree little, no supernet can agree with them.",
        f"Intervals: 95 %, bootstrap over architectures. Values are means over {record['seeds']} supernets.",
        "",
        *_settings(spaces),
        "",
        "Regret is the difference between the best of all and the best of one or five that the supernet",
        "picks, in points of accuracy, for text in nats a word; in brackets the regret of random picks. The",
        "last column is the share of the best 10 % that is lost when the worst half by estimate is removed;",
        "0.5 by chance.",
        "",
        "| space | weights shared by | Kendall | Spearman | Kendall, top 25 % | between seeds "
        "| between checkpoints | regret of 1 | regret of 5 | best lost |",
        "|---|---|---|---|---|---|---|---|---|---|",
        *(line for space in spaces for line in _rows(space)),
        "",
        "Strongest biases of the supernets of the whole space: by how much each further copy of the",
        "operation changes an architecture's rank error (1 is from the last rank to the first; above zero,",
        "architectures that have it are ranked too high).",
        "",
        "| space | operation | present in | each copy |",
        "|---|---|---|---|",
        *(line for space in spaces for line in _biases(space)),
        "",
        *_findings(spaces),
        "",
    ]


def _settings(spaces: Sequence[Row]) -> Iterator[str]:
    columns = ("steps of a supernet", "samples to train on, judge by")
    yield (
        "| space | architectures | ground truth | its range | two stand-alone trainings agree (Kendall) "
        f"| {columns[0]} | {columns[1]} |"
    )
    yield "|---|---|---|---|---|---|---|"
    for space in spaces:
        truth, unit = space["analysis"]["truth"], space["analysis"]["quality"]["unit"]
        digits = 2 if unit == "%" else 3
        spread = f"{min(truth):.{digits}f} to {max(truth):.{digits}f} {unit}"
        stability = space["analysis"]["truth_stability"]
        train, judged = space["samples"]
        source = space["truth"].replace(" alone", " of stand-alone training")
        yield (
            f"| {TITLES[space['space']]} | {len(truth)} | {source} | {spread} "
            f"| {'-' if stability is None else _figure(_number(stability['tau']))} "
            f"| {space['steps']} of {space['batch']} | {train:,}, {judged:,} |"
        )


def _rows(space: Row) -> Iterator[str]:
    found = space["analysis"]
    digits = 2 if found["quality"]["unit"] == "%" else 3
    for place, setting in enumerate(found["settings"]):
        regrets = [
            f"{pick['regret']:.{digits}f} ({chance['regret']:.{digits}f})"
            for pick, chance in zip(setting["picks"], found["chance"], strict=True)
        ]
        checkpoints = [_number(c["tau"]) for c in setting["checkpoints"]]
        (half,) = setting["prunings"]
        cells = [
            TITLES[space["space"]] if place == 0 else "",
            setting["name"],
            _interval(setting["kendall"]),
            _interval(setting["spearman"]),
            _interval(setting["kendall_top"]),
            _figure(_number(setting["seeds"]["tau"])),
            _figure(statistics.fmean(checkpoints)),
            *regrets,
            f"{half['best_lost']['0.1']:.2f}",
        ]
        yield "| " + " | ".join(cells) + " |"


def _biases(space: Row, count: int = 2) -> Iterator[str]:
    biases = [b for b in space["analysis"]["settings"][0]["bias"] if b["slope"]["value"] is not None]
    strongest = sorted(biases, key=lambda b: -abs(b["slope"]["value"]))[:count]
    for place, bias in enumerate(strongest):
        title = TITLES[space["space"]] if place == 0 else ""
        present = f"{bias['present']} of {len(space['analysis']['truth'])}"
        yield f"| {title} | `{bias['name']}` | {present} | {_interval(bias['slope'])} |"


def _findings(spaces: Sequence[Row]) -> Iterator[str]:
    """The five of the paper's abstract, each with the figures that speak to it."""
    whole = {TITLES[space["space"]]: space["analysis"]["settings"][0] for space in spaces}
    taus = {name: _number(setting["kendall"]["value"]) for name, setting in whole.items()}
    chances = [space["analysis"]["chance"][-1]["found"] for space in spaces]
    picks = [setting["picks"][-1]["found"] for setting in whole.values()]
    found, chance = (
        {share: statistics.fmean(row[share] for row in rows) for share in ("0.01", "0.1")}
        for rows in (picks, chances)
    )
    of_possible = {s: (found[s] - chance[s]) / (1 - chance[s]) for s in found}
    worst = statistics.fmean(setting["overlaps_worst"]["0.25"] for setting in whole.values())
    best = statistics.fmean(setting["overlaps"]["0.25"] for setting in whole.values())
    differ = sum(_best_trained(space) != _best_ranking(space) for space in spaces)
    low, high = min(taus, key=taus.__getitem__), max(taus, key=taus.__getitem__)
    pruned = ", ".join(_after_pruning(space) for space in spaces)
    better = sum(after > before for before, after in map(_picked, spaces))
    yield "The paper's findings and these figures (of supernets of the whole space, unless stated otherwise):"
    yield ""
    yield (
        "1. *A well-trained supernet is not necessarily a good ranking model.* The setting whose "
        f"sub-networks do best is not the one that ranks best in {differ} of {len(spaces)} spaces: "
        f"{'agrees' if differ else 'not seen here'}."
    )
    yield (
        "2. *Supernets find relatively good architectures and struggle for the best.* Five picks hold one of "
        f"the best 10 % with probability {found['0.1']:.2f} (chance {chance['0.1']:.2f}) and the very best "
        f"with {found['0.01']:.2f} ({chance['0.01']:.2f}), means over spaces: "
        f"{'agrees' if of_possible['0.1'] > of_possible['0.01'] else 'not seen here'}."
    )
    yield (
        f"3. *How much it helps depends on the space.* Kendall from {taus[low]:.2f} ({low}) to "
        f"{taus[high]:.2f} ({high}): {_apart(whole[low]['kendall'], whole[high]['kendall'])}."
    )
    yield (
        "4. *Supernets are surer about the worst than about the best.* Of the worst quarter by truth "
        f"{worst:.2f} are in the worst quarter by estimate, of the best quarter {best:.2f} in the best, "
        f"means over spaces (chance 0.25): {'agrees' if worst > best else 'not seen here'}."
    )
    yield (
        "5. *Better architectures are easier to find in a space that was pruned with the supernet's help.* "
        "The best of five that supernets of the evaluated architectures pick; the same after supernets of "
        f"the whole space have removed half of these and new ones were trained on the rest: {pruned}. Better "
        f"in {better} of {len(spaces)} spaces: {'agrees' if 2 * better > len(spaces) else 'not seen here'}."
    )


def _picked(space: Row) -> tuple[float, float]:
    """Truth of the best of five picks, or of as many as there were, before pruning and after."""
    count = list(space["picked_after_pruning"])[-1]
    return space["picked_before"][count], space["picked_after_pruning"][count]


def _after_pruning(space: Row) -> str:
    digits = 2 if space["analysis"]["quality"]["unit"] == "%" else 3
    before, after = _picked(space)
    return f"{TITLES[space['space']]} {before:.{digits}f}, {after:.{digits}f}"


def _best_trained(space: Row) -> str:
    """The setting whose sub-networks have the highest mean estimate after training."""
    settings = space["analysis"]["settings"]
    means = {s["name"]: statistics.fmean(x for seed in s["estimates"] for x in seed[-1]) for s in settings}
    return max(means, key=means.__getitem__)


def _best_ranking(space: Row) -> str:
    taus = {s["name"]: _number(s["kendall"]["value"]) for s in space["analysis"]["settings"]}
    return max(taus, key=taus.__getitem__)


def _apart(low: Row, high: Row) -> str:
    """Whether two intervals have nothing in common."""
    if low["high"] is None or high["low"] is None:
        return "not defined for one of them"
    return "agrees" if low["high"] < high["low"] else "their intervals overlap"


def _number(value: float | None) -> float:
    """A correlation that is not defined, of estimates all equal, ranks nothing: zero."""
    return 0.0 if value is None else value


def _figure(value: float) -> str:
    return f"{value:.2f}"


def _interval(estimate: Row | None) -> str:
    if estimate is None or estimate["value"] is None:
        return "-"
    return f"{estimate['value']:.2f} [{estimate['low']:.2f}, {estimate['high']:.2f}]"
