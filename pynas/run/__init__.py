"""The search loop: who is asked, who is told, and what a store keeps of it."""

from __future__ import annotations

from pynas.run.loop import search
from pynas.run.result import SearchResult

__all__ = ["SearchResult", "search"]
