"""Random crops: each image of a batch is one of the crops that the formula allows, and all of them come."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pynas import data
from pynas._errors import UserError
from pynas.analysis.standalone import ground_truth
from pynas.analysis.tasks import ImageTask
from pynas.data import CropAndFlip
from pynas.spaces import NASBench201
from pynas.supernet import SinglePath, Trainer, TrainingOptions, UniformSampler, build


def crops(image: Tensor, padding: int, flip: bool) -> dict[tuple[int, int, bool], Tensor]:
    """Every crop of one image ``[C, H, W]``, pixel by pixel."""
    _, height, width = image.shape
    found = {}
    for down in range(2 * padding + 1):
        for right in range(2 * padding + 1):
            crop = torch.zeros_like(image)
            for i in range(height):
                for j in range(width):
                    row, column = i + down - padding, j + right - padding
                    if 0 <= row < height and 0 <= column < width:
                        crop[:, i, j] = image[:, row, column]
            found[down, right, False] = crop
            if flip:
                found[down, right, True] = crop.flip(2)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(("shape", "padding"), [((3, 5, 7), 1), ((1, 4, 3), 2), ((2, 3, 3), 0)])
def test_every_crop_comes_equally_often(shape: tuple[int, int, int], padding: int, flip: bool) -> None:
    image = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    allowed = crops(image, padding, flip)
    torch.manual_seed(1)
    count = 200 * len(allowed)
    out = CropAndFlip(padding, flip)(image.expand(count, *shape))
    assert out.shape == (count, *shape)
    assert out.is_contiguous(memory_format=torch.channels_last)
    seen: Counter[tuple[int, int, bool]] = Counter()
    for one in out:
        (which,) = [key for key, crop in allowed.items() if torch.equal(crop, one)]
        seen[which] += 1
    assert set(seen) == set(allowed)
    # 200 expected of each: a standard deviation is below 14.2.
    assert all(abs(times - 200) < 75 for times in seen.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_images_of_a_batch_do_not_mix(dtype: torch.dtype) -> None:
    images = torch.arange(1, 6, dtype=dtype)[:, None, None, None].expand(5, 2, 6, 6)
    torch.manual_seed(0)
    out = CropAndFlip(3)(images)
    assert out.dtype == dtype
    for number, image in enumerate(out, start=1):
        assert set(image.unique().tolist()) <= {0, number}


def test_an_empty_batch_stays_empty() -> None:
    assert CropAndFlip(1)(torch.empty(0, 3, 4, 4)).shape == (0, 3, 4, 4)


def test_the_global_seed_decides() -> None:
    images = torch.randn(16, 3, 8, 8)
    outs = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        outs.append(CropAndFlip(2)(images))
    assert torch.equal(outs[0], outs[1])
    assert not torch.equal(outs[0], outs[2])


@pytest.mark.parametrize("padding", [-1, 1.5, True])
def test_bad_padding(padding: object) -> None:
    with pytest.raises(UserError, match="padding: expected a number of pixels of at least 0, got"):
        CropAndFlip(padding)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(2, 3, 4, 9), (3, 8, 8)])
def test_bad_images(shape: tuple[int, ...]) -> None:
    with pytest.raises(
        UserError, match=r"images: expected \[N, C, H, W\] with H and W larger than padding=4"
    ):
        CropAndFlip(4)(torch.zeros(shape))


# ---- in trainings ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_training_goes_on_only_with_its_own_transform(tmp_path: Path) -> None:
    space = NASBench201(channels=2, num_cells=1)
    images = data.load_images("digits", size=8, limit=32)

    def trainer(transform: CropAndFlip | None, steps: int) -> Trainer:
        torch.manual_seed(0)
        method, options = SinglePath(UniformSampler(space)), TrainingOptions(steps=steps, batch_size=8)
        return Trainer(
            build(space, 10),
            images.inputs,
            images.targets,
            method,
            options,
            checkpoints=tmp_path,
            transform=transform,
        )

    trainer(CropAndFlip(2), 4).train()
    with pytest.raises(UserError, match="transform"):
        trainer(None, 4).train(resume=True)
    with pytest.raises(UserError, match=r"CropAndFlip\(padding=2, flip=True\)"):
        trainer(CropAndFlip(1), 4).train(resume=True)
    assert trainer(CropAndFlip(2), 4).train(resume=True).resumed_from == 4


@pytest.mark.slow
def test_training_alone_changes_with_the_transform_of_its_task(tmp_path: Path) -> None:
    space = NASBench201(channels=2, num_cells=1)
    images = data.load_images("digits", size=8, limit=64)
    parts = (images.inputs[:32], images.targets[:32], images.inputs[32:], images.targets[32:])
    arch = space.parse("|nor_conv_3x3~0|+|nor_conv_3x3~0|skip_connect~1|+|skip_connect~0|none~1|none~2|")
    options, shapes = TrainingOptions(steps=3, batch_size=8), []

    def watched(x: Tensor) -> Tensor:
        shapes.append(tuple(x.shape))
        return x

    plain = ImageTask(*parts, 10, "digits")
    moved, seen = (ImageTask(*parts, 10, "digits", how) for how in (CropAndFlip(2), watched))
    assert len({task.digest() for task in (plain, moved, seen)}) == 3
    cache = tmp_path / "alone.jsonl"
    values = [ground_truth(space, [arch], task, options, cache=cache).item() for task in (plain, moved, seen)]
    assert len(cache.read_text().splitlines()) == 3
    assert values[0] == values[2]
    assert shapes == [(8, 3, 8, 8)] * 3
