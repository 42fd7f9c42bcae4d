"""Sources of images: tiny files in the official layouts, the real ones, and input that must be refused."""

from __future__ import annotations

import pickle
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from pynas import data
from pynas._errors import UserError
from pynas.data import cifar10
from pynas.data._base import channel_statistics

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (7, 32, 32, 3), dtype=np.uint8)
LABELS = np.array([3, 0, 9, 1, 1, 5, 2])


def normalised(pixels: np.ndarray, mean: Any, std: Any) -> torch.Tensor:
    """The reference, in float64: NHWC uint8 to NCHW."""
    scaled = (pixels / 255 - np.asarray(mean)) / np.asarray(std)
    return torch.from_numpy(scaled.transpose(0, 3, 1, 2)).float()


# ---- digits ------------------------------------------------------------------------------------------


def test_digits() -> None:
    images = data.load_images("digits")
    assert images.inputs.shape == (1797, 3, 32, 32)
    assert images.inputs.dtype == torch.float32
    assert images.targets.dtype == torch.int64
    assert images.num_classes == 10
    assert sorted(set(images.targets.tolist())) == list(range(10))
    assert images.name == "digits"
    assert images.description == "digits: 1,797 images of 32x32 in 10 classes"
    assert images.inputs.mean((0, 2, 3)).abs().max() < 1e-4
    assert (images.inputs.std((0, 2, 3)) - 1).abs().max() < 1e-4
    assert torch.equal(images.inputs[:, 0], images.inputs[:, 2])
    assert data.load_images("digits", size=8).inputs.shape == (1797, 3, 8, 8)


def test_digits_take_no_argument() -> None:
    with pytest.raises(UserError, match="takes no argument, got '8x8'"):
        data.load_images("digits:8x8")


# ---- npz ---------------------------------------------------------------------------------------------

Save = Callable[..., str]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    def write(**arrays: Any) -> str:
        np.savez(tmp_path / "images.npz", **arrays)
        return f"npz:{tmp_path / 'images.npz'}"

    return write


@pytest.mark.parametrize("keys", [("images", "labels"), ("train_images", "train_labels")])
def test_npz(save: Save, keys: tuple[str, str]) -> None:
    images = data.load_images(save(**dict(zip(keys, (PIXELS, LABELS), strict=True))))
    mean, std = PIXELS.mean((0, 1, 2)) / 255, PIXELS.std((0, 1, 2)) / 255
    torch.testing.assert_close(images.inputs, normalised(PIXELS, mean, std), rtol=1e-5, atol=1e-5)
    assert images.targets.tolist() == LABELS.tolist()
    assert (images.num_classes, images.name, len(images)) == (10, "images", 7)


def test_npz_class_names_say_how_many(save: Save) -> None:
    names = np.array([f"class {i}" for i in range(12)])
    assert data.load_images(save(images=PIXELS, labels=LABELS, class_names=names)).num_classes == 12
    with pytest.raises(UserError, match=r"labels must be in 0\.\.4, got 9 at position 2"):
        data.load_images(save(images=PIXELS, labels=LABELS, class_names=names[:5]))


@pytest.mark.parametrize("shape", [(5, 6, 4), (5, 6, 4, 1)])
def test_grey_images_become_three_channels(save: Save, shape: tuple[int, ...]) -> None:
    grey = RNG.random(shape)
    inputs = data.load_images(save(images=grey, labels=[0, 1, 2, 0, 1])).inputs
    assert inputs.shape == (5, 3, 6, 4)
    assert torch.equal(inputs[:, 0], inputs[:, 1])
    expected = torch.from_numpy((grey - grey.mean()) / grey.std()).float().view(5, 6, 4)
    torch.testing.assert_close(inputs[:, 0], expected, rtol=1e-5, atol=1e-5)


def test_floats_of_any_scale_are_normalised_alike(save: Save) -> None:
    small = data.load_images(save(images=PIXELS.astype(np.float32) / 255, labels=LABELS)).inputs
    large = data.load_images(save(images=PIXELS.astype(np.float64) * 10, labels=LABELS)).inputs
    torch.testing.assert_close(small, large, rtol=1e-4, atol=1e-4)


def test_a_constant_channel_becomes_zero(save: Save) -> None:
    pixels = PIXELS.copy()
    pixels[..., 1] = 77
    inputs = data.load_images(save(images=pixels, labels=LABELS)).inputs
    assert inputs.isfinite().all()
    assert inputs[:, 1].abs().max() < 1e-6


def test_resizing(save: Save) -> None:
    spec = save(images=PIXELS, labels=LABELS)
    assert data.load_images(spec, size=32).pixels.dtype == torch.uint8
    images = data.load_images(spec, size=16)
    assert images.inputs.shape == (7, 3, 16, 16)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(PIXELS).permute(0, 3, 1, 2) / 255, (16, 16), mode="bilinear", antialias=True
    )
    torch.testing.assert_close(images.pixels, expected)
    for size in (0, -4, 2.5, True):
        with pytest.raises(UserError, match="size: expected a positive integer"):
            data.load_images(spec, size=size)  # type: ignore[arg-type]


def test_limit_draws_a_seeded_subset(save: Save) -> None:
    spec = save(images=PIXELS, labels=np.arange(7))
    some = data.load_images(spec, limit=3, seed=1)
    assert len(some) == 3
    assert torch.equal(some.targets, data.load_images(spec, limit=3, seed=1).targets)
    picks = {tuple(data.load_images(spec, limit=3, seed=seed).targets.tolist()) for seed in range(20)}
    assert len(picks) > 5
    assert some.num_classes == 7
    assert len(data.load_images(spec, limit=100)) == 7
    with pytest.raises(UserError, match="limit: expected a positive integer, got 0"):
        data.load_images(spec, limit=0)


def test_statistics_over_several_chunks() -> None:
    pixels = torch.rand(2500, 2, 3, 4, generator=torch.Generator().manual_seed(0))
    mean, std = channel_statistics(pixels)
    flat = pixels.double().transpose(0, 1).flatten(1)
    torch.testing.assert_close(torch.tensor(mean, dtype=torch.float64), flat.mean(1))
    torch.testing.assert_close(torch.tensor(std, dtype=torch.float64), flat.std(1, correction=0))


BAD_PIXEL = PIXELS.astype(np.float32)
BAD_PIXEL[4, 2, 1, 0] = np.nan


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"images": PIXELS},
            "expected the keys images and labels or train_images and train_labels, got images",
        ),
        ({"images": PIXELS[:0], "labels": LABELS[:0]}, "no images (shape [0, 32, 32, 3])"),
        ({"images": PIXELS, "labels": LABELS[:5]}, "7 images but 5 labels"),
        ({"images": PIXELS, "labels": LABELS - 1}, "labels must be in 0..C-1, got -1 at position 1"),
        ({"images": PIXELS, "labels": LABELS * 10**9}, "labels must be in 0..1048575, got 9000000000"),
        ({"images": PIXELS, "labels": LABELS / 2}, "labels must be [N] integers, got float64 [7]"),
        ({"images": PIXELS, "labels": LABELS[:, None]}, "labels must be [N] integers, got int64 [7, 1]"),
        (
            {"images": PIXELS.astype(int), "labels": LABELS},
            "images must be uint8 or floating point, got int64",
        ),
        ({"images": BAD_PIXEL, "labels": LABELS}, "image 4 has a NaN or infinite pixel"),
        ({"images": np.full((7, 4, 4), np.inf), "labels": LABELS}, "image 0 has a NaN or infinite pixel"),
        ({"images": PIXELS.transpose(0, 3, 1, 2), "labels": LABELS}, "transpose(0, 2, 3, 1) makes them so"),
        (
            {"images": PIXELS[0, 0], "labels": LABELS},
            "images must be [N, H, W, 3] or, grey, [N, H, W], got [32, 3]",
        ),
        ({"images": PIXELS[..., :2], "labels": LABELS}, "got [7, 32, 32, 2]"),
        ({"images": np.array([{}]), "labels": LABELS}, "not a readable .npz archive"),
    ],
)
def test_npz_that_is_refused(save: Save, arrays: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        data.load_images(save(**arrays))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_files_that_are_no_archives(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="images npz: give a file"):
        data.load_images("npz:")
    with pytest.raises(UserError, match=r"absent\.npz: no such file"):
        data.load_images(f"npz:{tmp_path / 'absent.npz'}")
    np.save(tmp_path / "array.npy", PIXELS)
    with pytest.raises(UserError, match=r"not an \.npz archive"):
        data.load_images(f"npz:{tmp_path / 'array.npy'}")


def test_a_path_may_begin_at_home(save: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(images=PIXELS, labels=LABELS)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(data.load_images("npz:~/images.npz")) == 7


def test_unknown_source() -> None:
    with pytest.raises(
        UserError, match="unknown source of images 'digit'; known: cifar10, digits, folder, npz"
    ):
        data.load_images("digit")


# ---- batch -------------------------------------------------------------------------------------------


def test_batch(save: Save) -> None:
    images = data.load_images(save(images=PIXELS, labels=np.arange(7)))
    inputs, targets = data.batch(images, 4, seed=3)
    assert inputs.shape == (4, 3, 32, 32)
    assert len(set(targets.tolist())) == 4
    torch.testing.assert_close(inputs, images.inputs[targets])
    again = data.batch(images, 4, 3)
    assert torch.equal(again.inputs, inputs)
    assert len({tuple(data.batch(images, 4, seed).targets.tolist()) for seed in range(20)}) > 10
    assert sorted(data.batch(images, 7, 0).targets.tolist()) == list(range(7))


@pytest.mark.parametrize(
    ("n", "message"),
    [
        (8, "images has 7 images, fewer than 8"),
        (0, "expected a positive number of images, got 0"),
        (-2, "expected a positive number of images, got -2"),
        (2.0, "expected a positive number of images, got 2.0"),
        (True, "expected a positive number of images, got True"),
    ],
)
def test_batch_that_is_refused(save: Save, n: int, message: str) -> None:
    images = data.load_images(save(images=PIXELS, labels=LABELS))
    with pytest.raises(UserError) as error:
        data.batch(images, n, 0)
    assert message in str(error.value)


# ---- CIFAR-10 ----------------------------------------------------------------------------------------


class Python2Pickler(pickle._Pickler):  # type: ignore[name-defined,misc]
    """Writes as Python 2 wrote the official archive: protocol 2, strings of bytes, NumPy's old names."""

    dispatch: ClassVar[dict[type, Any]] = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def save_bytes(self, value: bytes) -> None:
        if len(value) < 256:
            self.write(b"U" + struct.pack("<B", len(value)) + value)
        else:
            self.write(b"T" + struct.pack("<i", len(value)) + value)
        self.memoize(value)

    dispatch[bytes] = save_bytes

    def save_global(self, obj: Any, name: str | None = None) -> None:
        if getattr(obj, "__name__", "") == "_reconstruct":
            self.write(b"cnumpy.core.multiarray\n_reconstruct\n")
            self.memoize(obj)
        else:
            super().save_global(obj, name)

    for kind in (type, type(len), type(struct.calcsize), type(np.array), type(lambda: 0)):
        dispatch[kind] = save_global


def flat(pixels: np.ndarray) -> np.ndarray:
    """NHWC to CIFAR's rows: red plane, green plane, blue plane."""
    return np.ascontiguousarray(
        pixels.transpose(0, 3, 1, 2).reshape(len(pixels), int(np.prod(pixels.shape[1:])))
    )


def write_python_batch(path: Path, pixels: np.ndarray, labels: Any, python2: bool = True) -> None:
    content = {
        "batch_label": "training batch",
        "labels": labels,
        "data": flat(pixels),
        "filenames": ["a.png"],
    }
    with path.open("wb") as file:
        if python2:
            Python2Pickler(file, 2).dump({key.encode(): value for key, value in content.items()})
        else:
            pickle.dump(content, file, protocol=2)


def write_binary_batch(path: Path, pixels: np.ndarray, labels: Any) -> None:
    path.write_bytes(np.column_stack([np.asarray(labels, dtype=np.uint8), flat(pixels)]).tobytes())


@pytest.mark.parametrize("layout", ["python 2", "python 3", "binary"])
@pytest.mark.parametrize("below", [True, False])
def test_cifar10(tmp_path: Path, layout: str, below: bool) -> None:
    name = "cifar-10-batches-bin" if layout == "binary" else "cifar-10-batches-py"
    folder = tmp_path / name
    folder.mkdir()
    for number, rows in ((1, slice(0, 4)), (2, slice(4, 7))):
        if layout == "binary":
            write_binary_batch(folder / f"data_batch_{number}.bin", PIXELS[rows], LABELS[rows])
        else:
            labels = LABELS[rows].tolist()
            write_python_batch(folder / f"data_batch_{number}", PIXELS[rows], labels, layout == "python 2")
    images = data.load_images(f"cifar10:{tmp_path if below else folder}")
    torch.testing.assert_close(
        images.inputs, normalised(PIXELS, cifar10.MEAN, cifar10.STD), rtol=1e-5, atol=1e-5
    )
    assert images.targets.tolist() == LABELS.tolist()
    assert (images.num_classes, images.name) == (10, "cifar10")


def test_the_python2_pickler_writes_the_official_layout(tmp_path: Path) -> None:
    write_python_batch(tmp_path / "data_batch_1", PIXELS, LABELS.tolist())
    content = (tmp_path / "data_batch_1").read_bytes()
    assert content.startswith(b"\x80\x02}q\x00(U\x0bbatch_label")
    assert b"cnumpy.core.multiarray\n_reconstruct\n" in content
    assert b"_codecs" not in content


def test_cifar10_constants_are_those_of_the_images(shared_data: Path) -> None:
    images = data.load_images(f"npz:{shared_data / 'cifar10_train_4k.npz'}")
    assert len(images) == 4000
    np.testing.assert_allclose(images.mean, cifar10.MEAN, atol=5e-3)
    np.testing.assert_allclose(images.std, cifar10.STD, atol=5e-3)


@pytest.mark.parametrize(
    ("labels", "pixels", "message"),
    [
        ([3, 10, 1, 1, 1, 1, 1], PIXELS, "labels must be in 0..9, got 10 at position 1"),
        ([3, -1, 1, 1, 1, 1, 1], PIXELS, "labels must be in 0..9, got -1 at position 1"),
        ([3, 1], PIXELS, "expected data [N, 3072] and N labels, got [7, 3072] and 2"),
        ([], PIXELS[:0], "expected data [N, 3072] and N labels, got [0, 3072] and 0"),
        ([1] * 7, PIXELS[:, :16], "expected data [N, 3072] and N labels, got [7, 1536] and 7"),
        ([1.0] * 7, PIXELS, "labels must be integers"),
        ((1,) * 7, PIXELS, "expected an array data and a list labels"),
        ([1] * 7, PIXELS.astype(np.float32), "data must be an array of uint8"),
        ([1] * 7, np.asfortranarray(PIXELS.astype(object)), "an array of type 'O8'"),
    ],
)
def test_cifar10_python_batch_that_is_refused(
    tmp_path: Path, labels: Any, pixels: np.ndarray, message: str
) -> None:
    write_python_batch(tmp_path / "data_batch_1", pixels, labels)
    with pytest.raises(UserError) as error:
        data.load_images(f"cifar10:{tmp_path}")
    assert message in str(error.value)
    assert "data_batch_1" in str(error.value)


class Malicious:
    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self.path, "w")


def test_a_malicious_batch_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "data_batch_1").write_bytes(pickle.dumps({b"data": Malicious(tmp_path / "owned")}, 2))
    with pytest.raises(UserError, match=r"not a python batch of CIFAR-10: it names _?io\.open"):
        data.load_images(f"cifar10:{tmp_path}")
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a pickle",
        pickle.dumps([1, 2]),
        pickle.dumps({1: 2}),
        b"cnumpy.core.multiarray\n_reconstruct\n)R.",  # an array that never got its contents
        b"}(U\x04data" + b"cnumpy.core.multiarray\n_reconstruct\n)R(K\x01K\x02tbU\x06labels]u.",
    ],
)
def test_a_corrupt_python_batch_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "data_batch_1").write_bytes(content)
    with pytest.raises(UserError, match=r"data_batch_1: not a python batch of CIFAR-10"):
        data.load_images(f"cifar10:{tmp_path}")


def test_cifar10_places_that_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="give a folder, as in"):
        data.load_images("cifar10")
    with pytest.raises(UserError, match="no such folder"):
        data.load_images(f"cifar10:{tmp_path / 'absent'}")
    with pytest.raises(UserError, match="holds no CIFAR-10 batches"):
        data.load_images(f"cifar10:{tmp_path}")
    archive = tmp_path / "cifar-10-python.tar.gz"
    archive.write_bytes(b"")
    with pytest.raises(UserError, match="unpack the archive"):
        data.load_images(f"cifar10:{archive}")
    for content in (b"", bytes(3072), bytes(3074)):
        (tmp_path / "data_batch_1.bin").write_bytes(content)
        with pytest.raises(UserError, match=f"records of 3073 bytes, got a file of {len(content):,} byte"):
            data.load_images(f"cifar10:{tmp_path}")
    (tmp_path / "data_batch_1.bin").write_bytes(bytes([11]) + bytes(3072))
    with pytest.raises(UserError, match=r"data_batch_1\.bin: labels must be in 0\.\.9, got 11 at position 0"):
        data.load_images(f"cifar10:{tmp_path}")


# ---- folder ------------------------------------------------------------------------------------------


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two classes of two images of 8 x 6 pixels, and things that are no images."""
    image = pytest.importorskip("PIL.Image", reason="needs Pillow (extra: images)")
    for label, name in enumerate(("ant", "bee")):
        (tmp_path / name).mkdir()
        for number in range(2):
            pixels = PIXELS[2 * label + number, :6, :8]
            image.fromarray(pixels).save(tmp_path / name / f"{number}.{'png' if number else 'PNG'}")
        (tmp_path / name / "notes.txt").write_text("not an image")
    (tmp_path / ".cache").mkdir()
    return tmp_path


def test_folder(pictures: Path) -> None:
    images = data.load_images(f"folder:{pictures}")
    expected = PIXELS[:4, :6, :8]
    mean, std = expected.mean((0, 1, 2)) / 255, expected.std((0, 1, 2)) / 255
    torch.testing.assert_close(images.inputs, normalised(expected, mean, std), rtol=1e-5, atol=1e-5)
    assert images.targets.tolist() == [0, 0, 1, 1]
    assert images.num_classes == 2
    assert data.load_images(f"folder:{pictures}", size=12).inputs.shape == (4, 3, 12, 12)


def test_folder_of_other_kinds_of_image(pictures: Path) -> None:
    from PIL import Image

    Image.fromarray(PIXELS[4, :6, :8, 0]).save(pictures / "ant" / "grey.bmp")
    Image.fromarray(PIXELS[5, :6, :8]).convert("P").save(pictures / "ant" / "palette.gif")
    Image.fromarray(PIXELS[5, :6, :8]).convert("RGBA").save(pictures / "bee" / "alpha.webp")
    assert data.load_images(f"folder:{pictures}").inputs.shape == (7, 3, 6, 8)


def test_folder_limit_opens_only_what_it_keeps(pictures: Path) -> None:
    for name in ("ant", "bee"):
        (pictures / name / "1.png").write_bytes(b"broken")
    opened = 0
    for seed in range(50):
        try:
            images = data.load_images(f"folder:{pictures}", limit=1, seed=seed)
        except UserError:
            continue
        opened += 1
        assert len(images) == 1
        assert images.num_classes == 2
    assert 0 < opened < 50


def test_folders_that_are_refused(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    from PIL import Image

    with pytest.raises(UserError, match="give a folder, as in"):
        data.load_images("folder")
    with pytest.raises(UserError, match="no such folder"):
        data.load_images(f"folder:{pictures / 'absent'}")
    with pytest.raises(UserError, match="expected one folder of images per class, found no folder"):
        data.load_images(f"folder:{tmp_path_factory.mktemp('empty')}")
    Image.fromarray(PIXELS[4]).save(pictures / "bee" / "large.png")
    with pytest.raises(UserError, match=r"large\.png: is 32x32 but .*ant.0\.PNG is 6x8; set a size"):
        data.load_images(f"folder:{pictures}")
    assert len(data.load_images(f"folder:{pictures}", size=8)) == 5
    (pictures / "bee" / "broken.jpg").write_bytes(b"\xff\xd8broken")
    with pytest.raises(UserError, match=r"broken\.jpg: not a readable image"):
        data.load_images(f"folder:{pictures}", size=8)
    (pictures / "cow").mkdir()
    with pytest.raises(UserError, match="cow: a class without images"):
        data.load_images(f"folder:{pictures}")


def test_folder_without_pillow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(UserError, match=r"pip install 'pynas-torch\[images\]'"):
        data.load_images(f"folder:{tmp_path}")
