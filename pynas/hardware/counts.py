"""Parameters and multiply-adds of any model."""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from pynas._errors import UserError
from pynas.stats import Statistic
from pynas.stats.data import call_model, cut, leaves, writable
from pynas.stats.state import check_initialised, preserved

TO_NUMPY: set[Any] = {Tensor.numpy, Tensor.__array__}


def params(model: nn.Module) -> int:
    """Number of parameters; shared ones count once. UserError where some wait for a first batch."""
    check_initialised(model)
    return sum(p.numel() for p in model.parameters())


def macs(model: nn.Module, inputs: Any) -> int:
    """Multiply-adds of one sample's forward pass: convolutions, matrix products and attention.

    A multiply-add counts as one; normalisation, activation, pooling and sums do not count. The field's tables
    call this FLOPs. It is half of what PyTorch's counter reports for a pass of the first sample.

    Args:
        model: Any module; it stays unchanged.
        inputs: A batch for it: tensor [B, ...], or a tuple or dictionary of tensors.
    """
    return sum(macs_by_operator(model, inputs).values())


def macs_by_operator(model: nn.Module, inputs: Any) -> dict[str, int]:
    """The same, by the name of the ATen operator.

    Raises:
        UserError: The forward computes where PyTorch's counter sees nothing: in numpy, in another thread.
    """
    first = cut(inputs, 0, 1)
    try:
        counts = _counted(model, writable(first), differentiable=True)
    except UserError:
        raise
    except (RuntimeError, TypeError):  # a forward that wants the model as it is
        try:
            counts = _counted(model, writable(first), differentiable=False)
        except RuntimeError as error:
            if "_will_engine_execute_node" not in str(error):
                raise
            raise UserError(
                "model: its forward differentiates itself (torch.autograd.grad), whose operations PyTorch's "
                "counter cannot count"
            ) from error
    return {str(getattr(operator, "__name__", operator)): flops // 2 for operator, flops in counts.items()}


def _counted(model: nn.Module, inputs: Any, *, differentiable: bool) -> dict[Any, int]:
    """Twice the multiply-adds; if so asked, with a history of all tensors: it shows what is not counted."""
    with preserved(model), torch.inference_mode(False), torch.set_grad_enabled(differentiable):
        model.eval()
        for p in model.parameters():
            p.requires_grad_(differentiable and p.is_floating_point())
        known = [*model.parameters(), *model.buffers(), *leaves(inputs)]
        try:
            with FlopCounterMode(display=False) as counter, _Origins(known), _Leaving():
                call_model(model, inputs)
        except _FusedError:
            with _in_pieces(), FlopCounterMode(display=False) as counter, _Origins(known), _Leaving():
                call_model(model, inputs)
    return dict(counter.get_flop_counts().get("Global", {}))


@contextmanager
def _in_pieces() -> Iterator[None]:
    """Without oneDNN, which makes convolutions slow."""
    before = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)
    try:
        yield
    finally:
        torch._C._set_mkldnn_enabled(before)


UNCOUNTED = (
    "model: its forward computes {}, where PyTorch's counter of multiply-adds sees nothing; make its "
    "products by calls of PyTorch in the thread that runs the model"
)


class _FusedError(Exception):
    """A recurrent layer ran as one operator of oneDNN, which the counter does not know."""


class _Origins(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """UserError where a tensor with a history comes from where no operator was seen.

    Args:
        known: What there is before.
    """

    def __init__(self, known: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._known = {id(t): weakref.ref(t) for t in known}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten.mkldnn_rnn_layer.default:
            raise _FusedError
        for t in tree_leaves((args, kwargs)):
            if isinstance(t, Tensor) and t.requires_grad and not t.is_leaf and not self._is_known(t):
                raise UserError(UNCOUNTED.format("in another thread, or in code that PyTorch does not run"))
        result = func(*args, **kwargs)
        for t in tree_leaves(result):
            if isinstance(t, Tensor):
                self._known[id(t)] = weakref.ref(t)
        return result

    def _is_known(self, t: Tensor) -> bool:
        known = self._known.get(id(t))
        return known is not None and known() is t


class _Leaving(TorchFunctionMode):
    """UserError where numbers, more than one, go from a tensor of floating point to numpy."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        x = args[0] if args else None
        if func in TO_NUMPY and isinstance(x, Tensor) and x.is_floating_point() and x.numel() > 1:
            raise UserError(UNCOUNTED.format("in numpy"))
        return func(*args, **(kwargs or {}))


@dataclass(frozen=True)
class ParameterCount(Statistic[int]):
    """Numbers of parameters, by name."""

    needs_pass: ClassVar[bool] = False
    successive: ClassVar[bool] = True

    def observe_model(self, model: nn.Module, inputs: Any) -> dict[str, int]:
        """Sizes of all parameters."""
        check_initialised(model)
        return {name: math.prod(p.shape) for name, p in model.named_parameters()}


@dataclass(frozen=True)
class MacCount(Statistic[int]):
    """Multiply-adds of one sample, by operator."""

    needs_pass: ClassVar[bool] = False
    successive: ClassVar[bool] = True

    def observe_model(self, model: nn.Module, inputs: Any) -> dict[str, int]:
        """Counts of one forward pass."""
        return macs_by_operator(model, inputs)
