"""The page of an embedding: architectures in the plane of their vectors' first two principal components."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from pynas._plural import counted
from pynas.architecture import Architecture
from pynas.report import _figures, document
from pynas.report._architectures import Column, table_of_all, with_unit
from pynas.spaces import SearchSpace

_LOWEST = 0.05  # quantile at which the colours start: networks that learn nothing would take all of them
_COMPONENTS = 12


def write_embedding_report(
    path: str | os.PathLike[str],
    space: SearchSpace,
    architectures: Sequence[Architecture],
    vectors: NDArray[Any],
    *,
    title: str = "arch2vec embedding",
    subtitle: str = "",
    quality: Sequence[tuple[str, float, float | None]] = (),
    losses: Sequence[float] = (),
    accuracy: Sequence[float | None] = (),
    accuracy_label: str = "accuracy",
    higher_is_better: bool = True,
    inline: bool = False,
) -> Path:
    """Write a page about vectors of architectures; it opens without a network connection.

    It shows the architectures in the plane of the first two principal components, coloured by accuracy where
    that is known and else by parameters, how much of the variance each component has, the training, and all
    architectures in a table that sorts. A click on a point draws its architecture and copies its text.

    Args:
        path: HTML file to write.
        space: Space of the architectures.
        architectures: ``N`` of them.
        vectors: ``[N, D]``, with ``D >= 2``.
        title: Heading of the page.
        subtitle: A line below it.
        quality: What was measured, its value here, and the published one or None, in percent.
        losses: Of each epoch of training.
        accuracy: Of each architecture, None where it is not known; empty if there is none.
        accuracy_label: What it is, with its unit.
        higher_is_better: Whether a high one is good.
        inline: Put plotly.js, five megabytes, into the page, and not beside it.

    Returns:
        ``path``.
    """
    page = _EmbeddingPage(space, architectures, np.asarray(vectors, dtype=np.float64))
    known = np.array([np.nan if value is None else value for value in accuracy], dtype=np.float64)
    body = page.body(quality, losses, known, accuracy_label, higher_is_better)
    return document.write_page(path, title, subtitle, body, inline=inline)


class _EmbeddingPage:
    def __init__(self, space: SearchSpace, architectures: Sequence[Architecture], vectors: Any) -> None:
        self.space, self.architectures = space, architectures
        centred = vectors - vectors.mean(axis=0)
        _, singular, axes = np.linalg.svd(centred, full_matrices=False)
        self.plane = centred @ axes[:2].T
        total = (singular**2).sum()
        self.share = singular**2 / (total if total > 0 else 1.0)

    def body(
        self,
        quality: Sequence[tuple[str, float, float | None]],
        losses: Sequence[float],
        accuracy: NDArray[np.float64],
        label: str,
        higher_is_better: bool,
    ) -> Iterator[str]:
        costs = {
            "params": np.array([self.space.params(each) for each in self.architectures], dtype=np.float64),
            "flops": np.array([self.space.macs(each) for each in self.architectures], dtype=np.float64),
        }
        if np.isfinite(accuracy).any():
            plot = self._plane(accuracy, label, higher_is_better)
        else:
            plot = self._plane(costs["params"] / 1e6, "params (M)", False)
        remark = "Each point is an architecture; near ones have similar vectors."
        yield document.grid([document.card("Latent space", plot + document.note(remark), wide=True)])
        cards = [document.card("Variance by principal component", self._variance())]
        if len(losses) > 1:
            cards.append(document.card("Training", self._losses(losses)))
        if quality:
            rows = [
                [name, f"{value:.2f}", "–" if paper is None else f"{paper:.2f}"]
                for name, value, paper in quality
            ]
            table = document.table(["%", "here", "arch2vec paper"], rows, text_columns=["%"])
            cards.append(document.card("Quality", table, wide=len(cards) == 2))
        yield document.grid(cards)
        yield document.grid(
            [document.card("All architectures", self._all(accuracy, label, costs), wide=True)]
        )

    def _plane(self, values: NDArray[np.float64], label: str, trimmed: bool) -> str:
        finite = values[np.isfinite(values)]
        low = float(np.quantile(finite, _LOWEST)) if trimmed else float(finite.min())
        figure = _figures.plane(self.plane, values, low, label)
        for update, number in ((figure.update_xaxes, 0), (figure.update_yaxes, 1)):
            share = 100 * self.share[number] if number < len(self.share) else 0.0
            update(title_text=f"principal component {number + 1}, {share:.0f} % of the variance")
        return document.plot(figure, height=600)

    def _variance(self) -> str:
        figure = go.Figure()
        shown = 100 * self.share[:_COMPONENTS]
        hover = "component %{x}: %{y:.1f} %<extra></extra>"
        figure.add_bar(x=list(range(1, len(shown) + 1)), y=shown, hovertemplate=hover, name="share")
        figure.update_traces(marker={"color": document.BLUE})
        figure.update_xaxes(title_text="principal component", dtick=1)
        figure.update_yaxes(title_text="share of the variance (%)")
        return document.plot(figure, height=320)

    def _losses(self, losses: Sequence[float]) -> str:
        figure = go.Figure()
        line = {"color": document.BLUE, "width": 2.5}
        hover = "epoch %{x}: %{y:.4f}<extra></extra>"
        epochs = list(range(1, len(losses) + 1))
        figure.add_scatter(x=epochs, y=list(losses), mode="lines+markers", line=line, hovertemplate=hover)
        figure.update_traces(name="loss")
        figure.update_xaxes(title_text="epoch")
        figure.update_yaxes(title_text="loss")
        return document.plot(figure, height=320)

    def _all(self, accuracy: NDArray[np.float64], label: str, costs: Mapping[str, Any]) -> str:
        columns = [Column(label, accuracy, hover=True)] if np.isfinite(accuracy).any() else []
        columns += [Column(with_unit(name), values, hover=True) for name, values in costs.items()]
        columns += [Column(f"component {k + 1}", self.plane[:, k]) for k in range(self.plane.shape[1])]
        count = len(self.architectures)
        remark = (
            f"The {counted(count, 'architecture')} of the plot. A click on a row, or on a point, draws that "
            "architecture and copies its text."
        )
        table = table_of_all(
            "architecture",
            Column("number", range(1, count + 1)),
            [self.space.format(each) for each in self.architectures],
            columns,
            [self.space.graph(each) for each in self.architectures],
            self.space.node_labels,
        )
        return document.note(remark) + table
