"""Reading NumPy archives that other people wrote."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.lib.npyio import NpzFile

from pynas._errors import UserError


@contextmanager
def open_npz(path: Path) -> Iterator[NpzFile]:
    """Open an ``.npz`` archive, without pickled objects; arrays are read as they are taken out.

    Raises:
        UserError: The file is absent, is no archive, or turns out to be damaged within the ``with`` block.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    if not zipfile.is_zipfile(path):
        raise UserError(f"{path}: not an .npz archive")
    try:
        with np.load(path, allow_pickle=False) as archive:
            yield archive
    except UserError:
        raise
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path}: not a readable .npz archive: {error}") from error
