"""DARTS on text: a recurrent cell of 8 nodes, a predecessor and one of 4 activations each.

Source: H. Liu, K. Simonyan, Y. Yang, "DARTS: Differentiable Architecture Search", ICLR 2019,
arXiv:1806.09055, section 3.1.2 and appendix A.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pynas._errors import UserError
from pynas.architecture import Architecture
from pynas.spaces._genotype_text import EdgeText, GenotypeReader
from pynas.spaces.base import Edge, SearchSpace, check_positive

if TYPE_CHECKING:
    import torch
    from torch import nn

    from pynas.nn.language_model import RecurrentLanguageModel
    from pynas.nn.recurrent import RecurrentGenotype

ACTIVATIONS: Final = ("tanh", "relu", "sigmoid", "identity")

PUBLISHED: Final = {
    "DARTS_V1": "relu~0|relu~1|tanh~2|relu~3|relu~4|identity~1|relu~5|relu~1",
    "DARTS_V2": "sigmoid~0|relu~1|relu~1|identity~1|tanh~2|sigmoid~5|tanh~3|relu~5",
}
"""The paper's cells, found by first- and second-order search; :meth:`DARTSRNN.parse` reads the names."""

_Node = tuple[int, int]  # position in ACTIVATIONS, predecessor


class DARTSRNN(SearchSpace):
    r"""Recurrent cells ``s_i = s_j + sigmoid(c) (f(h) - s_j)`` with ``(c, h) = s_j W_i``, ``j < i``.

    ``s_0`` is computed in the same way from the word and the cell's last output, with tanh; the output is the
    mean of ``s_1 ... s_n``. Size for 8 nodes: ``8! * 4^8 = 2,642,411,520``.

    Decisions, node by node: the predecessor j, the activation f (position in :data:`ACTIVATIONS`).

    A cell is a tree, and another numbering of its nodes only renames the matrices ``W_i``. :meth:`canonical`
    is one numbering, the same for all of them.

    Networks are language models: they read words and predict the next after each. ``num_classes`` is the size
    of the vocabulary (10,000 for Penn Treebank), ``image_size`` the number of words in a sequence (35), and
    ``in_channels`` has no meaning. Defaults are those of the paper's evaluation on Penn Treebank.

    Args:
        nodes: Nodes of the cell.
        features: Size of embeddings and states; 300 in the paper's search.
        dropout: Dropout of the cell's outputs, with one mask for all words of a sequence.
        dropout_embedding: Dropout of the embedded words, likewise.
        dropout_input: Dropout of the cell's inputs, likewise.
        dropout_hidden: Dropout of the cell's states, likewise.
        dropout_word: Dropout of whole rows of the embedding.
    """

    name = "darts_rnn"
    summary = "recurrent cell of 8 nodes, a predecessor and 1 of 4 activations each (DARTS, ICLR 2019)"
    image_size = 5

    def __init__(
        self,
        *,
        nodes: int = 8,
        features: int = 850,
        dropout: float = 0.75,
        dropout_embedding: float = 0.2,
        dropout_input: float = 0.75,
        dropout_hidden: float = 0.25,
        dropout_word: float = 0.1,
    ) -> None:
        check_positive(nodes=nodes, features=features)
        self.nodes = nodes
        self.features = features
        self.dropout = dropout
        self.dropout_embedding = dropout_embedding
        self.dropout_input = dropout_input
        self.dropout_hidden = dropout_hidden
        self.dropout_word = dropout_word
        for name, probability in self._dropouts().items():
            if not (isinstance(probability, int | float) and 0 <= probability < 1):
                raise UserError(f"{name}: expected a probability in [0, 1), got {probability!r}")

    def _dropouts(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name.startswith("dropout")}

    @property
    def num_choices(self) -> tuple[int, ...]:
        """Node i = 1, 2, ... has i predecessors and 4 activations."""
        return tuple(n for i in range(self.nodes) for n in (i + 1, len(ACTIVATIONS)))

    # ---- identity and notation -------------------------------------------------------------------

    def cell(self, arch: Architecture) -> list[_Node]:
        """Activation (position in :data:`ACTIVATIONS`) and predecessor of node 1, 2, ..."""
        decisions = self.check(arch)
        return list(zip(decisions[1::2], decisions[::2], strict=True))

    def _from_cell(self, cell: list[_Node]) -> Architecture:
        return Architecture(self.name, tuple(d for activation, source in cell for d in (source, activation)))

    def canonical(self, arch: Architecture) -> Architecture:
        """Nodes in depth-first order; the successors of a node are sorted by their subtrees."""
        cell = self.cell(arch)
        children: list[list[int]] = [[] for _ in range(self.nodes + 1)]
        for i, (_, source) in enumerate(cell, start=1):
            children[source].append(i)
        trees: list[tuple[Any, ...]] = [()] * (self.nodes + 1)
        for i in range(self.nodes, -1, -1):  # children have higher numbers
            children[i].sort(key=trees.__getitem__)
            activation = cell[i - 1][0] if i else -1
            trees[i] = (activation, *(trees[child] for child in children[i]))
        numbered: list[_Node] = []

        def grow(old: int, new: int) -> None:
            for child in children[old]:
                numbered.append((cell[child - 1][0], new))
                grow(child, len(numbered))

        grow(0, 0)
        return self._from_cell(numbered)

    def genotype(self, arch: Architecture) -> RecurrentGenotype:
        """The architecture as :class:`pynas.nn.RecurrentGenotype`; :meth:`parse` reads it."""
        from pynas.nn.recurrent import RecurrentGenotype

        return RecurrentGenotype(tuple((ACTIVATIONS[f], source) for f, source in self.cell(arch)))

    def compact(self, arch: Architecture) -> str:
        """``relu~0|relu~1|tanh~2|...``, node by node, which :meth:`parse` also reads."""
        return "|".join(f"{ACTIVATIONS[f]}~{source}" for f, source in self.cell(arch))

    def format(self, arch: Architecture) -> str:
        """The text of the authors' code, ``Genotype(recurrent=[('relu', 0), ...], concat=range(1, 9))``."""
        nodes = [(ACTIVATIONS[f], source) for f, source in self.cell(arch)]
        return f"Genotype(recurrent={nodes}, concat=range(1, {self.nodes + 1}))"

    def parse(self, text: str | RecurrentGenotype) -> Architecture:
        """Read a genotype.

        Args:
            text: ``Genotype(...)`` as in the authors' code, its JSON form, the compact form (see
                :meth:`compact`), a published name (:data:`PUBLISHED`), or the value that a language model's
                ``genotype()`` returns.

        Raises:
            UserError: The text is malformed; the message points at the place.
        """
        text = (text if isinstance(text, str) else text.to_json()).strip()
        text = PUBLISHED.get(text, text)
        reader = GenotypeReader(text, self._parse_error, ACTIVATIONS)
        highest = range(self.nodes)
        edges: list[EdgeText] = []
        if reader.is_compact(text):
            edges = reader.compact_edges(highest, 1)
            reader.end()
        else:
            readers = {
                "recurrent": lambda: edges.extend(reader.edges(highest)),
                "concat": lambda: reader.concat(1, self.nodes),
            }
            reader.fields(readers, ("recurrent",))
        return self._from_cell([(ACTIVATIONS.index(edge.operation), edge.source) for edge in edges])

    def graph(self, arch: Architecture) -> tuple[Edge, ...]:
        """Edges from node 0, ``s_0``, to node n + 1, the mean."""
        cell = self.cell(arch)
        edges = [Edge(source, i, ACTIVATIONS[f]) for i, (f, source) in enumerate(cell, start=1)]
        return (*edges, *(Edge(i, self.nodes + 1, "mean") for i in range(1, self.nodes + 1)))

    # ---- the network -----------------------------------------------------------------------------

    def example_inputs(
        self, batch: int, in_channels: int = 3, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        """``[batch, image_size]`` int64: words 0 and 1 at random, which every vocabulary has."""
        import torch

        return torch.randint(2, (batch, self.image_size), generator=generator)

    def output_shape(self, batch: int, num_classes: int = 10_000) -> tuple[int, ...]:
        """``[batch, words, T]``."""
        return (batch, num_classes, self.image_size)

    def params(self, arch: Architecture, num_classes: int = 10_000, in_channels: int = 3) -> int:
        """Parameters: ``V H + V`` in embedding and decoder, ``4 H^2 + 2 n H^2`` in the cell's matrices.

        ``V`` words, ``H`` features, ``n`` nodes; the same for all architectures.
        """
        self.check(arch)
        check_positive(num_classes=num_classes)
        return num_classes * (self.features + 1) + (4 + 2 * self.nodes) * self.features**2

    def macs(
        self, arch: Architecture, num_classes: int = 10_000, image_size: int = 35, in_channels: int = 3
    ) -> int:
        """Multiply-adds of the matrix products for one sequence of ``image_size`` words."""
        self.check(arch)
        check_positive(num_classes=num_classes, image_size=image_size)
        return image_size * self.features * (num_classes + (4 + 2 * self.nodes) * self.features)

    def build(
        self, arch: Architecture, num_classes: int = 10_000, in_channels: int = 3, prune: bool = False
    ) -> nn.Module:
        """Build the language model: words ``[B, T]`` to logits of the next words ``[B, num_classes, T]``.

        This is the layout that ``cross_entropy`` takes; with the next words ``[B, T]`` as targets it averages
        over all words. ``network.model`` is the :class:`~pynas.nn.RecurrentLanguageModel`, whose parameter
        names are those of the authors' code, so their weights load into it. Every node is part of the mean,
        so ``prune`` has no effect.
        """
        from pynas.spaces.darts_rnn.network import NextWords

        genotype = self.genotype(arch)
        check_positive(num_classes=num_classes)
        return NextWords(num_classes, self.features, genotype, **self._dropouts())

    def supernet(self, num_classes: int = 10_000, **options: Any) -> RecurrentLanguageModel:
        """The language model of the search; :meth:`parse` reads its ``genotype()``.

        ``options`` as in :class:`~pynas.nn.RecurrentLanguageModel`, except features, which are the space's.
        """
        from pynas.nn.language_model import RecurrentLanguageModel

        return RecurrentLanguageModel(
            num_classes, self.features, **{"nodes": self.nodes, **self._dropouts(), **options}
        )
