"""Reading a pickle that is larger than the memory, and keeping of it what a function says.

A pickle is a program: here it can only make dicts, lists, tuples, sets, strings and numbers, and what
:mod:`pynas.benchmarks._formats.stand_ins` puts in place of the few names that tables use.

The memory stays bounded in two ways. Each finished dict is shown to ``reduce``, which may replace its content
by something small. And the memo, in which a pickle keeps every string and container that it has made,
remembers the last ``_WINDOW`` entries only, and those that a first pass over the file found to be needed
later.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO

from pynas.benchmarks._formats.pickle_operations import operations
from pynas.benchmarks._formats.stand_ins import Array, Dtype, StandIn

REDUCED = "\0reduced"  # the only key of a dict whose content ``reduce`` replaced

_WINDOW = 1 << 16

_MARK = object()
Reduce = Callable[[dict[Any, Any]], Any]
Operations = Iterator[tuple[int, Any]]

_GET = frozenset(b"hj")
_PUT = frozenset(b"qr")
_MEMOIZE, _STOP = 0x94, ord(".")


def load(
    open_file: Callable[[], BinaryIO],
    allowed: Mapping[tuple[str, str], StandIn],
    reduce: Reduce,
    *,
    position: int = 0,
    persistent: bool = False,
    on_read: Callable[[int], None] = lambda size: None,
) -> Any:
    """Read one pickled object, in two passes over the file.

    Args:
        open_file: Opens the file anew.
        allowed: ``(module, name)`` of every global that may be named, and what to call in its place.
        reduce: Given each dict when its items were set; what it returns, unless None, becomes the only value
            of the dict, under the key :data:`REDUCED`.
        position: How many pickles precede it in the file (3 in torch's old format).
        persistent: Whether persistent ids (storages of tensors) may occur; they become None.
        on_read: Called with the number of bytes of each block that was read, in both passes.

    Raises:
        pickle.UnpicklingError: The file is cut short, damaged, or names anything else.
    """
    with open_file() as file:
        stream = operations(file, on_read)
        needed: set[int] = set()
        for _ in range(position + 1):
            needed = _needed_later(stream)
    with open_file() as file:
        stream = operations(file, on_read)
        for _ in range(position):
            _needed_later(stream)
        try:
            return _Machine(allowed, reduce, needed, persistent).run(stream)
        except pickle.UnpicklingError:
            raise
        except Exception as error:  # broken instructions lead anywhere: an empty stack, an unhashable key
            raise pickle.UnpicklingError(f"it is damaged ({error or type(error).__name__})") from error


def _needed_later(stream: Operations) -> set[int]:
    """Read to the end of a pickle; which memo entries does it read when the window has moved on?"""
    needed: set[int] = set()
    newest = -1
    count = 0
    for code, argument in stream:
        if code in _PUT:
            count += 1
            newest = max(newest, argument)
        elif code == _MEMOIZE:
            newest = max(newest, count)
            count += 1
        elif code in _GET:
            if newest - argument >= _WINDOW:
                needed.add(argument)
        elif code == _STOP:
            break
    return needed


class _Memo:
    """The last entries by number modulo the window, and those that are needed later."""

    def __init__(self, needed: set[int]) -> None:
        self._needed = needed
        self._kept: dict[int, Any] = {}
        self._recent: list[tuple[int, Any]] = [(-1, None)] * _WINDOW
        self._count = 0

    def put(self, number: int, value: Any) -> None:
        self._count += 1
        self._recent[number % _WINDOW] = (number, value)
        if number in self._needed:
            self._kept[number] = value

    def memoize(self, value: Any) -> None:
        self.put(self._count, value)

    def get(self, number: int) -> Any:
        found, value = self._recent[number % _WINDOW]
        if found == number:
            return value
        if number in self._kept:
            return self._kept[number]
        raise pickle.UnpicklingError(f"it refers to item {number}, which it never made")


class _Machine:
    """Executes the instructions that data needs."""

    def __init__(
        self, allowed: Mapping[tuple[str, str], StandIn], reduce: Reduce, needed: set[int], persistent: bool
    ) -> None:
        self.allowed, self.reduce, self.persistent = allowed, reduce, persistent
        self.functions = {id(function) for function in allowed.values()}
        self.stack: list[Any] = []
        self.memo = _Memo(needed)

    def run(self, stream: Operations) -> Any:
        stack = self.stack
        push, put, get = stack.append, self.memo.put, self.memo.get
        for code, argument in stream:
            if code in _VALUES:
                push(argument)
            elif code in _PUT:
                put(argument, stack[-1])
            elif code in _GET:
                push(get(argument))
            elif code in _CONSTANTS:
                push(_CONSTANTS[code])
            elif code == _STOP:
                return stack.pop()
            elif code not in _IGNORED:
                _ACTIONS[code](self, argument)
        raise pickle.UnpicklingError("the file is cut short")

    def items(self) -> list[Any]:
        """Take everything above the last mark off the stack, and the mark."""
        at = len(self.stack) - 1
        while self.stack[at] is not _MARK:
            at -= 1
            if at < 0:
                raise pickle.UnpicklingError("it is damaged (no mark)")
        items = self.stack[at + 1 :]
        del self.stack[at:]
        return items

    # ---- containers ----------------------------------------------------------------------------------

    def tuple_of(self, count: int) -> None:
        if len(self.stack) < count:
            raise pickle.UnpicklingError("it is damaged (too few items)")
        taken = tuple(self.stack[-count:])
        del self.stack[-count:]
        self.stack.append(taken)

    def extend(self, items: list[Any]) -> None:
        self.top(list).extend(items)

    def set_items(self, items: list[Any]) -> None:
        target = self.top(dict)
        target.update(zip(items[::2], items[1::2], strict=True))
        if (reduced := self.reduce(target)) is not None:
            target.clear()
            target[REDUCED] = reduced

    def add_items(self, items: list[Any]) -> None:
        self.top(set).update(items)

    def top(self, kind: type) -> Any:
        top = self.stack[-1]
        if not isinstance(top, kind):
            raise pickle.UnpicklingError(f"it is damaged (items for a {type(top).__name__})")
        return top

    # ---- names ---------------------------------------------------------------------------------------

    def find(self, name: tuple[str, str]) -> None:
        try:
            self.stack.append(self.allowed[name])
        except (KeyError, TypeError):
            text = ".".join(map(str, name))
            raise pickle.UnpicklingError(f"it names {text}, which has no place in such a file") from None

    def call(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if id(function) not in self.functions or not isinstance(arguments, tuple):
            raise pickle.UnpicklingError("it is damaged (a call of what is no function)")
        self.stack.append(function(*arguments))

    def build(self) -> None:
        state = self.stack.pop()
        if isinstance(self.stack[-1], (Array, Dtype)):
            self.stack[-1].__setstate__(state)
        # Attributes of a dict (what torch keeps beside a state dict) are of no use here.
        elif not isinstance(self.stack[-1], dict):
            raise pickle.UnpicklingError("it is damaged (a state for what has none)")

    def persistent_id(self) -> None:
        if not self.persistent:
            raise pickle.UnpicklingError("it refers to data outside of it")
        self.stack[-1] = None


_VALUES = frozenset(b"GJKMXUTCB\x8a\x8b\x8c\x8d\x8e")
_IGNORED = frozenset(b"\x80\x95")
_CONSTANTS: dict[int, Any] = {ord("N"): None, 0x88: True, 0x89: False, ord(")"): (), ord("("): _MARK}
_ACTIONS: dict[int, Callable[[_Machine, Any], Any]] = {
    ord("}"): lambda m, _: m.stack.append({}),
    ord("]"): lambda m, _: m.stack.append([]),
    0x8F: lambda m, _: m.stack.append(set()),
    0x94: lambda m, _: m.memo.memoize(m.stack[-1]),
    ord("t"): lambda m, _: m.stack.append(tuple(m.items())),
    ord("l"): lambda m, _: m.stack.append(m.items()),
    0x85: lambda m, _: m.tuple_of(1),
    0x86: lambda m, _: m.tuple_of(2),
    0x87: lambda m, _: m.tuple_of(3),
    ord("a"): lambda m, _: m.extend([m.stack.pop()]),
    ord("e"): lambda m, _: m.extend(m.items()),
    ord("s"): lambda m, _: m.set_items([*reversed((m.stack.pop(), m.stack.pop()))]),
    ord("u"): lambda m, _: m.set_items(m.items()),
    0x90: lambda m, _: m.add_items(m.items()),
    0x91: lambda m, _: m.stack.append(frozenset(m.items())),
    ord("c"): lambda m, name: m.find(name),
    0x93: lambda m, _: m.find((*reversed((m.stack.pop(), m.stack.pop())),)),
    ord("R"): lambda m, _: m.call(),
    0x81: lambda m, _: m.call(),
    ord("b"): lambda m, _: m.build(),
    ord("Q"): lambda m, _: m.persistent_id(),
    ord("0"): lambda m, _: m.stack.pop(),
    ord("1"): lambda m, _: m.items(),
    ord("2"): lambda m, _: m.stack.append(m.stack[-1]),
}
