"""What a proxy is: statistics it needs, from which probe, and a pure function of them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from pynas.architecture import Architecture
from pynas.stats import Statistic, Statistics, collect
from pynas.stats._loss import LossFn
from pynas.stats.collect import BatchNorm


@dataclass(frozen=True, slots=True)
class ProbeCall:
    """What a probe is run on.

    Attributes:
        model: To be left bit for bit as it was.
        inputs: Batch [B, ...], in the model's precision.
        targets: For the loss.
        loss_fn: As in :func:`pynas.stats.collect`.
        needs: Statistics of all proxies that share the probe.
        seed: For whatever draws random numbers.
        micro_batches: The caller's number of them.
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
    ) -> Statistics:
        """What a probe with a procedure of its own found, as proxies read it."""
        weights = {name: p.detach() for name, p in self.model.named_parameters()}
        return Statistics(batch, 1, tuple(losses), {}, weights, values)


class Probe(ABC):
    """How the network is probed: a frozen, hashable value. Proxies with equal probes share one :meth:`run`.

    Most proxies want the :class:`BatchProbe` and differ in their statistics. One with a procedure of its own
    has a statistic that only names a result, and a probe that fills it in::

        @dataclass(frozen=True)
        class FlowProbe(Probe):
            def run(self, call: ProbeCall) -> Statistics:
                with preserved(call.model):  # pynas.stats._state
                    found = {"layer.weight": ...}
                return call.statistics({Flow: found}, batch=1)

    What goes wrong in the network may be raised: it becomes the score's status.
    """

    @abstractmethod
    def run(self, call: ProbeCall) -> Statistics:
        """Probe ``call.model`` once, for all of ``call.needs``."""


@dataclass(frozen=True, slots=True)
class BatchProbe(Probe):
    """One pass of the batch through :func:`pynas.stats.collect`, in train mode.

    Gradients of the loss and of the outputs' sum, saliency, input gradients and ReLU codes all come from the
    same forward; a backward pass that no statistic wants does not run.

    Attributes:
        batch_norm: As in :func:`pynas.stats.collect`.
        group_size: Samples to a group.
        micro_batches: Split the batch into the caller's number of micro-batches, one pass each.
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
    """A score of an untrained network that needs no training.

    A new one is a subclass in a file of its own, registered there, and one import line in
    ``proxies/__init__.py``. The first line of its docstring is what ``pynas proxies`` shows. Proxies with
    equal probes share a pass; one of what goes into ReLUs costs no further one::

        @register
        class MeanActivity(Proxy):
            name = "mean_activity"
            whole_network = True
            needs = (ActiveUnits(),)  # the statistic shown in pynas.stats.Statistic

            def layers(self, statistics):
                return {k: float(v.float().mean()) for k, v in statistics[ActiveUnits].items()}

    Attributes:
        name: Unique.
        higher_is_better: Otherwise searches maximise its negative.
        probe: How the network is probed.
        needs: Statistics that are taken for it.
        whole_network: The score counts operations that cannot influence the output, as the published code
            does, so that :class:`pynas.evaluate.ProxyEvaluator` does not leave them out.
        needs_labels: Not defined without one class label per sample.
        needs_floating_inputs: Not defined for inputs that are integers, such as tokens.
    """

    name: ClassVar[str]
    higher_is_better: ClassVar[bool] = True
    probe: ClassVar[Probe] = BatchProbe()
    needs: ClassVar[tuple[Statistic[Any], ...]]
    whole_network: ClassVar[bool] = False
    needs_labels: ClassVar[bool] = False
    needs_floating_inputs: ClassVar[bool] = False

    @abstractmethod
    def layers(self, statistics: Statistics) -> dict[str, float]:
        """What each layer contributes to the score, by parameter name; {} where it is no sum of any kind."""

    def score(self, statistics: Statistics) -> float:
        """The score: the sum over layers unless a proxy says otherwise."""
        return math.fsum(self.layers(statistics).values())

    def of_architecture(
        self, space: Any, architecture: Architecture, num_classes: int, inputs: Any
    ) -> float | None:
        """The score where the space itself knows it exactly (sizes, costs); None to measure a network."""
        return None
