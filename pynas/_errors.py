"""Errors that a person can act on, and text that a terminal or a page can be given."""

from __future__ import annotations

import re

# What moves a cursor, colours, rings or turns text around instead of being read: C0 and C1 controls and DEL,
# the controls of text direction, separators of lines, and halves of surrogate pairs, which no encoding has.
_HIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str, *, lines: bool = False) -> str:
    r"""``text`` with control characters spelled out, as in ``\x1b[31m`` or ``\u202e``.

    Args:
        text: Anything, such as a name from somebody else's file.
        lines: Leave line feeds as they are, in text that has lines of its own.
    """

    def spelled(match: re.Match[str]) -> str:
        code = ord(match[0])
        if lines and match[0] == "\n":
            return "\n"
        return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"

    return _HIDDEN.sub(spelled, text)


class UserError(ValueError):
    """Bad input or a missing prerequisite: the message names what was expected, what came and what to do.

    The command line prints it and exits with code 2; everything else is a bug and keeps its traceback. Names
    from files, stores and the command line stand in messages, so ``str`` of the error is :func:`printable`.
    """

    def __str__(self) -> str:
        return printable(super().__str__(), lines=True)


class UserNotice(UserWarning):
    """What somebody should know although the work goes on; the command line prints its text on stderr."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether there was not enough memory; Python, torch and the loader of libraries each say so in a way."""
    if isinstance(error, (RuntimeError, ImportError, OSError)):
        text = str(error).lower()
        return any(said in text for said in ("allocate memory", "out of memory", "failed to map segment"))
    return isinstance(error, MemoryError)
