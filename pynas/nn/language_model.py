"""A small word-level language model around a recurrent cell, as DARTS searches on Penn Treebank."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pynas.nn.recurrent import (
    RecurrentCell,
    RecurrentGenotype,
    RecurrentSearchCell,
    dropout_mask,
    edges_of,
    recurrent_genotype,
)
from pynas.ops import ACTIVATIONS


class RecurrentLanguageModel(nn.Module):
    """Embedding, one recurrent cell, and a decoder that shares the embedding's weights.

    Parameters have the names of the authors' code (``encoder``, ``rnns.0._W0``, ``rnns.0._Ws.<i>``,
    ``decoder``, ``weights``), so its state dicts load. Where these lack ``weights``, the logits of the
    mixture, the present ones stay. Source: Liu, Simonyan & Yang, "DARTS", ICLR 2019.

    Args:
        words: Size of the vocabulary.
        features: Size of embeddings and states; 300 in the paper's search.
        genotype: A discrete cell in place of the search cell.
        nodes: Nodes of the search cell.
        dropout: Dropout of the cell's outputs; one mask serves all steps of a sequence.
        dropout_embedding: Dropout of the embedded words, likewise.
        dropout_input: Dropout of the cell's inputs.
        dropout_hidden: Dropout of the cell's states.
        dropout_word: Dropout of whole rows of the embedding.
    """

    def __init__(
        self,
        words: int,
        features: int = 300,
        *,
        genotype: RecurrentGenotype | None = None,
        nodes: int = 8,
        dropout: float = 0.75,
        dropout_embedding: float = 0.2,
        dropout_input: float = 0.75,
        dropout_hidden: float = 0.25,
        dropout_word: float = 0.0,
    ) -> None:
        super().__init__()
        self.features = features
        self.dropout, self.dropout_embedding, self.dropout_word = dropout, dropout_embedding, dropout_word
        self.encoder = nn.Embedding(words, features)
        dropouts = {"dropout_input": dropout_input, "dropout_hidden": dropout_hidden}
        cell: nn.Module
        if genotype is None:
            cell = RecurrentSearchCell(features, features, nodes=nodes, **dropouts)
            self.weights = nn.Parameter(1e-3 * torch.randn(edges_of(nodes), len(ACTIVATIONS)))
        else:
            cell = RecurrentCell(features, features, genotype, **dropouts)
        self.rnns = nn.ModuleList([cell])
        self.decoder = nn.Linear(features, words)
        self.decoder.weight = self.encoder.weight
        nn.init.uniform_(self.encoder.weight, -0.04, 0.04)
        nn.init.zeros_(self.decoder.bias)

    def forward(self, tokens: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Predict each next word.

        Args:
            tokens: [steps, batch] int64.
            hidden: [1, batch, features]; :meth:`initial_hidden` at the start of a text.

        Returns:
            Logits [steps, batch, words], and the hidden state after the last step.
        """
        table = self.encoder.weight
        drop = self.training
        rows = dropout_mask(table, (table.shape[0], 1), self.dropout_word) if drop else None
        x = F.embedding(tokens, table)
        if rows is not None:
            x = x * F.embedding(tokens, rows)
        x = self._locked(x, self.dropout_embedding)
        if self.searching:
            y, hidden = self.rnns[0](x, hidden, self.weights.softmax(-1))
        else:
            y, hidden = self.rnns[0](x, hidden)
        logits: Tensor = self.decoder(self._locked(y, self.dropout))
        return logits, hidden

    def _locked(self, x: Tensor, dropout: float) -> Tensor:
        mask = dropout_mask(x, (1, x.shape[1], x.shape[2]), dropout) if self.training else None
        return x if mask is None else x * mask

    @property
    def searching(self) -> bool:
        """Whether the cell is the search cell."""
        return isinstance(self.rnns[0], RecurrentSearchCell)

    def initial_hidden(self, batch: int) -> Tensor:
        """Zeros [1, batch, features]."""
        return self.encoder.weight.new_zeros(1, batch, self.features)

    def model_parameters(self) -> Iterator[nn.Parameter]:
        """All parameters except those of the architecture."""
        return (parameter for name, parameter in self.named_parameters() if name != "weights")

    def arch_parameters(self) -> list[nn.Parameter]:
        """The logits of the mixture; an empty list if the cell is discrete."""
        return [self.weights] if self.searching else []

    def genotype(self) -> RecurrentGenotype:
        """The discrete cell: the given one, or the one that the mixture prefers."""
        cell = self.rnns[0]
        if isinstance(cell, RecurrentCell):
            return cell.genotype
        return recurrent_genotype(self.weights.softmax(-1))

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *arguments: Any, **options: Any
    ) -> None:
        if self.searching:  # the authors' `weights` is no parameter, so their state dicts lack it
            state_dict.setdefault(f"{prefix}weights", self.weights.detach())
        super()._load_from_state_dict(state_dict, prefix, *arguments, **options)
