"""An edge of a supernet as one fused operation over candidate modules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, cast

import torch
from torch import Tensor, nn

from pynas import ops
from pynas.nn._bias import biased_norms, biases, track_shift, with_zero_gradients, without_shift
from pynas.nn._family import one_family
from pynas.nn._recognise import Recognised, recognise
from pynas.nn._watch import Watch
from pynas.nn.candidates import candidate, weighted_sum
from pynas.ops.candidates import SAVE_CODES, resolve

Save = Literal["products", "nothing", "everything"]


class MixedOp(nn.Module):
    r"""A mixture of candidate operations, ``y = sum_k weights[k] op_k(x)``, as one fused operation.

    The candidates are ordinary modules in ``_ops``. State dicts are those of the common PyTorch form, a
    ``ModuleList`` of candidates and a loop over it, and load in both directions with ``strict=True``, running
    statistics and ``num_batches_tracked`` included. :func:`pynas.ops.mixed_op` reads the candidates'
    parameters and does not call their ``forward``. Candidates that somebody puts in place of others, or
    gives hooks, later on are looked at again: what the operator does not know is called as it is.

    A candidate whose weight is exactly zero costs nothing: it is not computed, its gradients are zero and
    its running statistics do not change. So a softmax, a hard sample and a discrete choice differ only in the
    values of ``weights``.

    Args:
        channels: Channels of input and output.
        candidates: ``darts``, ``nasbench201`` or ``transnas`` for all candidates of that family, or names of
            candidates of one family.
        stride: 1 or 2.
        family: Needed only if the names fit two families (``avg_pool_3x3``, which ``darts`` normalises).
        affine: Whether batch norms have a weight and a bias.
        track_running_stats: Whether batch norms keep running statistics; without, evaluation uses batch ones.
        eps: Added to variances.
        momentum: Momentum of running statistics.
        save: What backward recomputes: with ``products`` all that is cheap, with ``nothing`` everything, with
            ``everything`` nothing.
        extra: Modules of your own, ``[N, C, H, W]`` to ``[N, C, H', W']``, which run unfused and are added to
            the same sum; their weights follow those of ``candidates``. A module of weight zero is skipped,
            except under ``torch.compile``; reading the weight waits for the device if that is not a CPU.
        holder: Name of the ``ModuleList`` of candidates; if empty they are direct children, ``"0"``, ...

    Raises:
        ValueError: A candidate is unknown, or an argument has a value not listed above.
    """

    def __init__(
        self,
        channels: int,
        candidates: str | Sequence[str] = "darts",
        stride: int = 1,
        *,
        family: str | None = None,
        affine: bool = False,
        track_running_stats: bool = True,
        eps: float = 1e-5,
        momentum: float = 0.1,
        save: Save = "products",
        extra: Sequence[nn.Module] = (),
        holder: str = "_ops",
    ) -> None:
        super().__init__()
        names, family = resolve(candidates, family, "MixedOp")
        if isinstance(channels, bool) or not isinstance(channels, int) or channels < 1:
            raise ValueError(f"MixedOp: channels: expected a positive number, got {channels!r}")
        if stride not in (1, 2):
            raise ValueError(f"MixedOp: stride: expected 1 or 2, got {stride!r}")
        members = [
            candidate(name, family, channels, stride, affine, track_running_stats, eps=eps, momentum=momentum)
            for name in names
        ]
        known: list[Recognised | None] = [recognise(member) for member in members]
        members.extend(extra)
        known.extend(None for _ in extra)
        self._holder = holder
        if holder:
            self.add_module(holder, nn.ModuleList(members))
        else:
            for k, member in enumerate(members):
                self.add_module(str(k), member)
        self._bind(tuple(members), known, family, stride, affine=affine, save=save)

    @classmethod
    def from_modules(
        cls,
        modules: Sequence[nn.Module] | nn.ModuleList | nn.ModuleDict,
        *,
        holder: str = "_ops",
        save: Save = "products",
    ) -> MixedOp:
        """The mixture of existing candidate modules; it shares their parameters and buffers.

        Candidates that the operator does not know run unfused, like ``extra`` modules. :attr:`plain` lists
        them and says why.

        Args:
            modules: A ``ModuleList``, ``ModuleDict`` or sequence of candidates.
            holder: Name under which they are registered.
            save: As in the constructor.

        Raises:
            ValueError: The operator knows none of them.
        """
        container = _container(modules)
        known, reasons = one_family(tuple(container.children()))
        return cls._of(container, known, reasons, holder=holder, save=save)

    @classmethod
    def _of(
        cls,
        container: nn.ModuleList | nn.ModuleDict,
        known: Sequence[Recognised | None],
        reasons: Mapping[int, str],
        *,
        holder: str,
        save: Save,
    ) -> MixedOp:
        """A mixture of the container's modules; those in ``known`` are fused."""
        chosen = [found for found in known if found is not None]
        if not chosen:
            text = "; ".join(f"{k}: {reason}" for k, reason in reasons.items())
            raise ValueError(f"MixedOp: modules: none is a candidate that the operator knows ({text})")
        self = cls.__new__(cls)
        nn.Module.__init__(self)
        self._holder = holder
        self._modules[holder] = container  # not add_module, which refuses names of existing attributes
        self._bind_known(tuple(container.children()), known, reasons, save)
        self.training = container.training
        return self

    def _bind_known(
        self,
        members: tuple[nn.Module, ...],
        known: Sequence[Recognised | None],
        reasons: Mapping[int, str],
        save: Save,
    ) -> None:
        chosen = [found for found in known if found is not None]
        family = min(frozenset.intersection(*(found.families for found in chosen))) if chosen else ""
        stride = next((found.stride for found in chosen if found.name != "none"), 1)
        affine = any(found.norm is not None and found.norm.affine for found in chosen)
        self._bind(members, known, family, stride, affine=affine, save=save)
        self._reasons = {k: reasons[k] for k in self._plain}

    def _look_again(self) -> None:
        """Somebody has put other layers into candidates, or hooks on them."""
        holder = self._modules[self._holder] if self._holder else self
        assert holder is not None
        members = tuple(holder.children())
        self._bind_known(members, *one_family(members), self._save)

    def _bind(
        self,
        members: tuple[nn.Module, ...],
        known: Sequence[Recognised | None],
        family: str,
        stride: int,
        *,
        affine: bool,
        save: Save,
    ) -> None:
        if save not in SAVE_CODES:
            raise ValueError(f"MixedOp: save: expected one of {', '.join(SAVE_CODES)}, got {save!r}")
        self._members = members
        self._fused = tuple(k for k, found in enumerate(known) if found is not None)
        self._plain = tuple(k for k, found in enumerate(known) if found is None)
        fused = [found for found in known if found is not None]
        self._names = tuple(found.name for found in fused)
        self._family, self._stride, self._affine, self._save = family, stride, affine, save
        self._reasons = dict.fromkeys(self._plain, "an extra module")
        # nn.Module registers nothing in tuples: these are layers of the modules above, not further ones.
        self._layers = tuple(layer for found in fused for layer in found.layers)
        self._norms = tuple(layer for layer in self._layers if isinstance(layer, nn.BatchNorm2d))
        self._biased = biased_norms(fused)
        holder = self._modules[self._holder] if self._holder else None
        self._watch = Watch(members if holder is None else (holder,))
        order = self._fused + self._plain
        self._order = None if order == tuple(range(len(members))) else order

    @property
    def candidates(self) -> tuple[str, ...]:
        """Names of the candidates that the operator computes, in order."""
        return self._names

    @property
    def stride(self) -> int:
        """1 or 2."""
        return self._stride

    @property
    def plain(self) -> Mapping[int, str]:
        """Why a candidate runs unfused, by its position."""
        return self._reasons

    @property
    def modules_in_order(self) -> tuple[nn.Module, ...]:
        """The candidates' modules, one for each weight."""
        return self._members

    def forward(self, x: Tensor, weights: Tensor | Sequence[Tensor]) -> Tensor:
        """The weighted sum of all candidates.

        Args:
            x: ``[N, C, H, W]``, any memory format; channels_last is the fastest.
            weights: ``[K]``, one for each candidate in order, on the device of ``x``; or K scalars.

        Returns:
            ``[N, C, ceil(H / stride), ceil(W / stride)]``.

        Raises:
            ValueError: A shape, dtype or device does not fit, or a weight is NaN.
        """
        if not torch.compiler.is_compiling() and self._watch.changed():
            self._look_again()
        if not isinstance(weights, Tensor):
            weights = torch.stack([torch.as_tensor(w, dtype=x.dtype, device=x.device) for w in weights])
        if weights.shape != (len(self._members),):
            raise ValueError(
                f"weights: expected [{len(self._members)}], one for each candidate, got {list(weights.shape)}"
            )
        setting = self._setting()
        if setting is None or not self._fused:
            return weighted_sum(self._members, x, weights)
        training, tracked, eps, momentum = setting
        if self._needs_loop(training, tracked):
            return weighted_sum(self._members, x, weights)
        if self._order is not None:
            parts = weights.unbind()
            weights = torch.stack([parts[k] for k in self._order])
        running = self._running() if tracked else None
        if self._biased and running is not None and not training:
            running = without_shift(running, self._biased)
        elif self._biased and torch.is_grad_enabled():
            weights = with_zero_gradients(weights, self._biased)
        y: Tensor = ops.mixed_op(
            x,
            weights,
            self._parameters_in_order(),
            candidates=self._names,
            family=self._family,
            stride=self._stride,
            running=running,
            num_batches_tracked=self._counters() if tracked else None,
            training=training or not tracked,
            momentum=momentum,
            eps=eps,
            affine=self._affine,
            save=self._save,
            extra=[self._members[k] for k in self._plain],
        )
        if self._biased and tracked and training and y.numel():
            track_shift(self._biased, weights, momentum)
        return y

    def _needs_loop(self, training: bool, tracked: bool) -> bool:
        """Whether gradients of biases are wanted where running statistics normalise: they are not zero."""
        if not self._biased or training or not tracked or not torch.is_grad_enabled():
            return False
        return any(bias.requires_grad for bias in biases(self._biased))

    def _setting(self) -> tuple[bool, bool, float, float | None] | None:
        """Training, tracked, eps and momentum of all batch norms; None if they have come to differ."""
        if not self._norms:
            return self.training, False, 1e-5, 0.1
        first = self._norms[0]
        setting = (first.training, first.running_mean is not None, first.eps, first.momentum)
        for bn in self._norms:
            if (bn.training, bn.running_mean is not None, bn.eps, bn.momentum) != setting:
                return None
        return setting

    def _parameters_in_order(self) -> list[Tensor]:
        """Parameters in the order of state dicts."""
        found: list[Tensor] = []
        for layer in self._layers:
            if layer.weight is not None:
                found.append(layer.weight)
            if layer.bias is not None and not isinstance(layer, nn.Conv2d):
                found.append(layer.bias)
        return found

    def _running(self) -> list[Tensor]:
        return [cast(Tensor, s) for bn in self._norms for s in (bn.running_mean, bn.running_var)]

    def _counters(self) -> list[Tensor]:
        return [cast(Tensor, bn.num_batches_tracked) for bn in self._norms]

    def extra_repr(self) -> str:
        """Family, candidates and options, for printing."""
        return f"{self._family}: {', '.join(self._names)}, stride={self._stride}, save={self._save!r}"


def _container(modules: Sequence[nn.Module] | nn.ModuleDict | nn.ModuleList) -> nn.ModuleList | nn.ModuleDict:
    return modules if isinstance(modules, (nn.ModuleList, nn.ModuleDict)) else nn.ModuleList(modules)
