"""Values that a user's code returned or raised: read as what they can only mean, or refused in words."""

from __future__ import annotations

import traceback
from typing import cast

import numpy as np

from pynas._errors import UserError, printable

_LONGEST = 8000  # characters of a traceback; recursion repeats itself


class Unusable(Exception):  # noqa: N818  (what came, not what went wrong here)
    """A value that cannot be read as what it should be; the text says what was expected and what came."""

    def __str__(self) -> str:
        return str(self.args[0])


def explained(error: BaseException) -> str:
    """Type and text of an exception, whatever its own text does."""
    if isinstance(error, Unusable):
        return cleaned(str(error))
    name = type(error).__name__
    try:
        return cleaned(f"{name}: {error}")
    except KeyboardInterrupt:
        raise
    except BaseException as second:
        return f"{name}, whose text cannot be had ({type(second).__name__})"


def traced(error: BaseException, here: str) -> str:
    """The traceback of what a user's code raised, from its own first line on; empty for a mere message.

    Args:
        error: The exception; one that only says what is wrong with the input has no traceback worth keeping.
        here: The file that called the user's code, whose frames are left out.
    """
    if isinstance(error, (Unusable, UserError)):
        return ""
    frames = error.__traceback__
    while frames is not None and frames.tb_next is not None and frames.tb_frame.f_code.co_filename == here:
        frames = frames.tb_next
    try:
        text = "".join(traceback.format_exception(type(error), error, frames, chain=True))
    except KeyboardInterrupt:
        raise
    except BaseException:  # the exception's own text raises
        text = "".join(traceback.format_tb(frames))
    text = cleaned(text.rstrip())
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST // 2]}\n...\n{text[-_LONGEST // 2 :]}"
    return text


def cleaned(text: str) -> str:
    """Text that every store, page and terminal takes, the same after it was stored as before."""
    return printable(str.__str__(text).expandtabs(4), lines=True)


def number(value: object) -> float:
    """The one number that ``value`` is: Python's and NumPy's kinds, and arrays and tensors of one element.

    Raises:
        Unusable: It is none, or too large for a float.
    """
    if type(value) is float:
        return value
    if isinstance(value, (np.datetime64, np.timedelta64)):
        raise Unusable(f"expected a number, got {shown(value)}")
    item: object = value
    try:
        if not isinstance(value, (bool, int, float)) and callable(take := getattr(value, "item", None)):
            item = take()
        if isinstance(item, (str, bytes, complex)) or not (
            hasattr(type(item), "__float__") or hasattr(type(item), "__index__")
        ):
            raise Unusable(f"expected a number, got {shown(value)}")
        return float(cast(float, item))
    except Unusable:
        raise
    except OverflowError:
        raise Unusable(f"expected a number, got {shown(value)}, too large for a float") from None
    except Exception as error:  # whatever an object's own conversion raises
        raise Unusable(f"expected a number, got {shown(value)} ({explained(error)})") from error


def shown(value: object) -> str:
    """A few words about a value of any kind, without its own ``repr``, which may be long or raise."""
    kind = type(value).__name__
    if isinstance(value, str):
        return f"the text {str.__str__(value)[:60]!r}"
    if value is None or isinstance(value, bool):
        return str(value)
    if type(value) is int:
        return str(value) if value.bit_length() < 64 else f"an integer of {value.bit_length()} bits"
    if type(value) is float:
        return str(value)
    shape = getattr(value, "shape", None)
    return f"{kind} of shape {list(shape)}" if isinstance(shape, tuple) else kind
