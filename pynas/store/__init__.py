"""Where searches are kept: runs, their trials and the state to continue from, in a database.

A trial and the strategy's state after it are committed in one transaction, so a search that is killed at any
moment continues from its store as if it had not been. SQLite runs in write-ahead mode with
``synchronous=NORMAL``: a committed trial survives the death of the process (SIGKILL included) without a disk
flush for each trial; a power cut can take the last few trials, never the consistency of the store.
"""

from __future__ import annotations

from pynas.store._database import DAMAGED, SCHEMA_VERSION
from pynas.store._location import check_location
from pynas.store._store import Store
from pynas.store._values import Run, RunConfig

__all__ = ["DAMAGED", "SCHEMA_VERSION", "Run", "RunConfig", "Store", "check_location"]
