"""The interface of a proxy: the probe, the statistics that it needs, and a pure function of them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from pynas.architecture import Architecture
from pynas.stats import Statistic, Statistics, collect
from pynas.stats.collect import BatchNorm
from pynas.stats.data import LossFn
from pynas.stats.weights import FoundWeights


@dataclass(frozen=True, slots=True)
class ProbeCall:
    """The arguments of a probe.

    Attributes:
        model: The model, which the probe must leave bit for bit unchanged.
        inputs: Batch [B, ...], in the model's precision.
        targets: Targets of the loss.
        loss_fn: As in :func:`pynas.stats.collect`.
        needs: Statistics of all proxies that share the probe.
        seed: Seed of all random numbers.
        micro_batches: The caller's number of micro-batches.
        fallback: As in :func:`pynas.stats.collect`.
    """

    model: nn.Module
    inputs: Any
    targets: Any
    loss_fn: LossFn | None
    needs: Sequence[Statistic[Any]]
    seed: int = 0
    micro_batches: int = 2
    fallback: Sequence[str] = ()

    def statistics(
        self,
        values: Mapping[type[Statistic[Any]], Mapping[str, Any]],
        batch: int,
        losses: Sequence[float] = (),
        found: FoundWeights | None = None,
    ) -> Statistics:
        """The results of a probe with its own procedure, in the form that proxies read.

        Args:
            values: By statistic and name.
            batch: Number of samples.
            losses: Of the passes, if there are any.
            found: The weights that it counts (:func:`pynas.stats.weights.found_weights`), so that a score
                without all of them is a partial one.
        """
        weights = {name: p.detach() for name, p in self.model.named_parameters()}
        known, missed = (found.names, found.unseen) if found is not None else ((), frozenset[str]())
        return Statistics(
            batch, 1, tuple(losses), {}, weights, values, matrices=frozenset(known), missed=missed
        )


class Probe(ABC):
    """How to probe a network: a frozen, hashable value. Proxies with equal probes share one :meth:`run`.

    Most proxies use the :class:`BatchProbe` and differ in their statistics. A proxy with its own procedure
    has a statistic that only names a result, and a probe that computes it::

        @dataclass(frozen=True)
        class FlowProbe(Probe):
            def run(self, call: ProbeCall) -> Statistics:
                with preserved(call.model):  # pynas.stats.state
                    found = {"layer.weight": ...}
                return call.statistics({Flow: found}, batch=1)

    An exception raised in the network becomes the status of the score.
    """

    @abstractmethod
    def run(self, call: ProbeCall) -> Statistics:
        """Probe ``call.model`` once, for all of ``call.needs``."""


@dataclass(frozen=True, slots=True)
class BatchProbe(Probe):
    """One pass of the batch through :func:`pynas.stats.collect`, in train mode.

    Gradients of the loss and of the sum of outputs, saliency, input gradients and ReLU codes all come from
    the same forward pass; a backward pass that no statistic needs does not run.

    Attributes:
        batch_norm: As in :func:`pynas.stats.collect`.
        group_size: Samples in a group.
        micro_batches: Whether to split the batch into the caller's number of micro-batches, one pass each.
    """

    batch_norm: BatchNorm = "batch"
    group_size: int = 1
    micro_batches: bool = False

    def run(self, call: ProbeCall) -> Statistics:
        """Collect."""
        return collect(
            call.model,
            call.inputs,
            call.targets,
            call.loss_fn,
            needs=call.needs,
            group_size=self.group_size,
            batch_norm=self.batch_norm,
            micro_batches=call.micro_batches if self.micro_batches else 1,
            fallback=call.fallback,
            training=True,
            seed=call.seed,
        )


class Proxy(ABC):
    """A score of an untrained network.

    A new proxy is a subclass in its own file, registered there, and one import line in
    ``proxies/__init__.py``. ``pynas proxies`` shows the first line of its docstring. Proxies with equal
    probes share a pass, so this one, on the inputs of ReLUs, needs no pass of its own::

        @register
        class MeanActivity(Proxy):
            name = "mean_activity"
            whole_network = True
            needs = (ActiveUnits(),)  # the statistic shown in pynas.stats.Statistic

            def layers(self, statistics):
                return {k: float(v.float().mean()) for k, v in statistics[ActiveUnits].items()}

    Attributes:
        name: Unique name.
        higher_is_better: If false, searches maximise the negative score.
        probe: How to probe the network.
        needs: The statistics that it needs.
        whole_network: Whether the score, like the published code, counts operations that cannot influence the
            output, so that :class:`pynas.evaluate.ProxyEvaluator` must not prune them.
        over_weights: Whether it is a sum over weights; ``pynas.score(weights=)`` says which these are.
        needs_labels: Whether it is undefined without one class label per sample.
        needs_floating_inputs: Whether it is undefined for integer inputs, such as tokens.
    """

    name: ClassVar[str]
    higher_is_better: ClassVar[bool] = True
    probe: ClassVar[Probe] = BatchProbe()
    needs: ClassVar[tuple[Statistic[Any], ...]]
    whole_network: ClassVar[bool] = False
    over_weights: ClassVar[bool] = False
    needs_labels: ClassVar[bool] = False
    needs_floating_inputs: ClassVar[bool] = False

    @abstractmethod
    def layers(self, statistics: Statistics) -> dict[str, float]:
        """Contribution of each layer to the score, by parameter name; {} if the score is no sum."""

    def score(self, statistics: Statistics) -> float:
        """The score; by default, the sum over layers."""
        return math.fsum(self.layers(statistics).values())

    def left_out(self, statistics: Statistics) -> frozenset[str]:
        """Parameters that the definition counts and the statistics do not have, by name.

        Weights that the loss does not depend on have gradients of zero and count as seen.
        """
        if any(n.needs_pass and n.watches in ("weights", "saliency", "curvature") for n in self.needs):
            missed = statistics.missed
        else:
            missed = statistics.unseen if self.over_weights else frozenset()
        return frozenset(name for name in missed if statistics.weights[name].dim() > 1)

    def of_architecture(
        self, space: Any, architecture: Architecture, num_classes: int, inputs: Any
    ) -> float | None:
        """The score if the space knows it exactly (sizes, costs); None to measure a network."""
        return None
