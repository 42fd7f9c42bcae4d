"""What takes the place of the classes and functions that published tables name in their pickles.

Nothing else can be named: a pickle that asks for ``os.system`` is refused. Tensors (trained weights) become
None, numbers of NumPy become numbers of Python.
"""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

StandIn = Callable[..., Any]

_LARGEST_ARRAY = 1 << 24


class Dtype:
    """A NumPy dtype: its name, then its byte order by :meth:`set_state`."""

    def __init__(self, name: Any, *_flags: Any) -> None:
        self.name, self.order = str(name), "<"

    def __setstate__(self, state: Any) -> None:
        self.order = state[1] if state[1] in "<>" else "<"

    def numpy(self) -> np.dtype[Any]:
        """The dtype, ValueError unless it is one of plain numbers."""
        dtype = np.dtype(self.order + self.name.lstrip("<>|="))
        if dtype.kind not in "fiub":
            raise ValueError(f"an array of type {self.name}")
        return dtype


class Array:
    """A NumPy array: made empty, filled by its state, a list or a number afterwards."""

    def __init__(self, *_empty: Any) -> None:
        self.values: Any = None

    def __setstate__(self, state: Any) -> None:
        _version, shape, dtype, _fortran, raw = state
        values = np.frombuffer(raw, dtype=dtype.numpy())
        if values.size != math.prod(shape):
            raise ValueError("an array whose shape does not fit its data")
        self.values = values.tolist() if len(shape) == 1 else values.reshape(shape).tolist()


def _scalar(dtype: Dtype, raw: Any) -> Any:
    raw = raw.encode("latin1") if isinstance(raw, str) else raw
    return np.frombuffer(raw, dtype=dtype.numpy())[0].item()


def _encode(text: str, encoding: str) -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise ValueError(f"a text in {encoding}")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    """How protocol 2 writes an empty byte string."""
    return b""


class Ordered(dict[Any, Any]):
    """An ordered dict: unlike a plain one it takes attributes, which torch's state dicts have."""


def _counting(*_factory: Any) -> dict[Any, Any]:
    return {}


def _nothing(*_arguments: Any) -> None:
    return None


class Name:
    """A class or function that is only ever passed on."""

    def __init__(self, *_arguments: Any) -> None:
        pass


_BUILTINS: dict[str, StandIn] = {
    "set": set,
    "frozenset": frozenset,
    "bytes": _no_bytes,
    **dict.fromkeys(("list", "dict", "int", "float"), Name),
}
ALLOWED: dict[tuple[str, str], StandIn] = {
    ("collections", "OrderedDict"): Ordered,
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

_STORAGES = ("Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")
ALLOWED_IN_TORCH: dict[tuple[str, str], StandIn] = ALLOWED | {
    **{("torch", f"{kind}Storage"): Name for kind in _STORAGES},
    **{("torch._utils", name): _nothing for name in ("_rebuild_tensor_v2", "_rebuild_parameter")},
    ("torch.storage", "_load_from_bytes"): _nothing,  # a tensor in a pickle that torch.save did not write
}


def fresh(allowed: Mapping[tuple[str, str], StandIn]) -> dict[tuple[str, str], StandIn]:
    """Copies of the stand-ins for one reading by Python's own unpickler.

    There a pickle can set attributes of whatever it names; those of a copy are nobody else's.
    """
    return {name: _copy(stand_in) for name, stand_in in allowed.items()}


def _copy(stand_in: StandIn) -> StandIn:
    if isinstance(stand_in, types.FunctionType):
        return types.FunctionType(
            stand_in.__code__, stand_in.__globals__, stand_in.__name__, stand_in.__defaults__
        )
    if isinstance(stand_in, type) and stand_in.__module__ == __name__:
        return type(stand_in.__name__, (stand_in,), {})
    return stand_in  # set and frozenset take no attributes
