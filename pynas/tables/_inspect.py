"""What any table that can be named holds: the columns of it, before a metric is chosen."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from pynas import spaces
from pynas._errors import UserError
from pynas.spaces import NASBench201, SearchSpace
from pynas.tables import analog, compact
from pynas.tables._columns import Column
from pynas.tables._compact import Content
from pynas.tables._families import FAMILIES
from pynas.tables._open import load_content


def inspect(spec: str, space: SearchSpace | None = None) -> Content:
    """All columns of a table.

    Args:
        spec: What :func:`pynas.tables.load` takes, or a file alone.
        space: Space of the architectures, where the file does not say.

    Raises:
        UserError: The table is absent, damaged, or of another kind.
    """
    kind, separator, rest = spec.partition(":")
    if spec == "analog" and not os.path.exists(spec):
        return _analog()
    if not separator or kind not in {"npz", *compact.KINDS} or os.path.exists(spec):
        return load_content(Path(os.path.expanduser(spec)), space)
    if not rest:
        raise UserError(f"table {kind}: give a file, as in {kind}:FILE.npz")
    path = rest if os.path.exists(os.path.expanduser(rest)) else rest.partition("#")[0]
    content = load_content(Path(os.path.expanduser(path)), space)
    allowed = compact.KINDS.get(kind, ())
    if allowed and content.family not in allowed:
        title = FAMILIES[content.family].title
        raise UserError(f"{path}: a table of {title}, not one for {kind}: use table:FILE")
    return content


def _analog() -> Content:
    space, path = spaces.get("nasbench201"), analog.installed()
    assert isinstance(space, NASBench201)
    found = sorted(analog.records(path, space).items())
    metrics = [name for name, value in found[0][1].fields.items() if isinstance(value, float)]
    columns = {
        Column("cifar10", name): np.array([record.fields.get(name, np.nan) for _, record in found])
        for name in map(str, metrics)
    }
    return Content("analog", path.name, {"index": np.array([index for index, _ in found])}, columns)
