"""Whole layers under torch.func: what ``fallback=`` of :func:`pynas.stats.collect` names."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import _pop_mode_temporarily
from torch.utils import _pytree

from pynas._errors import UserError
from pynas.stats._call_recorder import CallRecorder
from pynas.stats._grouped import GroupedCall
from pynas.stats._layout import Unknown
from pynas.stats._mixing import NeedsScoutError, tensors_of
from pynas.stats.weights import ProductWatch

# Attributes of a module that its call reads beside ``forward``.
HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")


@contextmanager
def installed(recorder: CallRecorder, names: Sequence[str]) -> Iterator[None]:
    """Run the named layers of the model as recorded wholes while the context lasts."""
    with ExitStack() as stack:
        for name in names:
            module = recorder.model.get_submodule(name)
            own = {key: module.__dict__[key] for key in ("forward", *HOOKS) if key in module.__dict__}
            stack.enter_context(_as_written(module, own))  # so that it is put back
            wrapped = _wrapper(recorder, name, module, own)
            module.__dict__.update({"forward": wrapped, **{key: OrderedDict() for key in HOOKS}})
        yield


@contextmanager
def _as_written(module: nn.Module, own: Mapping[str, Any]) -> Iterator[None]:
    """A layer with its own forward and hooks while the context lasts, and as it is now afterwards."""
    now = {key: module.__dict__[key] for key in ("forward", *HOOKS) if key in module.__dict__}
    module.__dict__.pop("forward", None)
    module.__dict__.update(own)
    try:
        yield
    finally:
        module.__dict__.pop("forward", None)
        module.__dict__.update(now)


def fallback(*_: Any, **__: Any) -> None:
    """Stands for the call of a whole layer where calls are counted."""


def _wrapper(
    recorder: CallRecorder, name: str, module: nn.Module, own: Mapping[str, Any]
) -> Callable[..., Any]:
    """What runs as the forward of a layer, with its hooks: these are a part of the whole."""

    def original(*args: Any, **kwargs: Any) -> Any:
        with _as_written(module, own):
            return module(*args, **kwargs)

    def forward(*args: Any, **kwargs: Any) -> Any:
        tensors = tensors_of(args, kwargs)
        with _pop_mode_temporarily():
            if recorder.log is not None:
                result = _watched(recorder, original, args, kwargs)
            else:
                result = _layer(recorder, name, module, original, args, kwargs)
            recorder.called(fallback, args, kwargs, [*tensors, *module.parameters()], result)
        return result

    return forward


def _layer(
    recorder: CallRecorder,
    name: str,
    module: nn.Module,
    original: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> Any:
    if not torch.is_grad_enabled() or not recorder.tracks:
        return original(*args, **kwargs)
    places = recorder.next_places(fallback)
    if places is None:
        raise NeedsScoutError
    flat, spec = _pytree.tree_flatten((args, dict(kwargs)))
    inputs = [recorder.where(t) for t in flat if isinstance(t, Tensor)]
    if not any(p is not None for p in (*inputs, *places)):  # of parameters alone
        return original(*args, **kwargs)
    parameters = dict(module.named_parameters())
    uses = {}
    for key, parameter in parameters.items():
        use = recorder.collector.use(
            type(module).__name__,
            parameter,
            None,
            matrix=recorder.own.get(id(parameter)) in recorder.products,
        )
        if use is not None:
            uses[key] = use
    if not uses:
        return original(*args, **kwargs)
    recorder.once_only()
    if any(isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training for m in module.modules()):
        raise UserError(f"fallback: layer {name!r} contains batch norm, which couples samples")
    lost = [w.why for w in (*inputs, *places) if isinstance(w, Unknown)]
    if lost:
        raise UserError(f"fallback: layer {name!r} gets or returns a tensor that {lost[0]}")

    buffers = {key: b.clone() for key, b in module.named_buffers()}

    def call(values: Mapping[str, Tensor] | None, *args: Any, **kwargs: Any) -> Any:
        if values is None:
            return original(*args, **kwargs)
        # From the same buffers each time: a forward may move them (the power iteration of spectral norm).
        own = {key: b.clone() for key, b in buffers.items()}
        return torch.func.functional_call(module, {**values, **own}, args, kwargs)  # runs hooks, too

    outputs = list(places)
    layer = GroupedCall(
        f"layer {name!r}", call, uses, parameters, recorder, flat, spec, inputs, outputs, whole=name == ""
    )  # fmt: skip
    return layer.apply([t for t in flat if isinstance(t, Tensor)])


def _watched(
    recorder: CallRecorder, original: Callable[..., Any], args: Any, kwargs: Mapping[str, Any]
) -> Any:
    """Run a layer and note which of the model's parameters multiply something in it."""
    watch = ProductWatch(recorder.model, (args, kwargs))
    with watch:
        result = original(*args, **kwargs)
    assert recorder.log is not None
    recorder.log.products |= watch.found
    return result
