"""Reading a pickle that is larger than the memory, and keeping of it what a function says.

A pickle is a program: here it can only make dicts, lists, tuples, sets, strings and numbers, and what
:mod:`pynas._io.pickles.stand_ins` puts in place of the few names that tables use.

The memory stays bounded in three ways. Each finished dict is shown to ``summary``, which may have its content
replaced by something small. The memo, in which a pickle keeps every string and container that it has made,
forgets all but the last entries and those that a first pass over the file found to be needed
later. And what is kept is counted: a few bytes of a pickle can ask for a lot.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from typing import Any

from pynas._errors import UserError
from pynas._io.files import Bounded, shortened
from pynas._io.pickles.machine import Machine, Summary, needed_later
from pynas._io.pickles.operations import operations
from pynas._io.pickles.stand_ins import StandIn

_BLOCK = 1 << 18


def load(
    open_file: Callable[[], Bounded],
    allowed: Mapping[tuple[str, str], StandIn],
    summary: Summary | None = None,
    *,
    size: int,
    position: int = 0,
    is_large: bool = False,
    to_the_end: bool = False,
    persistent: bool = False,
    on_read: Callable[[int], None] = lambda count: None,
) -> Any:
    """Read one pickled object.

    Args:
        open_file: Opens the file anew.
        allowed: ``(module, name)`` of every global that may be named, and what to call in its place.
        summary: Given each dict when items were set, the function that makes something small of it, or None
            if it stays. What that function returns, unless None, becomes the only value of the dict, under
            the key :data:`REDUCED`.
        size: Bytes of the file, as it lies on the disk: what may be kept goes by it.
        position: How many pickles precede it in the file (3 in torch's old format).
        is_large: Whether to read the file twice, for a memo that holds what is needed and no more.
        to_the_end: Whether to read what follows the object too, where a checksum comes last.
        persistent: Whether persistent ids (storages of tensors) may occur; they become None.
        on_read: Called with the number of bytes of each block that was read, in each pass.

    Raises:
        pickle.UnpicklingError: The file is cut short, damaged, names anything else, or asks for too much.
    """
    needed: set[int] | None = None
    try:
        if is_large:
            with open_file() as file:
                stream = operations(file, on_read)
                for _ in range(position + 1):
                    needed = needed_later(stream)
                _finish(file, to_the_end)
        with open_file() as file:
            machine = Machine(allowed, summary, needed, persistent, size)

            def checked(count: int) -> None:
                on_read(count)
                machine.read(count)

            stream = operations(file, checked)
            for _ in range(position):
                needed_later(stream)
            found = machine.run(stream)
            _finish(file, to_the_end)
            return found
    except (pickle.UnpicklingError, UserError):
        raise
    except Exception as error:  # broken instructions lead anywhere: an empty stack, an unhashable key
        what = shortened(str(error) or type(error).__name__)
        raise pickle.UnpicklingError(f"it is damaged ({what})") from error


def _finish(file: Bounded, to_the_end: bool) -> None:
    while to_the_end and file.read(_BLOCK):
        pass
