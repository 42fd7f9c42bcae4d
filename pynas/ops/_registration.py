"""How the operators' Python files meet the compiled ones."""

from __future__ import annotations

import torch


def _registered() -> frozenset[str]:
    try:
        import pynas._C  # noqa: F401  (importing it registers torch.ops.pynas.*)
    except ImportError:
        return frozenset()
    names = torch._C._dispatch_get_all_op_names()
    return frozenset(name.removeprefix("pynas::") for name in names if name.startswith("pynas::"))


_REGISTERED = _registered()


def _pending(name: str) -> bool:
    """Whether torch.ops.pynas.<name> is not compiled yet, so that its reference must stand in."""
    return name not in _REGISTERED
