"""Finds the mixed operations of a module by its structure: lists of candidates, or candidates as children."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from pynas.nn._recognise import Recognised, UnknownCandidateError, recognise, refuse_hooks

Container = (nn.ModuleList, nn.ModuleDict)


@dataclass(frozen=True)
class Group:
    """Candidates of one mixture.

    Attributes:
        name: Of the list that holds them, within its module; empty where they are children of the module.
        members: The candidates by key.
    """

    name: str
    members: dict[str, nn.Module]


def groups(module: nn.Module) -> list[Group]:
    """The mixtures whose candidates ``module`` holds, itself or in lists and dictionaries."""
    if isinstance(module, (*Container, nn.Sequential)):
        return []
    lists = [
        Group(name, dict(container.named_children()))
        for name, container in _containers(module, "")
        if _is_mixture(list(container.children()))
    ]
    if lists:
        return lists
    children = dict(module.named_children())
    found = {key: item for key, child in children.items() if (item := _recognised(child)) is not None}
    computing = {item.name for item in found.values() if item.name not in ("none", "skip_connect")}
    # An ordinary block may well have two such children; that its forward adds them up is tried later.
    if (
        len(computing) < 2
        or not any(item.layers for item in found.values())
        or 2 * len(found) <= len(children)
    ):
        return []
    # What holds no parameters and computes nothing known, such as a softmax, is no candidate.
    stateful = {key for key, child in children.items() if next(child.parameters(), None) is not None}
    return [Group("", {key: child for key, child in children.items() if key in found or key in stateful})]


def is_replaceable(module: nn.Module, found: list[Group]) -> bool:
    """Whether ``forward(x, weights)`` over one list is all that ``module`` is, so that it can be replaced."""
    if len(found) != 1 or list(module._modules) != [found[0].name] or module._parameters or module._buffers:
        return False
    try:
        for part in module.modules():
            if part is module or part is module._modules[found[0].name]:
                refuse_hooks(part)
    except UnknownCandidateError:
        return False
    own = [
        name
        for kind in type(module).__mro__[: type(module).__mro__.index(nn.Module)]
        for name, value in vars(kind).items()
        if name not in ("forward", "extra_repr") and not name.startswith("__")
        if inspect.isroutine(value) or isinstance(value, property)
    ]
    if own or type(module).forward is nn.Module.forward:
        return False
    kinds = [p.kind for p in inspect.signature(module.forward).parameters.values()]
    return kinds == [inspect.Parameter.POSITIONAL_OR_KEYWORD] * 2


def _containers(module: nn.Module, prefix: str) -> Iterator[tuple[str, nn.Module]]:
    for key, child in module.named_children():
        if isinstance(child, Container):
            yield prefix + key, child
            yield from _containers(child, f"{prefix}{key}.")


def _is_mixture(members: list[nn.Module]) -> bool:
    """Whether these are different candidates, or may be candidates that nobody knows."""
    found = [item for member in members if (item := _recognised(member)) is not None]
    if len({item.name for item in found}) > 1 and any(item.layers for item in found):
        return True
    return _looks_parallel(members)


def _looks_parallel(members: list[nn.Module]) -> bool:
    """Whether three or more modules of different convolutions go from the same channels to the same."""
    convolutions = [[c for c in member.modules() if isinstance(c, nn.Conv2d)] for member in members]
    some = [found for found in convolutions if found]
    if len(members) < 3 or len(some) < 2 or any(isinstance(member, Container) for member in members):
        return False
    forms = {tuple((c.kernel_size, c.dilation, c.groups) for c in found) for found in some}
    ends = {(found[0].in_channels, found[0].stride, found[-1].out_channels) for found in some}
    return len(forms) == len(some) and len(ends) == 1


def _recognised(module: nn.Module) -> Recognised | None:
    try:
        return recognise(module)
    except UnknownCandidateError:
        return None
