from __future__ import annotations

import pickle

import pytest

from pynas._errors import UserError, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", ""),
        ("naïve 日本語 \U0001f468‍\U0001f469 é¡~", "naïve 日本語 \U0001f468‍\U0001f469 é¡~"),
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("a\0b\tc\rd\x08e\x7f", r"a\x00b\x09c\x0dd\x08e\x7f"),
        ("\x9b31m \x85 \x80 \x9f", r"\x9b31m \x85 \x80 \x9f"),
        ("gpj.\u202etxt\u202c \u2066x\u2069 \u200f\u061c", r"gpj.\u202etxt\u202c \u2066x\u2069 \u200f\u061c"),
        ("half \udcff \ud83d", r"half \udcff \ud83d"),
        ("one\u2028two\u2029", r"one\u2028two\u2029"),
    ],
)
def test_what_moves_the_cursor_is_spelled_out(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(shown) == shown
    assert shown.encode("utf-8").decode() == shown


def test_line_feeds_stay_where_text_has_lines() -> None:
    assert printable("a\nb\r\n") == r"a\x0ab\x0d\x0a"
    assert printable("a\nb\r\n\x1b", lines=True) == "a\nb\\x0d\n\\x1b"


def test_errors_say_what_is_printable() -> None:
    error = UserError("no file \x1b[2J\u202e\udcff\n  under it: ^")
    assert str(error) == "no file \\x1b[2J\\u202e\\udcff\n  under it: ^"
    assert f"{error}" == str(error)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
