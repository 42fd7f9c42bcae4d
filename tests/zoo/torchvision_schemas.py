"""Lets torchvision be imported where its compiled operators do not load."""

from __future__ import annotations

import importlib.util
import re
from contextlib import suppress
from pathlib import Path

from torch import library


def define() -> None:
    """Declare the operators that torchvision registers fake kernels for; none of them is called."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations:
        return
    source = Path(spec.submodule_search_locations[0], "_meta_registrations.py").read_text()
    pattern = r'register_(?:fake|meta)\("(?:torchvision::)?(\w+)"'
    for name in sorted(set(re.findall(pattern, source))):
        with suppress(RuntimeError):  # it is there
            library.define(f"torchvision::{name}", "(Tensor a) -> Tensor")
