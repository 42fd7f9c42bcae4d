"""A found network as files that need no pynas: plain PyTorch source, ONNX, torch.export, TorchScript."""

from __future__ import annotations

from pynas.export.files import FORMATS, Exported, Format, export, found_by
from pynas.export.source import plain_source

__all__ = ["FORMATS", "Exported", "Format", "export", "found_by", "plain_source"]
