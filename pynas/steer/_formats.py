"""The formats of an export, without importing what writes them."""

from __future__ import annotations

import importlib.util

OWN = ("architecture", "state_dict")
"""What is written here; the others are those of :data:`pynas.export.FORMATS`."""

NEEDS = {"onnx": ("onnx", "onnxruntime", "onnxscript")}
"""Modules that a format needs."""


def formats() -> tuple[str, ...]:
    """The formats that can be written here."""
    others = ("pytorch", "onnx", "torch.export", "script")
    present = [
        name
        for name in others
        if all(importlib.util.find_spec(needed) is not None for needed in NEEDS.get(name, ()))
    ]
    return (*OWN, *present)
