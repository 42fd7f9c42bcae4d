"""Replaces the mixed operations of existing code by fused ones, in place."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from pynas._plural import counted
from pynas.nn._recognise import Recognised, UnknownCandidateError, recognise, refuse_hooks
from pynas.nn.mixed_op import MixedOp, Save, one_family

T = TypeVar("T")

Form = tuple[tuple[object, ...], ...]
# Of modules of a form, some of whose candidates stay modules anyway, all that do.
Checked = dict[tuple[Form, tuple[int, ...]], dict[int, str]]

_OWN = frozenset(vars(nn.Module())) - {"training"}  # what each module has
_TOLERANCE = 1e-9  # for float64 values, relative to the largest


@dataclass(frozen=True)
class Swapped:
    """A mixed operation that was replaced by a fused one.

    Attributes:
        name: Its name in ``model.named_modules()``.
        candidates: Candidates that the operator computes.
        plain: Candidates that run unfused as before, by position or key, and why.
    """

    name: str
    candidates: tuple[str, ...]
    plain: Mapping[str, str]


@dataclass(frozen=True)
class Kept:
    """A module that looked like a mixed operation and was left as it was."""

    name: str
    reason: str


@dataclass(frozen=True)
class ReplaceReport:
    """What :func:`replace_mixed_ops` did; print it."""

    swapped: tuple[Swapped, ...]
    kept: tuple[Kept, ...]

    def __str__(self) -> str:
        lines = [f"{counted(len(self.swapped), 'mixed operation')} fused, {len(self.kept):,} left unchanged"]
        lines += [
            f"  {name}: {what}: {reason}"
            for name, items in _grouped((item.name, item.plain) for item in self.swapped)
            for what, reason in items.items()
        ]
        lines += [f"  {name}: {reason}" for name, reason in _grouped((k.name, k.reason) for k in self.kept)]
        return "\n".join(lines)


def replace_mixed_ops(model: nn.Module, *, check: bool = True, save: Save = "products") -> ReplaceReport:
    """Replace the mixed operations in ``model`` by :class:`~pynas.nn.MixedOp`, in place.

    A mixed operation is a module that holds a ``ModuleList`` or ``ModuleDict`` of candidates and is called
    with positional ``(x, weights)``. Candidates are recognised by their layers, not by names of classes. One
    that the operator does not know (another kernel size, a bias, hooks, ...) runs unfused inside the same
    mixture. Parameters and buffers remain the same tensors under the same names, so optimisers and state
    dicts keep working.

    One difference: a candidate whose weight is exactly zero is not computed, so its running statistics do not
    change.

    Args:
        model: Any module; what it holds can be replaced, the module itself cannot.
        check: Compare each fused operation with the module that it replaces: output, gradients and running
            statistics on a small random input in float64, in training and in evaluation mode. Modules that
            differ are left unchanged. Without this check the caller guarantees that ``forward(x, weights)``
            is ``sum_k weights[k] op_k(x)``.
        save: What each keeps for backward, as in :class:`~pynas.nn.MixedOp`.

    Returns:
        What was replaced, and what was not and why.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    swapped: list[Swapped] = []
    kept: list[Kept] = []
    checked: Checked = {}
    replaced: dict[int, nn.Module | None] = {}  # by identity: a module used in two places is replaced once
    if _holder(model) is not None:
        kept.append(Kept("", "is the model itself, which nothing holds; use MixedOp.from_modules"))
    for name, parent, key, module in _children(model, ""):
        if id(module) not in replaced:
            try:
                fused = _fused(module, parent, checked if check else None, save)
            except UnknownCandidateError as reason:
                kept.append(Kept(name, str(reason)))
                fused = None
            replaced[id(module)] = fused
            if fused is not None:
                keys = [key for key, _ in _container(module).named_children()]
                plain = {keys[k]: reason for k, reason in fused.plain.items()}
                swapped.append(Swapped(name, fused.candidates, plain))
        if replaced[id(module)] is not None:
            parent._modules[key] = replaced[id(module)]
    return ReplaceReport(tuple(swapped), tuple(kept))


def _children(module: nn.Module, prefix: str) -> Iterator[tuple[str, nn.Module, str, nn.Module]]:
    """Every (name, parent, key, child) below ``module``, parents first; does not descend into mixtures."""
    for key, child in list(module._modules.items()):
        if child is not None and not isinstance(child, MixedOp):
            yield prefix + key, module, key, child
            if module._modules[key] is child and _holder(child) is None:
                yield from _children(child, f"{prefix}{key}.")


def _grouped(items: Iterator[tuple[str, T]]) -> list[tuple[str, T]]:
    """Group items of the same text under the first one's name and the number of others."""
    groups: list[tuple[T, list[str]]] = []
    for name, what in items:
        group = next((names for known, names in groups if known == what), None)
        if group is None:
            groups.append((what, [name]))
        else:
            group.append(name)
    return [(names[0] + (f" and {len(names) - 1} more" if names[1:] else ""), what) for what, names in groups]


def _is_mixture(container: nn.Module) -> bool:
    """Whether it holds at least two different candidates, one of them with parameters."""
    if not isinstance(container, (nn.ModuleList, nn.ModuleDict)):
        return False
    found: list[Recognised] = []
    for member in container.children():
        try:
            found.append(recognise(member))
        except UnknownCandidateError:
            continue
    return len({item.name for item in found}) > 1 and any(item.layers for item in found)


def _holder(module: nn.Module) -> str | None:
    """The name under which ``module`` holds candidates; None if it holds none."""
    if isinstance(module, (nn.ModuleList, nn.ModuleDict)):
        return None
    return next((key for key, child in module.named_children() if _is_mixture(child)), None)


def _container(module: nn.Module) -> nn.ModuleList | nn.ModuleDict:
    child = module._modules[_holder(module) or ""]
    assert isinstance(child, (nn.ModuleList, nn.ModuleDict))
    return child


def _fused(module: nn.Module, parent: nn.Module, checked: Checked | None, save: Save) -> MixedOp | None:
    """The mixture that replaces ``module``; None if that is no mixture, an error if it cannot be fused."""
    holder = _holder(module)
    if holder is None:
        if _is_mixture(module) and isinstance(parent, (nn.ModuleList, nn.ModuleDict)):
            raise UnknownCandidateError(
                "is a bare list of candidates, and the loop over it is in the forward of a module above; use "
                "MixedOp.from_modules on the list, or call the list from a module with forward(x, weights)"
            )
        return None
    _refuse_other_parts(module, holder)
    container = _container(module)
    known, reasons = one_family(tuple(container.children()))
    if not any(item is not None and item.layers for item in known):
        raise UnknownCandidateError("; ".join(f"candidate {k} {why}" for k, why in sorted(reasons.items())))
    if checked is not None:
        form = (_form(module), tuple(reasons))
        if form not in checked:
            found = dict(reasons)
            _check_forward(module, container, known, found, holder)
            checked[form] = found
        reasons = checked[form] | reasons
        known = [None if k in reasons else item for k, item in enumerate(known)]
    fused = MixedOp._of(container, known, reasons, holder=holder, save=save)
    fused.training = module.training
    for name, value in vars(module).items():  # attributes that other code may read, such as a stride
        if name not in vars(fused) and not hasattr(MixedOp, name):
            setattr(fused, name, value)
    return fused


def _refuse_other_parts(module: nn.Module, holder: str) -> None:
    others = [key for key in module._modules if key != holder]
    if others:
        raise UnknownCandidateError(f"holds other modules besides {holder}: {', '.join(others)}")
    own = [*module._parameters, *module._buffers]
    if own:
        raise UnknownCandidateError(f"holds parameters or buffers of its own: {', '.join(own)}")
    for part in (module, module._modules[holder]):
        assert part is not None
        refuse_hooks(part)
    if type(module).forward is nn.Module.forward:
        raise UnknownCandidateError("has no forward(x, weights)")
    kinds = [p.kind for p in inspect.signature(module.forward).parameters.values()]
    if kinds != [inspect.Parameter.POSITIONAL_OR_KEYWORD] * 2:
        raise UnknownCandidateError(f"its forward{inspect.signature(module.forward)} is not (x, weights)")


# ---- comparison of values --------------------------------------------------------------------------------


def _form(module: nn.Module) -> Form:
    """Classes, shapes and settings of all parts; modules of equal form compute the same function."""
    return tuple(
        (
            key,
            type(part),
            tuple((name, repr(value)) for name, value in vars(part).items() if name not in _OWN),
            tuple((name, t.shape) for name, t in part.named_parameters(recurse=False)),
        )
        for key, part in module.named_modules()
    )


def _check_forward(
    module: nn.Module,
    container: nn.ModuleList | nn.ModuleDict,
    known: list[Recognised | None],
    reasons: dict[int, str],
    holder: str,
) -> None:
    """Remove candidates that compute something else from ``known``; raise if ``forward`` itself does so."""
    channels = next(item.channels for item in known if item is not None and item.channels is not None)
    try:
        original = copy.deepcopy(module).double()
        for k, member in enumerate(original._modules[holder].children()):  # type: ignore[union-attr]
            item = known[k]
            if item is not None and item.layers:
                alone = MixedOp.from_modules([copy.deepcopy(member)])
                if _difference(member, alone, channels, 1, single=True) > _TOLERANCE:
                    known[k] = None
                    reasons[k] = f"has the layers of {item.name} and computes something else"
        if not any(item is not None and item.layers for item in known):
            raise UnknownCandidateError("; ".join(f"candidate {k} {why}" for k, why in reasons.items()))
        original = copy.deepcopy(module).double()
        copied = copy.deepcopy(original._modules[holder])
        assert isinstance(copied, (nn.ModuleList, nn.ModuleDict))
        recognised = [
            None if item is None else recognise(member)
            for item, member in zip(known, copied.children(), strict=True)
        ]
        fused = MixedOp._of(copied, recognised, reasons, holder=holder, save="products")
        difference = _difference(original, fused, channels, len(known))
    except UnknownCandidateError:
        raise
    except Exception as error:
        raise UnknownCandidateError(f"cannot be tried on a small input: {error}") from error
    if not difference <= _TOLERANCE:
        raise UnknownCandidateError(
            f"its forward is not sum_k weights[k] op_k(x): it differs by {difference:.1e} on a random input"
        )


def _difference(
    one: nn.Module, other: nn.Module, channels: int, count: int, *, single: bool = False
) -> float:
    """Largest relative difference of outputs, gradients and buffers, in training and evaluation."""
    results = []
    for module in (one, other):
        device = next((p.device for p in module.parameters()), torch.device("cpu"))
        random = torch.Generator().manual_seed(0)
        values: list[Tensor] = []
        for training in (True, False):
            module.train(training)
            x = torch.randn(3, channels, 6, 6, generator=random, dtype=torch.float64)
            w = torch.rand(count, generator=random, dtype=torch.float64) + 0.25
            x, w = (t.to(device).requires_grad_() for t in (x, torch.ones_like(w) if single else w))
            with torch.random.fork_rng(devices=[]), torch.enable_grad():
                torch.manual_seed(0)
                y = module(x) if single and module is one else module(x, w)
                wanted = [x, *([] if single else [w]), *(p for p in module.parameters() if p.requires_grad)]
                gradients = torch.autograd.grad(y, wanted, torch.cos(y.detach() * 3), allow_unused=True)
            values += [y.detach()]
            values += [
                torch.zeros_like(t) if g is None else g for g, t in zip(gradients, wanted, strict=True)
            ]
        results.append([*values, *(b.double() for b in module.buffers())])
    first, second = results
    if [t.shape for t in first] != [t.shape for t in second]:
        return float("inf")
    scale = max(1.0, *(float(t.abs().max()) for t in first if t.numel()))
    return max(float((a - b).abs().max()) / scale for a, b in zip(first, second, strict=True) if a.numel())
