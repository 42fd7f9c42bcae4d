"""Images of one's own: folders, datasets, loaders; one set of options, and no silent digits."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import pynas
from pynas import data
from pynas._errors import UserError, UserNotice
from pynas.testing.strategies import ToySpace

Run = Callable[..., tuple[int, str, str]]
RNG = np.random.default_rng(0)


def write(place: Path, mode: str = "RGB", size: tuple[int, int] = (8, 6), value: Any = None) -> np.ndarray:
    """An image of Pillow's, and its pixels."""
    from PIL import Image

    place.parent.mkdir(parents=True, exist_ok=True)
    channels = {"RGB": (3,), "RGBA": (4,), "L": (), "LA": (2,)}.get(mode, ())
    kind, top = (np.uint16, 65536) if mode == "I;16" else (np.uint8, 256)
    pixels = RNG.integers(0, top, (size[1], size[0], *channels)).astype(kind) if value is None else value
    (Image.fromarray(pixels) if mode != "P" else Image.fromarray(pixels).convert("P")).save(place)
    return np.asarray(pixels)


def test_folders_of_all_modes_become_rgb(tmp_path: Path) -> None:
    colour = write(tmp_path / "a" / "1.png")
    alpha = write(tmp_path / "a" / "2.png", "RGBA")
    grey = write(tmp_path / "b" / "1.png", "L")
    both = write(tmp_path / "b" / "2.png", "LA")
    found = data.load_images(f"folder:{tmp_path}")
    expected = [colour, alpha[..., :3], *(np.repeat(g[..., None], 3, -1) for g in (grey, both[..., 0]))]
    assert found.pixels.dtype == torch.uint8
    assert np.array_equal(found.pixels.permute(0, 2, 3, 1).numpy(), np.stack(expected))


@pytest.mark.parametrize("first", [True, False])
def test_sixteen_bits_keep_their_values_beside_eight(tmp_path: Path, first: bool) -> None:
    deep = write(tmp_path / "a" / ("1.png" if first else "2.png"), "I;16")
    colour = write(tmp_path / "a" / ("2.png" if first else "1.png"))
    write(tmp_path / "b" / "1.png", "L")
    found = data.load_images(f"folder:{tmp_path}").pixels
    rows = [np.repeat(deep[..., None] / 65535, 3, -1), colour / 255]
    expected = np.stack(rows if first else rows[::-1]).astype(np.float32)
    assert found.dtype == torch.float32
    assert np.allclose(found[:2].permute(0, 2, 3, 1).numpy(), expected, atol=1e-6)


def test_values_without_a_scale_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "a" / "deep.tif", value=np.ones((4, 4), np.float32) * 7)
    with pytest.raises(UserError, match=r"deep\.tif: .*from 7 to 7 \(mode F\), whose scale is not known"):
        data.load_images(f"folder:{tmp_path}")


def test_mixed_sizes_need_one(tmp_path: Path) -> None:
    write(tmp_path / "a" / "1.png", size=(8, 6))
    write(tmp_path / "b" / "1.png", size=(5, 9))
    with pytest.raises(UserError, match=r"is 9x5 but .*1\.png is 6x8; set a size .*\(size=, --image-size\)"):
        data.load_images(f"folder:{tmp_path}")
    assert data.load_images(f"folder:{tmp_path}", size=7).inputs.shape == (2, 3, 7, 7)


def test_subfolders_for_training(tmp_path: Path) -> None:
    for part, count in (("train", 2), ("val", 1)):
        for name in ("cat", "dog", "fish"):
            for i in range(count):
                write(tmp_path / part / name / f"{i}.png")
    found = data.load_images(f"folder:{tmp_path}")
    assert (len(found), found.num_classes, found.name) == (6, 3, "train")
    (tmp_path / "other").mkdir()
    with pytest.raises(
        UserError, match=r"other: a class without images|train: a class without images .*folders"
    ):
        data.load_images(f"folder:{tmp_path}")


def test_classes_called_like_parts_stay_classes(tmp_path: Path) -> None:
    for name in ("train", "test"):  # photos of trains and of tests
        write(tmp_path / name / "1.png")
    assert data.load_images(f"folder:{tmp_path}").num_classes == 2


def test_one_class_is_said(tmp_path: Path) -> None:
    write(tmp_path / "only" / "1.png")
    write(tmp_path / "only" / "2.png")
    with pytest.warns(UserNotice, match="all 2 images are of one class"):
        data.load_images(f"folder:{tmp_path}")
    assert data.load_images(f"folder:{tmp_path}", classes=4).num_classes == 4
    with pytest.raises(UserError, match="classes: digits has the label 9, so at least 10 classes"):
        data.load_images("digits", classes=9)


class Photos(Dataset):  # type: ignore[type-arg]
    """Counts what is read of it."""

    def __init__(self, item: Callable[[int], Any], count: int = 40) -> None:
        self.item, self.count, self.read = item, count, 0

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> Any:
        self.read += 1
        return self.item(i)


def tensor(i: int, channels: int = 3) -> Tensor:
    return torch.randn(channels, 5, 7, generator=torch.Generator().manual_seed(i))


@pytest.mark.parametrize(
    "item",
    [
        lambda i: (tensor(i), i % 3),
        lambda i: [tensor(i), torch.tensor(i % 3), "more"],
        lambda i: {"pixel_values": tensor(i), "labels": np.int64(i % 3)},
    ],
)
def test_tensors_come_as_they_are(item: Callable[[int], Any]) -> None:
    found = data.load_images(Photos(item))
    assert torch.equal(found.inputs, torch.stack([tensor(i) for i in range(40)]))
    assert found.targets.tolist() == [i % 3 for i in range(40)]
    assert found.num_classes == 3


def test_pixels_are_normalised_like_any_others() -> None:
    pixels = RNG.integers(0, 256, (40, 6, 5, 3), dtype=np.uint8)
    labels = np.arange(40) % 4
    wanted = data.load_images(Photos(lambda i: (pixels[i], labels[i]))).inputs
    scaled = pixels / 255
    mean, std = scaled.mean((0, 1, 2)), scaled.std((0, 1, 2))
    assert np.allclose(wanted.permute(0, 2, 3, 1).numpy(), (scaled - mean) / std, atol=1e-5)
    planes = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    from PIL import Image

    for other in (
        Photos(lambda i: (planes[i], int(labels[i]))),
        Photos(lambda i: (Image.fromarray(pixels[i]), int(labels[i]))),
        TensorDataset(planes, torch.from_numpy(labels)),
        DataLoader(TensorDataset(planes, torch.from_numpy(labels)), batch_size=7),
        (pixels, labels),
        (planes, torch.from_numpy(labels)),
    ):
        assert torch.allclose(data.load_images(other).inputs, wanted, atol=1e-5)


def test_only_what_is_drawn_is_read() -> None:
    many = Photos(lambda i: (tensor(i), i % 3), count=10**6)
    found = data.load_images(many, limit=11, seed=2)
    assert (len(found), many.read) == (11, 11)
    drawn = data.draw(Photos(lambda i: (tensor(i), i % 3), count=10**6), batch=8)
    assert drawn.inputs.shape == (8, 3, 5, 7)

    class Endless(IterableDataset):  # type: ignore[type-arg]
        def __iter__(self) -> Iterator[Any]:
            i = 0
            while True:
                yield tensor(i), i % 3
                i += 1

    assert len(data.load_images(Endless(), limit=9)) == 9
    shuffled = DataLoader(
        TensorDataset(torch.stack([tensor(i) for i in range(30)]), torch.arange(30)), 4, True
    )
    first, again, other = (data.load_images(shuffled, limit=10, seed=s).targets.tolist() for s in (0, 0, 1))
    assert first == again != other
    assert len(set(first)) == 10


def test_any_number_of_channels() -> None:
    found = data.draw(Photos(lambda i: (tensor(i, 5), i % 2)), size=8, batch=6)
    assert found.inputs.shape == (6, 5, 8, 8)
    space = pynas.spaces.get("nasbench201", channels=4, num_cells=1)
    result = pynas.search(
        space,
        "random",
        ["snip"],
        budget=2,
        images=Photos(lambda i: (tensor(i, 5), i % 2)),
        image_size=8,
        batch=6,
    )
    assert result.best is not None
    assert result.run.config.config["in_channels"] == 5
    assert result.best.evaluation.metrics["params"] == space.params(result.best.architecture, 2, 5)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (3, "Dataset or DataLoader of .*, got int"),
        (Photos(lambda i: tensor(i)), "Photos: expected items .image, label., got Tensor"),
        (Photos(lambda i: {"picture": 1}), "Photos: expected items with an image .* got the names picture"),
        (
            Photos(lambda i: (tensor(i), 0.5)),
            "Photos, image 0: expected a whole number as its label, got float 0.5",
        ),
        (Photos(lambda i: (tensor(i), "cat")), "expected a whole number as its label, got str 'cat'"),
        (Photos(lambda i: (tensor(i)[0, 0], 1)), r"expected a tensor \[C, H, W\], got \[7\]"),
        (Photos(lambda i: ("a.png", 1)), "expected a tensor, an array or an image of Pillow, got str"),
        (
            Photos(lambda i: (tensor(i)[:, : 1 + i % 2], 1)),
            r"image 1: has the shape \[3, 2, 7\].*--image-size",
        ),
        (Photos(lambda i: (tensor(i), -1)), "labels must be in 0..C-1, got -1"),
        (Photos(lambda i: (tensor(i) / 0, 1)), "NaN or infinite pixel"),
        (Photos(lambda i: [][i]), "item 0 raised IndexError: list index out of range"),
        (Photos(lambda i: (tensor(i), 0), count=0), "no images"),
        ((torch.zeros(3, 3, 4, 4), torch.zeros(2)), "as many labels as images, got 3 and 2"),
    ],
)
def test_what_is_no_set_of_images(given: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        data.load_images(given)


# ---- one set of options ----------------------------------------------------------------------------------


def small(width: int, in_channels: int = 3, num_classes: int = 10) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(in_channels, width, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, num_classes),
    )


SMALL = pynas.spaces.custom(small, {"width": [4, 8, 12]}, image_size=8)


def test_python_scores_and_searches_images(tmp_path: Path) -> None:
    pixels = RNG.integers(0, 256, (20, 9, 9, 3), dtype=np.uint8)
    np.savez(tmp_path / "mine.npz", images=pixels, labels=np.arange(20) % 4)
    spec = f"npz:{tmp_path}/mine.npz"
    model = small(4, num_classes=6)
    by_name = pynas.score(model, images=spec, image_size=8, batch=6, classes=6, proxies=["snip"], seed=3)
    inputs, targets = data.batch(data.load_images(spec, size=8), 6, seed=3)
    assert (
        by_name["snip"].value == pynas.score(model, inputs, targets, proxies=["snip"], seed=3)["snip"].value
    )
    with pytest.raises(UserError, match="images: inputs and targets are given already"):
        pynas.score(model, inputs, images=spec)
    with pytest.raises(UserError, match="inputs: expected a batch, with its targets, or images="):
        pynas.score(model)
    result = pynas.search(
        SMALL, "exhaustive", ["snip"], budget=3, images=spec, num_classes=6, store=tmp_path / "r.db"
    )
    facts = result.run.config.config
    assert (facts["images"], facts["batch"], facts["num_classes"], facts["image_size"]) == (spec, 20, 6, 9)
    more: dict[str, Any] = {"store": tmp_path / "r.db", "resume": True, "budget": 3, "num_classes": 6}
    with pytest.raises(UserError, match=r"images: .digits. instead of .npz:"):
        pynas.search(SMALL, "exhaustive", ["snip"], batch=20, store=tmp_path / "r.db", resume=True)
    pixels[0] = 0
    np.savez(tmp_path / "mine.npz", images=pixels, labels=np.arange(20) % 4)
    with pytest.raises(UserError, match=r"evaluator\.data: .* instead of "):
        pynas.search(SMALL, "exhaustive", ["snip"], images=spec, **more)
    with pytest.raises(UserError, match="images, batch: the evaluator has data of its own"):
        pynas.search(ToySpace(), objectives=["x"], evaluator=lambda arch: 1.0, images=spec)


def test_a_batch_is_what_there_is() -> None:
    images = RNG.integers(0, 256, (21, 6, 6, 3), dtype=np.uint8), np.arange(21) % 3
    assert len(data.draw(images).targets) == 20
    assert len(data.draw(images, batch=21).targets) == 21
    assert len(data.draw((images[0][:1], images[1][1:2])).targets) == 1
    assert len(data.draw("digits").targets) == data.DEFAULT_BATCH == 256
    with pytest.raises(UserError, match="batch: images has 21 images, fewer than 22; leave it out"):
        data.draw(images, batch=22)


MINE = """
    import torch
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset
    import pynas

    pixels = (torch.arange(40 * 3 * 9 * 9) * 7919 % 256).to(torch.uint8).view(40, 3, 9, 9)
    photos = TensorDataset(pixels, torch.arange(40) % 4)
    loader = DataLoader(photos, batch_size=8)

    def make():
        return photos

    def network(width=4, in_channels=3, num_classes=4):
        head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes)]
        return nn.Sequential(nn.Conv2d(in_channels, width, 3), nn.ReLU(), *head)

    space = pynas.spaces.custom(network, {"width": [4, 8, 12]}, image_size=8)
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "my_photos.py").write_text(textwrap.dedent(MINE))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    sys.modules.pop("my_photos", None)


@pytest.mark.parametrize("name", ["photos", "loader", "make"])
def test_commands_take_images_by_name(mine: None, run_pynas: Run, one_thread: None, name: str) -> None:
    shared = ("--images", f"my_photos:{name}", "--image-size", 8, "--classes", 5)
    code, out, err = run_pynas("score", "--model", "my_photos:network", "--proxies", "synflow", *shared[:4])
    assert code == 0, err
    assert f"my_photos:{name}, 40 images" in out
    assert err == ""
    code, out, err = run_pynas(
        *("search", "--space", "my_photos:space", "--objective", "snip", "--budget", 3), *shared, "--json"
    )
    assert code == 0, err
    assert '"params": 137.0' in out  # (27 + 1) * 4 + (4 + 1) * 5, the narrowest
    assert err == ""


def test_the_digits_are_never_used_without_a_word(mine: None, run_pynas: Run, one_thread: None) -> None:
    commands = (
        ("score", "--model", "torch.nn:Identity", "--proxies", "params"),
        (
            "search",
            "--space",
            "my_photos:space",
            "--budget",
            1,
            "--batch",
            8,
            "--objective",
            "snip",
            "--json",
        ),
        ("search", "--space", "my_photos:space", "--budget", 1, "--batch", 8, "--objective", "params"),
    )
    for command in commands:
        _, out, err = run_pynas(*command)
        used = "params" not in command[-1:] or command[0] == "score"
        assert ("no --images: using the embedded digits" in err) == used, command
        assert "embedded digits" not in out
    _, _, err = run_pynas(*commands[1], "--images", "digits")
    assert err == ""
