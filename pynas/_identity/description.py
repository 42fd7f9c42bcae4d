"""What an object is, in words that two processes agree on: what tells one run from another in a store.

Code counts by its text (:mod:`pynas._identity.source`), values by what they hold: numbers, text and
containers as they are, arrays and tensors by a digest, instances by their class and attributes. What a
function uses counts with it: its defaults, what it closes over, and the globals that it reads, again with
what these use. Installed packages count by name. Nothing depends on addresses, on the order of sets, or on
the line that something stands in. What cannot be looked into, such as an open file, counts as its type.
"""

from __future__ import annotations

import functools
import math
import sys
import types
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from pathlib import PurePath
from typing import Any

import numpy as np

from pynas._identity.naming import (
    attributes_of,
    is_tensor,
    name_of,
    shaped,
    shorten,
    slots_of,
    tensor_digest,
    to_text,
)
from pynas._identity.source import code_digest, is_installed, names_used, shortened

_DEEPEST = 60
"""Values within values that are looked into, fewer than Python's own limit."""

_MANY = 64
"""From this number of numbers or texts on a container is described at once."""


def describe(value: object) -> Any:
    """A JSON value that is equal for two objects that do the same, as far as can be seen.

    An object's own parts stand beside each other, each short enough to be read; what is longer, or further
    inside, is a digest.
    """
    return _Description(value).of(value)


def brief(value: object) -> Any:
    """As :func:`describe`, and one short text where that would be long."""
    return shorten(describe(value))


class _Description:
    """One walk over what an object consists of.

    Args:
        top: What is described; its own package is looked into even where it is installed.
    """

    def __init__(self, top: object) -> None:
        while isinstance(top, functools.partial):
            top = top.func
        has_name = callable(top) and hasattr(top, "__qualname__")
        root = name_of(top if has_name else type(top)).partition(".")[0]
        self._root = None if root in _LARGE or root in sys.stdlib_module_names else root
        self._known: dict[int, Any] = {}
        self._kept: list[object] = []  # so that no address is given to another object meanwhile
        self._open: dict[int, str] = {}

    def of(self, value: object) -> Any:
        """The description of a value, the same object's only once."""
        if value is None or (isinstance(value, (bool, int, str)) and not isinstance(value, Enum)):
            return str.__str__(value) if isinstance(value, str) else value
        if type(value) is float:
            return value if math.isfinite(value) else str(value)
        place = id(value)
        if place in self._open:
            return f"{self._open[place]}, again"
        if place not in self._known:
            if len(self._open) >= _DEEPEST:
                return f"{name_of(type(value))} (too far inside)"
            self._kept.append(value)
            self._open[place] = type(value).__name__
            try:
                self._known[place] = self._composite(value)
            except Exception:  # whatever an object's own methods raise
                self._known[place] = f"{name_of(type(value))} (unknown)"
            finally:
                del self._open[place]
        return self._known[place]

    def _inner(self, value: object) -> Any:
        return shorten(self.of(value))

    def _is_installed(self, module: str | None) -> bool:
        if not module or module.partition(".")[0] == self._root:
            return False
        return is_installed(module)

    def _composite(self, value: Any) -> Any:
        for kinds, describe_kind in _KINDS:
            if isinstance(value, kinds):
                return describe_kind(self, value)
        if is_tensor(value):
            return tensor_digest(value)
        if callable(inner := getattr(value, "__dict__", {}).get("__wrapped__")):  # a cache around a function
            return self.of(inner)
        return self._object(value)

    # ---- containers and values ---------------------------------------------------------------------------

    def _mapping(self, value: Mapping[Any, Any]) -> Any:
        if len(value) >= _MANY and _all_plain(value) and _all_plain(value.values()):
            return f"{len(value):,} entries ({shortened(repr(sorted(value.items(), key=repr)))})"
        entries = {
            str.__str__(key)
            if isinstance(key, str)
            else f"{type(key).__name__} {to_text(self._inner(key))}": self._inner(inner)
            for key, inner in value.items()
        }
        return self._of_kind(value, entries)

    def _sequence(self, value: list[Any] | tuple[Any, ...]) -> Any:
        if len(value) >= _MANY and _all_plain(value):
            return f"{len(value):,} values ({shortened(repr(list(value)))})"
        return self._of_kind(value, [self._inner(inner) for inner in value])

    def _set(self, value: set[Any]) -> Any:
        return self._of_kind(value, {"set": sorted((self._inner(inner) for inner in value), key=to_text)})

    def _of_kind(self, value: object, entries: Any) -> Any:
        """What a container holds, and its class where that is somebody's own."""
        if self._is_installed(type(value).__module__):
            return entries
        return self._class(type(value)) | {"holds": shorten(entries)}

    def _enum(self, value: Enum) -> Any:
        name = f"{name_of(type(value))}.{value.name}"
        return name if self._is_installed(type(value).__module__) else f"{name} = {self._inner(value.value)}"

    def _bytes(self, value: bytes) -> str:
        return f"{len(value):,} bytes ({shortened(bytes(value))})"

    def _array(self, value: np.ndarray) -> Any:
        if value.dtype.hasobject:
            return {"array": list(value.shape), "values": self._inner(value.tolist())}
        return shaped(str(value.dtype), value.shape, value.tobytes())

    def _scalar(self, value: np.generic) -> Any:
        return self.of(value.item()) if value.dtype.kind in "biufSU" else f"{value.dtype} {value!s}"

    # ---- code --------------------------------------------------------------------------------------------

    def _function(self, value: types.FunctionType) -> Any:
        if self._is_installed(value.__module__):
            return name_of(value)
        code = value.__code__
        cells = zip(code.co_freevars, value.__closure__ or (), strict=True)
        given = value.__defaults__ or ()
        positional = code.co_varnames[code.co_argcount - len(given) : code.co_argcount]
        defaults = dict(zip(positional, given, strict=True)) | (value.__kwdefaults__ or {})
        parts = {
            "defaults": {name: self._inner(default) for name, default in defaults.items()},
            "closure": {name: self._cell(cell) for name, cell in cells if name != "__class__"},
            "uses": self._globals(value),
            "attributes": {k: self._inner(v) for k, v in vars(value).items() if k != "__wrapped__"},
        }
        described = {"function": name_of(value), "source": code_digest(code)}
        return described | {name: part for name, part in parts.items() if part}

    def _cell(self, cell: types.CellType) -> Any:
        try:
            return self._inner(cell.cell_contents)
        except ValueError:
            return "empty"

    def _globals(self, function: types.FunctionType) -> dict[str, Any]:
        names, attributes = names_used(function.__code__)
        found: dict[str, Any] = {}
        for name in sorted(names & function.__globals__.keys()):
            value = function.__globals__[name]
            if isinstance(value, types.ModuleType) and not self._is_installed(value.__name__):
                for inner in sorted(attributes & vars(value).keys()):
                    found[f"{name}.{inner}"] = self._inner(vars(value)[inner])
            else:
                found[name] = self._inner(value)
        return found

    def _class(self, value: type) -> Any:
        if self._is_installed(value.__module__):
            return name_of(value)
        members = {name: self._inner(m) for name, m in vars(value).items() if _is_written(name, m)}
        for name in slots_of(value):
            members.pop(name, None)
        bases = [self._inner(base) for base in value.__bases__ if base is not object]
        return {"class": name_of(value)} | ({"bases": bases} if bases else {}) | {"members": members}

    def _method(self, value: types.MethodType) -> Any:
        return {"method": self._inner(value.__func__), "of": self._inner(value.__self__)}

    def _builtin(self, value: Any) -> Any:
        owner = getattr(value, "__self__", None)
        if owner is None or isinstance(owner, types.ModuleType):
            return name_of(value)
        return {"method": name_of(value), "of": self._inner(owner)}

    def _partial(self, value: functools.partial[Any]) -> Any:
        parts = {"args": [self._inner(a) for a in value.args], "keywords": self._mapping(value.keywords)}
        return {"partial": self._inner(value.func)} | {name: part for name, part in parts.items() if part}

    def _property(self, value: property) -> Any:
        return {"property": [self._inner(f) for f in (value.fget, value.fset, value.fdel) if f is not None]}

    def _descriptor(self, value: Any) -> Any:
        return {type(value).__name__: self._inner(value.func if hasattr(value, "func") else value.__func__)}

    # ---- instances ---------------------------------------------------------------------------------------

    def _object(self, value: Any) -> Any:
        kind = type(value)
        if kind.__module__.startswith("pynas.") and isinstance(
            known := getattr(value, "config", None), Mapping
        ):
            return {"object": name_of(kind), "config": self._inner(known)}
        described: dict[str, Any] = {"object": name_of(kind)}
        if not self._is_installed(kind.__module__):
            described |= {name: part for name, part in self._class(kind).items() if name != "class"}
        attributes = {name: self._inner(inner) for name, inner in attributes_of(value).items()}
        try:
            saved = value.__reduce_ex__(4)  # what pickle would keep of it: also of types written in C
        except Exception:
            unknown = {} if attributes else {"value": "unknown"}
            return described | ({"attributes": attributes} if attributes else {}) | unknown
        if isinstance(saved, str):
            return {**described, "value": saved}
        function, arguments, *state = saved
        by_default = name_of(function) == "copyreg.__newobj__"
        if by_default and getattr(kind, "__getstate__", None) is object.__getstate__:
            state[:1] = []  # these are the attributes
        else:
            attributes = {}
        if attributes:
            described["attributes"] = attributes
        values = [each for each in arguments if each is not kind]
        values += [list(each) if hasattr(each, "__next__") else each for each in state if each is not None]
        if function is not kind and not by_default:
            described["made by"] = name_of(function)
        return described | ({"value": [self._inner(each) for each in values]} if values else {})


def _is_written(name: str, member: object) -> bool:
    """Whether a class statement says it, rather than Python keeping it beside what was said."""
    if name in ("_abc_impl", "_is_protocol") or name.startswith("__annotate"):
        return False
    functions = (types.FunctionType, classmethod, staticmethod, property)
    return not (name.startswith("__") and name.endswith("__")) or isinstance(member, functions)


# Installed packages that are looked into for nobody.
_LARGE = frozenset(("pynas", "torch", "torchvision", "numpy", "scipy", "sklearn", "transformers"))


def _all_plain(values: Iterable[Any]) -> bool:
    return all(type(value) in (int, float, str, bool) for value in values)


_KINDS: tuple[tuple[Any, Callable[[_Description, Any], Any]], ...] = (
    (Enum, _Description._enum),
    (PurePath, lambda _, value: str(value)),
    (np.generic, _Description._scalar),
    (np.ndarray, _Description._array),
    ((dict, types.MappingProxyType), _Description._mapping),
    ((list, tuple), _Description._sequence),
    ((set, frozenset), _Description._set),
    ((bytes, bytearray), _Description._bytes),
    (types.ModuleType, lambda _, value: value.__name__),
    (types.FunctionType, _Description._function),
    (type, _Description._class),
    (types.MethodType, _Description._method),
    ((types.BuiltinFunctionType, types.MethodWrapperType), _Description._builtin),
    (
        (types.WrapperDescriptorType, types.MethodDescriptorType, types.MemberDescriptorType),
        lambda _, value: name_of(value),
    ),
    (functools.partial, _Description._partial),
    (property, _Description._property),
    ((classmethod, staticmethod, functools.cached_property), _Description._descriptor),
    (types.CodeType, lambda _, value: code_digest(value)),
)
