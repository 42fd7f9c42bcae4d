"""Recurrent cells with shared weights against the language models that the space builds."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

import pynas
from pynas import spaces
from pynas.supernet import SinglePath, SubnetEvaluator, Trainer, TrainingOptions, UniformSampler, build
from pynas.supernet.recurrent import RecurrentSupernet, start_language_model

pytestmark = pytest.mark.usefixtures("one_thread")

SPACE = spaces.DARTSRNN(nodes=5, features=9)
WORDS = 11


def tokens(*shape: int) -> torch.Tensor:
    return torch.randint(WORDS, shape, generator=torch.Generator().manual_seed(1))


def supernet() -> RecurrentSupernet:
    torch.manual_seed(0)
    model = build(SPACE, WORDS)
    assert isinstance(model, RecurrentSupernet)
    return model


@pytest.mark.slow
def test_a_cell_is_the_model_of_the_space() -> None:
    model = supernet().double()
    rng = random.Random(0)
    for _ in range(10):
        arch = SPACE.sample(rng)
        alone = SPACE.build(arch, WORDS).double()
        alone.load_state_dict(model.network.state_dict())
        for training in (False, True):
            gradients = []
            for network, arguments in ((model, (arch,)), (alone, ())):
                torch.manual_seed(5)  # of dropout
                logits = network.train(training)(tokens(3, 4), *arguments)
                loss = F.cross_entropy(logits, tokens(4, 4)[1:])
                gradients.append([loss, *torch.autograd.grad(loss, list(network.parameters()))])
            for found, expected in zip(*gradients, strict=True):
                torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


def test_selecting_is_naming_and_running_leaves_no_trace() -> None:
    model = supernet().eval()
    one, other = SPACE.parse("relu~0|relu~1|tanh~2|relu~3|relu~4"), SPACE.sample(random.Random(4))
    first = model(tokens(2, 6), one)
    assert first.shape == (2, WORDS, 6)
    assert not torch.equal(model(tokens(2, 6), other), first)
    model.select(one)
    assert torch.equal(model(tokens(2, 6)), first)
    assert len(model.segments(one)) == 1
    assert model.segments(one)[0].key == model.segments(one)[0].key != model.segments(other)[0].key


@pytest.mark.slow
def test_training_goes_on_to_the_same_bits_and_is_judged(tmp_path: Path) -> None:
    text = (torch.arange(33 * 6) * 3 % WORDS).view(33, 6)
    inputs, targets = text, (text + 3) % WORDS
    options = TrainingOptions(steps=20, batch_size=8, learning_rate=2.0, weight_decay=0.0, clip=0.25)

    def train(folder: Path | None, steps_done: int = 20) -> RecurrentSupernet:
        model = supernet()
        torch.manual_seed(1)
        start_language_model(model, inputs)

        def stop(step: object) -> None:
            if step.number + 1 == steps_done < 20:  # type: ignore[attr-defined]
                raise KeyboardInterrupt

        trainer = Trainer(
            model,
            inputs,
            targets,
            SinglePath(UniformSampler(SPACE)),
            options,
            checkpoints=folder,
            checkpoint_every=5,
            on_step=stop,
        )
        trainer.train(resume=folder is not None)
        return model

    whole = train(None)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, 10)
    again = train(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters(), strict=True))
    arch = SPACE.sample(random.Random(2))
    evaluate = SubnetEvaluator(whole, inputs, targets, calibration=[inputs], batch_size=7)
    (score,) = evaluate([arch])
    assert evaluate.segments_run == 5  # batches; there are no statistics to recalibrate
    logits = whole.eval()(inputs, arch).detach().double()
    assert score.loss == pytest.approx(F.cross_entropy(logits, targets).item())
    assert score.accuracy == pytest.approx(float((logits.argmax(1) == targets).double().mean()))
    five = (logits.topk(5, 1).indices == targets[:, None]).any(1).double().mean()
    assert score.top5 == pytest.approx(float(five))


def test_frequencies_are_where_training_starts() -> None:
    model = supernet()
    start_language_model(model, torch.tensor([[0, 0, 0], [1, 0, 2]]))
    bias = model.classifier().bias
    assert bias.exp().sum().item() == pytest.approx(1)
    assert bias[:4].exp().tolist() == pytest.approx([n / (6 + WORDS) for n in (5, 2, 2, 1)])
    assert model.classifier().weight is model.network.model.encoder.weight


def test_refusals() -> None:
    with pytest.raises(pynas.UserError, match="space: expected darts_rnn"):
        RecurrentSupernet(spaces.NASBench201())  # type: ignore[arg-type]
    with pytest.raises(pynas.UserError, match="network: expected one with a language model, got Linear"):
        start_language_model(torch.nn.Linear(2, 2), tokens(3))
    with pytest.raises(pynas.UserError, match="another vocabulary"):
        supernet().reset_classifier(3)
