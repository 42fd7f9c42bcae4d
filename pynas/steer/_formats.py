"""The formats of an export, without importing what writes them."""

from __future__ import annotations

import importlib.util


def formats() -> tuple[str, ...]:
    """The formats that can be written here."""
    has_onnx = all(importlib.util.find_spec(name) is not None for name in ("onnx", "onnxscript"))
    return ("architecture", "state_dict", "pytorch", *(("onnx",) if has_onnx else ()))
