"""The former name of :mod:`pynas.tables`, which says less easily confused what they are."""

from __future__ import annotations

from pynas.tables import FAMILIES, Benchmark, Column, Table, convert, kinds, load, load_content, open

__all__ = ["FAMILIES", "Benchmark", "Column", "Table", "convert", "kinds", "load", "load_content", "open"]
