"""What a piece of code is, as a digest that stays the same until the code changes."""

from __future__ import annotations

import dis
import hashlib
import inspect
import linecache
import sys
import sysconfig
import textwrap
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from types import CodeType

_INSTALLED = tuple(
    {str(Path(path).resolve()) for name, path in sysconfig.get_paths().items() if name.endswith("lib")}
    | {str(Path(path).resolve()) for name, path in sysconfig.get_paths().items() if name == "stdlib"}
)


def shortened(text: str | bytes) -> str:
    """Twelve hexadecimal digits that tell one text from another."""
    data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    return hashlib.sha256(data).hexdigest()[:12]


def code_digest(code: CodeType) -> str:
    """Digest of a function's source text where that is at hand and is what runs, else of its bytecode.

    Text survives another version of Python, and neither changes with what stands around the function. The
    text of a lambda is that of its whole line, which others may share, so its bytecode counts.
    """
    text = None if code.co_name == "<lambda>" else _text(code)
    return shortened(repr(_facts(code)) if text is None else text)


def _text(code: CodeType) -> str | None:
    """The lines of a function; None where there are none, or others than those that were compiled."""
    linecache.checkcache(code.co_filename)
    lines = linecache.getlines(code.co_filename)
    found = _compiled(code.co_filename, "".join(lines)).get((code.co_qualname, code.co_firstlineno))
    if found != code:
        return None
    block = "".join(inspect.getblock(lines[code.co_firstlineno - 1 :]))
    return "\n".join(line.rstrip() for line in textwrap.dedent(block).rstrip().splitlines())


@lru_cache(maxsize=64)
def _compiled(filename: str, text: str) -> dict[tuple[str, int], CodeType]:
    try:
        whole = compile(text, filename, "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError):
        return {}
    return {(code.co_qualname, code.co_firstlineno): code for code in _all(whole)}


def _all(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _all(constant)


def _facts(code: CodeType) -> tuple[object, ...]:
    """What runs, without places in files and the order of sets."""
    return (
        code.co_code.hex(),
        code.co_exceptiontable.hex(),
        [_constant(constant) for constant in code.co_consts],
        (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars),
        (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags),
    )


def _constant(value: object) -> object:
    if isinstance(value, CodeType):
        return _facts(value)
    if isinstance(value, frozenset):
        return ("frozenset", sorted(repr(_constant(each)) for each in value))
    if isinstance(value, tuple):
        return tuple([_constant(each) for each in value])
    return repr(value)


def names_used(code: CodeType) -> tuple[set[str], set[str]]:
    """The global names that a function and those within it read, and the attributes of anything."""
    names: set[str] = set()
    attributes: set[str] = set()
    for each in _all(code):
        attributes.update(each.co_names)
        for instruction in dis.get_instructions(each):
            if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
                names.add(instruction.argval)
    return names, attributes


@lru_cache(maxsize=4096)
def is_installed(module: str) -> bool:
    """Whether a module is Python's own, an installed package's, or of pynas, which are known by their names.

    The versions of these stand in a run's provenance; what a user writes and changes is elsewhere.
    """
    root = module.partition(".")[0]
    if root == "pynas":
        return not module.startswith("pynas.testing")
    if root in sys.stdlib_module_names or root in sys.builtin_module_names:
        return root != "__main__"
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None:
        return False
    return any(Path(file).resolve().is_relative_to(folder) for folder in _INSTALLED)
