"""Scores of architectures: the evaluator of a training-free search."""

from __future__ import annotations

import copy
import hashlib
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pynas import proxies as registry
from pynas._errors import UserError
from pynas._generators import seeded
from pynas._plural import counted
from pynas.architecture import Architecture
from pynas.evaluate._prepare import Precision, autograd, dtype_of, prepared
from pynas.evaluate._score import Score, check_micro_batches, score_prepared, splits
from pynas.proxies import Proxy
from pynas.spaces import SearchSpace
from pynas.trial import Evaluation, Status


class ProxyEvaluator:
    """Builds architectures of a space and scores them: the evaluator of a training-free search.

    Every architecture is initialised from the same seed and sees the same images. Networks are built pruned,
    without edges that cannot influence the output. Proxies that count such edges (``Proxy.whole_network``)
    get the whole network.

    Args:
        space: The search space.
        inputs: Images [B, C, H, W].
        targets: Labels [B].
        proxies: Names or proxies; in ``Evaluation.scores`` higher is better for all.
        precision: As in :func:`score`; the same for all architectures.
        seed: Seed of initialisation and random layers.
        num_classes: Number of outputs; by default the smallest that fits the labels.
        micro_batches: As in :func:`score`.
    """

    def __init__(
        self,
        space: SearchSpace,
        inputs: Tensor,
        targets: Tensor,
        proxies: Sequence[str | Proxy],
        precision: Precision = "float32",
        seed: int = 0,
        num_classes: int | None = None,
        micro_batches: int = 2,
    ) -> None:
        self.space = space
        self.proxies = [registry.get(p) if isinstance(p, str) else p for p in proxies]
        self.dtype = dtype_of(precision)
        self.seed = seed
        self.micro_batches = micro_batches
        check_micro_batches(inputs, targets, micro_batches if splits(self.proxies) else 1)
        labels = int(targets.max()) + 1
        self.num_classes = labels if num_classes is None else num_classes
        if labels > self.num_classes or int(targets.min()) < 0:
            raise UserError(
                f"targets: labels go from {int(targets.min())} to {labels - 1}, "
                f"but networks have {counted(self.num_classes, 'output')} (num_classes)"
            )
        self.inputs, self.targets = inputs, targets

    @property
    def config(self) -> dict[str, Any]:
        """What a score depends on besides the architecture; identifies a search in its store."""
        digest = hashlib.sha256(self.inputs.float().contiguous().numpy(force=True).tobytes())
        digest.update(self.targets.contiguous().numpy(force=True).tobytes())
        return {
            "proxies": [p.name for p in self.proxies],
            "precision": str(self.dtype).removeprefix("torch."),
            "seed": self.seed,
            "num_classes": self.num_classes,
            "micro_batches": self.micro_batches,
            "threads": torch.get_num_threads(),  # affects rounding, which ZiCo magnifies
            "data": digest.hexdigest()[:16],
        }

    def at_fidelity(self, share: float) -> ProxyEvaluator:
        """This evaluator with the first ``share`` of the images, at least one for each micro-batch."""
        if not 0 < share <= 1:
            raise UserError(f"share: expected a fraction in (0, 1], got {share}")
        cheaper = copy.copy(self)
        count = max(1, round(share * len(self.inputs) / self.micro_batches)) * self.micro_batches
        cheaper.inputs, cheaper.targets = self.inputs[:count], self.targets[:count]
        return cheaper

    def __call__(self, architecture: Architecture) -> Evaluation:
        """Score one architecture; a failure becomes a status."""
        with autograd():
            return self._evaluation(architecture.plain)

    def _evaluation(self, architecture: Architecture) -> Evaluation:
        start = time.perf_counter()
        known = {
            p.name: p.of_architecture(self.space, architecture, self.num_classes, self.inputs)
            for p in self.proxies
        }
        scores = {name: Score(value) for name, value in known.items() if value is not None}
        measured = [p for p in self.proxies if p.name not in scores]
        for model, sharing in self._networks(architecture, measured):
            scores |= score_prepared(
                model, self.inputs, self.targets, sharing, self.dtype, self.seed, None, self.micro_batches
            )
        signs = {p.name: 1 if p.higher_is_better else -1 for p in self.proxies}
        failures = [f"{n}: {s.message}" for n, s in scores.items() if s.status != "ok"]
        return Evaluation(
            status=Status.FAILED if failures else Status.OK,
            scores={name: signs[name] * scores[name].value for name in signs},
            metrics=self._metrics(architecture),
            message="; ".join(failures),
            seconds=time.perf_counter() - start,
        )

    def _metrics(self, architecture: Architecture) -> dict[str, float]:
        channels, size = self.inputs.shape[1], self.inputs.shape[-1]
        return {
            "params": float(self.space.params(architecture, self.num_classes, channels)),
            "flops": float(self.space.macs(architecture, self.num_classes, size, channels)),
        }

    def _networks(
        self, architecture: Architecture, proxies: Sequence[Proxy]
    ) -> Iterator[tuple[nn.Module, Sequence[Proxy]]]:
        """The networks to score with their proxies: the pruned one, the whole one, both, or one for all."""
        whole = [p for p in proxies if p.whole_network]
        rest = [p for p in proxies if not p.whole_network]
        if not whole:
            yield from [(self.build(architecture), rest)] if rest else []
            return
        network = self.build(architecture, prune=False)
        if rest:
            pruned = self.build(architecture)
            if _names(pruned) == _names(network):  # same random draws, so the same network
                yield pruned, proxies
                return
            yield pruned, rest
        yield network, whole

    def build(self, architecture: Architecture, *, prune: bool = True) -> nn.Module:
        """The network that is scored, in this evaluator's precision."""
        with seeded(self.seed):  # a space's own networks may draw from numpy and Python
            model = self.space.build(
                architecture, num_classes=self.num_classes, in_channels=self.inputs.shape[1], prune=prune
            )
        if self.inputs.device.type != "cpu":
            model = model.to(self.inputs.device)
        return prepared(model, self.dtype)


def _names(model: nn.Module) -> list[str]:
    return [name for name, _ in model.named_parameters()]
