"""Opening the files that hold one large pickle: plain, bzip2, and torch's two formats."""

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
from pynas._files import Bounded, open_regular, open_whole, size_of, unpacked_limit
from pynas._unpickle import stream
from pynas._unpickle.stand_ins import ALLOWED, StandIn
from pynas._zip import open_member, open_zip
from pynas.benchmarks._formats.stand_ins import ALLOWED_IN_TORCH

# torch before 1.6 writes five pickles and then the storages: this number, the format's version, facts about
# the machine, the object, the keys of the storages.
_TORCH_MAGIC = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
_PICKLES_BEFORE = 3
_LARGE = 1 << 24  # bytes of a pickle from which it is read twice, with less in memory


def load(
    path: Path,
    summary: stream.Summary,
    *,
    what: str,
    on_progress: Callable[[float], None] = lambda share: None,
) -> object:
    """Read the object in ``path``, memory bounded by ``summary``: see :func:`pynas._unpickle.stream.load`.

    Args:
        path: A pickle, a pickle compressed by bzip2, or a file of ``torch.save``.
        summary: What to keep of each dict.
        what: What the file should be, for the message.
        on_progress: Called with the share done, 0 to 1, over all of the reading.

    Raises:
        UserError: The file cannot be read, is damaged, or names what no table needs.
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
    """How a file is read.

    Attributes:
        open: Opens it anew, at its first pickle.
        size: Its bytes.
        expected: Bytes of the pickle, about.
        allowed: What it may name.
        position: How many pickles come before that of the object.
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
        # The plain size is unknown; such tables shrink to about a quarter, which is good enough for a bar.
        return _Source(open_bz2, size, 4 * size, ALLOWED_IN_TORCH, is_summed=True)
    if head == _TORCH_MAGIC:
        return _Source(partial(open_whole, path), size, size, ALLOWED_IN_TORCH, _PICKLES_BEFORE)
    return _Source(partial(open_whole, path), size, size, ALLOWED)
