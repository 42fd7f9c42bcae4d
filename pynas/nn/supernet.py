"""Supernets: networks of search cells with architecture parameters, trained by gradients or by sampling.

Sources: H. Liu, K. Simonyan, Y. Yang, "DARTS", ICLR 2019, arXiv:1806.09055 (softmax); X. Dong, Y. Yang,
"Searching for a Robust Neural Architecture in Four GPU Hours" (GDAS), CVPR 2019, arXiv:1910.04465 (hard
Gumbel samples); Z. Guo et al., "Single Path One-Shot Neural Architecture Search", ECCV 2020, arXiv:1904.00420
(uniform single paths).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor, fx, nn

from pynas import ops
from pynas.architecture import Architecture
from pynas.nn._export import export
from pynas.nn.genotype import Genotype
from pynas.nn.mixed_op import MixedOp

Sampling = Literal["softmax", "gumbel", "gumbel_hard", "single_path"]
Mixture: TypeAlias = tuple[Tensor, ...]


class Supernet(nn.Module, ABC):
    """A network whose edges are mixtures; search methods differ in how they choose the mixture weights.

    Weights are a tuple of ``[edges, candidates]`` tensors, one for each kind of cell: (normal, reduction) in
    DARTS, a single tensor in NAS-Bench-201. One-hot rows select a path or a discrete network, since
    candidates of weight zero cost nothing.
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
        """Weights of zeros and ones that select one discrete network.

        Raises:
            ValueError: ``architecture`` is not an architecture of this network.
        """

    @abstractmethod
    def _run(self, x: Tensor, weights: Mixture) -> Tensor:
        """Logits under these weights."""

    def weight_parameters(self) -> Iterator[nn.Parameter]:
        """All parameters except those of the architecture."""
        own = {id(alpha) for alpha in self.architecture_parameters()}
        return (parameter for parameter in self.parameters() if id(parameter) not in own)

    def sample(
        self,
        how: Sampling = "softmax",
        *,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Mixture:
        r"""Mixture weights drawn or computed from the logits alpha.

        Args:
            how: ``softmax``: ``softmax(alpha / T)`` (DARTS). ``gumbel``: ``p = softmax((alpha + G) / T)``
                with ``G = -log(-log U)``. ``gumbel_hard``: one-hot where ``p`` is largest in the forward
                pass, the gradient of ``p`` in the backward pass (GDAS); a candidate that was not drawn has
                weight zero, and that weight has gradient zero. ``single_path``: one candidate of each edge,
                drawn uniformly, without gradient to alpha (single path one-shot). In GDAS's code weights that
                were not drawn have a gradient too: see ``published_gradient`` of :meth:`forward`.
            temperature: T in these formulas.
            generator: Source of the random numbers; torch's default one if None.

        Raises:
            ValueError: Another ``how``, or ``temperature`` is not positive.
        """
        if how not in get_args(Sampling):
            raise ValueError(f"how: expected one of {', '.join(get_args(Sampling))}, got {how!r}")
        if not temperature > 0:
            raise ValueError(f"temperature: expected a positive number, got {temperature!r}")
        return tuple(_sample(a, how, temperature, generator) for a in self.architecture_parameters())

    def forward(
        self,
        x: Tensor,
        weights: Mixture | Genotype | Architecture | None = None,
        *,
        published_gradient: bool = False,
    ) -> Tensor:
        """Logits ``[N, num_classes]`` of images ``[N, in_channels, H, W]``.

        Args:
            x: Images.
            weights: Weights from :meth:`sample`, an architecture, or None for the softmax of the logits.
            published_gradient: Whether weights of zero have the gradient that GDAS's code gives them. It adds
                the weight of a candidate that was not drawn to each value of the edge's output: the output
                stays, and the weight's gradient is the sum of the output's. By default it is zero.

        Raises:
            ValueError: The weights do not fit, or ``published_gradient`` in a network without search cells.
        """
        if weights is None:
            weights = self.sample()
        elif isinstance(weights, (Genotype, Architecture)):
            weights = self.choose(weights)
        self._check(weights)
        # Fused edges read channels_last: a network that starts in this layout never has to convert.
        with ops.strided_convolutions_of(self), self._undrawn(published_gradient):
            return self._run(x.contiguous(memory_format=torch.channels_last), weights)

    @contextmanager
    def _undrawn(self, published: bool) -> Iterator[None]:
        """While it lasts, edges give weights of zero the gradient of GDAS's code."""
        edges = [m for m in self.modules() if isinstance(m, MixedOp)] if published else []
        if published and not (edges and self.has_search_cells()):
            raise ValueError(f"published_gradient: expected search cells, {type(self).__name__} has none")
        handles = [edge.register_forward_hook(_with_undrawn) for edge in edges]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def has_search_cells(self) -> bool:
        """Whether all mixed operations are edges of search cells."""
        return False

    def _check(self, weights: Mixture) -> None:
        wanted = [list(alpha.shape) for alpha in self.architecture_parameters()]
        if not isinstance(weights, tuple | list) or [list(w.shape) for w in weights] != wanted:
            got = [list(w.shape) for w in weights]
            raise ValueError(f"weights: expected a tuple of tensors of the shapes {wanted}, got {got}")

    def export(self, architecture: Genotype | Architecture | Mixture | None = None) -> fx.GraphModule:
        """A plain PyTorch network with the weights and outputs of this one at ``architecture``.

        It holds copies of the layers that the architecture uses, under the same names and all from
        ``torch.nn``, and trains and evaluates as this network does with these mixture weights. Loading it
        does not need pynas: write ``torch.save(network, file)``, read
        ``torch.load(file, weights_only=False)``. ``network.code`` is the source of its forward pass.

        Args:
            architecture: An architecture, mixture weights (kept as constants), or None for :meth:`derive`.
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


def _with_undrawn(edge: nn.Module, arguments: tuple[Tensor, Tensor], y: Tensor) -> Tensor:
    """The output of an edge plus its weights of zero."""
    weights = arguments[1]
    undrawn = weights * (weights.detach() == 0)
    return y + undrawn.sum().to(y.device, y.dtype)


def initial_logits(edges: int, candidates: int) -> nn.Parameter:
    """Architecture parameters [edges, candidates] as DARTS initialises them: normal with deviation 1e-3."""
    return nn.Parameter(1e-3 * torch.randn(edges, candidates))


def check_positive(**values: int) -> None:
    """Raise ValueError that names the first argument which is not a positive integer."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name}: expected a positive integer, got {value!r}")
