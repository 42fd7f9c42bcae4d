"""Reads genotypes from text: the ``Genotype(...)`` of the DARTS code, its JSON form, and the compact form."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from pynas._errors import UserError


class ParseError(Protocol):
    """``SearchSpace._parse_error`` of the space that reads."""

    def __call__(
        self, text: str, start: int, length: int, expected: str, choices: tuple[str, ...] = ()
    ) -> UserError: ...


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of the text; for quoted text, what is between the quotes."""

    kind: str  # "name", "quoted", "number", "mark", "end"
    text: str
    start: int


@dataclass(frozen=True, slots=True)
class EdgeText:
    """One ``(operation, source)``, and the position of the source in the text."""

    operation: str
    source: int
    at: Token


_TOKEN: Final = re.compile(
    r"\s*(?:(?P<name>[A-Za-z_]\w*)|(?P<number>[0-9]+)|'(?P<single>[^']*)'|\"(?P<double>[^\"]*)\"|(?P<mark>\S))"
)


class GenotypeReader:
    """Reads the tokens of a text in order; the error points at the first token that does not fit.

    Args:
        text: Text to read.
        error: Makes the error.
        operations: Valid names of operations.
    """

    def __init__(self, text: str, error: ParseError, operations: tuple[str, ...]) -> None:
        self._text = text
        self._error = error
        self._operations = operations
        self._position = 0
        self.token = self._scan()

    def _scan(self) -> Token:
        match = _TOKEN.match(self._text, self._position)
        if match is None:
            return Token("end", "", len(self._text))
        self._position = match.end()
        kind = match.lastgroup or "mark"
        return Token(
            "quoted" if kind in ("single", "double") else kind, match[kind], match.start(match.lastindex or 0)
        )

    # ---- pieces ----------------------------------------------------------------------------------

    def advance(self) -> Token:
        """Return the current token and go to the next one."""
        token, self.token = self.token, self._scan()
        return token

    def error(self, expected: str, token: Token | None = None, choices: tuple[str, ...] = ()) -> UserError:
        """The error that ``token`` (by default the current one) is not ``expected``."""
        token = token or self.token
        return self._error(self._text, token.start, len(token.text), expected, choices)

    def accept(self, *marks: str) -> str:
        """Skip one of ``marks`` if it is next, and return it; otherwise return the empty string."""
        if self.token.kind == "mark" and self.token.text in marks:
            return self.advance().text
        return ""

    def expect(self, *marks: str) -> str:
        """Skip one of ``marks``, which must be next."""
        found = self.accept(*marks)
        if not found:
            raise self.error(" or ".join(map(repr, marks)))
        return found

    def word(self, choices: tuple[str, ...], what: str) -> str:
        """One of ``choices``, with quotes or without."""
        if self.token.kind not in ("name", "quoted") or self.token.text not in choices:
            one = f"{what} out of {', '.join(choices)}" if len(choices) > 1 else repr(choices[0])
            raise self.error(one, choices=choices)
        return self.advance().text

    def number(self, low: int, high: int, what: str) -> tuple[int, Token]:
        """An integer in ``low..high``, and its token."""
        token = self.token
        if token.kind != "number" or not low <= int(token.text) <= high:
            raise self.error(f"{what} in {low}..{high}")
        return int(self.advance().text), token

    def end(self) -> None:
        """The text must end here."""
        if self.token.kind != "end":
            start = self.token.start
            raise self._error(self._text, start, len(self._text) - start, "the end of the text")

    # ---- genotypes -------------------------------------------------------------------------------

    @staticmethod
    def is_compact(text: str) -> bool:
        """Whether ``text`` cannot be a ``Genotype(...)`` or its JSON form."""
        return "Genotype" not in text and not text.startswith("{")

    def edges(self, highest: Sequence[int]) -> list[EdgeText]:
        """``[('op', 0), ...]`` with as many pairs as ``highest``, the largest source of each."""
        closing = {"[": "]", "(": ")"}[self.expect("[", "(")]
        found = []
        for i, high in enumerate(highest):
            end = {"(": ")", "[": "]"}.get(self.accept("(", "["))
            if end is None:
                raise self.error(f"'(' and operation {i + 1} of {len(highest)}")
            operation = self.word(self._operations, "an operation")
            self.expect(",")
            source, at = self.number(0, high, "a source")
            self.expect(end)
            found.append(EdgeText(operation, source, at))
            if i + 1 < len(highest):
                self.expect(",")
        self.accept(",")
        self.expect(closing)
        return found

    def compact_edges(self, highest: Sequence[int], per_node: int) -> list[EdgeText]:
        """``op~0+op~1|op~0+op~2|...``: ``+`` between the edges of a node, ``|`` between nodes."""
        found = []
        for i, high in enumerate(highest):
            if i:
                self.expect("|" if i % per_node == 0 else "+")
            operation = self.word(self._operations, "an operation")
            self.expect("~")
            source, at = self.number(0, high, "a source")
            found.append(EdgeText(operation, source, at))
        return found

    def concat(self, first: int, last: int) -> None:
        """``range(first, last + 1)`` or the list of these numbers: every node is part of the output."""
        expected = f"range({first}, {last + 1}): every node is part of the output"
        start = self.token
        numbers = []
        if self.token.kind == "name" and self.token.text == "range":
            self.advance()
            self.expect("(")
            low, _ = self.number(0, last + 1, "a node")
            self.expect(",")
            high, _ = self.number(0, last + 1, "a node")
            self.expect(")")
            numbers = list(range(low, high))
        else:
            closing = {"[": "]", "(": ")"}.get(self.accept("[", "("))
            if closing is None:
                raise self.error(expected)
            while not self.accept(closing):
                numbers.append(self.number(first, last, "a node")[0])
                if self.token.text != closing:
                    self.expect(",")
        if sorted(numbers) != list(range(first, last + 1)):
            raise self.error(expected, start)

    def fields(self, readers: Mapping[str, Callable[[], object]], required: tuple[str, ...]) -> None:
        """``Genotype(name=..., ...)`` or ``{"name": ..., ...}``, after an optional ``VARIABLE =``."""
        if self.token.kind == "name" and self.token.text != "Genotype":
            self.advance()
            self.expect("=")
        if self.accept("{"):
            separator, closing = ":", "}"
        else:
            self.word(("Genotype",), "")
            self.expect("(")
            separator, closing = "=", ")"
        remaining = list(readers)
        while True:
            name = self.word(tuple(remaining), "a field")
            remaining.remove(name)
            self.expect(separator)
            readers[name]()
            comma = self.accept(",")
            left = [name for name in required if name in remaining]
            if not left and self.accept(closing):
                break
            if not comma:
                raise self.error(f"',' and {left[0]!r}" if left else f"',' or {closing!r}")
            if not remaining:
                raise self.error(repr(closing))
        self.end()
