"""Shared weights of DARTS' recurrent cells: a language model that runs any of them.

Source: H. Liu, K. Simonyan, Y. Yang, "DARTS: Differentiable Architecture Search", ICLR 2019,
arXiv:1806.09055.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from pynas._errors import UserError
from pynas.architecture import Architecture
from pynas.nn.language_model import RecurrentLanguageModel
from pynas.nn.recurrent import RecurrentCell
from pynas.spaces import DARTSRNN
from pynas.spaces.darts_rnn.network import NextWords
from pynas.supernet._base import Segment, SharedWeights
from pynas.supernet.language_training import start_at_unit_scale, start_from_frequencies


class RecurrentSupernet(SharedWeights):
    r"""Words ``[N, T]`` int64 to logits ``[N, words, T]`` of each next one, by any cell of ``darts_rnn``.

    Cells share all weights: embedding and decoder (one matrix), ``W_0``, and the matrix ``W_i`` of each node,
    whatever its predecessor and activation. A cell runs exactly as by itself, without the mixtures and batch
    norms of a gradient-based search; so there are no statistics to recalibrate.

    ``T`` words are a window of the text, which starts from a state of zeros. With the next words ``[N, T]``
    as targets, ``cross_entropy`` of the logits is the mean over all words, in nats.

    Args:
        space: The space, with its features, nodes and dropouts; if None, ``darts_rnn`` as published.
        words: Size of the vocabulary.
    """

    def __init__(self, space: DARTSRNN | None = None, words: int = 10_000) -> None:
        super().__init__()
        self.space: DARTSRNN = DARTSRNN() if space is None else space
        if not isinstance(self.space, DARTSRNN):
            raise UserError(f"space: expected darts_rnn, got {self.space.name}")
        some = Architecture(self.space.name, (0,) * len(self.space.num_choices))
        self.network = cast(NextWords, self.space.build(some, words))

    def segments(self, arch: Architecture) -> tuple[Segment, ...]:
        """A single segment: the decoder shares the embedding's weights, so they cannot be separated."""
        genotype = self.space.genotype(arch)
        network = self.network

        def run(words: Tensor) -> Any:
            cast(RecurrentCell, network.model.rnns[0]).genotype = genotype
            return network(words)

        return (Segment(genotype.recurrent, run, (network,)),)

    def classifier(self) -> nn.Linear:
        """The decoder, which shares the embedding's weight."""
        return self.network.model.decoder

    def _replace_classifier(self, layer: nn.Linear) -> None:
        raise UserError(
            "reset_classifier: the decoder shares the embedding's weights; another vocabulary needs another "
            "model"
        )


@torch.no_grad()
def start_language_model(network: nn.Module, words: Tensor) -> None:
    """Initialise a language model so that a short training makes progress.

    See :func:`~pynas.supernet.language_training.start_at_unit_scale` and ``start_from_frequencies``.

    Args:
        network: A network with a :class:`~pynas.nn.RecurrentLanguageModel`, which is changed in place with
            torch's global generator.
        words: The training text, int64 of any shape, for word frequencies.

    Raises:
        UserError: The network has no such model.
    """
    for model in network.modules():
        if isinstance(model, RecurrentLanguageModel):
            start_at_unit_scale(model)
            start_from_frequencies(model, words.flatten())
            return
    raise UserError(f"network: expected one with a language model, got {type(network).__name__}")
