"""The instructions of a pickle, of which data needs a part, under limits on memory and work."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pynas._io.files import shortened
from pynas._io.pickles.stand_ins import Settable, StandIn, check_keys

REDUCED = "\0reduced"  # the only key of a dict whose content was replaced by a summary

_WINDOW = 1 << 16  # entries of the memo that are kept in any case
_MOST_NEEDED = 1 << 20  # entries that are read after the window has moved on
# Objects that are kept: some are for a file of any size, the rest for each two bytes, up to a largest number.
_ANY_OBJECTS, _BYTES_AN_OBJECT, _MOST_OBJECTS = 1 << 18, 2, 1 << 24
_ANY_WORK, _WORK_A_BYTE = 1 << 22, 2  # steps of functions and summaries beside those of the instructions

Summary = Callable[[dict[Any, Any]], Callable[[dict[Any, Any]], Any] | None]
Operations = Iterator[tuple[int, Any]]

_GET = frozenset(b"hj")
_PUT = frozenset(b"qr")
_MEMOIZE, _STOP = 0x94, ord(".")
_MARK = ord("(")


def needed_later(stream: Operations) -> set[int]:
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
                if len(needed) > _MOST_NEEDED:
                    raise pickle.UnpicklingError(f"it refers to more than {_MOST_NEEDED} objects far back")
        elif code == _STOP:
            break
    return needed


class Machine:
    """Executes the instructions that data needs."""

    def __init__(
        self,
        allowed: Mapping[tuple[str, str], StandIn],
        summary: Summary | None,
        needed: set[int] | None,
        persistent: bool,
        size: int,
    ) -> None:
        self.allowed, self.summary, self.persistent = allowed, summary, persistent
        self.functions = {id(function) for function in allowed.values()}
        self.stack: list[Any] = []
        self.marks: list[int] = []  # where on the stack a mark lies
        # By number. A number is a key, never a place in a list: one of four thousand million costs no more.
        self.memo: dict[int, Any] = {}
        self.needed, self.memo_size = needed, 0
        self.limit = min(_MOST_OBJECTS, _ANY_OBJECTS + size // _BYTES_AN_OBJECT)
        self.kept = 0  # objects put into containers, less those of dicts that were replaced
        self.open_dicts: list[tuple[int, int]] = []  # where on the stack a dict was made, what was kept then
        self.work_left = _ANY_WORK

    def run(self, stream: Operations) -> Any:
        stack, marks, memo = self.stack, self.marks, self.memo
        push, count = stack.append, 0
        for code, argument in stream:
            if code in _VALUES:
                push(argument)
            elif code in _GET:
                if argument not in memo:
                    raise pickle.UnpicklingError(f"it refers to item {argument}, which it never made")
                push(memo[argument])
            elif code == _MEMOIZE:
                memo[count] = stack[-1]
                count += 1
            elif code in _PUT:
                memo[argument] = stack[-1]
                count += 1
            elif code == _MARK:
                marks.append(len(stack))
            elif code in _CONSTANTS:
                push(_CONSTANTS[code])
            elif code == _STOP:
                return stack.pop()
            elif code not in _IGNORED:
                _ACTIONS[code](self, argument)
        raise pickle.UnpicklingError("the file is cut short")

    # ---- limits --------------------------------------------------------------------------------------

    def read(self, count: int) -> None:
        """After ``count`` more bytes; between two of these calls each byte adds one object at most."""
        self.work_left += _WORK_A_BYTE * count
        if self.needed is not None and len(self.memo) > self.memo_size + _WINDOW:
            self.forget(self.needed)
        if max(self.kept + len(self.stack) + len(self.marks), len(self.memo)) > self.limit:
            raise pickle.UnpicklingError(f"it makes more than the {self.limit} objects that it has room for")

    def forget(self, needed: set[int]) -> None:
        """Keep of the memo what the first pass found to be needed, and the newest."""
        oldest = max(self.memo) - _WINDOW
        kept = {number: value for number, value in self.memo.items() if number > oldest or number in needed}
        self.memo.clear()
        self.memo.update(kept)
        self.memo_size = len(kept)

    def work(self, steps: int) -> None:
        """Account for what an instruction does with what it is given: the same, maybe, again and again."""
        self.work_left -= steps
        if self.work_left < 0:
            raise pickle.UnpicklingError("it takes many more steps than it has bytes")

    def extent(self, mapping: Mapping[Any, Any]) -> None:
        """Account for a summary, which reads the values of a dict and the values of these."""
        for value in mapping.values():
            if isinstance(value, dict):
                self.work(len(value))
                self.work(sum(len(inner) for inner in value.values() if hasattr(inner, "__len__")))
            elif hasattr(value, "__len__"):
                self.work(len(value))

    # ---- containers ----------------------------------------------------------------------------------

    def items(self) -> list[Any]:
        """Take everything above the last mark off the stack, and the mark."""
        if not self.marks or (at := self.marks.pop()) > len(self.stack):
            raise pickle.UnpicklingError("it is damaged (no mark)")
        items = self.stack[at:]
        del self.stack[at:]
        self.kept += len(items)
        return items

    def tuple_of(self, count: int) -> None:
        if len(self.stack) < count:
            raise pickle.UnpicklingError("it is damaged (too few items)")
        taken = tuple(self.stack[-count:])
        del self.stack[-count:]
        self.stack.append(taken)
        self.kept += count

    def new_dict(self) -> None:
        place = len(self.stack)
        while self.open_dicts and self.open_dicts[-1][0] >= place:
            self.open_dicts.pop()
        self.open_dicts.append((place, self.kept))
        self.stack.append({})

    def append(self) -> None:
        self.kept += 1
        item = self.stack.pop()
        self.top(list).append(item)

    def extend(self, items: list[Any]) -> None:
        self.top(list).extend(items)

    def set_item(self) -> None:
        self.kept += 2
        value, key = self.stack.pop(), self.stack.pop()
        self.set_items([key, value])

    def set_items(self, items: list[Any]) -> None:
        target = self.top(dict)
        keys = items[::2]
        check_keys(keys)
        target.update(zip(keys, items[1::2], strict=True))
        if self.summary is None or (function := self.summary(target)) is None:
            return
        self.extent(target)
        if (reduced := function(target)) is not None:
            target.clear()
            target[REDUCED] = reduced
            place = len(self.stack) - 1
            while self.open_dicts and self.open_dicts[-1][0] > place:
                self.open_dicts.pop()
            if self.open_dicts and self.open_dicts[-1][0] == place:
                self.kept = min(self.kept, self.open_dicts[-1][1] + 2)

    def add_items(self, items: list[Any]) -> None:
        check_keys(items)
        self.top(set).update(items)

    def frozen(self) -> None:
        items = self.items()
        check_keys(items)
        self.stack.append(frozenset(items))

    def top(self, kind: type) -> Any:
        top = self.stack[-1]
        if not isinstance(top, kind):
            raise pickle.UnpicklingError(f"it is damaged (items for a {type(top).__name__})")
        return top

    # ---- names ---------------------------------------------------------------------------------------

    def find(self, *name: Any) -> None:
        if not all(isinstance(part, str) for part in name):
            raise pickle.UnpicklingError("it is damaged (a name that is no text)")
        if name not in self.allowed:
            text = shortened(".".join(name))
            raise pickle.UnpicklingError(f"it names {text}, which has no place in such a file")
        self.stack.append(self.allowed[name])

    def find_on_stack(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.find(module, name)

    def call(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if id(function) not in self.functions or not isinstance(arguments, tuple):
            raise pickle.UnpicklingError("it is damaged (a call of what is no function)")
        for argument in arguments:
            if isinstance(argument, _LONG):
                self.work(len(argument))
        self.stack.append(function(*arguments))

    def build(self) -> None:
        state = self.stack.pop()
        top = self.stack[-1]
        if isinstance(top, Settable):
            top.set_state(state)
        # Attributes of a dict (what torch keeps beside a state dict) are of no use here.
        elif not isinstance(top, dict):
            raise pickle.UnpicklingError("it is damaged (a state for what has none)")

    def persistent_id(self) -> None:
        if not self.persistent:
            raise pickle.UnpicklingError("it refers to data outside of it")
        self.stack[-1] = None


_LONG = (str, bytes, list, tuple, dict, set, frozenset)
_VALUES = frozenset(b"GJKMXUTCB\x8a\x8b\x8c\x8d\x8e")
_IGNORED = frozenset(b"\x80\x95")
_CONSTANTS: dict[int, Any] = {ord("N"): None, 0x88: True, 0x89: False, ord(")"): ()}
_ACTIONS: dict[int, Callable[[Machine, Any], Any]] = {
    ord("}"): lambda m, _: m.new_dict(),
    ord("]"): lambda m, _: m.stack.append([]),
    0x8F: lambda m, _: m.stack.append(set()),
    ord("t"): lambda m, _: m.stack.append(tuple(m.items())),
    ord("l"): lambda m, _: m.stack.append(m.items()),
    0x85: lambda m, _: m.tuple_of(1),
    0x86: lambda m, _: m.tuple_of(2),
    0x87: lambda m, _: m.tuple_of(3),
    ord("a"): lambda m, _: m.append(),
    ord("e"): lambda m, _: m.extend(m.items()),
    ord("s"): lambda m, _: m.set_item(),
    ord("u"): lambda m, _: m.set_items(m.items()),
    0x90: lambda m, _: m.add_items(m.items()),
    0x91: lambda m, _: m.frozen(),
    ord("c"): lambda m, name: m.find(*name),
    0x93: lambda m, _: m.find_on_stack(),
    ord("R"): lambda m, _: m.call(),
    0x81: lambda m, _: m.call(),
    ord("b"): lambda m, _: m.build(),
    ord("Q"): lambda m, _: m.persistent_id(),
    ord("0"): lambda m, _: m.stack.pop(),
    ord("1"): lambda m, _: m.items(),
    ord("2"): lambda m, _: m.stack.append(m.stack[-1]),
}
