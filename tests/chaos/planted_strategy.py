"""Loaded into a job's process: random search that forgets where it was."""

import os

from pynas.strategies import RandomSearch

load_state = RandomSearch.load_state


def forgetful(self, state):
    load_state(self, state)
    self._rng.seed(os.getpid())


RandomSearch.load_state = forgetful
