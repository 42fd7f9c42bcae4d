"""Compares fused operations with what they replace, on small random inputs in float64."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from pynas.nn._find import Group
from pynas.nn._keep import Edge, edges_of, forwards, keep
from pynas.nn._recognise import Recognised, UnknownCandidateError, call_alone, recognise
from pynas.nn.mixed_op import MixedOp

Form = tuple[tuple[object, ...], ...]
Known = list[Recognised | None]

_OWN = frozenset(vars(nn.Module())) - {"training"}  # what each module has
_TOLERANCE = 1e-9  # for float64 values, relative to the largest
_PARTS = range(1, 17)  # a mixture may see one of so many equal parts of the channels


def form(module: nn.Module) -> Form:
    """Classes, shapes and settings of all parts; modules of equal form compute the same function."""
    return tuple(
        (
            key,
            type(part),
            tuple((name, repr(value)) for name, value in vars(part).items() if name not in _OWN),
            tuple((name, t.shape) for name, t in part._parameters.items() if t is not None),
        )
        for key, part in module.named_modules()
    )


def drop_impostors(members: list[nn.Module], known: Known, reasons: dict[int, str]) -> None:
    """Remove candidates from ``known`` that have its layers and compute something else."""
    for k, (member, item) in enumerate(zip(members, known, strict=True)):
        if item is None or not item.layers:
            continue
        own = copy.deepcopy(member).double()
        alone = MixedOp.from_modules([copy.deepcopy(own)])
        channels = item.channels or 1

        def image(random: torch.Generator, channels: int = channels) -> tuple[Any, ...]:
            return (_image(random, channels),)

        def mixture(x: Tensor, alone: MixedOp = alone) -> Tensor:
            return alone(x, torch.ones(1, dtype=x.dtype, device=x.device))  # type: ignore[no-any-return]

        def original(x: Tensor, own: nn.Module = own) -> Tensor:
            return call_alone(own, x)  # type: ignore[no-any-return]

        try:
            same = _difference((own, original), (alone, mixture), image) <= _TOLERANCE
            reason = f"has the layers of {item.name} and computes something else"
        except Exception as error:
            same, reason = False, f"cannot be tried on an image: {error}"
        if not same:
            known[k] = None
            reasons[k] = reason


def check_replaced(
    module: nn.Module, container: str, known: Known, reasons: dict[int, str], channels: int
) -> None:
    """Raise unless ``module(x, weights)`` is the mixture of the list that it holds under ``container``."""
    original = copy.deepcopy(module).double()
    copied = copy.deepcopy(original._modules[container])
    assert isinstance(copied, (nn.ModuleList, nn.ModuleDict))
    recognised = [
        None if item is None else recognise(member)
        for item, member in zip(known, copied.children(), strict=True)
    ]
    fused = MixedOp._of(copied, recognised, reasons, holder=container, save="products")

    def arguments(random: torch.Generator) -> tuple[Any, ...]:
        return _image(random, channels), _weights(random, len(known))

    _refuse(_difference((original, original), (fused, fused), arguments))


def check_kept(module: nn.Module, found: list[Group], known: list[Known], channels: int) -> None:
    """Raise unless ``module``, with its forward, computes the same with candidates fused."""
    original = copy.deepcopy(module).double()
    name, arguments = _trial(original, found, channels)
    names = {id(part): key for key, part in module.named_modules()}
    fused = copy.deepcopy(original)
    members = [[fused.get_submodule(names[id(m)]) for m in group.members.values()] for group in found]
    edges = [
        Edge(parts, [None if item is None else recognise(m) for m, item in zip(parts, items, strict=True)])
        for parts, items in zip(members, known, strict=True)
    ]
    keep(fused, edges)
    calls: list[nn.Module] = []
    for edge in edges_of(fused):
        if edge.mixture is not None:
            edge.mixture.register_forward_hook(lambda mixture, *_: calls.append(mixture))
    _refuse(_difference((original, getattr(original, name)), (fused, getattr(fused, name)), arguments))
    if not calls:
        raise UnknownCandidateError(f"its {name} is not a weighted sum of its candidates")


def _refuse(difference: float) -> None:
    if not difference <= _TOLERANCE:
        raise UnknownCandidateError(
            f"its forward is not sum_k weights[k] op_k(x): it differs by {difference:.1e} on a random input"
        )


# ---- arguments -------------------------------------------------------------------------------------------


class _Holder:
    """An object whose every attribute is the weights, for code that asks an object for them."""

    def __init__(self, weights: Tensor) -> None:
        self._held = weights

    def __getattr__(self, name: str) -> Tensor:
        if name.startswith("__") or name == "_held":
            raise AttributeError(name)
        return self._held


def _image(random: torch.Generator, channels: int) -> Tensor:
    return torch.randn(3, channels, 6, 6, generator=random, dtype=torch.float64)


def _weights(random: torch.Generator, *shape: int) -> Tensor:
    return torch.rand(shape, generator=random, dtype=torch.float64) + 0.25


Arguments = Callable[[torch.Generator], tuple[Any, ...]]


def _trials(found: list[Group], channels: int, count: int) -> Iterator[Arguments]:
    """Ways to call a method that takes ``count`` arguments, each for any number of parts of channels."""
    candidates = len(found[0].members)
    for parts in _PARTS:
        wide = parts * channels
        if count < 2:
            yield lambda r, c=wide: (_image(r, c),)  # type: ignore[misc]
        if count == 2:
            yield lambda r, c=wide: (_image(r, c), _weights(r, candidates))  # type: ignore[misc]
            yield lambda r, c=wide: (_image(r, c), _weights(r, len(found), candidates))  # type: ignore[misc]
            yield lambda r, c=wide: (_image(r, c), _Holder(_weights(r, candidates)))  # type: ignore[misc]


def _trial(module: nn.Module, found: list[Group], channels: int) -> tuple[str, Arguments]:
    """A method of ``module`` and arguments that it takes."""
    tried: list[str] = []
    copied = copy.deepcopy(module).train()  # only whether it runs matters, so its state may change
    for name in forwards(type(module)):
        parameters = list(inspect.signature(getattr(module, name)).parameters.values())
        positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        required = [p for p in positional if p.default is p.empty]
        if len(required) > 2:
            tried.append(f"{name}{inspect.signature(getattr(module, name))} takes more than (x, weights)")
            continue
        first: str | None = None
        for count in sorted({len(required), min(len(positional), 2)}):
            for arguments in _trials(found, channels, count):
                try:
                    with torch.no_grad(), torch.random.fork_rng(devices=[]):
                        y = getattr(copied, name)(*_on(module, arguments(torch.Generator().manual_seed(0))))
                    if isinstance(y, Tensor) and y.dim() == 4:
                        return name, arguments
                    first = first or f"{name} returns no image"
                except Exception as error:
                    first = first or f"{name}: {str(error).splitlines()[0] if str(error) else repr(error)}"
        tried.append(first or name)
    if not tried:
        raise UnknownCandidateError("has no forward(x, weights)")
    raise UnknownCandidateError(f"cannot be tried on a small input: {'; '.join(tried)}")


def _on(module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    for argument in arguments:
        if isinstance(argument, _Holder):
            argument._held = argument._held.to(device)
    return tuple(a.to(device) if isinstance(a, Tensor) else a for a in arguments)


def _difference(
    one: tuple[nn.Module, Callable[..., Tensor]],
    other: tuple[nn.Module, Callable[..., Tensor]],
    arguments: Arguments,
) -> float:
    """Largest relative difference of outputs, gradients and buffers, in training and evaluation."""
    first, second = (_values(module, call, arguments) for module, call in (one, other))
    if [t.shape for t in first] != [t.shape for t in second]:
        return float("inf")
    scale = max(1.0, *(float(t.abs().max()) for t in first if t.numel()))
    return max(float((a - b).abs().max()) / scale for a, b in zip(first, second, strict=True) if a.numel())


def _values(module: nn.Module, call: Callable[..., Tensor], arguments: Arguments) -> list[Tensor]:
    random = torch.Generator().manual_seed(0)
    values: list[Tensor] = []
    # Not module.parameters(), from which code may hide its weights.
    owned = {id(p): p for m in module.modules() for p in m._parameters.values() if p is not None}
    for training in (True, False):
        module.train(training)
        given = _on(module, arguments(random))
        inputs = [a._held if isinstance(a, _Holder) else a for a in given]
        wanted = [*(t.requires_grad_() for t in inputs), *(p for p in owned.values() if p.requires_grad)]
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.manual_seed(0)
            y = call(*given)
            gradients = torch.autograd.grad(y, wanted, torch.cos(y.detach() * 3), allow_unused=True)
        values += [y.detach()]
        values += [torch.zeros_like(t) if g is None else g for g, t in zip(gradients, wanted, strict=True)]
    return [*values, *(b.double() for b in module.buffers())]
