"""Errors that a person can act on."""

from __future__ import annotations


class UserError(ValueError):
    """Bad input or a missing prerequisite: the message names what was expected, what came and what to do.

    The command line prints it and exits with code 2; everything else is a bug and keeps its traceback.
    """
