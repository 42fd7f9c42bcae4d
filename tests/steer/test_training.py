"""A supernet that is trained in phases while its search is steered."""

from __future__ import annotations

import importlib
import math
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from pynas import spaces
from pynas._errors import UserError
from pynas.spaces import NASBench201, SPOSShuffleNet
from pynas.steer import Refused, SteeredSearch
from pynas.steer._export import export, plain_network
from pynas.steer._formats import OWN, formats
from pynas.steer.setup import Setup, begin, start
from pynas.supernet import ProxylessNASSupernet, SPOSSupernet, build
from tests.steer.steered import Plan, follow, outcome

SPACE = NASBench201(channels=2, num_cells=1)
SETUP = Setup(epochs=1, limit=250, batch=32, seed=1)
PLAN: Plan = {
    2: [("forbid", {"blocks": ["0:0"]})],
    4: [("train", {"epochs": 2})],
    6: [("add", {"decisions": [1, 1, 1, 2, 1, 1]})],
}

pytestmark = pytest.mark.slow


def begun(store: Path | None = None, **options: Any) -> SteeredSearch:
    search = begin(SPACE, SETUP, store=store, budget=9, **options)
    if not search.is_catching_up:
        start(search, SETUP)
    return search


@pytest.fixture(scope="module")
def whole() -> SteeredSearch:
    torch.set_num_threads(1)
    search = begun()
    follow(search, PLAN)
    return search


def test_training_goes_first_and_scores_say_their_weights(whole: SteeredSearch) -> None:
    assert whole.training is not None
    per_epoch = whole.training.per_epoch
    assert [t.evaluation.metrics["steps"] for t in whole.trials] == [per_epoch] * 4 + [3 * per_epoch] * 5
    assert [t.number for t in whole.progress.trials] == [4, 5, 6, 7, 8]
    assert whole.steps == 3 * per_epoch
    assert whole.by[6] == ("analyst", "python")


def test_curves_have_training_and_validation(whole: SteeredSearch) -> None:
    assert whole.training is not None
    steps = [point["step"] for point in whole.points]
    assert steps == sorted(set(steps))
    assert steps[-1] == whole.steps
    validated = [p for p in whole.points if p["validation_loss"] is not None]
    assert [p["step"] for p in validated] == [whole.training.per_epoch * k for k in (1, 2, 3)]
    assert all(math.isfinite(p["loss"]) and 0 <= p["accuracy"] <= 1 for p in whole.points)
    assert {p["phase"] for p in whole.points} == {1, 2}


@pytest.mark.parametrize("moment", [2, 5, 6, 9, 12, 16, 19, 23])
def test_left_at_any_moment_it_goes_on_bit_for_bit(moment: int, whole: SteeredSearch, tmp_path: Path) -> None:
    store, taken = tmp_path / "runs.db", 0
    with begun(store) as left:

        def stop() -> bool:
            nonlocal taken
            taken += 1
            return taken > moment

        follow(left, PLAN, stop)
    with begun(store, resume=True) as resumed:
        while resumed.is_catching_up:
            resumed.advance()
        follow(resumed, PLAN)
        assert outcome(resumed) == outcome(whole)
        assert whole.training is not None
        assert resumed.training is not None
        for a, b in zip(whole.training.model.parameters(), resumed.training.model.parameters(), strict=True):
            assert torch.equal(a, b)


def test_pausing_the_training_lets_the_search_go_on() -> None:
    search = begun()
    search.advance()
    search.act("train_pause")
    search.advance()
    assert (len(search.trials), search.steps) == (1, 1)
    search.act("train_resume")
    search.advance()
    assert (len(search.trials), search.steps) == (1, 2)
    assert not search.progress.trials, "the first trial was of other weights"
    search.act("train_stop")
    with pytest.raises(Refused, match="no training is open"):
        search.act("train_stop")
    search.advance()
    assert (len(search.trials), search.steps) == (2, 2)


def test_training_draws_from_what_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    search = begun()
    assert search.training is not None
    search.act("force", blocks=["0:3", "1:1", "2:1", "3:1", "4:1", "5:1"])
    drawn = []
    network = search.training.model
    forward = network.forward

    def noting(x: torch.Tensor, arch: Any = None) -> torch.Tensor:
        drawn.append(arch.decisions)
        return forward(x, arch)

    monkeypatch.setattr(network, "forward", noting)
    for _ in range(3):
        search.advance()
    assert set(drawn) == {(3, 1, 1, 1, 1, 1)}


def test_a_training_that_fails_says_so_and_is_replayed() -> None:
    def diverge(search: SteeredSearch) -> None:
        assert search.training is not None
        search.training.inputs[:] = float("nan")

    search = begun()
    for _ in range(2):
        search.advance()
    diverge(search)
    search.advance()
    assert search.state.phase.status == "failed"
    assert "not finite" in search.state.phase.message or "nan" in search.state.phase.message
    assert search.actions[-1].kind == "train_failed"
    assert search.advance(), "the search goes on with the weights before"


def test_another_training_in_the_folder_is_not_overwritten(tmp_path: Path) -> None:
    store = tmp_path / "runs.db"
    with begun(store) as search:
        while search.state.phase.status == "running":
            search.advance()
    store.unlink()
    with pytest.raises(UserError, match="already holds a training"):
        begun(store)


def test_export_gives_the_accuracy_of_the_trial(whole: SteeredSearch) -> None:
    training = whole.training
    assert training is not None
    trial = whole.trials[-1]
    plain = plain_network(SPACE, training.model, trial.architecture, training.inputs[:4])
    assert plain is not None
    from pynas.steer._export import recalibrate

    recalibrate(plain, training.judge.calibration or ())
    with torch.no_grad():
        right = (plain.eval()(training.judge.inputs).argmax(1) == training.judge.targets).double().mean()
    assert abs(float(right) - trial.evaluation.scores["accuracy"]) < 0.02
    for format in ("architecture", "state_dict"):
        found = export(SPACE, trial, format, training=training)
        assert found.content
        assert len(found.content) < 1 << 20
    with pytest.raises(UserError, match="format: expected one of"):
        export(SPACE, trial, "fortran")


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_exported_networks_run_without_pynas_and_compute_what_the_supernet_does(
    whole: SteeredSearch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pynas.steer._export import recalibrate

    training, trial = whole.training, whole.trials[-1]
    assert training is not None
    plain = plain_network(SPACE, training.model, trial.architecture, training.inputs[:4])
    assert plain is not None
    recalibrate(plain, training.judge.calibration or ())
    images = training.judge.inputs[:3]  # another batch than that of the trace
    with torch.no_grad():
        expected = plain.eval()(images)
    for format in ("pytorch", "script"):  # the page's test writes all
        found = export(SPACE, trial, format, training=training, found={"proposed by": "Ada"})
        assert found.weights == "shared"
        path = tmp_path / found.name
        path.write_bytes(found.content)
        if format == "pytorch":
            zipfile.ZipFile(path).extractall(tmp_path)
            assert "Ada" in (tmp_path / f"trial_{trial.number}.md").read_text()
            source = (tmp_path / f"trial_{trial.number}.py").read_text()
            assert "pynas" not in source.partition("import")[2]
            monkeypatch.syspath_prepend(tmp_path)
            made = importlib.import_module(f"trial_{trial.number}")
            program: Any = made.load(tmp_path / f"trial_{trial.number}.pt").eval()
        else:
            program = torch.jit.load(path)  # type: ignore[no-untyped-call]
        with torch.no_grad():
            torch.testing.assert_close(program(images), expected, rtol=1e-4, atol=1e-4)


def test_every_format_of_export_is_offered_where_it_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    from pynas.export import FORMATS

    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    assert formats() == (*OWN, *FORMATS)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert set(formats()) == {*OWN, *FORMATS} - {"onnx"}


def test_a_network_that_cannot_be_written_is_refused_with_the_reason(
    whole: SteeredSearch, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*given: Any, **more: Any) -> Any:
        raise RuntimeError("no such operator\nand a stack")

    monkeypatch.setattr("pynas.export.export", broken)
    with pytest.raises(Refused, match="cannot be exported as script: no such operator"):
        export(SPACE, whole.trials[0], "script", training=whole.training)


@pytest.mark.parametrize("kind", ["spos", "proxylessnas"])
def test_chains_hand_over_their_weights(kind: str) -> None:
    import random

    torch.manual_seed(0)
    model: Any
    if kind == "spos":
        space: Any = SPOSShuffleNet()
        model = SPOSSupernet(space, 5, affine=False)
    else:
        from pynas.spaces import ProxylessNAS

        space = ProxylessNAS()
        model = ProxylessNASSupernet(space, 5)
    arch = space.sample(random.Random(2))
    x = torch.rand(2, 3, 32, 32)
    plain = plain_network(space, model, arch, x)
    assert plain is not None
    with torch.no_grad():
        assert torch.allclose(plain(x), model.eval()(x, arch), atol=1e-4)


def test_images_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UserError, match="at least one held out and a batch"):
        begin(SPACE, Setup(limit=20))
    with pytest.raises(UserError, match="held_out"):
        begin(SPACE, Setup(held_out=1.0))
    with pytest.raises(UserError, match="no supernet of"):
        begin(spaces.get("nats_size"), SETUP)
    assert build(SPACE, 3).space is SPACE
