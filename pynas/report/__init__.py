"""Pages to look at: HTML files that open without a network."""

from __future__ import annotations

from pynas.report._cell import draw_cell
from pynas.report.embedding import write_embedding_report
from pynas.report.layers import LayerScore, write_layers_report
from pynas.report.ranking import write_ranking_report
from pynas.report.search import write_search_report
from pynas.report.sharing import write_sharing_report

__all__ = [
    "LayerScore",
    "draw_cell",
    "write_embedding_report",
    "write_layers_report",
    "write_ranking_report",
    "write_search_report",
    "write_sharing_report",
]
