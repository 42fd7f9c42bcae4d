"""What an error recommends: the narrowest fallback that works."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from pynas.stats._problems import UnsupportedLayerError
from pynas.stats._scout import OtherPathError

TRIED = 6  # fallbacks, before the whole model


def remedy(model: nn.Module, layers: Sequence[str], attempt: Callable[[tuple[str, ...]], object]) -> str:
    """What to do about these layers.

    Args:
        model: Of which.
        layers: Their names.
        attempt: Collects statistics of a few samples under a fallback.
    """
    found = _search(model, layers, attempt)
    if found is None:
        return "no fallback works here; set requires_grad=False on the parameters to leave them out"
    return (
        f"pass fallback={found!r} to take gradients there group by group through torch.func "
        "(slower; it works on these data), or set requires_grad=False on the parameters to leave them out"
    )


def _search(
    model: nn.Module, layers: Sequence[str], attempt: Callable[[tuple[str, ...]], object]
) -> tuple[str, ...] | None:
    names = _outermost(layers)
    for tried in range(TRIED + 1):
        if tried == TRIED:
            names = ("",)
        try:
            attempt(names)
        except MemoryError:
            raise
        except Exception as error:
            if names == ("",):
                return None
            # Layers that come later are noticed only now.
            others = [n for n in _named(error) if not any(n == m or _holds(m, n) for m in names)]
            names = _outermost([*names, *others] if others else [_around(model, n) for n in names])
        else:
            return names
    return None


def _named(error: Exception) -> tuple[str, ...]:
    if isinstance(error, UnsupportedLayerError):
        return error.layers
    return (error.layer,) if isinstance(error, OtherPathError) else ()


def _around(model: nn.Module, name: str) -> str:
    """The layer that holds this one and has a forward of its own, unlike a list of layers."""
    while name:
        name = name.rpartition(".")[0]
        if type(model.get_submodule(name)).forward is not nn.Module.forward:
            break
    return name


def _outermost(names: Sequence[str]) -> tuple[str, ...]:
    """Each once, without those that another one holds."""
    return tuple(dict.fromkeys(n for n in names if not any(n != m and _holds(m, n) for m in names)))


def _holds(outer: str, inner: str) -> bool:
    return outer == "" or inner.startswith(f"{outer}.")
