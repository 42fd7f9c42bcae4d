"""The supernet of a template: every alternative of every layer, by paths or as mixtures.

Sources: Z. Guo et al., "Single Path One-Shot Neural Architecture Search with Uniform Sampling", ECCV 2020,
arXiv:1904.00420 (paths); H. Liu, K. Simonyan, Y. Yang, "DARTS: Differentiable Architecture Search", ICLR
2019, arXiv:1806.09055 (mixtures).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from pynas._errors import UserError
from pynas.architecture import Architecture
from pynas.nn import MixedOp, Supernet
from pynas.nn.supernet import Mixture, initial_logits
from pynas.spaces import TemplateSpace
from pynas.spaces.base import check_positive
from pynas.spaces.template.checking import stem_plan
from pynas.spaces.template.network import TemplateNetwork, block, initialise
from pynas.spaces.template.plan import Plan
from pynas.supernet._base import MixtureWeights, Segment, call, without_affine


class LayerChoices(nn.Module):
    """The alternatives of one layer; those that compute the same share one module.

    Args:
        plans: What the alternatives compute.
        same: For each alternative, the first one that computes the same.
    """

    def __init__(self, plans: Sequence[Plan], same: Sequence[int]) -> None:
        super().__init__()
        kept = sorted(set(same))
        self.choices = nn.ModuleList(block(plans[k]) for k in kept)
        self.same = tuple(kept.index(first) for first in same)
        self._mixed: tuple[MixedOp, ...] = ()  # in a tuple: its modules are those of ``choices``, no others

    def fuse(self) -> None:
        """Let mixtures run as one fused operation, if it knows two alternatives at least."""
        try:
            mixed = MixedOp.from_modules(self.choices)
        except ValueError:
            return
        self._mixed = (mixed,) if len(mixed.candidates) > 1 else ()

    @property
    def fused(self) -> tuple[bool, ...]:
        """Whether each alternative is part of the fused operation."""
        if not self._mixed:
            return (False,) * len(self.same)
        return tuple(k not in self._mixed[0].plain for k in self.same)

    def alternative(self, decision: int) -> nn.Module:
        """The module of an alternative."""
        return self.choices[self.same[decision]]

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """``sum_k weights[k] alternative_k(x)``; those of weight exactly zero are not run."""
        if len(self.choices) < len(self.same):
            index = torch.tensor(self.same, device=weights.device)
            weights = weights.new_zeros(len(self.choices)).index_add(0, index, weights)
        if self._mixed:
            return cast(Tensor, self._mixed[0](x, weights))
        return _weighted_sum(list(self.choices), x, weights)


def _weighted_sum(choices: Sequence[nn.Module], x: Tensor, weights: Tensor) -> Tensor:
    found = weights.detach().tolist()
    terms = [weights[k] * op(x) for k, op in enumerate(choices) if found[k] != 0.0]
    if not terms:  # of the right shape, and zero
        return cast(Tensor, weights[0] * choices[0](x))
    return cast(Tensor, sum(terms[1:], terms[0]))


class TemplateMixture(Supernet):
    """The network of :class:`TemplateSupernet`, which also runs mixtures: ``network(x, network.sample())``.

    Weights are a tuple of ``[1, alternatives]`` tensors, one for each layer.
    """

    def __init__(self, space: TemplateSpace, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.space = space
        self.candidates = ()
        self.stem = block(stem_plan(space.design.stem, in_channels))
        self.layers = nn.ModuleList(
            LayerChoices(space.layer_plans(i), space.same(i)) for i in range(len(space.num_choices))
        )
        self.global_pooling = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(space.out_channels, num_classes)
        initialise(self)
        for i, count in enumerate(space.num_choices):
            self.register_parameter(f"alpha_{i}", initial_logits(1, count))

    def architecture_parameters(self) -> tuple[nn.Parameter, ...]:
        """``alpha_0``, ``alpha_1``, ..., one for each layer."""
        return tuple(cast(nn.Parameter, getattr(self, f"alpha_{i}")) for i in range(len(self.layers)))

    def derive(self) -> Architecture:
        """The strongest alternative of each layer."""
        decisions = [int(alpha.detach().argmax()) for alpha in self.architecture_parameters()]
        return Architecture(self.space.name, tuple(decisions))

    def choose(self, architecture: Any) -> Mixture:
        """Zeros and ones that select an architecture of the space."""
        if not isinstance(architecture, Architecture):
            raise ValueError(f"architecture: expected an Architecture, got {architecture!r}")
        found = []
        for alpha, decision in zip(
            self.architecture_parameters(), self.space.check(architecture), strict=True
        ):
            row = torch.zeros_like(alpha)
            row[0, decision] = 1.0
            found.append(row)
        return tuple(found)

    def head(self, x: Tensor) -> Tensor:
        """Logits of the last layer's output."""
        return cast(Tensor, self.classifier(self.global_pooling(x).flatten(1)))

    def _run(self, x: Tensor, weights: Mixture) -> Tensor:
        y = self.stem(x)
        for layer, row in zip(self.layers, weights, strict=True):
            y = layer(y, row[0])
        return self.head(y)


class TemplateSupernet(MixtureWeights):
    """Weights for all networks of a template: each alternative of each layer has weights of its own.

    Alternatives of a layer that compute the same are one. ``model(x, arch)`` runs one path, with the very
    operations of ``space.build(arch)``: with the same weights the outputs are the same bits.
    ``model.network`` runs mixtures of all alternatives, and has architecture parameters for
    :class:`~pynas.supernet.Differentiable`.

    Mixtures of a layer run as one :func:`pynas.ops.mixed_op` where that knows two of its alternatives or
    more; :meth:`fused` tells which. It knows, with as many channels out as in, ``norm="batch"``, ReLU, one
    stride in the layer, and ``order="pre"``, either ``conv`` with kernel 1 or 3 and ``pool`` of the mean with
    kernel 3 (as in NAS-Bench-201), or ``separable`` with kernel 3 or 5 and one of ``repeats=2`` and
    ``dilation=2``, and ``pool`` with kernel 3 and ``norm="batch"`` (as in DARTS); in both cases ``identity``.
    Other alternatives of such a layer, and all of any other layer, run one after the other, those of weight
    zero not at all.

    Args:
        space: The space; if None, that of the template ``example``.
        num_classes: Number of classes.
        in_channels: Channels of images.
        affine: Whether batch norms have a weight and a bias.
    """

    network: TemplateMixture

    def __init__(
        self,
        space: TemplateSpace | None = None,
        num_classes: int = 10,
        in_channels: int = 3,
        *,
        affine: bool = True,
    ) -> None:
        super().__init__()
        self.space: TemplateSpace = TemplateSpace() if space is None else space
        if not isinstance(self.space, TemplateSpace):
            raise UserError(f"space: expected template, got {self.space.name}")
        check_positive(num_classes=num_classes, in_channels=in_channels)
        self.network = TemplateMixture(self.space, num_classes, in_channels)
        if not affine:
            without_affine(self)
        for layer in self._layers():
            layer.fuse()  # which looks at the batch norms

    def _layers(self) -> list[LayerChoices]:
        return [cast(LayerChoices, layer) for layer in self.network.layers]

    def fused(self) -> tuple[tuple[bool, ...], ...]:
        """For each layer, which of its alternatives a mixture computes in one fused operation."""
        return tuple(layer.fused for layer in self._layers())

    def settings(self) -> dict[str, Any]:
        """The template, by a digest: templates may differ in an activation and have the same tensors."""
        return {"template": self.space.digest}

    def segments(self, arch: Architecture) -> tuple[Segment, ...]:
        """Stem, layers, head; the key of a layer is the first alternative that computes the same."""
        network, found = self.network, []
        for layer, decision in zip(self._layers(), self.space.check(arch), strict=True):
            module = layer.alternative(decision)
            found.append(Segment(layer.same[decision], call(module), (module,)))
        stem = Segment("stem", call(network.stem), (network.stem,))
        return (stem, *found, Segment("head", network.head, (network.classifier,)))

    def standalone(self, arch: Architecture) -> nn.Module:
        """The network of ``space.build(arch)`` with copies of the weights and statistics of this path.

        It has the classes, device and dtype of the supernet; with ``affine=False`` its batch norms have
        neither weight nor bias.
        """
        decisions = self.space.check(arch)
        stem = next(m for m in self.network.stem.modules() if isinstance(m, nn.Conv2d))
        classifier = self.classifier()
        plain = self.space.build(arch, classifier.out_features, stem.in_channels)
        assert isinstance(plain, TemplateNetwork)
        chosen = [layer.alternative(k) for layer, k in zip(self._layers(), decisions, strict=True)]
        copies = (plain.stem, plain.classifier, *plain.layers)
        originals = (self.network.stem, classifier, *chosen)
        if not any(m.affine for m in self.modules() if isinstance(m, nn.BatchNorm2d)):
            without_affine(plain)
        plain.to(classifier.weight)
        for copy, original in zip(copies, originals, strict=True):
            copy.load_state_dict(original.state_dict())
        return plain.train(self.training)

    def inherit(self, other: TemplateSupernet) -> tuple[tuple[int, int], ...]:
        """Copy weights, statistics and architecture parameters from a supernet of a similar template.

        After layers or alternatives were removed, added or moved, what is left goes on with the weights that
        it has. A layer takes them from the layer of the same name, or else, if neither has a name, of the
        same index, or else from the first other one; of that, from alternatives that compute the same. Stem
        and classifier are copied if they have the same shapes.

        Returns:
            Layer and alternative of all that keeps its own weights; ``(-1, 0)`` is the stem, ``(-1, 1)`` the
            classifier.
        """
        if not isinstance(other, TemplateSupernet):
            raise UserError(f"other: expected a TemplateSupernet, got {type(other).__name__}")
        new = []
        for i, (ours, theirs) in enumerate(
            [(self.network.stem, other.network.stem), (self.classifier(), other.classifier())]
        ):
            if not _copied(ours, theirs):
                new.append((-1, i))
        theirs_of = paired(self.space, other.space)
        for i, layer in enumerate(self._layers()):
            j = theirs_of[i]
            known = () if j is None else other.space.layer_plans(j)
            for k, plan in enumerate(self.space.layer_plans(i)):
                if j is None or plan not in known:
                    new.append((i, k))
                    continue
                decision = known.index(plan)
                if not _copied(layer.alternative(k), other._layers()[j].alternative(decision)):
                    new.append((i, k))
                    continue
                alphas, known_alphas = (
                    net.architecture_parameters() for net in (self.network, other.network)
                )
                with torch.no_grad():
                    alphas[i][0, k] = known_alphas[j][0, decision]
        return tuple(new)

    def classifier(self) -> nn.Linear:
        """``network.classifier``."""
        return self.network.classifier

    def _replace_classifier(self, layer: nn.Linear) -> None:
        self.network.classifier = layer


def _copied(ours: nn.Module, theirs: nn.Module) -> bool:
    """Copy the state of ``theirs``; False if it does not fit."""
    state, own = theirs.state_dict(), ours.state_dict()
    if {name: t.shape for name, t in state.items()} != {name: t.shape for name, t in own.items()}:
        return False
    ours.load_state_dict(state)
    return True


def paired(space: TemplateSpace, other: TemplateSpace) -> list[int | None]:
    """For each layer of ``space`` the layer of ``other`` that it continues, each at most once, or None."""
    names, their_names = ([layer.name for layer in s.design.layers] for s in (space, other))

    def shares(i: int, j: int) -> bool:
        return not set(space.layer_plans(i)).isdisjoint(other.layer_plans(j))

    found: list[int | None] = [None] * len(names)
    rules: tuple[Callable[[int, int], bool], ...] = (
        lambda i, j: bool(names[i]) and names[i] == their_names[j],
        lambda i, j: i == j and names[i] == their_names[j],
        lambda i, j: True,
    )
    for rule in rules:
        for i in range(len(names)):
            for j in range(len(their_names)):
                if found[i] is None and j not in found and rule(i, j) and shares(i, j):
                    found[i] = j
    return found
