"""The database of searches: runs, their trials, and the state to resume from.

A trial and the strategy's state after it are committed in one transaction, so a search that is killed at any
moment resumes bit for bit. SQLite runs in write-ahead mode with ``synchronous=NORMAL``: a committed trial
survives the death of the process (also by SIGKILL) without a disk flush per trial; a power cut can lose the
last few trials, but never the consistency of the store.
"""

from __future__ import annotations

from pynas.store._database import DAMAGED, SCHEMA_VERSION
from pynas.store._journal import Journal
from pynas.store._location import check_location
from pynas.store._store import Store
from pynas.store._values import Action, Run, RunConfig

__all__ = ["DAMAGED", "SCHEMA_VERSION", "Action", "Journal", "Run", "RunConfig", "Store", "check_location"]
