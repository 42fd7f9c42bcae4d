"""Other people's distributions that own the import name ``pynas``, or call themselves so."""

from __future__ import annotations

import warnings
from importlib import metadata

OURS = "pynas-torch"
OTHERS = {
    "pynas": "somebody else's package of this name",
    "esa-pynas": "another project that is imported as pynas",
}


def installed() -> list[str]:
    """A sentence for each that is installed, with what to do; they write into the folder of this package."""
    found = []
    for name, what in OTHERS.items():
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
        found.append(
            f"{name} {version} is installed, {what}: both write to the folder pynas, and either may be what "
            f"is imported. Run: pip uninstall {name}; then install {OURS} again"
        )
    return found


def warn() -> None:
    """Warn of each; called when pynas is imported."""
    for text in installed():
        warnings.warn(text, stacklevel=3)
