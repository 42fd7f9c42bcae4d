"""Accuracy of many architectures with one set of shared weights.

Source of the recalibration: Z. Guo et al., "Single Path One-Shot Neural Architecture Search with Uniform
Sampling", ECCV 2020, arXiv:1904.00420, section 3.4.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pynas._errors import UserError
from pynas.architecture import Architecture
from pynas.supernet._base import Segment, SharedWeights

_Norm = nn.modules.batchnorm._BatchNorm
_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True)
class SubnetScore:
    """How one architecture does on the images.

    Where each image has one target, or, for language models, each window of words as many as it has words.

    Attributes:
        accuracy: Fraction of targets that have the largest logit.
        top5: Fraction of targets that are among the five largest logits (all, if there are fewer).
        loss: Mean cross-entropy in nats; NaN or infinite where the logits are.
    """

    accuracy: float
    top5: float
    loss: float


@dataclass
class _Node:
    """What a prefix of segments ends with: a segment, and its own batch norm statistics."""

    segment: Segment | None = None
    children: dict[Hashable, _Node] = field(default_factory=dict)
    ends: list[int] = field(default_factory=list)
    norms: tuple[_Norm, ...] = ()
    statistics: list[tuple[Tensor, Tensor, Tensor]] = field(default_factory=list)

    def put_statistics(self) -> None:
        """Let the batch norms read and write what is this prefix's."""
        for norm, values in zip(self.norms, self.statistics, strict=True):
            for name, value in zip(_BUFFERS, values, strict=True):
                norm._buffers[name] = value


class SubnetEvaluator:
    """Scores architectures of one supernet on one set of images.

    ``accuracy(a) = 1/N sum_n [argmax f(x_n; w, a, s(a)) = y_n]``, where the batch norm statistics s(a) are
    the means over ``calibration`` batches of each batch's mean and (unbiased) variance, in a forward pass of
    ``a`` that itself normalises by each batch; or the running ones that the supernet has.

    What architectures have in common from the first layer on is computed once: both what a layer puts out and
    the statistics found there depend on the layers before it alone. Results are those of one architecture at
    a time, bit for bit. Scores are kept, under the architecture and a digest of all weights, so that a change
    of a weight, however it came about, is noticed.

    Memory: of one batch, at most one output of each layer; statistics of the prefixes of ``group_size``
    architectures; ``cache_size`` scores. Modes, statistics and weights of the supernet stay as they are.

    Args:
        model: The supernet.
        inputs: ``[N, C, H, W]``, or words ``[N, T]``.
        targets: ``[N]`` int64, or the next words ``[N, T]``.
        calibration: Batches of images for batch norm statistics, each with at least two; None takes the
            running statistics, as the code of Supernet Shifting does.
        batch_size: Images of a forward pass.
        group_size: Architectures whose statistics are held at a time.
        cache_size: Scores that are kept; 0 keeps none.

    Raises:
        UserError: Something does not fit something else.
    """

    def __init__(
        self,
        model: SharedWeights,
        inputs: Tensor,
        targets: Tensor,
        *,
        calibration: Sequence[Tensor] | None = None,
        batch_size: int = 256,
        group_size: int = 256,
        cache_size: int = 100_000,
    ) -> None:
        if not len(inputs) or len(inputs) != len(targets):
            raise UserError(
                f"inputs, targets: expected as many of both, at least one, got {len(inputs)}, {len(targets)}"
            )
        if min(batch_size, group_size) < 1 or cache_size < 0:
            raise UserError(
                "batch_size, group_size, cache_size: expected 1, 1 and 0 or more, "
                f"got {batch_size}, {group_size}, {cache_size}"
            )
        if calibration is not None and (not calibration or min(map(len, calibration)) < 2):
            raise UserError("calibration: expected at least one batch, each of at least two images, or None")
        self.model, self.inputs, self.targets = model, inputs, targets
        self.calibration = None if calibration is None else tuple(calibration)
        self.batch_size, self.group_size, self.cache_size = batch_size, group_size, cache_size
        self.segments_run = 0
        self._cache: OrderedDict[tuple[str, tuple[int, ...]], SubnetScore] = OrderedDict()

    def __call__(self, architectures: Sequence[Architecture]) -> list[SubnetScore]:
        """Scores of ``architectures``, in their order; one that comes twice is computed once.

        Raises:
            UserError: One is not in the supernet's space.
        """
        for arch in architectures:
            self.model.space.check(arch)
        version = weights_version(self.model, buffers=self.calibration is None)
        found: dict[tuple[int, ...], SubnetScore] = {}
        missing: dict[tuple[int, ...], Architecture] = {}
        for arch in architectures:
            known = self._cache.get((version, arch.decisions))
            if known is None:
                missing[arch.decisions] = arch
            else:
                self._cache.move_to_end((version, arch.decisions))
                found[arch.decisions] = known
        ordered = [missing[decisions] for decisions in sorted(missing)]  # so a group has long prefixes
        for start in range(0, len(ordered), self.group_size):
            group = ordered[start : start + self.group_size]
            for arch, score in zip(group, self._evaluate(group), strict=True):
                found[arch.decisions] = score
                self._cache[version, arch.decisions] = score
        while len(self._cache) > self.cache_size:
            self._cache.popitem(last=False)
        return [found[arch.decisions] for arch in architectures]

    def _evaluate(self, architectures: Sequence[Architecture]) -> list[SubnetScore]:
        root = self._prefixes(architectures)
        device = next(self.model.parameters()).device
        totals = torch.zeros(len(architectures), 3, dtype=torch.float64)
        with _borrowed(self.model) as norms, torch.no_grad():
            for number, batch in enumerate(self.calibration or () if norms else ()):
                for norm in norms:
                    norm.training, norm.momentum = True, 1 / (number + 1)  # a plain mean over batches
                self._walk(root, batch.to(device), lambda index, logits: None)
            for norm in norms:
                norm.training = False
            for start in range(0, len(self.inputs), self.batch_size):
                labels = self.targets[start : start + self.batch_size].to(device)

                def count(index: int, logits: Tensor, labels: Tensor = labels) -> None:
                    totals[index] += _counts(logits, labels)

                self._walk(root, self.inputs[start : start + self.batch_size].to(device), count)
        return [SubnetScore(*row) for row in (totals / self.targets.numel()).tolist()]

    def _prefixes(self, architectures: Sequence[Architecture]) -> _Node:
        """A tree with a path for each architecture; equal beginnings are one path."""
        root = _Node()
        for index, arch in enumerate(architectures):
            node = root
            for segment in self.model.segments(arch):
                if segment.key not in node.children:
                    node.children[segment.key] = self._node(segment)
                node = node.children[segment.key]
            node.ends.append(index)
        return root

    def _node(self, segment: Segment) -> _Node:
        if self.calibration is None:
            return _Node(segment)
        norms = tuple(norm for module in segment.modules for norm in batch_norms(module))
        statistics = []
        for norm in norms:
            mean, variance, number = (norm._buffers[name] for name in _BUFFERS)
            assert mean is not None
            assert variance is not None
            assert number is not None
            statistics.append((torch.zeros_like(mean), torch.ones_like(variance), torch.zeros_like(number)))
        return _Node(segment, norms=norms, statistics=statistics)

    def _walk(self, node: _Node, x: Any, leaf: Callable[[int, Tensor], None]) -> None:
        """Run everything below ``node``, whose segment is run on ``x``; what is not needed again is freed."""
        while True:
            if node.segment is not None:
                node.put_statistics()
                x = node.segment.run(x)
                self.segments_run += 1
            for index in node.ends:
                leaf(index, x)
            if not node.children:
                return
            *others, node = node.children.values()
            for child in others:
                self._walk(child, x, leaf)


@torch.no_grad()
def score_network(
    network: Callable[[Tensor], Tensor], inputs: Tensor, targets: Tensor, batch_size: int = 256
) -> SubnetScore:
    """How a network alone, as it is, does on the images or words."""
    parts = zip(torch.split(inputs, batch_size), torch.split(targets, batch_size), strict=True)
    totals = torch.stack([_counts(network(x), y) for x, y in parts]).sum(0)
    return SubnetScore(*(totals / targets.numel()).tolist())


def _counts(logits: Tensor, labels: Tensor) -> Tensor:
    """Targets that are right, those right within five, and the sum of losses."""
    logits = logits.double()
    best = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels[:, None]
    loss = F.cross_entropy(logits, labels, reduction="sum")
    return torch.stack((best[:, 0].sum().double(), best.sum().double(), loss)).cpu()


def batch_norms(module: nn.Module) -> list[_Norm]:
    """Those of ``module`` that keep running statistics."""
    return [m for m in module.modules() if isinstance(m, _Norm) and m.running_mean is not None]


@contextmanager
def _borrowed(model: nn.Module) -> Iterator[list[_Norm]]:
    """Evaluation mode; modes, buffers and momenta come back afterwards, whatever happens."""
    norms = batch_norms(model)
    modes = [(module, module.training) for module in model.modules()]
    kept = [(norm, norm.momentum, [norm._buffers[name] for name in _BUFFERS]) for norm in norms]
    model.eval()
    try:
        yield norms
    finally:
        for module, mode in modes:
            module.training = mode
        for norm, momentum, buffers in kept:
            norm.momentum = momentum
            for name, buffer in zip(_BUFFERS, buffers, strict=True):
                norm._buffers[name] = buffer


def weights_version(model: nn.Module, *, buffers: bool = True) -> str:
    """A digest of all parameters (and buffers): equal if and only if the bytes are."""
    found = hashlib.blake2b(digest_size=16)
    tensors = list(model.parameters()) + (list(model.buffers()) if buffers else [])
    for tensor in tensors:
        raw = tensor.detach().cpu().contiguous().reshape(-1)
        if raw.numel():
            found.update(raw.view(torch.uint8).numpy().data)
    return found.hexdigest()
