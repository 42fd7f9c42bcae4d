"""Recurrent cells on text: the task, training alone, whole studies."""

from __future__ import annotations

import math
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from pynas import Architecture, spaces
from pynas._errors import UserError
from pynas.analysis import LOG_LIKELIHOOD, analyze_sharing
from pynas.analysis.groups import GroupedWeights
from pynas.analysis.operations import costs, operation_counts, operations
from pynas.analysis.standalone import ground_truth, train_alone
from pynas.analysis.study import Sharing, Study
from pynas.analysis.tasks import ImageTask, TextTask
from pynas.supernet import TrainingOptions, build
from pynas.supernet.evaluation import SubnetScore, score_network

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.slow]

SPACE = spaces.DARTSRNN(
    nodes=3,
    features=8,
    dropout=0.1,
    dropout_embedding=0.0,
    dropout_input=0.0,
    dropout_hidden=0.0,
    dropout_word=0.0,
)
RNG = random.Random(0)
CELLS = tuple(SPACE.sample(RNG) for _ in range(4))
SETTINGS = TrainingOptions(
    steps=6, batch_size=8, learning_rate=2.0, final_learning_rate=0.1, weight_decay=0, clip=0.25
)


@pytest.fixture(scope="module")
def words() -> list[str]:
    """Five words that follow each other in a circle, most of the time, and rare ones."""
    rng = random.Random(3)
    found = ["a"]
    while len(found) < 900:
        after = "abcde"[("abcde".index(found[-1]) + 1) % 5] if found[-1] in "abcde" else "a"
        found.append(after if rng.random() < 0.9 else rng.choice("abcdexyz"))
    return found


@pytest.fixture(scope="module")
def task(words: list[str]) -> TextTask:
    return TextTask.split(words, 0.2, steps=7, vocabulary=7)


def test_windows_are_the_text_and_its_next_words(words: list[str], task: TextTask) -> None:
    count = 720 - 1
    assert task.inputs.shape == task.targets.shape == (count // 7, 7)
    assert task.validation_inputs.shape == (179 // 7, 7)
    kept = [word for word, _ in sorted(Counter(words[:720]).items(), key=lambda item: (-item[1], item[0]))]
    kept = [word for word in kept if word in kept[:6]]  # and <unk>
    spelled = [word if word in kept else "<unk>" for word in words]
    numbers = {int(n): word for n, word in zip(task.inputs.flatten(), spelled, strict=False)}
    assert [numbers[int(n)] for n in task.inputs.flatten()] == spelled[: task.inputs.numel()]
    assert [numbers[int(n)] for n in task.targets.flatten()] == spelled[1 : task.inputs.numel() + 1]
    assert numbers[int(task.validation_inputs[0, 0])] == spelled[720]
    assert task.num_classes == 7


def test_a_measure_is_the_mean_over_all_words(task: TextTask) -> None:
    torch.manual_seed(0)
    network = SPACE.build(CELLS[0], task.num_classes).double().eval()
    score = score_network(network, task.validation_inputs, task.validation_targets, batch_size=9)
    logits = network(task.validation_inputs)
    expected = -F.cross_entropy(logits, task.validation_targets).item()
    assert task.measure(score) == pytest.approx(expected)
    right = (logits.argmax(1) == task.validation_targets).double().mean()
    assert score.accuracy == pytest.approx(float(right))
    assert task.measure(SubnetScore(0.1, 0.2, math.nan)) == -math.inf
    assert task.show(-math.log(50)) == "-3.912 nats a word (perplexity 50)"


def test_training_alone_learns_what_follows(words: list[str], task: TextTask) -> None:
    long = TrainingOptions(
        steps=60, batch_size=32, learning_rate=2.0, final_learning_rate=0.1, weight_decay=0, clip=0.25
    )
    found = train_alone(SPACE, CELLS[0], task, long)
    counts = np.bincount(task.targets.flatten(), minlength=7) + 1.0
    unigram = float(np.log(counts / counts.sum())[task.validation_targets.flatten()].mean())
    assert found > unigram + 0.5  # nats
    torch.manual_seed(99)
    assert train_alone(SPACE, CELLS[0], task, long) == found


def test_a_study_of_text(task: TextTask, tmp_path: Path) -> None:
    study = Study(SPACE, CELLS, task, SETTINGS, tmp_path, seeds=2, checkpoints=2, checkpoint_every=3)
    found = {s.name: study.estimates(s)["recalibrated"] for s in (Sharing(0), Sharing(2))}
    assert all(values.shape == (2, 2, 4) for values in found.values())
    assert all((values < 0).all() for values in found.values())
    truth = ground_truth(SPACE, CELLS, task, SETTINGS, cache=tmp_path / "alone.jsonl")
    assert np.array_equal(truth, ground_truth(SPACE, CELLS, task, SETTINGS, cache=tmp_path / "alone.jsonl"))
    analysis = analyze_sharing(found, truth, quality=LOG_LIKELIHOOD)
    assert analysis.to_dict()["quality"]["unit"] == "nats a word"
    again = study.estimates(Sharing(0))["recalibrated"]
    assert np.array_equal(again, found["whole space"])


def test_operations_and_costs_of_recurrent_cells() -> None:
    chain = SPACE.parse("tanh~0|relu~1|relu~2")
    flat = SPACE.parse("sigmoid~0|identity~0|relu~0")
    assert operations(SPACE, chain) == {"tanh": 1, "relu": 2}
    counts = operation_counts(SPACE, [chain, flat])
    assert {name: values.tolist() for name, values in counts.items()} == {
        "relu": [2, 1],
        "tanh": [1, 0],
        "sigmoid": [0, 1],
        "identity": [0, 1],
    }
    found = costs(SPACE, [chain, flat], SPACE.params)
    assert {name: values.tolist() for name, values in found.items()} == {"depth": [3, 1]}
    images = spaces.NASBench201(channels=4)
    cells = [images.sample(RNG) for _ in range(5)]
    assert costs(images, cells, images.params)["params"].tolist() == [images.params(a) for a in cells]


def test_what_words_do_not_have(words: list[str], task: TextTask, tmp_path: Path) -> None:
    weights = build(SPACE, 7)
    with pytest.raises(
        UserError, match=r"prefix: expected a number of segments in 0\.\.0, got 1; darts_rnn has a single"
    ):
        GroupedWeights(weights, {CELLS[0]: 0}, prefix=1)
    with pytest.raises(UserError, match="reset_classifier: the decoder shares the embedding's weights"):
        weights.reset_classifier(3)
    with pytest.raises(UserError, match="nasbench201 reads images, not words"):
        task.check(spaces.NASBench201())
    images = ImageTask(torch.zeros(4, 3, 8, 8), torch.zeros(4), *task_images(), 2, "none")
    with pytest.raises(UserError, match="darts_rnn reads words, not images"):
        train_alone(SPACE, CELLS[0], images, SETTINGS)
    with pytest.raises(UserError, match="darts_rnn reads words, not images"):
        Study(SPACE, CELLS, images, SETTINGS, tmp_path).estimates(Sharing())
    with pytest.raises(UserError, match="steps: expected windows of at least one word"):
        TextTask.split(words[:20], 0.2, steps=7)
    with pytest.raises(UserError, match="inputs: expected words"):
        weights(torch.zeros(2, 3), CELLS[0])
    with pytest.raises(UserError, match="arch"):
        weights(task.inputs, Architecture("darts_rnn", (9,) * 6))


def task_images() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.zeros(2, 3, 8, 8), torch.zeros(2)
