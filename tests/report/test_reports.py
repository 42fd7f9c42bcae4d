from __future__ import annotations

import math
import random
import re

import numpy as np
import pytest
import read_pages
from read_pages import Page, check_loads_nothing

from pynas import spaces
from pynas.architecture import Architecture
from pynas.ranking.rank import rank_scores
from pynas.report import draw_cell, write_ranking_report, write_search_report
from pynas.report._cell import colour_of
from pynas.report._importance import importances
from pynas.run import search
from pynas.spaces import Edge
from pynas.store import Run, RunConfig, Store
from pynas.testing.strategies import ToySpace, evaluate
from pynas.trial import Evaluation, Status, Trial

HOSTILE = "</script><script>alert('&\"1')</script><img src=x onerror=alert(2)>"


class Table:
    name, metric, dataset = "table", "test", "CIFAR-10"

    def accuracy(self, architecture):
        return 80.0 + 2 * sum(architecture.decisions) % 13


@pytest.fixture(scope="module")
def nasbench_run():
    space = spaces.get("nasbench201")

    def score(architecture):
        rng = random.Random(space.index(architecture))
        return Evaluation(
            Status.OK, {"toy": space.macs(architecture) ** 0.5 + rng.gauss(0, 900)}, seconds=0.5
        )

    return search(
        space, "evolution", ["toy"], {"flops": 150e6}, 120, score, table=Table(), config={"images": "digits"}
    )


@pytest.mark.slow
def test_search_report(tmp_path, nasbench_run):
    result = nasbench_run
    path = write_search_report(tmp_path / "report.html", result.run, result.trials)
    page = Page(path)
    check_loads_nothing(page)
    assert path == tmp_path / "report.html"
    # Best so far, Pareto front, against accuracy, importance of decisions, parallel coordinates.
    assert len(page.figures) == 5
    best = spaces.get("nasbench201").format(result.best.architecture)
    assert page.text.count(best) == 2  # the best architecture, and the first row of the table
    assert "Search of nasbench201 for toy" in page.text
    assert re.search(r"toy against accuracy: Spearman -?0\.\d\d, Kendall -?0\.\d\d", page.text)
    assert "CIFAR-10 accuracy (%)" in page.text
    assert "flops at most 150,000,000" in page.text
    assert "imagesdigits" in page.text
    assert "seconds of evaluation60.0" in page.text
    for name in ("torch", "numpy", "python"):
        assert name in page.text
    # The cell: four nodes, six labelled edges.
    assert page.tags.count("circle") == 4
    assert page.tags.count("rect") == 6
    assert page.tags.count("tr") == 12


@pytest.mark.slow
def test_report_of_a_store_equals_that_of_the_result(tmp_path):
    space = ToySpace()
    with Store(tmp_path / "runs.db") as store:
        result = search(space, "random", ["toy"], budget=30, evaluator=evaluate, store=store)
        first = write_search_report(tmp_path / "a.html", result.run, result.trials, space=space)
        second = write_search_report(tmp_path / "b.html", store.run(), store.trials(store.run()), space=space)
    assert first.read_text() == second.read_text()


def test_unregistered_space_is_shown_by_its_decisions(tmp_path):
    result = search(ToySpace(), "random", ["toy"], budget=20, evaluator=evaluate)
    page = Page(write_search_report(tmp_path / "report.html", result.run, result.trials))
    assert "-".join(map(str, result.best.architecture.decisions)) in page.text
    assert "svg" not in page.tags
    assert "accuracy" not in page.text


@pytest.mark.slow
def test_ranking_under_a_constraint_shows_fronts(tmp_path):
    rng = np.random.default_rng(0)
    cost = rng.uniform(1, 9, 80)
    accuracy = 70 + 10 * np.sqrt(cost) + rng.normal(0, 2, 80)
    scores = {"zico": accuracy + rng.normal(0, 3, 80), HOSTILE: -accuracy}
    cost[0] = math.nan
    ranking = rank_scores(
        scores,
        accuracy,
        labels=[HOSTILE] * 80,
        costs={"latency:raspi4": cost},
        bounds={"latency:raspi4": 4},
        resamples=10,
    )
    page = Page(write_ranking_report(tmp_path / "ranking.html", ranking))
    check_no_injection(page)
    assert len(page.figures) == 5  # bars, two against accuracy, two fronts
    assert "Kendall, latency:raspi4 <= 4" in page.text
    assert "Pareto fronts: accuracy and latency:raspi4" in page.text
    assert f"{ranking.fronts[0].chosen['zico'].hypervolume_ratio:.4f}" in page.text
    assert "chosen by zico" in page.html


@pytest.mark.slow
def test_several_objectives(tmp_path):
    def two(architecture):
        return Evaluation(Status.OK, {"a": float(sum(architecture.decisions)), "b": 1.0})  # b never varies

    result = search(ToySpace(), "random", ["a", "b"], budget=20, evaluator=two, table=Table())
    page = Page(write_search_report(tmp_path / "report.html", result.run, result.trials))
    assert len(page.figures) == 7
    assert "Search of toy for a, b" in page.text


@pytest.mark.slow
def test_a_score_and_a_cost(tmp_path):
    result = search(ToySpace(), "random", ["toy", "-params"], {"params": 200}, 30, evaluate)
    page = Page(write_search_report(tmp_path / "report.html", result.run, result.trials))
    check_loads_nothing(page)
    assert len(page.figures) == 3  # best score so far, score and parameters, parallel coordinates
    assert "toy and params: the Pareto front" in page.text
    assert f"{result.hypervolume:.3f}hypervolume of the Pareto front" in page.text
    assert "params (weights) of the best trial" in page.text
    result = search(ToySpace(), "random", ["-params", "-flops"], budget=9)
    page = Page(write_search_report(tmp_path / "report.html", result.run, result.trials))
    assert "-params and flops: the Pareto front" in page.text


def test_nothing_succeeded(tmp_path):
    failed = Evaluation(Status.FAILED, message="out of memory")
    result = search(ToySpace(), "random", ["toy"], budget=4, evaluator=lambda architecture: failed)
    page = Page(write_search_report(tmp_path / "report.html", result.run, result.trials))
    assert "No trial succeeded" in page.text
    assert "out of memory" in page.text
    assert page.figures == []
    page = Page(write_search_report(tmp_path / "report.html", result.run, ()))
    assert "0 trials" in page.text


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_trials(tmp_path, count):
    result = search(
        ToySpace(),
        "random",
        ["toy"],
        budget=count,
        table=Table(),
        evaluator=lambda architecture: Evaluation(Status.OK, {"toy": 1.0}),
    )
    page = Page(write_search_report(tmp_path / "report.html", result.run, result.trials))
    assert len(page.figures) == (4 if count == 3 else 2)


def hostile_trials():
    space = Architecture(HOSTILE, (0,)).space
    return [
        Trial(
            i,
            Architecture(space, (i,)),
            Evaluation(
                Status.OK,
                {HOSTILE: float(i)},
                {"flops": 1e6 * i, "params": 1e5, "accuracy": 90.0 + i},
                HOSTILE,
            ),
        )
        for i in range(5)
    ]


class HostileSpace(ToySpace):
    def format(self, arch):
        return HOSTILE

    def graph(self, arch):
        return (Edge(0, 1, HOSTILE), Edge(0, 2, "none"), Edge(1, 2, HOSTILE))


def check_no_injection(page):
    check_loads_nothing(page)
    assert "alert" not in "".join(f"{name}={value}" for name, value in page.attributes)
    # The parser would have ended a script at the hostile end tag; then its remainder would stand alone.
    assert page.tags.count("script") == len(page.scripts)
    for script in page.scripts:
        assert not script.lstrip().startswith("alert")
        assert "</script" not in script
    assert HOSTILE in page.text


@pytest.mark.slow
def test_hostile_text_is_escaped_in_the_search_report(tmp_path):
    config = RunConfig(
        HOSTILE, HOSTILE, 0, (HOSTILE,), {HOSTILE: 3.0}, {"table": {"dataset": HOSTILE}, HOSTILE: [HOSTILE]}
    )
    run = Run(1, config, {HOSTILE: {HOSTILE: HOSTILE}, "started": HOSTILE, "resumed": [{"started": HOSTILE}]})
    page = Page(write_search_report(tmp_path / "report.html", run, hostile_trials(), space=HostileSpace()))
    assert len(page.figures) == 4
    check_no_injection(page)
    failed = [Trial(0, Architecture(HOSTILE, (0,)), Evaluation(Status.FAILED, message=HOSTILE))]
    check_no_injection(Page(write_search_report(tmp_path / "report.html", run, failed)))


def test_hostile_text_is_escaped_in_the_ranking_report(tmp_path):
    ranking = rank_scores(
        {HOSTILE: [1.0, 2.0, 3.0]}, [1.0, 2.0, 3.0], labels=[HOSTILE] * 3, accuracy_label=HOSTILE, resamples=5
    )
    path = write_ranking_report(tmp_path / "ranking.html", ranking, title=HOSTILE, facts={HOSTILE: HOSTILE})
    check_no_injection(Page(path))


@pytest.mark.slow
def test_ranking_report(tmp_path):
    rng = np.random.default_rng(0)
    accuracy = rng.normal(90, 1, 100)
    scores = {
        "weak": accuracy + rng.normal(0, 5, 100),
        "strong": accuracy + rng.normal(0, 0.1, 100),
        "params": rng.normal(0, 1, 100),
        "constant": np.ones(100),
    }
    scores["weak"][:7] = math.nan
    ranking = rank_scores(scores, accuracy, accuracy_label="CIFAR-10 accuracy (%)", resamples=50)
    page = Page(write_ranking_report(tmp_path / "ranking.html", ranking, facts={"table": "made up"}))
    check_loads_nothing(page)
    assert len(page.figures) == 5  # the bars, and one for each score
    order = [
        page.text.index(f"{name}: Spearman") for name in ("strong", "weak", "params (baseline)", "constant")
    ]
    assert order[0] == min(order)
    assert order[-1] == max(order)
    assert "constant: Spearman not defined" in page.text
    value = ranking.correlations["strong"].kendall
    assert f"{value.value:.3f} ({value.low:.3f} to {value.high:.3f})" in page.text
    assert "tablemade up" in page.text


@pytest.mark.slow
def test_figures_are_valid_plotly(tmp_path, nasbench_run):
    page = Page(write_search_report(tmp_path / "report.html", nasbench_run.run, nasbench_run.trials))
    for figure in page.figures:
        assert figure["data"]
        for trace in figure["data"]:
            assert trace["name"]


def test_cells_of_any_graph():
    assert draw_cell(()) == ""
    # A node with operations on the nodes instead of the edges, two edges between the same nodes, long skips.
    edges = [Edge(i, j, "") for i in range(6) for j in range(i + 1, 6)] + [
        Edge(0, 1, "twice"),
        Edge(0, 1, "thrice"),
    ]
    svg = draw_cell(edges, ["in", *"abcd", "out"])
    assert svg.count("<circle") == 6
    assert svg.count('<path d="M') == len(edges) + svg.count("<marker")
    assert "nan" not in svg


def test_the_table_of_all_trials_holds_failed_ones_and_positive_costs(tmp_path):
    def score(architecture):
        if architecture.decisions[0] == 0:
            return Evaluation(Status.FAILED, message=f"no luck {HOSTILE}")
        return evaluate(architecture)

    result = search(ToySpace(), "random", ["toy", "-params"], budget=40, evaluator=score)
    page = Page(write_search_report(tmp_path / "report.html", result.run, result.trials, space=ToySpace()))
    check_no_injection(page)
    columns = page.columns
    assert columns["trial"] == list(range(1, 41))
    failed = {trial.number + 1 for trial in result.trials if trial.evaluation.status is Status.FAILED}
    assert failed
    status = dict(zip(columns["trial"], columns["status"], strict=True))
    assert {number for number, text in status.items() if text.startswith("failed: ")} == failed
    assert f"failed: no luck {HOSTILE}" in status.values()
    assert all(math.isnan(value) or value > 0 for value in columns["params (weights)"])
    assert f"{len(failed)} trials failed" in page.text
    assert "The best trial has the best mean rank" in page.text
    best = result.best
    rank = dict(zip(columns["trial"], columns["mean rank"], strict=True))
    assert rank[best.number + 1] == min(value for value in rank.values() if not math.isnan(value))
    ordered = sorted(
        (trial for trial in result.trials if trial.number + 1 not in failed),
        key=lambda trial: -trial.evaluation.scores["toy"],
    )
    values = [trial.evaluation.scores["toy"] for trial in ordered]
    place = (
        values.index(best.evaluation.scores["toy"]) + (values.count(best.evaluation.scores["toy"]) + 1) / 2
    )
    row = page.text[page.text.index("rank by toy") :]
    assert f"{place:g}" in row  # of the ranking that ruled


def test_every_text_and_number_is_read_back(tmp_path):
    """The three forms of texts: few that repeat, as many words each, and any."""
    from pynas.report._columns import numbers, texts

    cells = [
        spaces.get("nasbench201").format(spaces.get("nasbench201").from_index(37 * i)) for i in range(99)
    ]
    for values in (["ok", "failed: 1"] * 9, cells, ["a", "", "a b", "c-d=1,x=2"], [], ["alone"]):
        assert read_pages.texts(texts(values), len(values)) == values
    assert len(str(texts(cells))) < len("".join(cells)) / 4
    rng = np.random.default_rng(0)
    for values in (
        [0.0, 255.0], [-1.0, 127.0], [1e9, 3.0], [2.0**40, 1.0], rng.normal(0, 1e4, 500).tolist(),
        [0.1, None, -3e-9], [1e300, 1.0], [math.inf, 1.0], [],
    ):  # fmt: skip
        found = read_pages.numbers(numbers(values))
        expected = [math.nan if v is None or math.isinf(v) else float(f"{v:.7g}") for v in values]
        assert [f"{v:.7g}" for v in found] == [f"{v:.7g}" for v in expected]


def test_a_trial_of_lower_fidelity_is_not_the_best(tmp_path):
    trials = [
        Trial(i, Architecture("toy", (i % 3,)), Evaluation(Status.OK, {"toy": score}, {"fidelity": share}))
        for i, (score, share) in enumerate([(9.0, 0.25), (3.0, 1.0), (5.0, 1.0), (7.0, 0.5)])
    ]
    run = Run(1, RunConfig("toy", "successive_halving", 0, ("toy",), {}, {}), {})
    page = Page(write_search_report(tmp_path / "report.html", run, trials))
    assert "found in trial 3" in page.text
    assert page.text.index("Search of") < page.text.index("5.000best toy score")


def test_the_library_is_written_once_for_a_folder(tmp_path):
    result = search(ToySpace(), "random", ["toy"], budget=4, evaluator=evaluate)
    page = write_search_report(tmp_path / "a.html", result.run, result.trials)
    (library,) = tmp_path.glob("plotly-*.min.js")
    before = library.stat()
    assert before.st_size > 1e6
    write_search_report(tmp_path / "b.html", result.run, result.trials)
    assert (library.stat().st_ino, library.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    library.write_bytes(b"half")  # of another's making, or cut off
    write_search_report(tmp_path / "b.html", result.run, result.trials)
    assert library.stat().st_size == before.st_size
    check_loads_nothing(Page(page))
    assert page.stat().st_size < 100_000
    (tmp_path / "alone").mkdir()
    single = write_search_report(tmp_path / "alone" / "a.html", result.run, result.trials, inline=True)
    assert [path.name for path in (tmp_path / "alone").iterdir()] == ["a.html"]
    check_loads_nothing(Page(single), inline=True)


@pytest.mark.slow
def test_importance_finds_the_decision_that_rules():
    rng = np.random.default_rng(0)
    decisions = rng.integers(0, 4, (150, 5))
    scores = np.array([3.0, -1.0, 2.0, 0.5])[decisions[:, 3]] + rng.normal(0, 0.1, 150)
    found = importances(decisions.tolist(), scores.tolist(), {})
    assert found[0][0] == "decision 4"
    assert found[0][1] > 1  # of R^2, which falls below zero when it is permuted
    assert all(abs(mean) < 0.05 for _, mean, _ in found[1:])
    assert importances(decisions.tolist(), rng.normal(0, 1, 150).tolist(), {}) == []  # nothing to explain
    assert importances(decisions[:20].tolist(), scores[:20].tolist(), {}) == []


def test_an_operation_has_one_colour_everywhere():
    assert colour_of("nor_conv_3x3") == colour_of("conv3x3-bn-relu")
    assert len({colour_of(name) for name in ("none", "skip_connect", "avg_pool_3x3", "nor_conv_1x1")}) == 4
    alone, beside = draw_cell([Edge(0, 1, "mine")]), draw_cell([Edge(0, 1, "a"), Edge(1, 2, "mine")])
    assert colour_of("mine") in alone
    assert colour_of("mine") in beside


@pytest.mark.slow
def test_many_trials_make_a_small_page(tmp_path):
    """Each architecture is there once, in few bytes."""
    space, rng = spaces.get("nasbench201"), random.Random(0)
    trials = [
        Trial(
            i, space.sample(rng), Evaluation(Status.OK, {"toy": rng.random()}, {"flops": 1e6 * rng.random()})
        )
        for i in range(4000)
    ]
    run = Run(1, RunConfig("nasbench201", "random", 0, ("toy",), {}, {}), {})
    path = write_search_report(tmp_path / "report.html", run, trials, space=space)
    assert path.stat().st_size < 60_000 + 120 * len(trials)
    page = Page(path)
    assert page.columns["architecture"] == [space.format(trial.architecture) for trial in trials]
    graphs = [space.graph(trial.architecture) for trial in trials]
    assert page.edges == [[(e.source, e.target, e.label) for e in graph] for graph in graphs]
