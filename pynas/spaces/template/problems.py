"""What is wrong with a template, and where: values that a page can show and errors that name the place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from pynas._errors import UserError


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        expected: What would be right.
        got: What came.
        advice: What to do; may be empty.
        layer: Index of the layer; None for the stem and for the template as a whole.
        alternative: Index of the alternative in the layer; None for the whole layer.
        property: Name of the property, or of the field of the template; empty if it is none.
        where: The place in words, such as ``layers[2] 'down', alternatives[1] conv_s2``.
    """

    expected: str
    got: str
    advice: str = ""
    layer: int | None = None
    alternative: int | None = None
    property: str = ""
    where: str = ""

    def __str__(self) -> str:
        place = ": ".join(part for part in (self.where, self.property) if part)
        advice = f"; {self.advice}" if self.advice else ""
        return f"{place or 'template'}: expected {self.expected}, got {self.got}{advice}"


class TemplateError(UserError):
    """A template, or a change of one, that cannot be.

    Attributes:
        problems: All that is wrong; the message is the first, with the number of the others.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        more = len(self.problems) - 1
        rest = "" if not more else f" (and {more} more)"
        super().__init__(f"{self.problems[0]}{rest}")


def refuse(
    expected: str, got: object, advice: str = "", *, property: str = "", where: str = ""
) -> TemplateError:
    """The error of a single problem whose place in a template is not known yet; ``got`` is shown as is."""
    return TemplateError([Problem(expected, str(got), advice, property=property, where=where)])


@contextmanager
def located(where: str, layer: int | None = None, alternative: int | None = None) -> Iterator[None]:
    """Errors inside get this place, unless they have one."""
    try:
        yield
    except TemplateError as error:
        found = [
            each if each.where else replace(each, where=where, layer=layer, alternative=alternative)
            for each in error.problems
        ]
        raise TemplateError(found) from None
