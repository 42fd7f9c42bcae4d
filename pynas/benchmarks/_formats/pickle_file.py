"""Opening the files that hold one large pickle: plain, bzip2, and torch's two formats."""

from __future__ import annotations

import bz2
import pickle
import zipfile
import zlib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

from pynas._errors import UserError
from pynas.benchmarks._formats import pickle_stream
from pynas.benchmarks._formats.stand_ins import ALLOWED, ALLOWED_IN_TORCH, StandIn

# torch before 1.6 writes five pickles and then the storages: this number, the format's version, facts about
# the machine, the object, the keys of the storages.
_TORCH_MAGIC = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
_PICKLES_BEFORE = 3


def load(
    path: Path, reduce: pickle_stream.Reduce, *, what: str, on_progress: Callable[[float], None] | None = None
) -> Any:
    """Read the object in ``path``, memory bounded by ``reduce``: see :func:`pickle_stream.load`.

    Args:
        path: A pickle, a pickle compressed by bzip2, or a file of ``torch.save``.
        reduce: What to keep of each dict.
        what: What the file should be, for the message.
        on_progress: Called with the share done, 0 to 1, over both passes.

    Raises:
        UserError: The file cannot be read, is damaged, or names what no table needs.
    """
    try:
        opener, position, allowed, size = _opener(path)
        done = 0

        def on_read(count: int) -> None:
            nonlocal done
            done += count
            if on_progress is not None:
                on_progress(min(1.0, done / max(1, 2 * size)))

        return pickle_stream.load(
            opener,
            allowed,
            reduce,
            position=position,
            persistent=allowed is ALLOWED_IN_TORCH,
            on_read=on_read,
        )
    except OSError as error:
        raise UserError(f"{path}: cannot read {what}: {error.strerror or error}") from error
    except (pickle.UnpicklingError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path}: not {what}: {error}") from error


def _opener(
    path: Path,
) -> tuple[Callable[[], BinaryIO], int, Mapping[tuple[str, str], StandIn], int]:
    with path.open("rb") as file:
        head = file.read(len(_TORCH_MAGIC))
        size = file.seek(0, 2)
    if head[:2] == b"PK":
        with zipfile.ZipFile(path) as archive:
            members = [info for info in archive.infolist() if info.filename.endswith("/data.pkl")]
        if len(members) != 1:
            raise pickle.UnpicklingError("an archive without the data.pkl that torch.save writes")
        return partial(_open_member, path, members[0].filename), 0, ALLOWED_IN_TORCH, members[0].file_size
    if head == _TORCH_MAGIC:
        return partial(_open_plain, path), _PICKLES_BEFORE, ALLOWED_IN_TORCH, size
    if head[:3] == b"BZh":
        # The plain size is unknown; such tables shrink to about a quarter, which is good enough for a bar.
        return partial(_open_bz2, path), 0, ALLOWED_IN_TORCH, 4 * size
    return partial(_open_plain, path), 0, ALLOWED, size


def _open_plain(path: Path) -> BinaryIO:
    return path.open("rb")


def _open_bz2(path: Path) -> BinaryIO:
    return cast(BinaryIO, bz2.BZ2File(path))


def _open_member(path: Path, name: str) -> BinaryIO:
    return cast(BinaryIO, _Member(path, name))


class _Member:
    """A file inside an archive that closes the archive with it."""

    def __init__(self, path: Path, name: str) -> None:
        self._archive = zipfile.ZipFile(path)
        self._file = self._archive.open(name)

    def read(self, size: int) -> bytes:
        return self._file.read(size)

    def __enter__(self) -> _Member:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()
        self._archive.close()
