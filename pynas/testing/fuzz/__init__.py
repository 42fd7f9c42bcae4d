"""Fuzzes every reader and parser with damaged and random input: ``python -m pynas.testing.fuzz``.

Any file and any text must be read, or refused with the documented error in one printable line; nothing may
crash, hang or exhaust the memory. A target (:mod:`._targets`, :mod:`._readers`) is one reader. Its initial
inputs are seeds and the files of a corpus folder: earlier failures and small valid files. If
`atheris <https://github.com/google/atheris>`_ is installed, it searches for new inputs guided by line
coverage. Otherwise inputs are mutated at random, and those with a new kind of outcome are mutated further.

A failing input is minimised, kept in the corpus, and printed with the command that reproduces it.
"""

from __future__ import annotations

from pynas.testing.fuzz._campaign import Failure, fuzz, replay
from pynas.testing.fuzz._targets import TARGETS, Target

__all__ = ["TARGETS", "Failure", "Target", "fuzz", "replay"]
