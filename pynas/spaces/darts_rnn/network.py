"""A language model whose first dimension counts samples, as searches and probes need."""

from __future__ import annotations

from typing import Any

from torch import Tensor, int64, nn

from pynas._errors import UserError
from pynas.nn.language_model import RecurrentLanguageModel
from pynas.nn.recurrent import RecurrentGenotype


class NextWords(nn.Module):
    """Words ``[B, T]`` to logits of the next words ``[B, words, T]``; sequences start from state zero."""

    def __init__(self, words: int, features: int, genotype: RecurrentGenotype, **dropouts: Any) -> None:
        super().__init__()
        self.model = RecurrentLanguageModel(words, features, genotype=genotype, **dropouts)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits of the words that follow."""
        if tokens.dim() != 2 or tokens.dtype != int64 or tokens.shape[1] == 0:
            raise UserError(
                f"inputs: expected words [B, T] of int64, T at least 1, got {list(tokens.shape)} of "
                f"{tokens.dtype}"
            )
        logits, _ = self.model(tokens.T, self.model.initial_hidden(tokens.shape[0]))
        y: Tensor = logits.permute(1, 2, 0)
        return y
