"""Names and short texts for what an object is described by."""

from __future__ import annotations

import json
import sys
from typing import Any

from pynas._identity.former import first_place
from pynas._identity.source import shortened

_LONGEST = 80
"""Characters of a value that stands for itself; a longer one is shortened to a digest."""


def to_text(description: object) -> str:
    """A description as one text, the same for equal ones."""
    return json.dumps(description, sort_keys=True)


def name_of(value: Any) -> str:
    """Module and name of a function or class; a script is ``__main__`` in its workers, too."""
    module = getattr(value, "__module__", None) or ""
    name = (
        getattr(value, "__qualname__", None) or getattr(value, "__name__", None) or type(value).__qualname__
    )
    module = "__main__" if module == "__mp_main__" else first_place(module)
    return name if module in ("", "builtins") else f"{module}.{name}"


def attributes_of(value: object) -> dict[str, Any]:
    """The attributes of an instance but for what it only remembers: names that contain ``cache``."""
    slots = {
        name: getattr(value, name)
        for kind in type(value).__mro__
        for name in slots_of(kind)
        if hasattr(value, name)
    }
    found = {**slots, **getattr(value, "__dict__", {})}
    return {name: inner for name, inner in found.items() if "cache" not in name.lower()}


def slots_of(kind: type) -> tuple[str, ...]:
    """The attributes for which a class statement reserves places."""
    slots = vars(kind).get("__slots__", ())
    names = (slots,) if isinstance(slots, str) else tuple(slots)
    return tuple(name for name in names if name not in ("__dict__", "__weakref__"))


def shorten(description: Any) -> Any:
    """A description that is short enough to be read: of a long one what it is of, and a digest."""
    text = to_text(description)
    if len(text) <= _LONGEST or not isinstance(description, (dict, list, str)):
        return description
    if isinstance(description, str):
        return f"{description[:40]}... ({len(description):,} characters, {shortened(description)})"
    if isinstance(description, list):
        return f"{len(description):,} values ({shortened(text)})"
    for kind in ("function", "class", "object", "partial", "method"):
        if isinstance(description.get(kind), str):
            return f"{kind} {description[kind]} ({shortened(text)})"
    return f"{len(description):,} entries ({shortened(text)})"


def is_tensor(value: object) -> bool:
    """Whether it is one of torch's, which nobody imports for that."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def shaped(kind: str, shape: tuple[int, ...], data: bytes) -> str:
    """Element type, shape and a digest of the elements."""
    return f"{kind} {list(shape)} ({shortened(data)})"


def tensor_digest(value: Any) -> str:
    """As :func:`shaped`, of a tensor on any device."""
    import torch

    flat = value.detach().to("cpu").contiguous().reshape(-1)
    kind = str(value.dtype).removeprefix("torch.")
    return shaped(kind, tuple(value.shape), flat.view(torch.uint8).numpy().tobytes() if len(flat) else b"")
