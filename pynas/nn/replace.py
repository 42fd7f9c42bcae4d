"""Replaces the mixed operations of existing code by fused ones, in place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from torch import nn

from pynas._plural import counted
from pynas.nn._compare import Form, Known, check_kept, check_replaced, drop_impostors, form
from pynas.nn._family import one_family
from pynas.nn._find import Container, Group, groups, is_replaceable
from pynas.nn._keep import Edge, is_kept, keep
from pynas.nn._recognise import UnknownCandidateError
from pynas.nn.mixed_op import MixedOp, Save

T = TypeVar("T")


@dataclass(frozen=True)
class Swapped:
    """A mixed operation that is fused now.

    Attributes:
        name: Its name in ``model.named_modules()``; of the list of candidates where a module holds several.
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
    """What :func:`replace_mixed_ops` did; print it.

    Attributes:
        swapped: The mixed operations that are fused now.
        kept: What looked like a mixed operation and was left as it was, and why.
    """

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
        if not self.swapped and not self.kept:
            lines.append("  no module holds a list of candidates, or candidates as its children")
        return "\n".join(lines)


def replace_mixed_ops(model: nn.Module, *, check: bool = True, save: Save = "products") -> ReplaceReport:
    """Fuse the mixed operations in ``model``, in place.

    A mixed operation is a module that holds candidates, in a ``ModuleList``, a ``ModuleDict`` or as its
    children, and adds up multiples of what they return. Candidates are recognised by their layers, not by
    names of classes. One that the operator does not know (another kernel size, dropout, hooks, ...) runs
    unfused inside the same mixture. Parameters and buffers remain the same tensors under the same names, so
    optimisers and state dicts keep working.

    - A module that is nothing but ``forward(x, weights)`` over one list becomes a
      :class:`~pynas.nn.MixedOp`.
    - Any other stays the object that it is, with its parameters, hooks and methods. Its methods ``forward``
      and ``forward_*`` run as they are written; where they add up multiples of candidates, one fused call
      computes the sum. So weights may be arguments, parameters of the module or attributes of an argument,
      before or after a softmax, and the candidates may see a part of the channels (PC-DARTS, DrNAS).

    One difference: a candidate whose weight is exactly zero is not computed, so its running statistics do not
    change.

    Args:
        model: Any module.
        check: Compare each fused operation with the original: output, gradients and running statistics on a
            small random input in float64, in training and in evaluation mode. Modules that differ, or that
            accept neither ``(x)``, ``(x, weights)`` nor ``(x, object that has weights)``, are left unchanged.
            Without this check the caller guarantees that a ``forward(x, weights)`` is
            ``sum_k weights[k] op_k(x)``, and that candidates compute what their layers say.
        save: What each keeps for backward, as in :class:`~pynas.nn.MixedOp`.

    Returns:
        What was fused, and what was not and why.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    replacer = _Replacer(check, save)
    if isinstance(model, Container):
        holder = nn.Module()
        holder.add_module("list", model)
        if groups(holder):
            replacer.kept.append(Kept("", "is a bare list of candidates: use MixedOp.from_modules"))
    replacer.visit(model, "", None)
    return ReplaceReport(tuple(replacer.swapped), tuple(replacer.kept))


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


@dataclass(frozen=True)
class _Verdict:
    """What comparing values has shown of all modules of a form.

    Attributes:
        reasons: Of each group, why candidates stay modules, by position.
        replaceable: Whether a MixedOp computes the same as the module.
        refused: Why the module has to stay as it is; None if it does not.
    """

    reasons: tuple[Mapping[int, str], ...]
    replaceable: bool
    refused: str | None = None


class _Replacer:
    def __init__(self, check: bool, save: Save) -> None:
        self.check, self.save = check, save
        self.swapped: list[Swapped] = []
        self.kept: list[Kept] = []
        self._verdicts: dict[tuple[Form, tuple[tuple[int, ...], ...]], _Verdict] = {}
        # A module used in two places is replaced once. Held, so that no other gets its identity.
        self._seen: dict[int, tuple[nn.Module, nn.Module]] = {}

    def visit(self, module: nn.Module, name: str, parent: nn.Module | None) -> nn.Module:
        """What takes the place of ``module``, mostly itself, after all below it has been visited."""
        if isinstance(module, MixedOp) or is_kept(module):
            return module
        if id(module) in self._seen:
            return self._seen[id(module)][1]
        found = groups(module)
        result = self._fused(module, found, name, parent) if found else module
        self._seen[id(module)] = module, result
        if result is module:
            candidates = {id(member) for group in found for member in group.members.values()}
            for key, child in list(module._modules.items()):
                if child is not None and id(child) not in candidates and not is_kept(child):
                    below = self.visit(child, f"{name}.{key}" if name else key, module)
                    if below is not child:
                        module._modules[key] = below
        return result

    def _fused(self, module: nn.Module, found: list[Group], name: str, parent: nn.Module | None) -> nn.Module:
        """``module`` or a mixture in its place; it is reported."""
        known: list[Known] = []
        reasons: list[dict[int, str]] = []
        groups = []
        for group in found:
            items, why = one_family(tuple(group.members.values()))
            if any(item is not None and item.layers for item in items):
                groups.append(group)
                known.append(items)
                reasons.append(why)
            else:
                self.kept.append(Kept(_label(name, group, found), _told(why, group)))
        if not groups:
            return module
        verdict = self._verdict(module, groups, known, reasons, parent)
        if verdict.refused is not None:
            self.kept.extend(Kept(_label(name, group, found), verdict.refused) for group in groups)
            return module
        for items, why, more in zip(known, reasons, verdict.reasons, strict=True):
            why.update({k: reason for k, reason in more.items() if k not in why})
            items[:] = [None if k in why else item for k, item in enumerate(items)]
        for group, items, why in zip(groups, known, reasons, strict=True):
            keys = list(group.members)
            plain = {keys[k]: reason for k, reason in sorted(why.items())}
            fused = tuple(item.name for item in items if item is not None)
            self.swapped.append(Swapped(_label(name, group, found), fused, plain))
        if verdict.replaceable:
            return _replaced(module, groups[0].name, known[0], reasons[0], self.save)
        keep(
            module,
            [Edge(list(g.members.values()), k, self.save) for g, k in zip(groups, known, strict=True)],
        )
        return module

    def _verdict(
        self,
        module: nn.Module,
        found: list[Group],
        known: list[Known],
        reasons: list[dict[int, str]],
        parent: nn.Module | None,
    ) -> _Verdict:
        replaceable = parent is not None and is_replaceable(module, found)
        if not self.check:
            return _Verdict(tuple(reasons), replaceable)
        key = (form(module), tuple(tuple(why) for why in reasons))
        if key not in self._verdicts:
            self._verdicts[key] = _compared(module, found, known, reasons, replaceable)
        return self._verdicts[key]


def _compared(
    module: nn.Module,
    found: list[Group],
    known: list[Known],
    reasons: list[dict[int, str]],
    replaceable: bool,
) -> _Verdict:
    left, why = [list(items) for items in known], [dict(item) for item in reasons]
    channels = next(item.channels for item in left[0] if item is not None and item.channels is not None)
    try:
        for group, items, reason in zip(found, left, why, strict=True):
            drop_impostors(list(group.members.values()), items, reason)
            if not any(item is not None and item.layers for item in items):
                return _Verdict((), False, _told(reason, group))
        if replaceable:
            try:
                check_replaced(module, found[0].name, left[0], why[0], channels)
                return _Verdict(tuple(why), True)
            except Exception:
                pass  # its forward does something else besides: it may be kept as it is written
        check_kept(module, found, left, channels)
    except UnknownCandidateError as error:
        return _Verdict((), False, str(error))
    except Exception as error:
        return _Verdict((), False, f"cannot be tried on a small input: {error}")
    return _Verdict(tuple(why), False)


def _replaced(module: nn.Module, container: str, known: Known, why: Mapping[int, str], save: Save) -> MixedOp:
    members = module._modules[container]
    assert isinstance(members, (nn.ModuleList, nn.ModuleDict))
    fused = MixedOp._of(members, known, why, holder=container, save=save)
    fused.training = module.training
    for name, value in vars(module).items():  # attributes that other code may read, such as a stride
        if name not in vars(fused) and not hasattr(MixedOp, name):
            setattr(fused, name, value)
    return fused


def _label(name: str, group: Group, found: list[Group]) -> str:
    """Of a mixture: the name of its module, and of the list where there are several."""
    return ".".join(part for part in (name, group.name if len(found) > 1 else "") if part)


def _told(reasons: Mapping[int, str], group: Group) -> str:
    """Reasons in one line, candidates of the same reason together."""
    keys, members = list(group.members), list(group.members.values())
    same: dict[str, list[int]] = {}
    for k, reason in sorted(reasons.items()):
        same.setdefault(reason, []).append(k)
    return "; ".join(
        f"{'candidate' if len(found) == 1 else 'candidates'} {', '.join(keys[k] for k in found)} "
        f"({', '.join(dict.fromkeys(type(members[k]).__name__ for k in found))}): {reason}"
        for reason, found in same.items()
    )
