"""Feeds every reader and parser with damaged and invented input: ``python -m pynas.testing.fuzz``.

Whatever a file holds and whatever text a user gives, it is read or refused with the documented error, in one
printable line; nothing dies, hangs or takes all memory. A target (:mod:`._targets`, :mod:`._readers`) is one
reader. Its inputs begin with seeds and with what a corpus folder keeps: inputs that failed once, and small
valid files. Where `atheris <https://github.com/google/atheris>`_ is installed it looks for new ones, guided
by the lines that are run; elsewhere inputs are changed at random, and those that end in a new way are
changed further.

An input that fails is made smaller, kept in the corpus, and printed with the command that reads it again.
"""

from __future__ import annotations

from pynas.testing.fuzz._campaign import Failure, fuzz, replay
from pynas.testing.fuzz._targets import TARGETS, Target

__all__ = ["TARGETS", "Failure", "Target", "fuzz", "replay"]
