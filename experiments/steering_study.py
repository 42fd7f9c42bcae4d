"""Steering by a fixed rule against no steering, at equal budgets, on real images.

    python experiments/steering_study.py --data FOLDER
    python experiments/steering_study.py --data FOLDER --browser
    python experiments/steering_study.py --data FOLDER --shared-weights

``FOLDER`` has ``cifar10_train_4k.npz`` and ``cifar10_test_2k.npz`` (``images``, ``labels``), which the
readers of ``--images`` take. On NAS-Bench-201 and on a drawn template, for each of ten seeds, an evolution
searches by the proxy ``zico`` on a batch of these images. When its first population, drawn at random, has
been evaluated, the steered arm forbids every block whose upper interval lies below the mean (verdict
``bad``: the bootstrap interval of its fitness below zero, five candidates at least), unless it is the last
choice of its layer. The other arm forbids nothing. Trials are equal, and both arms are one search until the
rule acts: each goes on from a copy of its store.

The winner's regret on NAS-Bench-201 is the table's best accuracy minus the winner's. On the template the
winner is trained from scratch for some epochs and judged on images that nothing else has seen. ``--browser``
then lets a script in Chromium do on the page what the rule does, for the first seed of each space: its
trials have to be those of the rule, and those of a replay of its store.

``--shared-weights`` is the loop of the paper instead: a supernet is trained for some epochs by single
uniform paths, the search scores by its weights, the rule prunes, and both arms train on, each in the space
that it has left, with the weights that it has, before they search again. Epochs and trials are equal. The
winner is the best of the second search, whose trials alone were scored with the last weights. It is judged
as above: by the table, or by a training of its own.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from records import RESULTS, ROOT, write

from pynas import data, tables
from pynas._generators import seeded
from pynas.architecture import Architecture
from pynas.spaces import NASBench201, SearchSpace
from pynas.spaces.template import Block, Layer, Template, TemplateSpace
from pynas.steer import Refused, Setup, SteeredSearch, begin, replay, start, steer

SPACES = ("nasbench201", "template")
ARMS = ("steered", "plain")
STORE = "runs.db"
LONGEST = 300_000  # milliseconds that the script waits for the search


@dataclass(frozen=True)
class Setting:
    """Sizes of the study; the same for both arms."""

    seeds: int = 10
    evaluator: str = "zico"
    image_size: int = 16
    batch: int = 32
    trials: tuple[int, int] = (30, 20)
    population: int = 30
    epochs: tuple[int, int] = (0, 0)  # before the first search, and before the second
    images: int | None = None  # at most so many
    second_population: int | None = None  # None: as the first
    alone_size: int = 8
    alone_images: int = 1000
    alone_epochs: int = 3


SHARED = Setting(
    evaluator="supernet",
    image_size=8,
    epochs=(20, 8),
    images=2000,
    second_population=10,
)
"""With a supernet. Its first search is of candidates drawn at random alone, as above."""


def drawn() -> TemplateSpace:
    """A template with a few blocks that help, a few that do little, and some that do harm."""
    layers = (
        Layer(
            (Block("conv"), Block("separable"), Block("residual"), Block("pool"), Block("identity")), "first"
        ),
        Layer(
            (
                Block("conv", channels=24, stride=2),
                Block("vgg", channels=24, stride=2),
                Block("inverted", channels=24, stride=2),
                Block("shuffle", channels=24, stride=2),
            ),
            "down",
        ),
        Layer((Block("conv"), Block("residual"), Block("dense"), Block("pool"), Block("identity")), "middle"),
        Layer((Block("conv", kernel=5), Block("separable"), Block("residual"), Block("identity")), "late"),
    )
    return TemplateSpace(template=Template(layers, stem=Block("conv", channels=12), image_size=32))


def space_of(name: str) -> SearchSpace:
    """NAS-Bench-201, small, or the template."""
    return NASBench201(channels=8, num_cells=1) if name == "nasbench201" else drawn()


def setup_of(folder: Path, setting: Setting, seed: int) -> Setup:
    """The setup of a seed."""
    return Setup(
        evaluator=setting.evaluator,
        images=f"npz:{folder / 'cifar10_train_4k.npz'}",
        image_size=setting.image_size,
        limit=setting.images,
        batch=setting.batch,
        epochs=setting.epochs[0],
        strategy="evolution",
        strategy_options={"population_size": setting.population},
        seed=seed,
    )


def go_on(search: SteeredSearch) -> None:
    """Until there is nothing to do."""
    while search.advance():
        pass


def bad_blocks(search: SteeredSearch) -> list[str]:
    """What the rule forbids, worst first."""
    found = [block for block in search.fitness() if block.verdict == "bad"]
    return [block.id for block in sorted(found, key=lambda block: block.fitness)]


def halfway(space: SearchSpace, setup: Setup, setting: Setting, folder: Path) -> None:
    """What both arms have in common, in a store of the folder, from which each goes on."""
    with begin(space, setup, budget=setting.trials[0], store=folder / STORE) as search:
        start(search, setup)
        go_on(search)


def arm(space: SearchSpace, setup: Setup, setting: Setting, before: Path, *, steered: bool) -> dict[str, Any]:
    """One arm: the winner, and what the rule did."""
    forbidden = []
    folder = before.with_name(f"{before.name}-{'steered' if steered else 'plain'}")
    shutil.copytree(before, folder)
    with begin(space, setup, store=folder / STORE, resume=True) as search:
        go_on(search)
        for block in bad_blocks(search) if steered else ():
            try:
                search.act("forbid", blocks=[block], who="rule")
            except Refused:  # the last choice of its layer
                continue
            forbidden.append(block)
        if setting.epochs[1]:
            search.act("train", epochs=setting.epochs[1], who="rule")
        if setting.second_population:
            options = {"population_size": setting.second_population}
            search.act("strategy", name="evolution", options=options, who="rule")
        search.act("budget", trials=sum(setting.trials), who="rule")
        go_on(search)
        best = search.progress.best
        assert best is not None
        return {
            "forbidden": forbidden,
            "remaining": search.allowed_space.size,
            "winner": list(best.architecture.decisions),
            "score": best.evaluation.scores[search.objectives[0]],
            "trials": [list(trial.architecture.decisions) for trial in search.trials],
        }


def alone(space: SearchSpace, decisions: Sequence[int], folder: Path, setting: Setting, seed: int) -> float:
    """Accuracy on the images that were held out of everything, of a network trained from its beginning."""
    read = [
        data.load_images(f"npz:{folder / name}", size=setting.alone_size)
        for name in ("cifar10_train_4k.npz", "cifar10_test_2k.npz")
    ]
    inputs, targets = read[0].inputs[: setting.alone_images], read[0].targets[: setting.alone_images]
    with seeded(seed):
        network = space.build(Architecture(space.name, tuple(decisions)), num_classes=10)
        steps = setting.alone_epochs * (len(targets) // setting.batch)
        optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=steps)
        network.train()
        for step in range(steps):
            at = step % (len(targets) // setting.batch)
            if at == 0:
                order = torch.randperm(len(targets))
            chosen = order[at * setting.batch : (at + 1) * setting.batch]
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(inputs[chosen]), targets[chosen]).backward()
            optimizer.step()
            schedule.step()
    network.eval()
    with torch.no_grad():
        guesses = torch.cat([network(x).argmax(1) for x in read[1].inputs.split(500)])
    return float((guesses == read[1].targets).double().mean())


def judged(
    name: str, space: SearchSpace, arm: dict[str, Any], folder: Path, setting: Setting, seed: int
) -> float:
    """Regret in per cent of accuracy on NAS-Bench-201, accuracy in per cent on the template."""
    if name != "nasbench201":
        return round(100 * alone(space, arm["winner"], folder, setting, seed), 3)
    table = tables.load("analog", space, None)
    value = table.accuracy(Architecture(space.name, tuple(arm["winner"])))
    assert value is not None
    return round(max(table.values.values()) - value, 3)


def interval(values: Sequence[float]) -> list[float]:
    """Mean, and the 95 % bootstrap interval of it."""
    given = np.asarray(values, dtype=np.float64)
    picks = np.random.default_rng(0).integers(0, len(given), (10_000, len(given)))
    low, high = np.percentile(given[picks].mean(axis=1), [2.5, 97.5])
    return [round(float(value), 3) for value in (given.mean(), low, high)]


def one_seed(name: str, folder: Path, setting: Setting, seed: int) -> dict[str, Any]:
    """Both arms of a seed."""
    space, setup = space_of(name), setup_of(folder, setting, seed)
    row: dict[str, Any] = {"seed": seed}
    with tempfile.TemporaryDirectory() as place:
        before = Path(place, "both")
        before.mkdir()
        halfway(space, setup, setting, before)
        for which in ARMS:
            row[which] = found = arm(space, setup, setting, before, steered=which == "steered")
            found["judged"] = judged(name, space, found, folder, setting, seed)
    print(name, seed, *(row[which]["judged"] for which in ARMS), row["steered"]["forbidden"], flush=True)
    return row


def summary(name: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over seeds with their intervals."""
    values = {which: [row[which]["judged"] for row in rows] for which in ARMS}
    scores = {which: [row[which]["score"] for row in rows] for which in ARMS}
    pairs = [a - b for a, b in zip(*(values[which] for which in ARMS), strict=True)]
    gains = [a - b for a, b in zip(*(scores[which] for which in ARMS), strict=True)]
    return {
        "judged_by": "regret" if name == "nasbench201" else "accuracy",
        **{which: interval(found) for which, found in values.items()},
        "difference": interval(pairs),
        "difference_of_scores": interval(gains),
        "forbidden": [len(row["steered"]["forbidden"]) for row in rows],
    }


def by_browser(name: str, folder: Path, setting: Setting, rule: list[list[int]]) -> dict[str, Any]:
    """The first seed, steered by a script on the page."""
    sys.path.insert(0, str(ROOT))
    from playwright.sync_api import expect

    from tests.steer.browser import Visitor, chromium

    space, setup = space_of(name), setup_of(folder, setting, 0)
    first, second = setting.trials
    with tempfile.TemporaryDirectory() as place:
        store = Path(place, "steered.db")
        options = asdict(setup)
        with chromium(webgl=False) as browser, steer(space, budget=first, store=store, **options) as search:
            visitor = Visitor(browser, charts=True)
            visitor.context.set_default_timeout(60_000)
            page = visitor.open(search.url)
            expect(page).to_have_title(re.compile(f"^{first}/{first} "), timeout=LONGEST)
            expect(page.locator("#status")).to_contain_text("budget is spent", timeout=LONGEST)
            note = page.locator("#blocks-view p").filter(has_text=f"{first} current trials")
            expect(note).to_be_visible(timeout=LONGEST)  # the chart is of all of them
            page.get_by_label("Your name").fill("script")
            page.get_by_label("Your name").press("Tab")
            # What the chart says: the dots that point down, from the left.
            bad = page.locator("#blocks-view .dot-block").evaluate_all(
                """all => all.filter(e => / bad$/.test(e.getAttribute("aria-label")))
                    .map(e => [new DOMMatrix(getComputedStyle(e).transform).e, e.dataset.block])
                    .sort((a, b) => a[0] - b[0]).map(([, id]) => id)"""
            )
            for block in bad:
                page.locator(f'#template-view [data-block="{block}"]').click()
                button = page.locator("#block-panel").get_by_role("button", name="Forbid")
                if button.is_enabled():
                    button.click()
                    page.get_by_role("dialog").get_by_role("button", name="Apply").click()
                    page.locator(f'#template-view .out[data-block="{block}"]').wait_for()
            form = page.locator('form[data-form="budget"]')
            form.locator("input").fill(str(first + second))
            form.get_by_role("button", name="Set budget").click()
            expect(page).to_have_title(re.compile(f"^{first + second}/{first + second} "), timeout=LONGEST)
            expect(page.locator("#status")).to_contain_text("budget is spent", timeout=LONGEST)
            page.get_by_role("button", name="Export the winner").click()
            page.get_by_role("dialog").get_by_label("Format").select_option("pytorch")
            with page.expect_download() as waited:
                page.get_by_role("dialog").get_by_role("button", name="Save").click()
            exported = Path(waited.value.path()).stat().st_size
            state, actions = search.state(), search.steering.actions()
            trials = [trial["decisions"] for trial in search.steering.trials()]
            visitor.close()
        again = replay(str(store))
    return {
        "actions": [{k: each[k] for k in ("trial", "step", "who", "text")} for each in actions],
        "winner": list(trials[state["search"]["best"]]),
        "exported_bytes": exported,
        "complaints": visitor.complaints,
        "same_as_the_rule": [list(t) for t in trials] == rule,
        "same_replay": again.is_same,
    }


def main() -> None:
    """Measure, and write the record."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--record", type=Path, help="by default in benches/results")
    parser.add_argument("--seeds", type=int, default=Setting.seeds)
    parser.add_argument("--shared-weights", action="store_true", help="score by a supernet, not by zico")
    parser.add_argument("--resume", action="store_true", help="keep the seeds that the record has")
    parser.add_argument("--browser", action="store_true")
    given = parser.parse_args()
    if given.browser and given.shared_weights:
        parser.error("--browser steers the search by zico; leave out --shared-weights")
    name = "steering-study-shared-weights.json" if given.shared_weights else "steering-study.json"
    given.record = given.record or RESULTS / name
    if not (given.data / "cifar10_train_4k.npz").is_file():
        print(f"skipped: {given.data} has no cifar10_train_4k.npz")
        return
    torch.set_num_threads(1)
    setting = replace(SHARED if given.shared_weights else Setting(), seeds=given.seeds)
    begun = time.process_time()
    if given.browser:
        record = json.loads(given.record.read_text())
        for name, found in record["spaces"].items():
            found["browser"] = by_browser(name, given.data, setting, found["trials_of_the_first"])
            print(name, {k: v for k, v in found["browser"].items() if k != "actions"}, flush=True)
            write(given.record, record)
        return
    record: dict[str, Any] = {"spaces": {name: {"seeds": []} for name in SPACES}, "processor_minutes": 0.0}
    if given.resume:
        record = json.loads(given.record.read_text())
        kept = {k: tuple(v) if isinstance(v, list) else v for k, v in record["setting"].items()}
        if Setting(**kept) != replace(setting, seeds=kept["seeds"]):
            sys.exit(f"--resume: {given.record} was measured under another setting: begin it anew without")
    record["setting"] = asdict(setting)
    earlier = record["processor_minutes"]
    done = min(len(found["seeds"]) for found in record["spaces"].values())
    for seed in range(done, setting.seeds):
        for name, found in record["spaces"].items():
            del found["seeds"][seed:]  # of a seed that had not ended in both spaces
            row = one_seed(name, given.data, setting, seed)
            trials = [row[which].pop("trials") for which in ARMS]
            found.setdefault("trials_of_the_first", trials[0])
            found["seeds"].append(row)
            found["summary"] = summary(name, found["seeds"])
        record["setting"]["seeds"] = seed + 1  # that the record has
        record["processor_minutes"] = round(earlier + (time.process_time() - begun) / 60, 1)
        write(given.record, record)


if __name__ == "__main__":
    main()
