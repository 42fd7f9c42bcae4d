from __future__ import annotations

import copy
import math
import random
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import pynas
from pynas import Architecture, spaces
from pynas.supernet import SharedWeights, build
from pynas.supernet.evaluation import SubnetEvaluator
from pynas.supernet.order import OrderReference
from pynas.supernet.shifting import Shifting, ShiftingEvolution, ShiftingOptions, transfer

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.slow]
SPACE = spaces.NASBench201(channels=4, num_cells=1)


def task(count: int = 24, classes: int = 3) -> tuple[Tensor, Tensor]:
    """Classes that differ by their mean."""
    y = torch.arange(count) % classes
    x = torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(count))
    return x + y.view(-1, 1, 1, 1), y


def supernet(classes: int = 3) -> SharedWeights:
    torch.manual_seed(0)
    return build(SPACE, classes)


def search(model: SharedWeights, folder: Path | None = None, **options: object) -> Shifting:
    x, y = task(15)
    settings = {"generations": 2, "steps": 2, "batch_size": 8, "learning_rate": 0.05} | options
    recalibrate = settings["variant"] == "paper"
    evaluate = SubnetEvaluator(model, x, y, calibration=[task(12)[0]] if recalibrate else None)
    strategy = ShiftingEvolution(SPACE, seed=3, population_size=4, top=2, mutations=2, crossovers=1)
    chosen = ShiftingOptions(**settings)  # type: ignore[arg-type]
    return Shifting(model, *task(), evaluate, chosen, strategy=strategy, seed=3, checkpoints=folder)


def state(model: SharedWeights) -> dict[str, Tensor]:
    return {name: t.clone() for name, t in model.state_dict().items()}


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(t, other[name]) for name, t in one.items())


class Killed(Exception):  # noqa: N818
    pass


@pytest.mark.parametrize("variant", ["code", "paper"])
def test_a_killed_search_goes_on_to_the_same_bits(variant: str, tmp_path: Path) -> None:
    whole = supernet()
    expected = search(whole, variant=variant).run()
    assert len(expected.candidates) == 3 * 4

    model = supernet()
    killed = search(model, tmp_path / "run", variant=variant)
    backward = killed._backward

    def die(arch: Architecture, generation: int, place: int, step: int) -> float:
        if (generation, place, step) == (2, 1, 1):  # one candidate has trained already
            raise Killed
        return backward(arch, generation, place, step)

    killed._backward = die  # type: ignore[method-assign]
    with pytest.raises(Killed):
        killed.run()
    fresh = build(SPACE, 3)
    found = search(fresh, tmp_path / "run", variant=variant).run(resume=True)
    assert found.resumed_from == 2
    assert found.candidates == expected.candidates
    assert equal(state(fresh), state(whole))

    # The last checkpoint is damaged: the one before serves.
    last = max((tmp_path / "run").glob("step-*"))
    raw = bytearray(last.read_bytes())
    raw[-5] ^= 1
    last.write_bytes(bytes(raw))
    fresh = build(SPACE, 3)
    again = search(fresh, tmp_path / "run", variant=variant).run(resume=True)
    assert (again.resumed_from, len(again.damaged)) == (2, 1)
    assert equal(state(fresh), state(whole))
    with pytest.raises(pynas.UserError, match="already holds a search"):
        search(fresh, tmp_path / "run", variant=variant).run()
    with pytest.raises(pynas.UserError, match="holds a search with another steps: 2, here 3"):
        search(fresh, tmp_path / "run", variant=variant, steps=3).run(resume=True)


def test_paper_is_one_step_along_the_mean_gradient() -> None:
    model = supernet()
    plain = copy.deepcopy(model).train()
    shifting = search(
        model, variant="paper", generations=0, steps=1, momentum=0.0, weight_decay=0.0, batch_size=24
    )
    found = shifting.run()
    x, y = task()
    losses = []
    for candidate in found.candidates:
        loss = F.cross_entropy(plain(x, candidate.architecture), y, label_smoothing=0.1)
        (loss / 4).backward()
        losses.append(float(loss.detach()))
    assert [c.loss for c in found.candidates] == pytest.approx(losses, rel=1e-4)
    for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        moved = theirs.detach() if theirs.grad is None else theirs.detach() - 0.05 * theirs.grad
        torch.testing.assert_close(ours.detach(), moved, rtol=1e-4, atol=1e-5)


def test_code_steps_for_each_candidate() -> None:
    model = supernet()
    plain = copy.deepcopy(model).train()
    found = search(
        model, variant="code", generations=0, steps=2, momentum=0.0, weight_decay=0.0, batch_size=24
    ).run()
    x, y = task()
    for candidate in found.candidates:
        plain.train()
        for _ in range(2):
            plain.zero_grad()
            F.cross_entropy(plain(x, candidate.architecture), y, label_smoothing=0.1).backward()
            with torch.no_grad():
                for parameter in plain.parameters():
                    if parameter.grad is not None:
                        parameter -= 0.05 * parameter.grad
    for ours, theirs in zip(model.state_dict().values(), plain.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_candidates_come_again_and_are_judged_anew() -> None:
    strategy = ShiftingEvolution(SPACE, seed=0, population_size=4, top=2, mutations=2, crossovers=2)
    seen = []
    for number in range(80):
        if number % 4 == 0:
            asked = [strategy.ask() for _ in range(4)]
            assert len({a.decisions for a in asked}) == 4
        arch = asked[number % 4]
        seen.append(arch.decisions)
        score = -sum(arch.decisions) - number / 1000
        strategy.tell(pynas.Trial(number, arch, pynas.Evaluation(pynas.trial.Status.OK, {"accuracy": score})))
        parents = [a.decisions for a, _ in strategy._parents]
        assert len(set(parents)) == len(parents)
    assert len(set(seen)) < len(seen)


@pytest.mark.parametrize("variant", ["code", "paper"])
def test_a_loss_that_is_not_finite_fails_its_candidate_alone(variant: str) -> None:
    model = supernet()
    with torch.no_grad():  # the 3x3 convolution of the edge into the first node
        for name, parameter in model.named_parameters():
            if "edges.1<-0.3." in name:
                parameter.fill_(math.nan)
    found = search(model, variant=variant).run()
    convolution = SPACE.num_choices[0] - 2
    failed = {c.architecture for c in found.candidates if math.isnan(c.accuracy)}
    assert failed
    assert len(failed) < len({c.architecture for c in found.candidates})
    assert all(arch.decisions[0] == convolution for arch in failed)
    assert math.isfinite(found.best.accuracy)
    others = [p for name, p in model.named_parameters() if "edges.1<-0.3." not in name]
    assert all(bool(p.isfinite().all()) for p in others)


def test_transfer_learns_new_classes() -> None:
    model = supernet(3)
    before = state(model)
    transfer(model, 2, seed=1)
    kept = state(model)
    assert all(torch.equal(t, before[n]) for n, t in kept.items() if t.shape == before[n].shape)
    x, y = task(24, 2)
    strategy = ShiftingEvolution(SPACE, population_size=4, top=2, mutations=2, crossovers=2)
    options = ShiftingOptions(
        generations=2, steps=5, batch_size=12, learning_rate=0.01, classifier_learning_rate=0.3
    )
    evaluate = SubnetEvaluator(model, *task(30, 2), calibration=[x])
    found = Shifting(model, x, y, evaluate, options, strategy=strategy).run()
    assert found.best.accuracy > 0.8


def test_order_of_known_architectures() -> None:
    model = supernet()
    with torch.no_grad():
        model.classifier().weight.mul_(30)  # so that predictions differ
    evaluate = SubnetEvaluator(model, *task(60), calibration=[task()[0]])
    rng = random.Random(0)
    archs = list({SPACE.sample(rng): None for _ in range(30)})
    known = {a: s.accuracy for a, s in zip(archs, evaluate(archs), strict=True)}
    reference = OrderReference.draw(known, 12, top=0.5)
    assert len(reference.random) == len(reference.top) == 12
    assert min(a for _, a in reference.top) >= sorted(known.values())[len(known) // 2 - 1]
    found = reference.measure(evaluate)
    assert found.overall == found.top == 1.0
    turned = OrderReference(tuple((a, -v) for a, v in reference.random), reference.top)
    assert turned.measure(evaluate).overall == -1.0
    with pytest.raises(pynas.UserError, match="count"):
        OrderReference.draw(known, 1)


def test_refusals() -> None:
    model = supernet()
    x, y = task()
    with pytest.raises(pynas.UserError, match="evaluate"):
        Shifting(model, x, y, SubnetEvaluator(supernet(), x, y))
    with pytest.raises(pynas.UserError, match="batch_size=150"):
        Shifting(model, x, y, SubnetEvaluator(model, x, y))
    with pytest.raises(pynas.UserError, match="variant"):
        ShiftingOptions(variant="both")  # type: ignore[arg-type]
    with pytest.raises(pynas.UserError, match="folder"):
        search(model, variant="code").run(resume=True)
