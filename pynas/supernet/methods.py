"""Methods to train a supernet: what one step does, on sampled paths or on mixtures.

Sources: Z. Guo et al., SPOS, ECCV 2020, arXiv:1904.00420; X. Chu et al., FairNAS, ICCV 2021,
arXiv:1907.01845; H. Liu, K. Simonyan, Y. Yang, "DARTS: Differentiable Architecture Search", ICLR 2019,
arXiv:1806.09055; X. Dong, Y. Yang, "Searching for a Robust Neural Architecture in Four GPU Hours" (GDAS),
CVPR 2019, arXiv:1910.04465.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pynas._errors import UserError
from pynas.architecture import Architecture
from pynas.nn import Supernet
from pynas.nn.supernet import Sampling
from pynas.supernet import distributed
from pynas.supernet._base import MixtureWeights, SharedWeights
from pynas.supernet._second_order import second_order_gradient
from pynas.supernet.sampling import Sampler

Mixing = Literal["softmax", "gumbel", "gumbel_hard", "gumbel_hard_published"]


class NotFiniteError(ArithmeticError):
    """A loss or a gradient is NaN or infinite."""


@dataclass(frozen=True)
class StepContext:
    """What a method can use in one step.

    Attributes:
        progress: Completed steps over all steps, in [0, 1).
        rng: Random numbers of this step, the same in all processes.
        generator: The same for tensors on the CPU.
        optimizers: The optimiser of ``weights``, and those from :meth:`Method.optimizers`.
        batch: This process's part of the images and targets for ``weights`` or ``architecture``.
        loss: Loss of logits and targets.
        autocast: Context of the forward pass.
        update: Clips the gradients and steps the optimiser of the weights.
    """

    progress: float
    rng: random.Random
    generator: torch.Generator
    optimizers: dict[str, Optimizer]
    batch: Callable[[str], tuple[Tensor, Tensor]]
    loss: Callable[[Tensor, Tensor], Tensor]
    autocast: Callable[[], AbstractContextManager[Any]]
    update: Callable[[], None]


@dataclass(frozen=True)
class Outcome:
    """Loss and accuracy on the weights' batch (means over its architectures), and the architectures."""

    loss: Tensor
    accuracy: Tensor
    architectures: tuple[Architecture, ...] = ()


class Method(ABC):
    """A method: defines one step of training.

    Attributes:
        halves: Whether weights and architecture each get one half of the images.
        sparse: Whether weights that a step does not use remain unchanged, without decay and momentum.
    """

    halves = False
    sparse = False

    @abstractmethod
    def check(self, model: nn.Module) -> None:
        """Raise UserError if the method cannot train ``model``."""

    def weights(self, model: nn.Module) -> Iterable[nn.Parameter]:
        """Parameters of the weights' optimiser."""
        return model.parameters()

    def optimizers(self, model: nn.Module) -> dict[str, Optimizer]:
        """Further optimisers, by name."""
        return {}

    @abstractmethod
    def step(self, model: nn.Module, context: StepContext) -> Outcome:
        """Compute gradients and update, for one step."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Name and settings as a JSON value."""


class SinglePath(Method):
    """``w <- w - r sum_a grad L(w, a)`` over the architectures a that a sampler draws for the step.

    Args:
        sampler: Uniform, fair, by FLOPs, or a sampler of your own.
    """

    sparse = True

    def __init__(self, sampler: Sampler) -> None:
        self.sampler = sampler

    def check(self, model: nn.Module) -> None:
        """Raise UserError unless ``model`` is a :class:`SharedWeights` of the sampler's space."""
        if not isinstance(model, SharedWeights):
            raise UserError(f"model: expected SharedWeights to sample in, got {type(model).__name__}")
        self.sampler.check(model.space)

    def weights(self, model: nn.Module) -> Iterable[nn.Parameter]:
        """All parameters except those of the architecture."""
        if isinstance(model, MixtureWeights):
            return model.network.weight_parameters()
        return model.parameters()

    def step(self, model: nn.Module, context: StepContext) -> Outcome:
        """Run the sampled architectures one after the other, then update once."""
        inputs, targets = context.batch("weights")
        architectures = self.sampler.sample(context.rng)
        context.optimizers["weights"].zero_grad()
        losses, right = [], []
        for arch in architectures:
            with context.autocast():
                logits = model(inputs, arch)
                loss = context.loss(logits, targets)
            torch.autograd.backward(loss)
            losses.append(loss.detach())
            right.append(_right(logits, targets))
        context.update()
        return Outcome(torch.stack(losses).mean(), torch.stack(right).mean(), architectures)

    def describe(self) -> dict[str, Any]:
        """Name of the method and settings of the sampler."""
        return {"method": "single path", **self.sampler.describe()}


class Differentiable(Method):
    """Alternates weights and architecture parameters, each on one half of the images.

    ``alpha <- alpha - r_a grad_alpha L_val(w', alpha)``, then ``w <- w - r grad_w L_train(w, alpha)``. In
    first order, w' is w. In second order (DARTS), w' is w after one SGD step on the training batch, and its
    dependence on alpha is included by a finite difference.

    Early on, the gradient of alpha favours the operations that learn fastest, which are those without
    weights. So later methods (P-DARTS, Chen et al., ICCV 2019; PC-DARTS, Xu et al., ICLR 2020) first train
    only w: see ``warm_up``.

    Args:
        mixing: ``softmax`` is DARTS, ``gumbel`` its form with noise, ``gumbel_hard`` GDAS: the derivative of
            the mixture with weights of zero left out. ``gumbel_hard_published`` is GDAS by its authors' code,
            where weights of zero have a gradient too: ``published_gradient`` of
            :meth:`pynas.nn.Supernet.forward`.
        order: 1 or 2; 2 only with ``softmax``, since all its passes need the same mixture.
        learning_rate: Learning rate of alpha (Adam, betas (0.5, 0.999)).
        weight_decay: Weight decay of alpha.
        temperature: T of the mixture in the first and after the last step, linear between; 10 to 0.1 in GDAS.
        warm_up: Fraction of the steps, from the first on, that do not train alpha; 0.3 in PC-DARTS.
    """

    halves = True

    def __init__(
        self,
        mixing: Mixing = "softmax",
        *,
        order: Literal[1, 2] = 1,
        learning_rate: float = 3e-4,
        weight_decay: float = 1e-3,
        temperature: tuple[float, float] = (1.0, 1.0),
        warm_up: float = 0.0,
    ) -> None:
        if mixing not in get_args(Mixing):
            raise UserError(f"mixing: expected one of {', '.join(get_args(Mixing))}, got {mixing!r}")
        if order not in (1, 2) or (order == 2 and mixing != "softmax"):
            raise UserError(f"order: expected 1, or 2 with softmax, got {order!r} with {mixing}")
        if not (learning_rate > 0 and weight_decay >= 0):
            raise UserError(
                "learning_rate, weight_decay: expected a positive and a non-negative number, "
                f"got {learning_rate!r} and {weight_decay!r}"
            )
        if not all(t > 0 for t in temperature):
            raise UserError(f"temperature: expected two positive numbers, got {temperature!r}")
        if not 0 <= warm_up < 1:
            raise UserError(f"warm_up: expected a fraction of the steps in [0, 1), got {warm_up!r}")
        self.mixing, self.order, self.temperature = mixing, order, temperature
        self.learning_rate, self.weight_decay, self.warm_up = learning_rate, weight_decay, warm_up

    def check(self, model: nn.Module) -> None:
        """Raise UserError unless ``model`` has architecture parameters."""
        network = _supernet(model)
        if self.mixing == "gumbel_hard_published" and not network.has_search_cells():
            raise UserError(
                "mixing: gumbel_hard_published is defined for the search cells of nasbench201 and darts_cnn; "
                f"use gumbel_hard for {type(network).__name__}"
            )

    def weights(self, model: nn.Module) -> Iterable[nn.Parameter]:
        """All parameters except alpha."""
        return _supernet(model).weight_parameters()

    def optimizers(self, model: nn.Module) -> dict[str, Optimizer]:
        """Adam for alpha."""
        alphas = _supernet(model).architecture_parameters()
        return {
            "architecture": torch.optim.Adam(
                alphas, self.learning_rate, betas=(0.5, 0.999), weight_decay=self.weight_decay
            )
        }

    def _mixture(self, network: Supernet, context: StepContext) -> tuple[Tensor, ...]:
        first, last = self.temperature
        temperature = first + (last - first) * context.progress
        device = network.architecture_parameters()[0].device
        generator = context.generator
        if device.type != "cpu":
            seed = int(torch.randint(2**62, (), generator=generator))
            generator = torch.Generator(device).manual_seed(seed)
        how = self.mixing.removesuffix("_published")
        return network.sample(cast(Sampling, how), temperature=temperature, generator=generator)

    def step(self, model: nn.Module, context: StepContext) -> Outcome:
        """Update alpha, after the warm-up, then w."""
        network = _supernet(model)
        inputs, targets = context.batch("weights")
        if context.progress >= self.warm_up:
            self._step_architecture(network, context, inputs, targets)
        context.optimizers["weights"].zero_grad()
        mixture = tuple(w.detach() for w in self._mixture(network, context))
        with context.autocast():
            logits = network(inputs, mixture)
            loss = context.loss(logits, targets)
        torch.autograd.backward(loss)
        context.update()
        return Outcome(loss.detach(), _right(logits, targets))

    def _step_architecture(
        self, network: Supernet, context: StepContext, inputs: Tensor, targets: Tensor
    ) -> None:
        """Step alpha on the loss of the held images; second order first takes a trial step on ``inputs``."""
        weights, alphas = list(network.weight_parameters()), list(network.architecture_parameters())

        def loss_of(x: Tensor, y: Tensor) -> Tensor:
            with context.autocast():
                mixture = self._mixture(network, context)
                published = self.mixing == "gumbel_hard_published"
                return context.loss(network(x, mixture, published_gradient=published), y)

        held_x, held_y = context.batch("architecture")
        context.optimizers["architecture"].zero_grad()
        if self.order == 2:
            second_order_gradient(
                network,
                lambda: loss_of(inputs, targets),
                lambda: loss_of(held_x, held_y),
                context.optimizers["weights"],
            )
        else:
            for weight in weights:  # no gradients needed: the fused backward then skips them
                weight.requires_grad_(False)
            try:
                torch.autograd.backward(loss_of(held_x, held_y))
            finally:
                for weight in weights:
                    weight.requires_grad_(True)
        gradients = [alpha.grad for alpha in alphas if alpha.grad is not None]
        distributed.average(gradients)
        if not all(bool(gradient.isfinite().all()) for gradient in gradients):
            raise NotFiniteError("the gradient of the architecture parameters is not finite")
        context.optimizers["architecture"].step()

    def describe(self) -> dict[str, Any]:
        """All settings."""
        return {
            "method": "differentiable",
            "mixing": self.mixing,
            "order": self.order,
            "learning_rate": self.learning_rate,
            "weight_decay": self.weight_decay,
            "temperature": list(self.temperature),
            "warm_up": self.warm_up,
        }


def _supernet(model: nn.Module) -> Supernet:
    network = model.network if isinstance(model, MixtureWeights) else model
    if not isinstance(network, Supernet):
        raise UserError(f"model: expected architecture parameters to train, got {type(model).__name__}")
    return network


def _right(logits: Tensor, targets: Tensor) -> Tensor:
    return (logits.detach().argmax(1) == targets).double().mean()
