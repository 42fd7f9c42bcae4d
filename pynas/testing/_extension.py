"""Loads the compiled core from another folder: a sanitizer build, or one that is not installed."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path


def use_extension() -> None:
    """Load ``pynas._C`` from the folder in ``PYNAS_EXTENSION``, if set; call this first."""
    folder = os.environ.get("PYNAS_EXTENSION")
    if not folder:
        return
    import torch  # noqa: F401  (its libraries must be loaded first)

    import pynas

    (path,) = Path(folder).glob("_C*.so")
    spec = importlib.util.spec_from_file_location("pynas._C", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["pynas._C"] = module
    spec.loader.exec_module(module)
    vars(pynas)["_C"] = module  # as an import from the package does
