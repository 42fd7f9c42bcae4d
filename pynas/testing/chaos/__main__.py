"""``python -m pynas.testing.chaos``."""

from __future__ import annotations

from pynas.testing.chaos._command import main

main()
