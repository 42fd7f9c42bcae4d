"""Undo and redo for an editor of templates."""

from __future__ import annotations

from collections import deque

from pynas._errors import UserError
from pynas.spaces.template.design import Template


class History:
    """The template that is being edited, what it was before, and what was undone.

    Args:
        template: Where it begins.
        limit: How many changes can be undone; the oldest are forgotten.
    """

    def __init__(self, template: Template, *, limit: int = 1000) -> None:
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
            raise UserError(f"limit: expected a positive integer, got {limit!r}")
        self.template = _template(template)
        self._past: deque[tuple[Template, str]] = deque(maxlen=limit)
        self._future: list[tuple[Template, str]] = []

    def do(self, template: Template, what: str = "change") -> Template:
        """Make ``template`` the present one; a template equal to it is no change. Redo is then over.

        Args:
            template: A result of one of the present template's editing methods, or any other.
            what: What was done, in words, for a menu.
        """
        if _template(template) != self.template:
            self._past.append((self.template, what))
            self._future.clear()
            self.template = template
        return self.template

    def undo(self) -> Template:
        """Go back by one change; UserError if there is none."""
        if not self._past:
            raise UserError("undo: there is no change to undo")
        before, what = self._past.pop()
        self._future.append((self.template, what))
        self.template = before
        return before

    def redo(self) -> Template:
        """Take the last undo back; UserError if there is none."""
        if not self._future:
            raise UserError("redo: there is nothing to redo")
        after, what = self._future.pop()
        self._past.append((self.template, what))
        self.template = after
        return after

    @property
    def undoable(self) -> str | None:
        """What :meth:`undo` would undo; None if there is nothing."""
        return self._past[-1][1] if self._past else None

    @property
    def redoable(self) -> str | None:
        """What :meth:`redo` would do again; None if there is nothing."""
        return self._future[-1][1] if self._future else None


def _template(value: object) -> Template:
    if not isinstance(value, Template):
        raise UserError(f"template: expected a Template, got {type(value).__name__}")
    return value
