"""Accuracy of many architectures with one set of shared weights.

Source of the recalibration: Z. Guo et al., "Single Path One-Shot Neural Architecture Search with Uniform
Sampling", ECCV 2020, arXiv:1904.00420, section 3.4.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pynas._errors import UserError
from pynas.architecture import Architecture
from pynas.stats.data import check_labels, explaining, label_range, writable
from pynas.stats.state import preserved
from pynas.supernet._base import Segment, SharedWeights

_Norm = nn.modules.batchnorm._BatchNorm
_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True)
class SubnetScore:
    """Scores of one architecture.

    An image has one target; a window of words, for language models, has one target per word.

    Attributes:
        accuracy: Fraction of targets that have the largest logit.
        top5: Fraction of targets among the five largest logits (all, if there are fewer classes).
        loss: Mean cross-entropy in nats; NaN or infinite if logits are.
    """

    accuracy: float
    top5: float
    loss: float


@dataclass
class _Node:
    """The end of a prefix of segments: the last segment, with the batch norm statistics of this prefix."""

    segment: Segment | None = None
    children: dict[Hashable, _Node] = field(default_factory=dict)
    ends: list[int] = field(default_factory=list)
    norms: tuple[_Norm, ...] = ()
    statistics: list[tuple[Tensor, Tensor, Tensor]] = field(default_factory=list)

    def put_statistics(self) -> None:
        """Make the batch norms use the statistics of this prefix."""
        for norm, values in zip(self.norms, self.statistics, strict=True):
            for name, value in zip(_BUFFERS, values, strict=True):
                norm._buffers[name] = value


class SubnetEvaluator:
    """Scores architectures of one supernet on one set of images.

    ``accuracy(a) = 1/N sum_n [argmax f(x_n; w, a, s(a)) = y_n]``. The batch norm statistics s(a) are the
    means, over ``calibration`` batches, of batch mean and (unbiased) variance in a forward pass of ``a`` that
    normalises by each batch; without calibration, they are the supernet's running statistics. With a
    ``calibration_momentum`` m they are ``s <- (1 - m) s + m s_batch`` from 0 and 1 instead of means: SPOS's
    code does that with 0.1 over 200 batches, so that its last 20 have nine tenths of the weight.

    Common prefixes of architectures are computed once: the output of a layer and its statistics depend only
    on the layers before it. Results are bit for bit those of one architecture at a time. Scores are cached by
    architecture and a digest of all weights, so any change of a weight is noticed.

    Memory: at most one output of each layer for one batch; statistics of the prefixes of ``group_size``
    architectures; ``cache_size`` scores. Leaves modes, statistics and weights of the supernet unchanged.

    Args:
        model: The supernet.
        inputs: ``[N, C, H, W]``, or words ``[N, T]``.
        targets: ``[N]`` int64, or the next words ``[N, T]``.
        calibration: Batches of at least two images for batch norm statistics; None uses the running
            statistics, as the code of Supernet Shifting does.
        calibration_momentum: Weight of each batch in an exponential mean; None for a plain mean.
        batch_size: Images in a forward pass.
        group_size: Number of architectures whose statistics are in memory at a time.
        cache_size: Number of cached scores; 0 disables the cache.

    Raises:
        UserError: Arguments do not fit together.
    """

    def __init__(
        self,
        model: SharedWeights,
        inputs: Tensor,
        targets: Tensor,
        *,
        calibration: Sequence[Tensor] | None = None,
        calibration_momentum: float | None = None,
        batch_size: int = 256,
        group_size: int = 256,
        cache_size: int = 100_000,
    ) -> None:
        if not len(inputs) or len(inputs) != len(targets):
            raise UserError(
                "inputs, targets: expected equally many, at least one, "
                f"got {len(inputs):,} and {len(targets):,}"
            )
        if min(batch_size, group_size) < 1 or cache_size < 0:
            raise UserError(
                "batch_size, group_size, cache_size: expected 1, 1 and 0 or more, "
                f"got {batch_size}, {group_size}, {cache_size}"
            )
        if calibration is not None and (not calibration or min(map(len, calibration)) < 2):
            raise UserError("calibration: expected at least one batch, each of at least two images, or None")
        if calibration_momentum is not None and not 0 < calibration_momentum <= 1:
            raise UserError(
                f"calibration_momentum: expected a number in (0, 1] or None, got {calibration_momentum!r}"
            )
        self.calibration_momentum = calibration_momentum
        self.model, self.inputs, self.targets = model, inputs, targets
        self._labels = label_range(targets)
        self.calibration = None if calibration is None else tuple(calibration)
        self.batch_size, self.group_size, self.cache_size = batch_size, group_size, cache_size
        self.segments_run = 0
        self._cache: OrderedDict[tuple[str, tuple[int, ...]], SubnetScore] = OrderedDict()

    def __call__(self, architectures: Sequence[Architecture]) -> list[SubnetScore]:
        """Scores of ``architectures`` in order; duplicates are computed once.

        Raises:
            UserError: An architecture is not in the supernet's space.
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
        ordered = [missing[decisions] for decisions in sorted(missing)]  # gives groups long common prefixes
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
        with preserved(self.model), torch.no_grad(), explaining(self.inputs):
            self.model.eval()
            norms = batch_norms(self.model)
            for number, batch in enumerate(self.calibration or () if norms else ()):
                for norm in norms:  # a plain mean over batches by default
                    norm.training, norm.momentum = True, self.calibration_momentum or 1 / (number + 1)
                self._walk(root, writable(batch.to(device)), lambda index, logits: None)
            for norm in norms:
                norm.training = False
            for start in range(0, len(self.inputs), self.batch_size):
                labels = self.targets[start : start + self.batch_size].to(device)

                def count(index: int, logits: Tensor, labels: Tensor = labels) -> None:
                    check_labels(self._labels, logits)
                    totals[index] += _counts(logits, labels)

                images = self.inputs[start : start + self.batch_size].to(device)
                self._walk(root, writable(images), count)
        return [SubnetScore(*row) for row in (totals / self.targets.numel()).tolist()]

    def _prefixes(self, architectures: Sequence[Architecture]) -> _Node:
        """A prefix tree of the architectures' segments."""
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
        """Run the segment of ``node`` on ``x``, then everything below it; frees what is not needed again.

        Segments may write into what they get. ``x`` belongs to this call: several below get a copy each.
        """
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
                self._walk(child, writable(x), leaf)


@torch.no_grad()
def score_network(
    network: Callable[[Tensor], Tensor], inputs: Tensor, targets: Tensor, batch_size: int = 256
) -> SubnetScore:
    """Scores of a single network, without recalibration, on images or words, which stay as they are."""
    parts = zip(torch.split(inputs, batch_size), torch.split(targets, batch_size), strict=True)
    totals = torch.stack([_counts(network(writable(x)), y) for x, y in parts]).sum(0)
    return SubnetScore(*(totals / targets.numel()).tolist())


def _counts(logits: Tensor, labels: Tensor) -> Tensor:
    """Number of correct targets, of those within the five largest logits, and the sum of losses."""
    logits = logits.double()
    best = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels[:, None]
    loss = F.cross_entropy(logits, labels, reduction="sum")
    return torch.stack((best[:, 0].sum().double(), best.sum().double(), loss)).cpu()


def batch_norms(module: nn.Module) -> list[_Norm]:
    """The batch norms of ``module`` that keep running statistics."""
    return [m for m in module.modules() if isinstance(m, _Norm) and m.running_mean is not None]


def weights_version(model: nn.Module, *, buffers: bool = True) -> str:
    """A digest of all parameters (and buffers): equal if and only if the bytes are."""
    found = hashlib.blake2b(digest_size=16)
    tensors = list(model.parameters()) + (list(model.buffers()) if buffers else [])
    for tensor in tensors:
        raw = tensor.detach().cpu().contiguous().reshape(-1)
        if raw.numel():
            found.update(raw.view(torch.uint8).numpy().data)
    return found.hexdigest()
