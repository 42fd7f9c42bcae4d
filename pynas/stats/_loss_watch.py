"""Watches a loss for what is no sample's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch.overrides import TorchFunctionMode

from pynas._errors import UserError
from pynas.stats._mixing import tensors_of


class LossWatch(TorchFunctionMode):
    """Refuses a loss that reads the model's parameters: its gradient is no sample's.

    Args:
        names: Of the parameters, by identity.
    """

    def __init__(self, names: Mapping[int, str]) -> None:
        super().__init__()
        self.names = names

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if self.names and any(y.requires_grad for y in tensors_of((result,), {})):
            for t in tensors_of(args, kwargs or {}):
                name = self.names.get(id(t))
                if name is not None and t.requires_grad:
                    raise UserError(
                        f"loss_fn: it reads parameter {name!r} of the model; a penalty on weights belongs "
                        "to no sample, so statistics over samples are of the loss without it"
                    )
        return result
