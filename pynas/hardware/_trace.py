"""Taking a network apart: which blocks and operators it runs, on what shapes, how often."""

from __future__ import annotations

import copy
import functools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from pynas.hardware.operator_shapes import OperatorMode, is_view, tensors
from pynas.stats.data import call_model, writable
from pynas.stats.state import preserved

_DTYPES = {torch.float32: "f32", torch.float64: "f64", torch.bfloat16: "bf16", torch.float16: "f16"}


@dataclass(frozen=True, slots=True)
class Setting:
    """How networks run when they are timed: device, dtype and memory layout."""

    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    channels_last: bool = False

    def tensor(self, tensor: Tensor) -> Tensor:
        """Random numbers in the shape of ``tensor``; zeros where it holds integers."""
        if not tensor.is_floating_point():
            return torch.zeros(tensor.shape, dtype=tensor.dtype, device=self.device)
        made = torch.empty_strided(tensor.shape, tensor.stride(), dtype=self.dtype, device=self.device)
        made.normal_()
        return self._laid_out(made)

    def module(self, module: nn.Module) -> nn.Module:
        """A copy of ``module``, which has no storage, in eval mode, with small random weights.

        Memory as it comes would hold denormal numbers, with which processors calculate slowly.
        """
        made = copy.deepcopy(module).to_empty(device=self.device)
        for parameter in made.parameters():
            if parameter.is_floating_point():
                parameter.data = self._laid_out(parameter.data.to(self.dtype).normal_(std=0.05))
        for buffer in made.buffers():
            buffer.fill_(1) if buffer.is_floating_point() else buffer.zero_()
        return made.to(self.dtype).eval().requires_grad_(False)

    def network(self, model: nn.Module) -> nn.Module:
        """A whole network as it is timed; its initial weights stay."""
        model = model.to(self.device, self.dtype).eval().requires_grad_(False)
        for parameter in model.parameters():
            parameter.data = self._laid_out(parameter.data)
        return model

    def _laid_out(self, tensor: Tensor) -> Tensor:
        if self.channels_last and tensor.dim() == 4:
            return tensor.contiguous(memory_format=torch.channels_last)
        return tensor


@dataclass(frozen=True, slots=True)
class Call:
    """A module or an operator of PyTorch with the arguments that it runs on; calling it runs it once."""

    function: Callable[..., Any]
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)

    def __call__(self) -> object:
        return self.function(*self.args, **self.kwargs)


@dataclass(frozen=True, slots=True)
class Operator:
    """A block of modules, or an operator outside of all blocks, with the shapes that it runs on.

    Attributes:
        key: Readable and unique.
        make: Gives what runs it once.
    """

    key: str
    make: Callable[[Setting], Call]


def is_block(module: nn.Module) -> bool:
    """Whether a module is timed as a whole: a leaf, or a ``Sequential`` of nothing but leaves."""
    children = list(module.children())
    return not children or (isinstance(module, nn.Sequential) and not any(map(_has_children, children)))


def trace(
    model: nn.Module, inputs: Any, block: Callable[[nn.Module], bool] = is_block
) -> tuple[Counter[str], dict[str, Operator]]:
    """Run ``model`` on the device ``meta`` and see what it runs.

    Args:
        model: A network on ``meta``, in eval mode.
        inputs: A batch on ``meta``. Both stay as they are.
        block: Which modules are timed as a whole; inside of one nothing else is looked at.

    Returns:
        How often each operator runs, by key, in order of first use; and the operators by key. Views cost
        nothing and are left out.
    """
    observer, inputs = _Tracer(), writable(inputs)
    with preserved(model), torch.no_grad():  # the hooks go, too
        for module in model.modules():
            if block(module):
                module.register_forward_pre_hook(observer.enter, with_kwargs=True)
                module.register_forward_hook(observer.leave, always_call=True)
        with observer:
            call_model(model, inputs)
    return observer.counts, observer.operators


class _Tracer(OperatorMode):  # type: ignore[no-untyped-call]
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts: Counter[str] = Counter()
        self.operators: dict[str, Operator] = {}
        self._depth = 0

    def enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._depth == 0:
            key = f"{_described(module)}({_arguments(args, kwargs)})"
            self._add(key, functools.partial(_run_module, module, args, kwargs))
        self._depth += 1

    def leave(self, *_: Any) -> None:
        self._depth -= 1

    def observe(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], outputs: Any) -> None:
        if self._depth == 0 and tensors(outputs) and not is_view(func):
            key = f"{func}({_arguments(args, kwargs)})"
            self._add(key, functools.partial(_run_operator, func, args, kwargs))

    def _add(self, key: str, make: Callable[[Setting], Call]) -> None:
        self.counts[key] += 1
        if key not in self.operators:
            self.operators[key] = Operator(key, make)


def _run_module(module: nn.Module, args: Any, kwargs: Any, setting: Setting) -> Call:
    made = setting.module(module)
    return Call(made, _made(args, setting), _made(kwargs, setting))


def _run_operator(func: Any, args: Any, kwargs: Any, setting: Setting) -> Call:
    return Call(func, _made(args, setting), _made(kwargs, setting))


def _made(value: Any, setting: Setting) -> Any:
    return tree_map(lambda leaf: setting.tensor(leaf) if isinstance(leaf, Tensor) else leaf, value)


def _has_children(module: nn.Module) -> bool:
    return next(module.children(), None) is not None


def _described(module: nn.Module) -> str:
    """A module's text on one line; with its own numbers and shapes where its text may not tell all of it."""
    text = " ".join(repr(module).split())
    own = [part for part in module.modules() if not type(part).__module__.startswith("torch.nn.")]
    if not own:
        return text
    numbers = [{k: v for k, v in vars(part).items() if _is_setting(k, v)} for part in own]
    return f"{text}{numbers}{[list(p.shape) for p in module.parameters()]}"


def _is_setting(name: str, value: Any) -> bool:
    return (
        not name.startswith("_")
        and name != "training"
        and isinstance(value, bool | int | float | str | tuple)
    )


def _arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    parts = [_text(value) for value in args] + [f"{name}={_text(value)}" for name, value in kwargs.items()]
    return ", ".join(parts)


def _text(value: Any) -> str:
    if isinstance(value, Tensor):
        dtype = _DTYPES.get(value.dtype, str(value.dtype).removeprefix("torch."))
        sizes = "x".join(map(str, value.shape))
        return f"{dtype}[{sizes}]" if value.is_contiguous() else f"{dtype}[{sizes}]{list(value.stride())}"
    if isinstance(value, tuple | list):
        return f"({', '.join(map(_text, value))})"
    return repr(value)
