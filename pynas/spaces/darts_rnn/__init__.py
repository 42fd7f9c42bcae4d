"""DARTS on text: a recurrent cell of 8 nodes, a predecessor and one of 4 activations each."""

from __future__ import annotations

from pynas.spaces.darts_rnn.space import DARTSRNN

__all__ = ["DARTSRNN"]
