"""Recurrent cells whose nodes are mixtures of activations: the search cell of DARTS, and cells it finds.

Source: H. Liu, K. Simonyan, Y. Yang, "DARTS: Differentiable Architecture Search", ICLR 2019, section 3.1.2.
Parameters have the names of the authors' code, so its state dicts load.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pynas.ops import ACTIVATIONS, mixed_activation

_SPREAD = 0.04  # parameters are initialised uniformly in [-_SPREAD, _SPREAD]


@dataclass(frozen=True, slots=True)
class RecurrentGenotype:
    """A discrete recurrent cell.

    Attributes:
        recurrent: (activation, predecessor) of node 1, 2, ...; predecessor 0 is the cell's first state.
        concat: States whose mean is the output; every node by default.
    """

    recurrent: tuple[tuple[str, int], ...]
    concat: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        nodes = tuple((str(name), int(source)) for name, source in self.recurrent)
        if not nodes:
            raise ValueError("recurrent: expected at least one (activation, predecessor), got none")
        for i, (name, source) in enumerate(nodes):
            if name not in ACTIVATIONS[1:]:
                known = ", ".join(ACTIVATIONS[1:])
                raise ValueError(
                    f"recurrent: node {i + 1}: expected an activation out of {known}, got {name!r}"
                )
            if not 0 <= source <= i:
                raise ValueError(f"recurrent: node {i + 1}: expected a predecessor in 0..{i}, got {source}")
        concat = tuple(int(i) for i in self.concat) or tuple(range(1, len(nodes) + 1))
        if not all(0 <= i <= len(nodes) for i in concat):
            raise ValueError(f"concat: expected states in 0..{len(nodes)}, got {concat}")
        object.__setattr__(self, "recurrent", nodes)
        object.__setattr__(self, "concat", concat)

    def to_json(self) -> str:
        """Serialise to a compact JSON object."""
        return json.dumps({"recurrent": self.recurrent, "concat": self.concat}, separators=(",", ":"))


def edges_of(nodes: int) -> int:
    """Edges of a search cell: node i has i predecessors, i = 1 .. nodes."""
    return nodes * (nodes + 1) // 2


def recurrent_genotype(weights: Tensor) -> RecurrentGenotype:
    """The discrete cell that mixture weights [edges, 5] prefer.

    Each node keeps the predecessor j and the activation k of its largest w_jk; "none" does not count.

    Raises:
        ValueError: The number of edges is not that of a cell.
    """
    nodes = 0
    while edges_of(nodes + 1) <= weights.shape[0]:
        nodes += 1
    if nodes < 1 or tuple(weights.shape) != (edges_of(nodes), len(ACTIVATIONS)):
        raise ValueError(
            f"weights: expected [n (n + 1) / 2, {len(ACTIVATIONS)}] for n nodes, got {tuple(weights.shape)}"
        )
    found = []
    rows = weights.detach().float().cpu()[:, 1:]
    for i in range(nodes):
        strengths = rows[edges_of(i) : edges_of(i + 1)]
        source = int(strengths.amax(dim=1).argmax())
        found.append((ACTIVATIONS[1 + int(strengths[source].argmax())], source))
    return RecurrentGenotype(tuple(found))


class _Recurrence(nn.Module):
    """Shared by both cells: parameters, masks, the first state, the loop over time."""

    def __init__(self, inputs: int, features: int, nodes: int, dropout_input: float, dropout_hidden: float):
        super().__init__()
        for name, value in (("dropout_input", dropout_input), ("dropout_hidden", dropout_hidden)):
            if not 0 <= value < 1:
                raise ValueError(f"{name}: expected a probability in [0, 1), got {value}")
        self.inputs, self.features, self.nodes = inputs, features, nodes
        self.dropout_input, self.dropout_hidden = dropout_input, dropout_hidden
        self._W0 = nn.Parameter(torch.empty(inputs + features, 2 * features).uniform_(-_SPREAD, _SPREAD))
        self._Ws = nn.ParameterList(
            torch.empty(features, 2 * features).uniform_(-_SPREAD, _SPREAD) for _ in range(nodes)
        )

    def _check(self, inputs: Tensor, hidden: Tensor) -> None:
        if inputs.dim() != 3 or inputs.shape[2] != self.inputs or inputs.shape[0] == 0:
            raise ValueError(
                f"inputs: expected [steps, batch, {self.inputs}] of at least one step, "
                f"got {tuple(inputs.shape)}"
            )
        if hidden.shape != (1, inputs.shape[1], self.features):
            raise ValueError(
                f"hidden: expected {(1, inputs.shape[1], self.features)}, got {tuple(hidden.shape)}"
            )

    def _masks(self, inputs: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Masks of variational dropout, the same for all steps (Gal & Ghahramani 2016)."""
        if not self.training:
            return None, None
        batch = inputs.shape[1]
        return (
            dropout_mask(inputs, (batch, self.inputs), self.dropout_input),
            dropout_mask(inputs, (batch, self.features), self.dropout_hidden),
        )

    def _first_products(
        self, x: Tensor, previous: Tensor, masks: tuple[Tensor | None, Tensor | None]
    ) -> tuple[Tensor, Tensor]:
        """States and products from which the activation tanh with weight one makes s_0."""
        both = torch.cat((_masked(x, masks[0]), _masked(previous, masks[1])), dim=-1)
        return previous.unsqueeze(0), both.mm(self._W0).unsqueeze(0)

    def extra_repr(self) -> str:
        """Sizes, for printing."""
        return f"{self.inputs}, {self.features}, nodes={self.nodes}"


class RecurrentSearchCell(_Recurrence):
    """The search cell: s_i = BN(sum_{j<i} sum_k w_ijk [s_j + sigmoid(c)(f_k(h) - s_j)]), (c, h) = s_j W_i.

    s_0 = BN(h + sigmoid(c_0) (tanh(h_0) - h)) with (c_0, h_0) = [x, h] W_0, h the previous output; the output
    is the mean of the nodes. One batch normalisation without affine parameters serves all states, as in the
    authors' code. Each node is one :func:`pynas.ops.mixed_activation`.

    Args:
        inputs: Features of an input.
        features: Features of a state.
        nodes: Nodes of the cell; 8 in the paper.
        dropout_input: Dropout of the inputs; one mask for all steps.
        dropout_hidden: Dropout of the states where they enter a product; one mask for all steps.
    """

    def __init__(
        self,
        inputs: int,
        features: int,
        *,
        nodes: int = 8,
        dropout_input: float = 0.0,
        dropout_hidden: float = 0.0,
    ) -> None:
        super().__init__(inputs, features, nodes, dropout_input, dropout_hidden)
        self.bn = nn.BatchNorm1d(features, affine=False)

    def forward(self, inputs: Tensor, hidden: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Run over a sequence.

        Args:
            inputs: [steps, batch, inputs].
            hidden: [1, batch, features], the output before the first step.
            weights: [nodes (nodes + 1) / 2, 5] mixture weights of pynas.ops.ACTIVATIONS, node by node.

        Returns:
            Outputs [steps, batch, features], and the last of them as [1, batch, features].

        Raises:
            ValueError: A shape does not fit.
        """
        self._check(inputs, hidden)
        if weights.shape != (edges_of(self.nodes), len(ACTIVATIONS)):
            raise ValueError(
                f"weights: expected {(edges_of(self.nodes), len(ACTIVATIONS))}, got {tuple(weights.shape)}"
            )
        masks = self._masks(inputs)
        one = weights.new_ones(1, 1)
        outputs = []
        last = hidden[0]
        for x in inputs.unbind():
            last = self._step(x, last, weights, masks, one)
            outputs.append(last)
        if self.training and self.bn.num_batches_tracked is not None:
            self.bn.num_batches_tracked.add_(len(outputs) * (self.nodes + 1))
        return torch.stack(outputs), last.unsqueeze(0)

    def _step(
        self,
        x: Tensor,
        previous: Tensor,
        weights: Tensor,
        masks: tuple[Tensor | None, Tensor | None],
        one: Tensor,
    ) -> Tensor:
        first = self._node(*self._first_products(x, previous, masks), one, ("tanh",))
        states = first.unsqueeze(0)
        masked = _masked(states, masks[1])
        for i, matrix in enumerate(self._Ws):
            products = masked.flatten(0, 1).mm(matrix).view(i + 1, *first.shape[:1], -1)
            node = self._node(states, products, weights[edges_of(i) : edges_of(i + 1)], ACTIVATIONS)
            node = node.unsqueeze(0)
            states = torch.cat((states, node))
            if masks[1] is None:
                masked = states
            elif i + 1 < self.nodes:  # mask the new state once, not again at each node
                masked = torch.cat((masked, node * masks[1]))
        return states[1:].mean(dim=0)

    def _node(self, states: Tensor, products: Tensor, weights: Tensor, activations: Sequence[str]) -> Tensor:
        mean, var = self.bn.running_mean, self.bn.running_var
        return mixed_activation(
            states,
            products,
            weights,
            activations,
            normalized=True,
            running=None if mean is None or var is None else (mean, var),
            training=self.bn.training,
            momentum=0.1 if self.bn.momentum is None else self.bn.momentum,
            eps=self.bn.eps,
        )


class RecurrentCell(_Recurrence):
    """A discrete cell: s_i = s_j + sigmoid(c) (f(h) - s_j), (c, h) = s_j W_i.

    The output is the mean of the states in ``genotype.concat``.

    Args:
        inputs: Features of an input.
        features: Features of a state.
        genotype: Predecessor j and activation f of each node, and the states whose mean is the output.
        dropout_input: Dropout of the inputs; one mask for all steps.
        dropout_hidden: Dropout of the states where they enter a product; one mask for all steps.
    """

    def __init__(
        self,
        inputs: int,
        features: int,
        genotype: RecurrentGenotype,
        *,
        dropout_input: float = 0.0,
        dropout_hidden: float = 0.0,
    ) -> None:
        super().__init__(inputs, features, len(genotype.recurrent), dropout_input, dropout_hidden)
        self.genotype = genotype

    def forward(self, inputs: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs [steps, batch, features] and the last of them; arguments as in the search cell."""
        self._check(inputs, hidden)
        masks = self._masks(inputs)
        one = torch.ones(1, 1, device=inputs.device)
        outputs = []
        last = hidden[0]
        for x in inputs.unbind():
            last = self._step(x, last, masks, one)
            outputs.append(last)
        return torch.stack(outputs), last.unsqueeze(0)

    def _step(
        self, x: Tensor, previous: Tensor, masks: tuple[Tensor | None, Tensor | None], one: Tensor
    ) -> Tensor:
        states = [mixed_activation(*self._first_products(x, previous, masks), one, ("tanh",))]
        for (name, source), matrix in zip(self.genotype.recurrent, self._Ws, strict=True):
            products = _masked(states[source], masks[1]).mm(matrix)
            states.append(mixed_activation(states[source].unsqueeze(0), products.unsqueeze(0), one, (name,)))
        return torch.stack([states[i] for i in self.genotype.concat]).mean(dim=0)


def dropout_mask(like: Tensor, shape: tuple[int, ...], dropout: float) -> Tensor | None:
    """Zeros with probability ``dropout``, else 1 / (1 - dropout); None if nothing is dropped."""
    if dropout == 0:
        return None
    return like.new_empty(shape).bernoulli_(1 - dropout).div_(1 - dropout)


def _masked(tensor: Tensor, mask: Tensor | None) -> Tensor:
    return tensor if mask is None else tensor * mask
