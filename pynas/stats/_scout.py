"""Small passes that measure where the samples of every tensor are.

Forward passes of 2 and 4 samples, all of them the same one, show which dimensions grow with the batch,
whatever their sizes happen to be. A third, with other data for the second of the 4 alone, shows which rows
are its own: in which order several for each sample are folded, and whether samples come in another order or
depend on each other. If they are sorted, the one that differs comes to an end, never to where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor

from pynas._errors import UserError
from pynas.stats._collector import DIFFERENTIATES
from pynas.stats._functions import name_of
from pynas.stats._layout import DATA, Layout, Unknown, Where, compared
from pynas.stats._small_batches import few, one_changed
from pynas.stats.data import call_model, leaves, writable
from pynas.stats.state import preserved, seed_generators

if TYPE_CHECKING:
    from pynas.stats._call_recorder import CallRecorder

SIZES = (2, 4)
SEED = 33  # by which permutations of 4 that PyTorch, numpy and Python draw first leave none where it was


@dataclass(frozen=True, slots=True)
class Measured:
    """One call, in the order of their ends: what it was, and where the samples of its outputs are."""

    func: Callable[..., Any]
    where: tuple[Where, ...]
    shapes: tuple[torch.Size, ...]
    layer: str
    settings: tuple[Hashable, Hashable]
    still: tuple[bool, ...]  # of each output, whether no row of it changed with the sample that did


class Log:
    """What one small pass saw; with ``smaller``, rows of dimensions that grew since are noted too."""

    def __init__(self, smaller: Log | None = None) -> None:
        self.calls: list[tuple[Callable[..., Any], list[torch.Size], list[Tensor | None]]] = []
        self.settings: list[Hashable] = []  # numbers and flags among the arguments of each call
        self.layers: list[str] = []  # in which layer each call was made
        self.path: list[str] = []  # the layers that run now, each in the one before
        self.smaller = smaller
        self.products: set[str] = set()  # parameters that multiply something in layers under fallback

    def add(
        self,
        func: Callable[..., Any],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        outputs: Sequence[Tensor],
    ) -> None:
        """Note a call."""
        rows: list[Tensor | None] = [None] * len(outputs)
        n = len(self.calls)
        if self.smaller is not None and n < len(self.smaller.calls):
            before = self.smaller.calls[n][1]
            for i, (y, shape) in enumerate(zip(outputs, before, strict=False)):
                if is_functorch_wrapped_tensor(y):
                    continue  # inside a transform of torch.func, where values cannot be compared
                changed = [d for d in range(y.dim()) if y.dim() == len(shape) and y.shape[d] != shape[d]]
                if len(changed) == 1:
                    rows[i] = _row_sums(y, changed[0])
        self.settings.append(settings_of(args, kwargs))
        self.layers.append(self.path[-1] if self.path else "")
        self.calls.append((func, [y.shape for y in outputs], rows))


def settings_of(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Hashable:
    """The whole numbers, flags and names among the arguments of a call."""
    found: list[Hashable] = []
    _settings(args, found)
    if kwargs:
        _settings(kwargs.values(), found)
    return tuple(found)


def _settings(values: Iterable[Any], found: list[Hashable]) -> None:
    for value in values:
        if isinstance(value, int | str) or value is None:
            found.append(value)
        elif isinstance(value, slice):
            found.append(str(value))
        elif isinstance(value, tuple | list):
            _settings(value, found)
        elif isinstance(value, dict):
            _settings(value.values(), found)


def expected(settings: tuple[Hashable, Hashable], batch: int) -> Hashable:
    """What a call's settings are for ``batch`` samples, from those for 2 and for 4."""
    small, large = settings
    if not (isinstance(small, tuple) and isinstance(large, tuple)) or small == large:
        return large
    return tuple(
        b + (b - a) * (batch - SIZES[1]) // (SIZES[1] - SIZES[0]) if type(a) is type(b) is int else b
        for a, b in zip(small, large, strict=False)
    )


def _row_sums(y: Tensor, dim: int) -> Tensor:
    rows = y.detach().movedim(dim, 0).flatten(1) if y.dim() > 1 else y.detach().unsqueeze(1)
    if rows.is_complex():
        rows = torch.view_as_real(rows.resolve_conj()).flatten(1)
    values = rows.double()
    factors = _factors(values.shape[1], y.device)
    sums = values @ factors
    return sums if sums.isfinite().all() else torch.nan_to_num(values, 0.25, 1e30, -1e30) @ factors


def _factors(count: int, device: torch.device) -> Tensor:
    known = _FACTORS.get(device)
    if known is None or len(known) < count:
        size = max(1 << (count - 1).bit_length() if count else 1, 1024)
        if size > LARGE:
            return torch.arange(count, dtype=torch.float64, device=device).cos()
        known = _FACTORS[device] = torch.arange(size, dtype=torch.float64, device=device).cos()
    return known[:count]


LARGE = 1 << 20
_FACTORS: dict[torch.device, Tensor] = {}


@dataclass(frozen=True, slots=True)
class Scouted:
    """What small passes have found out.

    Attributes:
        calls: Where the samples of each call's outputs are.
        products: Parameters that multiply something in layers under fallback, by name.
    """

    calls: tuple[Measured, ...]
    products: frozenset[str]


def scout(
    recorder: Callable[[int], CallRecorder], inputs: Any, fallback: Callable[[CallRecorder], Any]
) -> Scouted:
    """Where the samples of each call's outputs are; leaves no trace.

    Args:
        recorder: Makes one for so many samples.
        inputs: Of the model, the whole batch.
        fallback: Context in which layers under fallback run as wholes.

    Raises:
        UserError: The model does not run on so few samples, or what it calls depends on their number.
    """

    def run(size: int, batch: Any, log: Log) -> Log:
        made = recorder(size)
        return _run(made, batch, inputs, log, fallback(made))

    small = run(SIZES[0], few(inputs, SIZES[0]), Log())
    batch = few(inputs, SIZES[1])
    large = run(SIZES[1], batch, Log(small))
    names = [[name_of(func) for func, _, _ in log.calls] for log in (small, large)]
    if names[0] != names[1]:
        n = next(i for i, pair in enumerate(zip_longest(*names)) if pair[0] != pair[1])
        # One of the passes may be through with the layer already: the inner one of both.
        raise OtherPathError(max(small.layers[n : n + 1] + large.layers[n : n + 1], key=len))
    moved = None
    if any(r is not None for _, _, rows in large.calls for r in rows):
        other = one_changed(batch, inputs)
        if all(torch.equal(a, b) for a, b in zip(leaves(batch), leaves(other), strict=True)):
            raise UserError(
                "inputs: every value is the same, so nothing shows which rows inside the model belong to "
                "which sample; pass data that vary"
            )
        moved = run(SIZES[1], other, Log(small))
    calls = tuple(_measured(small, large, moved, n) for n in range(len(small.calls)))
    return Scouted(calls, frozenset(small.products))


def _measured(small: Log, large: Log, moved: Log | None, n: int) -> Measured:
    func, shapes, _ = small.calls[n]
    _, larger, rows = large.calls[n]
    if len(shapes) != len(larger):
        raise OtherPathError(small.layers[n])
    where: list[Where] = []
    still = []
    for i, (a, b) in enumerate(zip(shapes, larger, strict=True)):
        changed, base = None, rows[i]
        if moved is not None and n < len(moved.calls) and base is not None:
            other = moved.calls[n][2]
            again = other[i] if i < len(other) else None
            if again is None or again.shape != base.shape:
                still.append(False)
                where.append(Unknown(DATA))
                continue
            changed = (base != again).cpu()
        still.append(changed is not None and not bool(changed.any()))
        where.append(_settled(a, b, changed))
    settings = small.settings[n], large.settings[n]
    return Measured(func, tuple(where), tuple(larger), small.layers[n], settings, tuple(still))


def _settled(small: torch.Size, large: torch.Size, moved: Tensor | None) -> Where:
    found = compared(small, large, SIZES, moved)
    single = isinstance(compared(small, large, SIZES, None), Layout)
    if isinstance(found, Unknown) and moved is not None and not moved.any() and single:
        return compared(small, large, SIZES, None)  # a row for each sample that does not depend on them
    return found


def _run(recorder: CallRecorder, inputs: Any, whole: Any, log: Log, fallback: Any) -> Log:
    recorder.log, inputs = log, writable(inputs)
    try:
        with (
            preserved(recorder.model),
            torch.no_grad(),
            fallback,
            _layers_noted(recorder.model, log),
            recorder,
        ):
            seed_generators(SEED)
            outputs = call_model(recorder.model, inputs)
        found = [t for t in leaves(outputs) if t.is_floating_point()]
        log.add(put_out, (), {}, found[:1])
    except UserError:
        raise
    except MemoryError:
        raise
    except Exception as error:
        if "does not require grad" in str(error):
            raise UserError(DIFFERENTIATES) from error
        with preserved(recorder.model), torch.enable_grad():
            call_model(recorder.model, writable(whole))  # what fails for any number of samples says so itself
        raise UserError(
            f"model: it does not run on a batch of {recorder.batch}, which is how pynas finds the dimensions "
            f"that count samples: {type(error).__name__}: {error}"
        ) from error
    return log


def put_out(*_: Any) -> None:
    """Stands for the end of the model, where its output is noted as if a call had made it."""


@contextmanager
def _layers_noted(model: nn.Module, log: Log) -> Iterator[None]:
    """Keep ``log.path`` while the context lasts."""
    names = {id(module): name for name, module in model.named_modules()}

    def enter(module: nn.Module, _: Any) -> None:
        log.path.append(names.get(id(module), log.path[-1] if log.path else ""))

    def leave(module: nn.Module, _: Any, __: Any) -> None:
        log.path.pop()

    hooks = nn.modules.module
    before = hooks.register_module_forward_pre_hook(enter)
    after = hooks.register_module_forward_hook(leave, always_call=True)
    try:
        yield
    finally:
        before.remove()
        after.remove()


PATH = (
    "what is called in layer {layer!r} depends on the number of samples or on their values (as where each "
    "token goes to some experts), so its samples cannot be followed"
)


class OtherPathError(UserError):
    """What a forward calls depends on the number of samples, or on their values.

    Attributes:
        layer: In which layer, as far as that can be told.
    """

    def __init__(self, layer: str, what: str = PATH) -> None:
        self.layer = layer
        super().__init__(f"model: {what.format(layer=layer)}")
