"""Images and texts that somebody made to do harm: each is refused in one line, in little time and memory."""

from __future__ import annotations

import gzip
import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pynas import data
from pynas._errors import UserError
from pynas.data.text import END_OF_LINE, read_words
from tests.hostile import SECONDS, outcomes

Make = Callable[[Path], object]


def png(width: int, height: int, rows: bytes = b"") -> bytes:
    """Eight bits of grey, as large as it says it is or not."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


GIF = b"GIF89a\xff\xff\xff\xff\x00\x00\x00,\x00\x00\x00\x00\xff\xff\xff\xff\x00\x02\x02L\x01\x00;"
STARTS_A_PROGRAM = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n(owned) (w) file closefile\n%%EOF\n"
PICTURES: dict[str, tuple[str, bytes, str]] = {
    "more pixels than memory": (
        "a.png",
        png(60_000, 60_000),
        "not a readable image: Image size (3600000000 pixels) exceeds limit",
    ),
    "more than fit": ("a.png", png(8000, 8000), "not a readable image: it has 8000x8000 pixels, at most"),
    "as many as fit": ("a.png", png(2**24, 2, b"\0" * 100), "not a readable image"),
    "a gif of a screen wall": (
        "a.gif",
        GIF,
        "not a readable image: Image size (4294836225 pixels) exceeds limit",
    ),
    "a pixmap of a city": (
        "a.ppm",
        b"P6 100000 100000 255\n",
        "not a readable image: Image size (10000000000 pixels) exceeds limit",
    ),
    "a program": ("a.png", STARTS_A_PROGRAM, "not a readable image"),
    "no size": ("a.png", png(0, 5), "not a readable image"),
    "half a picture": ("a.png", png(50, 50, b"\0" * 60), "not a readable image"),
    "a directory of tags in itself": (
        "a.tif",
        b"II*\0\x08\0\0\0"
        + struct.pack("<H", 2)
        + struct.pack("<HHII", 254, 3, 2**31, 8) * 2
        + b"\x08\0\0\0",
        "not a readable image",
    ),
}


def link(target: str) -> Make:
    return lambda path: path.symlink_to(target)


STRANGE: tuple[tuple[str, Make, str], ...] = (
    ("pipe", os.mkfifo, "is a pipe or a device, expected a file"),
    ("device", link("/dev/zero"), "is a pipe or a device, expected a file"),
    ("loop", lambda path: path.symlink_to(path.name), "cannot be read: Too many levels of symbolic links"),
    ("dangling", link("nowhere"), "no such file"),
    ("folder", Path.mkdir, "is a folder, expected a file"),
)


def write_all(folder: Path) -> dict[str, tuple[str, str, str]]:
    """Reader, what it reads, and the message, by the name of the case."""
    jobs: dict[str, tuple[str, str, str]] = {}

    def picture(name: str, filename: str, make: Make, message: str) -> None:
        place = folder / f"{len(jobs)}" / "ant"
        place.mkdir(parents=True)
        make(place / filename)
        jobs[f"picture: {name}"] = ("images", f"folder:{place.parent}", f"{filename}: {message}")

    def batch(name: str, filename: str, make: Make, message: str) -> None:
        place = folder / f"{len(jobs)}"
        place.mkdir()
        make(place / filename)
        jobs[f"{filename}: {name}"] = ("images", f"cifar10:{place}", f"{filename}: {message}")

    def text(name: str, suffix: str, make: Make, message: str) -> None:
        path = folder / f"text{len(jobs)}{suffix}"
        make(path)
        jobs[f"text: {name}"] = ("text", str(path), f"{path.name}: {message}")

    def content(raw: bytes) -> Make:
        return lambda path: path.write_bytes(raw)

    def holes(path: Path) -> None:
        with path.open("wb") as file:
            file.truncate(40 << 30)

    for name, (filename, raw, message) in PICTURES.items():
        picture(name, filename, content(raw), message)
    for name, make, message in STRANGE:
        picture(name, "a.png", make, message)
        batch(name, "data_batch_1", make, message)
        batch(name, "data_batch_1.bin", make, message)
        text(name, ".txt", make, message)
        text(f"compressed {name}", ".gz", make, message)
    batch(
        "holes",
        "data_batch_1.bin",
        holes,
        "expected records of 3073 bytes, got a file of 42,949,672,960 bytes",
    )
    text("holes", ".txt", holes, "has 42,949,672,960 bytes; a text may have")
    text("compressed holes", ".gz", holes, "has 42,949,672,960 bytes; a text may have")
    bomb = gzip.compress(b"a " * (20 << 20), 1)
    text("bomb", ".gz", content(bomb), "cannot be read: it unpacks to more")
    text(
        "two bombs",
        ".gz",
        content(gzip.compress(b"a " * (12 << 20), 1) * 2),
        "cannot be read: it unpacks to more",
    )
    text("cut", ".gz", content(bomb[:200]), "cannot be read: the compressed file is cut short")
    text("nothing", ".gz", content(b""), "has no word")
    text("one of its streams", ".gz", content(gzip.compress(b"a b\n") + b"\x1f\x8bhalf"), "cannot be read")
    batch("a memo", "data_batch_1", content(b"\x80\x02Nr\xff\xff\xff\x3f."), "not a python batch of CIFAR-10")
    batch(
        "deep key",
        "data_batch_1",
        content(b"\x80\x02}K\x01" + b"\x85" * 200_000 + b"Ns."),
        "not a python batch",
    )
    label = b"\x80\x02\x8a\xfa" + b"\x7f" * 250
    batch(
        "a long label", "data_batch_1", content(python_batch(label[2:])), "labels must be in 0..9, got 5718"
    )
    return jobs


def python_batch(label: bytes) -> bytes:
    """One image whose label is what the instruction ``label`` makes."""
    array = io.BytesIO()
    array.write(
        b"\x80\x02}(X\x04\x00\x00\x00datacnumpy.core.multiarray\n_reconstruct\n)R(K\x01K\x01M\x00\x0c\x86"
    )
    array.write(
        b"cnumpy\ndtype\nX\x02\x00\x00\x00u1K\x00K\x01\x87R\x89T" + struct.pack("<i", 3072) + bytes(3072)
    )
    array.write(b"tbX\x06\x00\x00\x00labels](" + label + b"eu.")
    return array.getvalue()


@pytest.mark.slow
def test_every_hostile_file_is_refused_in_one_line(tmp_path: Path) -> None:
    pytest.importorskip("PIL", reason="needs Pillow (extra: images)")
    jobs = write_all(tmp_path)
    found = outcomes([(reader, what) for reader, what, _ in jobs.values()])
    wrong = [
        f"{name}: {outcome.error}: {outcome.message}, expected {message}"
        for (name, (_, _, message)), outcome in zip(jobs.items(), found, strict=True)
        if outcome.error != "UserError" or message not in outcome.message or "\n" in outcome.message
    ]
    assert len(jobs) > 40
    assert not wrong, "\n".join(wrong)
    assert max(outcome.seconds for outcome in found) < SECONDS


def test_a_batch_made_by_hand_is_read(tmp_path: Path) -> None:
    (tmp_path / "data_batch_1").write_bytes(python_batch(b"K\x07"))
    assert data.load_images(f"cifar10:{tmp_path}").targets.tolist() == [7]


def test_pictures_that_take_far_more_than_their_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("PIL", reason="needs Pillow (extra: images)")
    monkeypatch.setattr(data.folder, "_ANY_BYTES", 1 << 20)
    (tmp_path / "ant").mkdir()
    for number in range(4):
        (tmp_path / "ant" / f"{number}.png").write_bytes(png(400, 400, bytes(401 * 400)))
    with pytest.raises(UserError, match=r"2\.png: the images so far take 1,440,000 bytes .*; set a size"):
        data.load_images(f"folder:{tmp_path}")
    assert len(data.load_images(f"folder:{tmp_path}", size=8, classes=2)) == 4


def test_pictures_without_a_known_scale_are_not_clipped(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason="needs Pillow (extra: images)")
    (tmp_path / "ant").mkdir()
    pixels = np.full((4, 4), 300, np.float32)
    image.fromarray(pixels).save(tmp_path / "ant" / "deep.tif")
    with pytest.raises(UserError, match=r"deep\.tif: .*whose scale is not known; expected 8 or 16 bits"):
        data.load_images(f"folder:{tmp_path}")


@pytest.mark.slow
def test_a_large_image_has_the_statistics_of_its_pixels(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 1500, 1100, 3), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", images=pixels, labels=[0, 1])
    images = data.load_images(f"npz:{tmp_path / 'a.npz'}")
    np.testing.assert_allclose(images.mean, pixels.mean((0, 1, 2)) / 255, rtol=1e-6)
    np.testing.assert_allclose(images.std, pixels.std((0, 1, 2)) / 255, rtol=1e-6)


@pytest.mark.slow
def test_texts_of_one_long_line_and_of_several_streams(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(b"a b\n") + gzip.compress("ä\u2003c".encode()) + bytes(9))
    assert read_words(path) == ["a", "b", END_OF_LINE, "ä", "c", END_OF_LINE]
    path = tmp_path / "a.txt"
    path.write_text("ab\u2003cd\x1cef " * 200_000, encoding="utf-8")
    words = read_words(path)
    assert words[:4] == ["ab", "cd", END_OF_LINE, "ef"]
    assert len({id(word) for word in words}) == len(set(words))
    path.write_text("ab\u2003cd " * 300_000)
    assert read_words(path) == ["ab", "cd"] * 300_000 + [END_OF_LINE]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"class_names": np.array("ant")}, "class_names must be a list of names"),
        ({"class_names": np.array([], dtype="U3")}, "class_names must be a list of names"),
        ({"labels": np.array(3)}, r"labels must be \[N\] integers"),
        ({"labels": np.array([2**63, 1], dtype=np.uint64)}, "labels must be in"),
        ({"images": np.zeros((200_000_000, 0, 3), np.uint8)}, "does not fit its 0 bytes"),
        ({"images": np.array("image")}, "images must be uint8 or floating point"),
    ],
)
def test_archives_of_images_that_are_refused(
    tmp_path: Path, arrays: dict[str, np.ndarray], message: str
) -> None:
    good = {"images": np.zeros((2, 4, 4, 3), np.uint8), "labels": np.array([0, 1])}
    np.savez(tmp_path / "a.npz", **(good | arrays))
    with pytest.raises(UserError, match=message):
        data.load_images(f"npz:{tmp_path / 'a.npz'}")


@pytest.mark.parametrize("dtype", [">f8", "<f2", np.longdouble, ">u1"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_archives_of_any_byte_order_and_layout(tmp_path: Path, dtype: object, order: str) -> None:
    pixels = np.arange(96).reshape(2, 4, 4, 3)
    images = np.array(pixels, dtype=dtype, order=order)  # type: ignore[call-overload]
    np.savez(tmp_path / "a.npz", images=images, labels=np.array([0, 1], dtype=">i2"))
    found = data.load_images(f"npz:{tmp_path / 'a.npz'}")
    assert found.pixels.numpy().transpose(0, 2, 3, 1).tolist() == pixels.tolist()
    assert found.targets.tolist() == [0, 1]
