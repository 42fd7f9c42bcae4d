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
from pynas.nn.language_training import start_at_unit_scale, start_from_frequencies
from pynas.nn.recurrent import RecurrentCell
from pynas.spaces import DARTSRNN
from pynas.spaces._darts_rnn_network import NextWords
from pynas.supernet._base import Segment, SharedWeights


class RecurrentSupernet(SharedWeights):
    r"""Words ``[N, T]`` int64 to logits ``[N, words, T]`` of each next one, by any cell of ``darts_rnn``.

    Cells share all that they have: embedding and decoder (one matrix), ``W_0``, and the matrix ``W_i`` of
    each node, whatever its predecessor and activation. One runs as it would alone, without the mixtures and
    the batch norms that a search by gradient needs; so there are no statistics to recalibrate.

    ``T`` words are a window of the text that starts afresh, from a state of zeros. With the next words
    ``[N, T]`` as targets, ``cross_entropy`` of the logits is the mean over all words, in nats.

    Args:
        space: ``darts_rnn`` as published if None; it has the features, nodes and dropouts.
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
        """One: the decoder's weights are the embedding's, so nothing before the cell is apart from it."""
        genotype = self.space.genotype(arch)
        network = self.network

        def run(words: Tensor) -> Any:
            cast(RecurrentCell, network.model.rnns[0]).genotype = genotype
            return network(words)

        return (Segment(genotype.recurrent, run, (network,)),)

    def classifier(self) -> nn.Linear:
        """The decoder, whose weight is the embedding's."""
        return self.network.model.decoder

    def _replace_classifier(self, layer: nn.Linear) -> None:
        raise UserError(
            "reset_classifier: the decoder's weights are the embedding's; another vocabulary needs another "
            "model"
        )


@torch.no_grad()
def start_language_model(network: nn.Module, words: Tensor) -> None:
    """Weights from which a short training of a language model gets somewhere.

    See :func:`~pynas.nn.language_training.start_at_unit_scale` and ``start_from_frequencies``.

    Args:
        network: Holds a :class:`~pynas.nn.RecurrentLanguageModel`, which is changed in place, with torch's
            global random numbers.
        words: Of the training text, int64 of any shape, for their frequencies.

    Raises:
        UserError: It holds none.
    """
    for model in network.modules():
        if isinstance(model, RecurrentLanguageModel):
            start_at_unit_scale(model)
            start_from_frequencies(model, words.flatten())
            return
    raise UserError(f"network: expected one with a language model, got {type(network).__name__}")
