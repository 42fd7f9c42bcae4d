"""Models that compile or recompute parts of themselves, run as they are written."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
import torch.utils.checkpoint as checkpointing
from torch import nn

from pynas._errors import UserError

# Without compilation, what functions that these get have taken from around them has no gradient.
CLOSED = {"cond", "while_loop", "scan", "associative_scan", "map_impl", "switch"}


@contextmanager
def eager() -> Iterator[None]:
    """Compiled code runs as Python while this lasts, and activation checkpoints keep what they would drop.

    Neither changes a value. A compiled graph hides its calls, and what a checkpoint computes again in
    backward nobody could follow.
    """
    # Whoever compiles something has imported this; to import it takes seconds.
    compiles = "torch._dynamo" in sys.modules
    stance = torch.compiler.set_stance("force_eager") if compiles else nullcontext()
    operator, choose = torch._ops.HigherOrderOperator, torch.cond
    call = operator.__call__

    def checked(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.name() in CLOSED:
            raise UserError(
                f"model: its forward calls the operator {self.name()!r} of PyTorch, into whose functions "
                "nobody can look; write it as plain Python (an if, a loop)"
            )
        return call(self, *args, **kwargs)  # type: ignore[no-untyped-call]

    reentrant, other = checkpointing.CheckpointFunction, checkpointing._checkpoint_without_reentrant_generator
    with stance:
        try:
            torch.cond = _chosen
            operator.__call__ = checked  # type: ignore[method-assign]
            checkpointing.CheckpointFunction = _Kept  # type: ignore[assignment,misc]
            checkpointing._checkpoint_without_reentrant_generator = _keeping
            yield
        finally:
            torch.cond = choose
            operator.__call__ = call  # type: ignore[method-assign]
            checkpointing.CheckpointFunction = reentrant  # type: ignore[misc]
            checkpointing._checkpoint_without_reentrant_generator = other


def check_readable(model: nn.Module) -> None:
    """UserError for models whose calls nobody can follow."""
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            what = "it" if not name else f"its layer {name!r}"
            raise UserError(
                f"model: {what} is scripted or traced, and scripted code hides its calls; pass the "
                f"nn.Module that it "
                "was made from"
            )


def _chosen(pred: Any, true_fn: Callable[..., Any], false_fn: Callable[..., Any], operands: Any = ()) -> Any:
    """In place of ``torch.cond``."""
    return (true_fn if bool(pred) else false_fn)(*operands)


class _Kept:
    """In place of the function of reentrant checkpoints."""

    @staticmethod
    def apply(function: Callable[..., Any], preserve: bool, *args: Any) -> Any:
        return function(*args)


def _keeping(*_: Any, **__: Any) -> Iterator[None]:
    """In place of what other checkpoints do around the function."""
    yield
