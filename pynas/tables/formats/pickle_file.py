"""Opens files that contain one large pickle: plain, bzip2, and the two formats of torch."""

from __future__ import annotations

import bz2
import pickle
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, cast

from pynas._errors import UserError
from pynas._io.files import Bounded, open_regular, open_whole, size_of, unpacked_limit
from pynas._io.pickles import stream
from pynas._io.pickles.machine import Summary
from pynas._io.pickles.stand_ins import ALLOWED, StandIn
from pynas._io.zip_archive import open_member, open_zip
from pynas.tables.formats.stand_ins import ALLOWED_IN_TORCH

# torch before 1.6 writes five pickles and then the storages: this number, the format's version, facts about
# the machine, the object, the keys of the storages.
_TORCH_MAGIC = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
_PICKLES_BEFORE = 3
_LARGE = 1 << 24  # larger pickles, in bytes, are read in two passes, which take less memory


def load(
    path: Path,
    summary: Summary,
    *,
    what: str,
    on_progress: Callable[[float], None] = lambda share: None,
) -> object:
    """Read the object in ``path`` with bounded memory; see :func:`pynas._io.pickles.stream.load`.

    Args:
        path: A pickle, a pickle compressed by bzip2, or a file of ``torch.save``.
        summary: Reduces each dict to what is kept.
        what: What the file should be, for messages.
        on_progress: Called with the completed share of the reading, 0 to 1.

    Raises:
        UserError: The file cannot be read, is damaged, or refers to names that no table needs.
    """
    done = 0
    try:
        source = _source(path)

        is_large = source.expected > _LARGE

        def on_read(count: int) -> None:
            nonlocal done
            done += count
            on_progress(min(1.0, done / max(1, source.expected << is_large)))

        return stream.load(
            source.open,
            source.allowed,
            summary,
            size=source.size,
            is_large=is_large,
            position=source.position,
            to_the_end=source.is_summed,
            persistent=source.allowed is ALLOWED_IN_TORCH,
            on_read=on_read,
        )
    except UserError:
        raise
    except (OSError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise UserError(f"{path}: not {what}: {error}") from error


@dataclass(frozen=True)
class _Source:
    """How to read a file.

    Attributes:
        open: Opens it at its first pickle.
        size: Size of the file in bytes.
        expected: Approximate size of the pickle in bytes.
        allowed: Names that the pickle may refer to.
        position: Number of pickles before that of the object.
        is_summed: Whether a checksum follows.
    """

    open: Callable[[], Bounded]
    size: int
    expected: int
    allowed: Mapping[tuple[str, str], StandIn]
    position: int = 0
    is_summed: bool = False


def _source(path: Path) -> _Source:
    with open_regular(path) as file:
        head, size = file.read(len(_TORCH_MAGIC)), size_of(file)
    limit = unpacked_limit(size)
    fault = f"it unpacks to more than the {limit} bytes that a file of {size} may"

    def open_bz2() -> Bounded:
        file = open_regular(path)
        return Bounded(cast(IO[bytes], bz2.BZ2File(file)), limit, fault, file.close)

    def open_torch() -> Bounded:
        with ExitStack() as opened:
            archive = opened.enter_context(open_zip(opened.enter_context(open_regular(path))))
            members = [info for info in archive.infolist() if info.filename.endswith("/data.pkl")]
            if len(members) != 1:
                raise ValueError("an archive without the data.pkl that torch.save writes")
            member = opened.enter_context(open_member(archive, members[0]))
            return Bounded(member, limit, fault, opened.pop_all().close)

    if head[:2] == b"PK":
        return _Source(open_torch, size, size, ALLOWED_IN_TORCH, is_summed=True)
    if head[:3] == b"BZh":
        # The uncompressed size is unknown; for a progress bar, a compression to a quarter is a good guess.
        return _Source(open_bz2, size, 4 * size, ALLOWED_IN_TORCH, is_summed=True)
    if head == _TORCH_MAGIC:
        return _Source(partial(open_whole, path), size, size, ALLOWED_IN_TORCH, _PICKLES_BEFORE)
    return _Source(partial(open_whole, path), size, size, ALLOWED)
