"""``python -m pynas.testing.fuzz``."""

from __future__ import annotations

from pynas.testing.fuzz._command import main

if __name__ == "__main__":
    raise SystemExit(main())
