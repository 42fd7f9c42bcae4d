"""Reading pickles that other people wrote, without running what they name."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from pynas._errors import UserError


class AllowListUnpickler(pickle.Unpickler):
    """An unpickler that resolves only the globals it was given; any other name stops the reading.

    A pickle is a program that may call whatever it can name. Here it can name the keys of ``allowed`` and
    gets their values: stand-ins of ours, not the classes and functions that the writer used.
    """

    def __init__(
        self, file: BinaryIO, allowed: Mapping[tuple[str, str], Any], encoding: str = "ASCII"
    ) -> None:
        super().__init__(file, encoding=encoding)
        self._allowed = allowed

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        """The stand-in for ``module_name.global_name``; UnpicklingError if it is not on the list."""
        try:
            return self._allowed[module_name, global_name]
        except KeyError:
            message = f"it names {module_name}.{global_name}, which has no place in such a file"
            raise pickle.UnpicklingError(message) from None


def unpickle(
    path: Path, allowed: Mapping[tuple[str, str], Any], *, what: str, encoding: str = "ASCII"
) -> Any:
    """Read one pickled object from ``path``.

    Args:
        path: The file.
        allowed: ``(module, name)`` of every global that the file may name, and what to use in its place.
        what: What the file should be, for the error message ("a CIFAR-10 batch").
        encoding: How to read strings of Python 2, as in :func:`pickle.load`.

    Raises:
        UserError: The file cannot be read, is damaged, or names anything else.
    """
    try:
        with path.open("rb") as file:
            return AllowListUnpickler(file, allowed, encoding).load()
    except OSError as error:
        raise UserError(f"{path}: cannot read {what}: {error.strerror or error}") from error
    except Exception as error:  # a damaged pickle raises whatever its broken instructions lead to
        raise UserError(f"{path}: not {what}: {error or type(error).__name__}") from error
