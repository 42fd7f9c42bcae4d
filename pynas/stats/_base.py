"""What a statistic is, and how results are handed out."""

from __future__ import annotations

from abc import ABC
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Generic, Literal, Self, TypeVar, cast

import torch
from torch import Tensor, nn

from pynas._errors import UserError
from pynas.stats._products import GradientProduct

T = TypeVar("T")
Parameters = Literal["all", "weights"]
Watched = Literal["weights", "saliency", "inputs", "relu", "curvature"]


@dataclass(frozen=True, slots=True)
class ModelValues(Generic[T]):
    """What a statistic without a pass finds.

    Attributes:
        values: By name.
        weights: Names of parameters that multiply samples, where it looked for them.
        unseen: Of parameters that may do so where nobody can follow them.
    """

    values: dict[str, T]
    weights: frozenset[str] = frozenset()
    unseen: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Statistic(ABC, Generic[T]):
    """Something to observe in a probing pass. A new one is a subclass in a file of its own.

    What it ``watches`` says which method is called: gradients of parameters (:meth:`observe`), the saliency
    of outputs of convolutions and linear calls (:meth:`observe_saliency`), the gradient of the model's inputs
    (:meth:`observe_inputs`), or what goes into each ReLU (:meth:`observe_relu`). ``"curvature"`` is what
    :class:`~pynas.stats.curvature.Curvature` alone watches. All are served by one forward pass; a backward
    pass of the loss, and one of the sum of outputs, run only where somebody watches.
    Five lines that count how often each sample's units are active::

        class ActiveUnits(Statistic[Tensor]):
            watches = "relu"

            def observe_relu(self, x, key, uses, results):
                results[key] = results.get(key, 0) + uses * (x > 0).flatten(1).sum(1)

    Attributes:
        parameters: ``"all"`` trainable parameters, or only ``"weights"``: what multiplies its input, in a
            convolution, a linear or recurrent layer, or any other product, also where it is computed from
            parameters first (no bias, no normalisation, no embedding).
    """

    parameters: Parameters = field(default="all", kw_only=True)
    needs_pass: ClassVar[bool] = True  # False: known from the model and the shape of its inputs alone
    successive: ClassVar[bool] = False  # True: can be taken over several passes (micro-batches)
    watches: ClassVar[Watched] = "weights"
    gradient_of: ClassVar[Literal["loss", "outputs"]] = "loss"  # "outputs": of the sum of all outputs
    of_whole_batch: ClassVar[bool] = False  # True: observes weights, and only the gradient of whole batches

    def __post_init__(self) -> None:
        if self.parameters not in ("all", "weights"):
            raise UserError(
                f"{type(self).__name__}: parameters must be 'all' or 'weights', got {self.parameters!r}"
            )

    def check(self, batch: int, group_size: int, passes: int) -> None:
        """Raise UserError when the statistic is not defined for these sizes."""
        if passes > 1 and not self.successive:
            raise UserError(
                f"micro_batches={passes}: {type(self).__name__} is taken in one pass; "
                "ask for it in a collect() of its own or with micro_batches=1"
            )

    def merge(self, other: Self) -> Self:
        """One statistic that answers both, so that a pass takes it once."""
        return other if self.parameters == "weights" else self

    def wants(self, matrix: bool) -> bool:
        """Whether a weight that multiplies its input (``matrix``), or any other parameter, is asked for."""
        return matrix or self.parameters == "all"

    def observe(
        self,
        product: GradientProduct,
        weight: str | None,
        bias: str | None,
        group_size: int,
        results: dict[str, T],
    ) -> None:
        """Take what is needed from one complete gradient, during the backward pass.

        Args:
            product: The gradient in factors; nothing of it may be kept.
            weight: Name of the weight's parameter, or None when it is not asked for.
            bias: Name of the bias's parameter, or None.
            group_size: Consecutive samples that form one group.
            results: The values so far, by parameter name; to be added to.
        """
        raise NotImplementedError(f"{type(self).__name__} observes no gradients")

    def observe_saliency(self, name: str, saliency: Tensor, results: dict[str, T]) -> None:
        """Take the saliency of one call's output, during the backward pass.

        Args:
            name: Of the weight.
            saliency: sum_t y_bkt dL/dy_bkt over positions t, [B, K], of samples b and channels k.
            results: The values so far; a weight with several uses is seen several times.
        """
        raise NotImplementedError(f"{type(self).__name__} observes no outputs")

    def observe_inputs(self, gradient: Tensor, results: dict[str, T]) -> None:
        """Take the gradient of the model's inputs, [B, features]; of embeddings where inputs are integers."""
        raise NotImplementedError(f"{type(self).__name__} observes no inputs")

    def observe_relu(self, x: Tensor, key: str, uses: int, results: dict[str, T]) -> None:
        """Take what goes into a ReLU, during the forward pass and without gradients.

        Args:
            x: The input [B, ...] in any memory format; nothing of it may be kept.
            key: Name of this tensor. The same key comes again when another ReLU reads the same tensor.
            uses: Number of ReLU calls that are reported here: those of a cell that read one node at once.
            results: The values so far.
        """
        raise NotImplementedError(f"{type(self).__name__} observes no activations")

    def observe_model(self, model: nn.Module, inputs: Any) -> dict[str, T]:
        """For statistics without a pass: their values by name."""
        raise NotImplementedError(f"{type(self).__name__} needs a probing pass")

    def of_model(self, model: nn.Module, inputs: Any) -> ModelValues[T]:
        """The same with what is known of weights beside it; by default that is nothing."""
        return ModelValues(self.observe_model(model, inputs))

    def finish(self, results: dict[str, T]) -> dict[str, T]:
        """Last touch on the values before they are handed out."""
        return results


@dataclass(frozen=True, slots=True)
class ParameterInfo:
    """Where a parameter was seen.

    Attributes:
        name: As in ``model.named_parameters()``.
        layer: Name of the module that owns it.
        operator: The functional call that used it (``"conv2d"``, ``"linear"``, ...).
        shape: Its shape.
        uses: How many calls used it in one pass; their gradients are summed before anything is taken of them.
    """

    name: str
    layer: str
    operator: str
    shape: torch.Size
    uses: int


@dataclass(frozen=True)
class Statistics:
    """What :func:`pynas.stats.collect` saw.

    ``statistics[GradMoments]["layer.weight"]`` is the value of one statistic for one parameter. A parameter
    that the loss does not depend on has no value (its gradient is zero).

    Attributes:
        batch: Number of samples B in each pass.
        group_size: Consecutive samples that form one group; there are B / group_size groups.
        losses: The loss of each pass.
        parameters: Every parameter that a supported call used, by name.
        weights: The model's own tensors, by name, for proxies that multiply by the weight; not copies.
        values: Results by statistic and name.
        targets: What the loss was given, of the whole batch.
        output_shape: Shape of the model's output, or of the first of several.
        matrices: Parameters that multiply samples, in whatever module or computation: the "weights" of
            proxies.
        missed: Trainable parameters that reach the loss by a way that no pass could follow.
        unseen: Parameters of two dimensions or more that reach the outputs by a way that statistics without a
            pass could not follow, and may be weights.
    """

    batch: int
    group_size: int
    losses: tuple[float, ...]
    parameters: Mapping[str, ParameterInfo]
    weights: Mapping[str, Tensor]
    values: Mapping[type[Statistic[Any]], Mapping[str, Any]]
    targets: Any = None
    output_shape: tuple[int, ...] = ()
    matrices: frozenset[str] = frozenset()
    missed: frozenset[str] = frozenset()
    unseen: frozenset[str] = frozenset()

    def of(self, names: Collection[str]) -> Statistics:
        """What was seen of these parameters alone."""
        chosen = frozenset(names)
        values = {
            kind: {name: value for name, value in found.items() if name in chosen}
            for kind, found in self.values.items()
        }
        return replace(
            self, values=values, matrices=self.matrices & chosen, missed=self.missed & chosen,
            unseen=self.unseen & chosen,
        )  # fmt: skip

    def __getitem__(self, statistic: type[Statistic[T]]) -> Mapping[str, T]:
        """Values of one statistic, by parameter name; UserError when it was not collected."""
        try:
            return cast(Mapping[str, T], self.values[statistic])
        except KeyError:
            known = ", ".join(sorted(s.__name__ for s in self.values)) or "none"
            raise UserError(f"{statistic.__name__} was not collected (needs= had: {known})") from None
