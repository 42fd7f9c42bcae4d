"""Reading pickles that other people wrote, without running what they name.

Python's own unpickler will not do, even with a list of allowed names: ten bytes have it make a memo of
gigabytes, and it hashes, and so recurses into, whatever a pickle uses as a key.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from pynas._errors import UserError
from pynas._io.files import open_regular, open_whole, size_of
from pynas._io.pickles import stream
from pynas._io.pickles.stand_ins import StandIn


def unpickle(path: Path, allowed: Mapping[tuple[str, str], StandIn], *, what: str) -> Any:
    """Read one pickled object of a file that fits in memory; strings of Python 2 are taken as latin1.

    Args:
        path: The file.
        allowed: ``(module, name)`` of every global that the file may name, and what to use in its place.
        what: What the file should be, for the error message ("a CIFAR-10 batch").

    Raises:
        UserError: The file cannot be read, is damaged, or names anything else.
    """
    with open_regular(path) as file:
        size = size_of(file)
    try:
        return stream.load(partial(open_whole, path), allowed, size=size)
    except pickle.UnpicklingError as error:
        raise UserError(f"{path}: not {what}: {error}") from error
