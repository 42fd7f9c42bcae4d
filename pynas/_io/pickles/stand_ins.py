"""What takes the place of the classes and functions that published files name in their pickles.

Nothing else can be named: a pickle that asks for ``os.system`` is refused. Numbers of NumPy become numbers of
Python. Each stand-in holds what it is given against what can be there: a pickle may give it anything.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pynas._io.files import shortened

StandIn = Callable[..., Any]

_NUMBERS = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248])", re.ASCII)
_MOST_EMPTY = 1 << 20
_LONGEST_KEY = 1 << 16
_LONGEST_PAIR = 8  # keys are texts, numbers, or a few of them: ("cifar10", 777)
_LARGEST_KEY = 1 << 60  # beyond, many integers share a hash
_LARGEST_IN_PAIR = 1 << 31


def check_keys(keys: Iterable[Any]) -> None:
    """Refuse what takes long to hash or to compare as the key of a dict or the item of a set.

    A tuple of two references to a tuple of two references to ... needs a byte or two for each doubling of the
    time that its hash takes; a deeply nested one overflows the stack of the interpreter.

    Raises:
        ValueError: One of them is no text, no number and no short tuple of these.
    """
    for key in keys:
        if type(key) is str:
            if len(key) > _LONGEST_KEY:
                raise ValueError("a key of many characters")
        elif type(key) is not tuple:
            _check_key(key, _LARGEST_KEY)
        elif len(key) > _LONGEST_PAIR:
            raise ValueError(f"a key of {len(key)} parts")
        else:
            for part in key:
                _check_key(part, _LARGEST_IN_PAIR)


def _check_key(key: Any, largest: int) -> None:
    if type(key) is int:
        if not -largest < key < largest:
            raise ValueError("a key of many digits")
    elif isinstance(key, (str, bytes)):
        if len(key) > _LONGEST_KEY:
            raise ValueError("a key of many characters")
    elif key is not None and type(key) not in (bool, float):
        raise ValueError(f"a {type(key).__name__} as a key")


class Settable:
    """An object that a pickle makes empty and gives its state later."""

    def set_state(self, state: Any) -> None:
        """Take the state."""
        raise NotImplementedError


class Record(Settable):
    """An object of whatever class: its attributes in :attr:`fields`."""

    def __init__(self) -> None:
        self.fields: dict[Any, Any] = {}

    def set_state(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise ValueError("an object without attributes")
        self.fields = state


class Dtype(Settable):
    """A NumPy dtype: its name, then its byte order by :meth:`set_state`."""

    def __init__(self, name: Any, *_flags: Any) -> None:
        if not isinstance(name, str) or not _NUMBERS.fullmatch(name):
            shown = repr(name[:20]) if isinstance(name, str) else f"a {type(name).__name__}"
            raise ValueError(f"an array of type {shown}")
        self._name = name.lstrip("<>|=")
        self._dtype = np.dtype((name[0] if name[0] in "<>" else "<") + self._name)

    def set_state(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) < 5 or any(part is not None for part in state[2:5]):
            raise ValueError("an array of records")
        if state[1] in ("<", ">"):
            self._dtype = np.dtype(state[1] + self._name)

    def numpy(self) -> np.dtype[Any]:
        """The dtype."""
        return self._dtype


def check_shape(shape: tuple[int, ...], size: int) -> None:
    """ValueError unless ``shape`` is one of ``size`` elements, or an empty one that is not absurd."""
    # A dimension of zero leaves room for any other: 200,000,000 rows of nothing are rows all the same.
    if math.prod(shape) != size or math.prod(length or 1 for length in shape) > max(size, _MOST_EMPTY):
        raise ValueError(
            f"an array of shape {shortened(list(shape))}, which does not fit its {size} elements"
        )


class Array(Settable):
    """A NumPy array of numbers: made empty, filled by its state."""

    def __init__(self, *_empty: Any) -> None:
        self._numbers: NDArray[Any] | None = None

    def set_state(self, state: Any) -> None:
        _version, shape, dtype, is_fortran, raw = state
        raw = raw.encode("latin1") if isinstance(raw, str) else raw
        if not isinstance(dtype, Dtype) or not isinstance(raw, bytes) or not isinstance(shape, tuple):
            raise ValueError("an array of other things than numbers")
        values = np.frombuffer(raw, dtype=dtype.numpy())
        if len(shape) > 32 or not all(type(size) is int and size >= 0 for size in shape):
            raise ValueError("an array without a shape")
        check_shape(shape, values.size)
        self._numbers = values.reshape(shape, order="F" if is_fortran else "C")

    @property
    def numbers(self) -> NDArray[Any]:
        """The array, ValueError if it never got its content."""
        if self._numbers is None:
            raise ValueError("an array without content")
        return self._numbers


def _scalar(dtype: Any, raw: Any) -> Any:
    raw = raw.encode("latin1") if isinstance(raw, str) else raw
    if not isinstance(dtype, Dtype) or not isinstance(raw, bytes) or len(raw) != dtype.numpy().itemsize:
        raise ValueError("a number that is none")
    return np.frombuffer(raw, dtype=dtype.numpy())[0].item()


def _encode(text: Any, encoding: Any) -> bytes:
    """``_codecs.encode``: how Python 3 writes bytes for protocol 2."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise ValueError(f"a text in {str(encoding)[:20] if isinstance(encoding, str) else 'no encoding'}")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    """How protocol 2 writes an empty byte string."""
    return b""


def _ordered(pairs: Any = ()) -> dict[Any, Any]:
    pairs = [(key, value) for key, value in pairs]
    check_keys(key for key, _ in pairs)
    return dict(pairs)


def _counting(*_factory: Any) -> dict[Any, Any]:
    return {}


def _set(items: Any = ()) -> set[Any]:
    items = list(items)
    check_keys(items)
    return set(items)


def _frozenset(items: Any = ()) -> frozenset[Any]:
    return frozenset(_set(items))


def nothing(*_arguments: Any) -> None:
    """For what is left out."""


class Name:
    """A class or function that is only ever passed on."""

    def __init__(self, *_arguments: Any) -> None:
        pass


_BUILTINS: dict[str, StandIn] = {
    "set": _set,
    "frozenset": _frozenset,
    "bytes": _no_bytes,
    **dict.fromkeys(("list", "dict", "int", "float"), Name),
}
ALLOWED: dict[tuple[str, str], StandIn] = {
    ("collections", "OrderedDict"): _ordered,
    ("collections", "defaultdict"): _counting,
    ("_codecs", "encode"): _encode,
    **{
        (module, name): stand_in
        for module in ("builtins", "__builtin__")  # the latter in protocol 2
        for name, stand_in in _BUILTINS.items()
    },
    **{("numpy", name): stand_in for name, stand_in in (("dtype", Dtype), ("ndarray", Name))},
    **{
        (f"numpy.{core}.multiarray", name): stand_in
        for core in ("core", "_core")
        for name, stand_in in (("scalar", _scalar), ("_reconstruct", Array))
    },
}
"""``(module, name)`` of what the containers and numbers of a pickle may name, and what is called instead."""
