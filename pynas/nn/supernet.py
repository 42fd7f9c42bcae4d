"""Supernets: networks of search cells with architecture parameters, to be trained by gradient or by sampling.

Sources: H. Liu, K. Simonyan, Y. Yang, "DARTS", ICLR 2019, arXiv:1806.09055 (softmax); X. Dong, Y. Yang,
"Searching for a Robust Neural Architecture in Four GPU Hours" (GDAS), CVPR 2019, arXiv:1910.04465 (hard
Gumbel samples); Z. Guo et al., "Single Path One-Shot Neural Architecture Search", ECCV 2020, arXiv:1904.00420
(uniform single paths); X. Dong, Y. Yang, "NAS-Bench-201", ICLR 2020, arXiv:2001.00326.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, Literal, TypeAlias, cast, get_args

import torch
from torch import Tensor, fx, nn

from pynas.architecture import Architecture
from pynas.nn._export import export
from pynas.nn.cell import Cell, NASBench201Cell, ResidualBlock
from pynas.nn.genotype import Edges, Genotype, derive_edges
from pynas.nn.mixed_op import Save
from pynas.ops._candidates import resolve

Sampling = Literal["softmax", "gumbel", "gumbel_hard", "single_path"]
Mixture: TypeAlias = tuple[Tensor, ...]


class Supernet(nn.Module, ABC):
    """A network whose edges are mixtures; a kind of search is a way to choose the mixtures' weights.

    Weights are a tuple of ``[edges, candidates]`` tensors, one for each kind of cell: (normal, reduction) in
    DARTS, a single one in NAS-Bench-201. Rows of a single one and zeros are a path or a discrete network:
    what has weight zero costs nothing.
    """

    candidates: tuple[str, ...]
    _fixed: Mixture | None = None

    @abstractmethod
    def architecture_parameters(self) -> tuple[nn.Parameter, ...]:
        """The logits alpha, ``[edges, candidates]`` for each kind of cell."""

    @abstractmethod
    def derive(self) -> Any:
        """The discrete architecture that the logits stand for."""

    @abstractmethod
    def choose(self, architecture: Any) -> Mixture:
        """Weights of zeros and ones that make the network a discrete one.

        Raises:
            ValueError: ``architecture`` is no architecture of this network.
        """

    @abstractmethod
    def _run(self, x: Tensor, weights: Mixture) -> Tensor:
        """Logits under these weights."""

    def weight_parameters(self) -> Iterator[nn.Parameter]:
        """All parameters but the architecture's."""
        own = {id(alpha) for alpha in self.architecture_parameters()}
        return (parameter for parameter in self.parameters() if id(parameter) not in own)

    def sample(
        self,
        how: Sampling = "softmax",
        *,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Mixture:
        r"""Mixture weights drawn from (or computed of) the logits alpha.

        Args:
            how: ``softmax``: ``softmax(alpha / T)`` (DARTS). ``gumbel``: ``p = softmax((alpha + G) / T)``
                with ``G = -log(-log U)``. ``gumbel_hard``: one-hot where ``p`` is largest in the forward
                pass, the gradient of ``p`` in the backward pass (GDAS); a candidate that was not drawn has
                the weight zero, whose gradient is zero. ``single_path``: one candidate of each edge,
                uniformly, without gradient to alpha (single path one-shot).
            temperature: T above.
            generator: Of the random numbers; torch's default one if None.

        Raises:
            ValueError: Another ``how``, or ``temperature`` is not positive.
        """
        if how not in get_args(Sampling):
            raise ValueError(f"how: expected one of {', '.join(get_args(Sampling))}, got {how!r}")
        if not temperature > 0:
            raise ValueError(f"temperature: expected a positive number, got {temperature!r}")
        return tuple(_sample(a, how, temperature, generator) for a in self.architecture_parameters())

    def forward(self, x: Tensor, weights: Mixture | Genotype | Architecture | None = None) -> Tensor:
        """Logits ``[N, num_classes]`` of images ``[N, in_channels, H, W]``.

        Args:
            x: Images.
            weights: What :meth:`sample` returned, an architecture, or nothing for the softmax of the logits.
        """
        if weights is None:
            weights = self.sample()
        elif isinstance(weights, (Genotype, Architecture)):
            weights = self.choose(weights)
        self._check(weights)
        # Fused edges read rows of channels; a network that starts with them never has to turn them round.
        return self._run(x.contiguous(memory_format=torch.channels_last), weights)

    def _check(self, weights: Mixture) -> None:
        wanted = [list(alpha.shape) for alpha in self.architecture_parameters()]
        if not isinstance(weights, tuple | list) or [list(w.shape) for w in weights] != wanted:
            got = [list(w.shape) for w in weights]
            raise ValueError(f"weights: expected a tuple of tensors of the shapes {wanted}, got {got}")

    def export(self, architecture: Genotype | Architecture | Mixture | None = None) -> fx.GraphModule:
        """A plain PyTorch network with the weights and outputs of this one at ``architecture``.

        Its layers are copies of this network's, under the same names, and all of ``torch.nn``; it holds those
        that the architecture uses, and trains and evaluates as this network would under the same weights.
        pynas is not needed to load it: ``torch.save(network, file)``, and anywhere
        ``torch.load(file, weights_only=False)``. ``network.code`` is the source of its forward pass.

        Args:
            architecture: An architecture, weights of a mixture (kept as constants), or nothing for
                :meth:`derive`.
        """
        if architecture is None:
            architecture = self.derive()
        if isinstance(architecture, (Genotype, Architecture)):
            architecture = self.choose(architecture)
        self._check(architecture)
        return export(self, tuple(w.detach().clone() for w in architecture))

    def _export_forward(self, x: Tensor) -> Tensor:
        """What :meth:`export` traces."""
        assert self._fixed is not None
        return self._run(x, self._fixed)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # The authors' networks keep the logits outside of their state dict.
        for name, parameter in self._parameters.items():
            if parameter is not None:
                state_dict.setdefault(prefix + name, parameter.detach())
        super()._load_from_state_dict(state_dict, prefix, *args)


def _sample(alpha: Tensor, how: Sampling, temperature: float, generator: torch.Generator | None) -> Tensor:
    if how == "single_path":
        chosen = torch.randint(alpha.shape[1], alpha.shape[:1], generator=generator, device=alpha.device)
        return torch.zeros_like(alpha).scatter_(1, chosen[:, None], 1.0)
    if how == "softmax":
        return torch.softmax(alpha / temperature, dim=-1)
    noise = torch.empty_like(alpha).exponential_(generator=generator).log_().neg_()
    soft = torch.softmax((alpha + noise) / temperature, dim=-1)
    if how == "gumbel":
        return soft
    hard = torch.zeros_like(soft).scatter_(1, soft.argmax(1, keepdim=True), 1.0)
    return hard + (soft - soft.detach())  # the difference is exactly zero, so zeros of `hard` stay exact


def _logits(edges: int, candidates: int) -> nn.Parameter:
    return nn.Parameter(1e-3 * torch.randn(edges, candidates))


class DARTSSupernet(Supernet):
    """The search network of DARTS.

    Stem (3x3 convolution to ``3 * channels``, batch norm); ``num_cells`` cells, reductions with twice the
    channels at one and two thirds; global average pooling, a linear classifier. State dicts of the authors'
    network load, ``strict=True``; the logits, which these lack, then stay as they are.

    Args:
        channels: Channels of a node in the first cells, 16 in the paper.
        num_cells: Cells, 8 in the paper.
        num_classes: Logits.
        in_channels: Channels of images.
        nodes: Nodes of a cell, 4 in the paper.
        candidates: As of :class:`~pynas.nn.MixedOp`.
        affine: Whether batch norms of cells have a weight and a bias.
        save: What edges keep for backward.
    """

    def __init__(
        self,
        channels: int = 16,
        num_cells: int = 8,
        num_classes: int = 10,
        *,
        in_channels: int = 3,
        nodes: int = 4,
        candidates: str | Sequence[str] = "darts",
        affine: bool = False,
        save: Save = "products",
    ) -> None:
        super().__init__()
        _check_positive(channels=channels, num_cells=num_cells, num_classes=num_classes, nodes=nodes)
        self.candidates, _ = resolve(candidates, "darts", "DARTSSupernet")
        self.nodes = nodes
        before, previous = 3 * channels, 3 * channels
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, previous, 3, padding=1, bias=False), nn.BatchNorm2d(previous)
        )
        self.cells = nn.ModuleList()
        reduced = False
        for i in range(num_cells):
            reduction = i in (num_cells // 3, 2 * num_cells // 3)
            channels *= 2 if reduction else 1
            self.cells.append(
                Cell(
                    before,
                    previous,
                    channels,
                    reduction=reduction,
                    reduction_previous=reduced,
                    nodes=nodes,
                    candidates=self.candidates,
                    affine=affine,
                    save=save,
                )
            )
            before, previous, reduced = previous, nodes * channels, reduction
        self.global_pooling = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(previous, num_classes)
        edges = sum(2 + j for j in range(nodes))
        self.alphas_normal = _logits(edges, len(self.candidates))
        self.alphas_reduce = _logits(edges, len(self.candidates))

    def architecture_parameters(self) -> tuple[nn.Parameter, ...]:
        """``alphas_normal`` and ``alphas_reduce``."""
        return self.alphas_normal, self.alphas_reduce

    def derive(self) -> Genotype:
        """Of each node the two strongest edges, each with its strongest operation other than ``none``."""
        cells = [torch.softmax(a.detach().double(), -1).tolist() for a in self.architecture_parameters()]
        return Genotype(*(derive_edges(cell, self.candidates) for cell in cells))

    def choose(self, architecture: Any) -> Mixture:
        """Weights of a :class:`Genotype`."""
        if not isinstance(architecture, Genotype):
            raise ValueError(f"architecture: expected a Genotype, got {type(architecture).__name__}")
        return self._one_hot("normal", architecture.normal), self._one_hot("reduce", architecture.reduce)

    def _one_hot(self, name: str, edges: Edges) -> Tensor:
        weights = torch.zeros_like(self.alphas_normal)
        if not edges or len(edges) % self.nodes:
            raise ValueError(
                f"architecture: {name}: expected as many edges for each of {self.nodes} nodes, "
                f"got {len(edges)} in all"
            )
        per_node = len(edges) // self.nodes
        for i, (operation, source) in enumerate(edges):
            node = i // per_node
            if operation not in self.candidates:
                known = ", ".join(self.candidates)
                raise ValueError(f"architecture: {name}: expected one of {known}, got {operation!r}")
            if not 0 <= source < 2 + node:
                raise ValueError(
                    f"architecture: {name}: node {node} has the sources 0 to {1 + node}, got {source}"
                )
            first = sum(2 + j for j in range(node))
            weights[first + source, self.candidates.index(operation)] += 1.0
        return weights

    def _run(self, x: Tensor, weights: Mixture) -> Tensor:
        s0 = s1 = self.stem(x)
        for cell in self.cells:
            s0, s1 = s1, cell(s0, s1, weights[1 if cell.reduction else 0])
        return cast(Tensor, self.classifier(self.global_pooling(s1).flatten(1)))


class NASBench201Supernet(Supernet):
    """The search network of NAS-Bench-201.

    Stem (3x3 convolution, batch norm); three stages of ``num_cells`` cells at ``channels``, twice and four
    times as many, a stride-2 residual block before the second and the third; batch norm, ReLU, global average
    pooling, a linear classifier. Parameter names are those of the authors' ``TinyNetwork`` for searching.

    Args:
        channels: Channels of the first stage, 16 in the paper.
        num_cells: Cells in each stage, 5 in the paper.
        num_classes: Logits.
        in_channels: Channels of images.
        candidates: As of :class:`~pynas.nn.MixedOp`.
        affine: Whether batch norms of cells have a weight and a bias.
        track_running_stats: Whether batch norms of cells keep running statistics.
        save: What edges keep for backward.
    """

    def __init__(
        self,
        channels: int = 16,
        num_cells: int = 5,
        num_classes: int = 10,
        *,
        in_channels: int = 3,
        candidates: str | Sequence[str] = "nasbench201",
        affine: bool = False,
        track_running_stats: bool = True,
        save: Save = "products",
    ) -> None:
        super().__init__()
        _check_positive(channels=channels, num_cells=num_cells, num_classes=num_classes)
        self.candidates, _ = resolve(candidates, "nasbench201", "NASBench201Supernet")
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        )
        self.cells = nn.ModuleList()
        for width in (channels, 2 * channels, 4 * channels):
            if width > channels:
                self.cells.append(ResidualBlock(width // 2, width))
            for _ in range(num_cells):
                self.cells.append(
                    NASBench201Cell(
                        width,
                        candidates=self.candidates,
                        affine=affine,
                        track_running_stats=track_running_stats,
                        save=save,
                    )
                )
        self.lastact = nn.Sequential(nn.BatchNorm2d(4 * channels), nn.ReLU())
        self.global_pooling = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(4 * channels, num_classes)
        self.arch_parameters = _logits(len(NASBench201Cell.edge_list), len(self.candidates))

    def architecture_parameters(self) -> tuple[nn.Parameter, ...]:
        """``arch_parameters``."""
        return (self.arch_parameters,)

    def derive(self) -> Architecture:
        """Of each edge the strongest operation; decisions are positions in the space's five operations."""
        names, _ = resolve("nasbench201")
        best = self.arch_parameters.detach().argmax(1).tolist()
        return Architecture("nasbench201", tuple(names.index(self.candidates[k]) for k in best))

    def choose(self, architecture: Any) -> Mixture:
        """Weights of an :class:`~pynas.Architecture` of the space ``nasbench201``."""
        if not isinstance(architecture, Architecture) or architecture.space != "nasbench201":
            raise ValueError(f"architecture: expected an Architecture of nasbench201, got {architecture!r}")
        names, _ = resolve("nasbench201")
        weights = torch.zeros_like(self.arch_parameters)
        if len(architecture.decisions) != len(weights):
            raise ValueError(
                f"architecture: expected {len(weights)} decisions, got {len(architecture.decisions)}"
            )
        for edge, decision in enumerate(architecture.decisions):
            if not 0 <= decision < len(names) or names[decision] not in self.candidates:
                raise ValueError(f"architecture: decision {decision} is none of {', '.join(self.candidates)}")
            weights[edge, self.candidates.index(names[decision])] = 1.0
        return (weights,)

    def _run(self, x: Tensor, weights: Mixture) -> Tensor:
        y = self.stem(x)
        for cell in self.cells:
            y = cell(y, weights[0]) if isinstance(cell, NASBench201Cell) else cell(y)
        return cast(Tensor, self.classifier(self.global_pooling(self.lastact(y)).flatten(1)))


def _check_positive(**values: int) -> None:
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name}: expected a positive integer, got {value!r}")
