"""A custom space: any function that makes a network, and the arguments to search over."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pynas._errors import UserError
from pynas._identity.description import brief, describe
from pynas._identity.naming import to_text
from pynas.architecture import Architecture
from pynas.spaces.base import SearchSpace, check_positive

if TYPE_CHECKING:
    from torch import nn

_TASK = ("num_classes", "in_channels")  # passed to a factory that takes them, besides the choices


class CustomSpace(SearchSpace):
    """All combinations of named choices; a factory makes the network of each. See :func:`custom`.

    Parameters and multiply-adds are counted on the network itself and cached. It is made on PyTorch's meta
    device, which allocates and computes nothing, or on the CPU if it does not run on meta. The text of an
    architecture is ``width=32,kernel=3,depth=2``, in the order of the choices.

    Args:
        factory: Function or class that returns a network ``[B, in_channels, H, W] -> [B, num_classes]``.
        choices: For each keyword argument of the factory its values, or a dictionary of values by label.
    """

    name: ClassVar[str] = "custom"
    summary: ClassVar[str] = "a user's own space"

    def __init__(self, factory: Callable[..., nn.Module], choices: Mapping[str, Iterable[Any]]) -> None:
        self.factory = factory
        self.choices = {name: _labelled(name, values) for name, values in choices.items()}
        if not self.choices:
            raise UserError("choices: expected at least one argument to choose, got none")
        self._task = _check_signature(factory, tuple(self.choices))
        self._labels = [tuple(values) for values in self.choices.values()]
        self._params: dict[tuple[tuple[int, ...], int, int], int] = {}
        self._macs: dict[tuple[tuple[int, ...], int, int, int], int] = {}

    @property
    def num_choices(self) -> tuple[int, ...]:
        """Number of choices of each argument, in order."""
        return tuple([len(values) for values in self.choices.values()])

    def arguments(self, arch: Architecture) -> dict[str, Any]:
        """The keyword arguments of the factory for ``arch``."""
        decisions = self.check(arch)
        return {
            name: list(values.values())[decision]
            for (name, values), decision in zip(self.choices.items(), decisions, strict=True)
        }

    def definition(self) -> dict[str, Any]:
        """What identifies this space: the choices in order, and the factory with everything that it uses."""
        choices = {
            name: [_told(label, value) for label, value in values.items()]
            for name, values in self.choices.items()
        }
        return {
            "choices": {name: ", ".join(told) for name, told in choices.items()},
            "order": ", ".join(choices),
            "factory": describe(self.factory),
            "image_size": self.image_size,
        }

    # ---- notation --------------------------------------------------------------------------------

    def format(self, arch: Architecture) -> str:
        """The choices by name, ``width=32,kernel=3,depth=2``."""
        decisions = self.check(arch)
        chosen = zip(self.choices, self._labels, decisions, strict=True)
        return ",".join(f"{name}={labels[decision]}" for name, labels, decision in chosen)

    def parse(self, text: str) -> Architecture:
        """Read what :meth:`format` writes; surrounding blanks are ignored."""
        text = text.strip()
        decisions = []
        position = 0
        for i, (name, labels) in enumerate(zip(self.choices, self._labels, strict=True)):
            opening = f",{name}=" if i else f"{name}="
            if not text.startswith(opening, position):
                length = len(text[position + 1 :].split(",")[0]) + 1 if position < len(text) else 0
                raise self._parse_error(text, position, length, repr(opening))
            position += len(opening)
            token = text[position:].split(",")[0]
            if token not in labels:
                expected = f"{name} out of {', '.join(labels)}"
                raise self._parse_error(text, position, len(token), expected, labels)
            decisions.append(labels.index(token))
            position += len(token)
        if position < len(text):
            raise self._parse_error(text, position, len(text) - position, "the end of the text")
        return Architecture(self.name, tuple(decisions))

    # ---- the network -----------------------------------------------------------------------------

    def params(self, arch: Architecture, num_classes: int = 10, in_channels: int = 3) -> int:
        """Number of parameters of the network; shared ones count once."""
        key = (self.check(arch), num_classes, in_channels)
        if key not in self._params:

            def count(network: nn.Module) -> int:
                return sum(p.numel() for p in network.parameters())

            self._params[key] = self._on_meta(arch, num_classes, in_channels, count)
        return self._params[key]

    def macs(
        self, arch: Architecture, num_classes: int = 10, image_size: int = 32, in_channels: int = 3
    ) -> int:
        """Multiply-adds of the forward pass of one image: half of the FLOPs that torch's counter reports."""
        check_positive(image_size=image_size)
        key = (self.check(arch), num_classes, image_size, in_channels)
        if key not in self._macs:

            def count(network: nn.Module) -> int:
                import torch
                from torch.utils.flop_counter import FlopCounterMode

                image = torch.zeros(1, in_channels, image_size, image_size)
                with torch.no_grad(), FlopCounterMode(display=False) as counter:
                    network.eval()(image)
                return int(counter.get_total_flops()) // 2

            self._macs[key] = self._on_meta(arch, num_classes, in_channels, count)
        return self._macs[key]

    def _on_meta(
        self, arch: Architecture, num_classes: int, in_channels: int, count: Callable[[nn.Module], int]
    ) -> int:
        """``count(network)``, on the meta device if the network can be made there."""
        import torch

        from pynas._generators import generators_kept  # imports torch

        with generators_kept():  # counting must not change the next network's weights
            try:
                with torch.device("meta"):
                    return count(self.build(arch, num_classes, in_channels))
            except UserError:
                raise
            except Exception:
                # Factories that look at values or read files need the real network.
                return count(self.build(arch, num_classes, in_channels))

    def build(
        self, arch: Architecture, num_classes: int = 10, in_channels: int = 3, prune: bool = False
    ) -> nn.Module:
        """Call the factory, with ``num_classes`` and ``in_channels`` if it takes them; never prunes."""
        from torch import nn
        from torch.nn.parameter import is_lazy

        arguments = self.arguments(arch)
        check_positive(num_classes=num_classes, in_channels=in_channels)
        task = {"num_classes": num_classes, "in_channels": in_channels}
        network = self.factory(**arguments, **{name: task[name] for name in self._task})
        if not isinstance(network, nn.Module):
            raise UserError(
                f"factory: expected it to return a torch.nn.Module, got {type(network).__name__} "
                f"for {self.format(arch)}"
            )
        if any(map(is_lazy, network.parameters())):
            raise UserError(
                f"factory: the network of {self.format(arch)} has layers that take their sizes from the "
                "first batch; run it once on a batch before returning it"
            )
        return network


def custom(
    factory: Callable[..., nn.Module],
    choices: Mapping[str, Iterable[Any]],
    *,
    name: str = "custom",
    image_size: int = 32,
) -> CustomSpace:
    """Make a search space from a function that makes networks.

        def network(width, kernel, depth, in_channels=3, num_classes=10): ...

        space = pynas.spaces.custom(network, choices={"width": [16, 32], "kernel": [3, 5], "depth": [1, 2]})
        space.parse("width=32,kernel=3,depth=2")

    If the factory has parameters ``num_classes`` and ``in_channels``, it gets those of the task; otherwise
    its networks have the numbers that it chooses. ``pynas.spaces.register(type(space))`` registers the space
    under its name. For constraints between choices, moves of your own or a graph, subclass
    :class:`SearchSpace`.

    Args:
        factory: Function or class that returns an ``nn.Module`` for one value of each choice.
        choices: For each keyword argument of the factory its values, or a dictionary of values by label. The
            text of a value without label is its ``str``, or the name of a function or class.
        name: Name of the space in architectures and stores.
        image_size: Side, in pixels, of the images that checks and probes use.

    Raises:
        UserError: The factory does not take one of the arguments or needs others; a choice has no values, two
            with the same text, or a text that cannot stand in ``name=value,name=value``.
    """
    check_positive(image_size=image_size)

    class Made(CustomSpace):
        summary: ClassVar[str] = f"a user's own space of {', '.join(choices)}"

        def __init__(self) -> None:
            super().__init__(factory, choices)

    Made.name, Made.image_size = name, image_size
    Made.__name__ = Made.__qualname__ = f"CustomSpace_{name}"
    return Made()


def _labelled(name: str, values: Iterable[Any]) -> dict[str, Any]:
    """The values of one argument by their texts."""
    if isinstance(values, str):
        raise UserError(f"choices[{name!r}]: expected a list of values, got the text {values!r}")
    if isinstance(values, Mapping):
        pairs = [(str(label), value) for label, value in values.items()]
    else:
        pairs = [(_label(value), value) for value in values]
    if not pairs:
        raise UserError(f"choices[{name!r}]: expected at least one value, got none")
    for label, _ in pairs:
        if not label or not label.isprintable() or set(label) & {",", "="} or label != label.strip():
            raise UserError(
                f"choices[{name!r}]: the text {label!r} of a value cannot stand in name=value,name=value; "
                "pass a dictionary {label: value} with other labels"
            )
    labelled = dict(pairs)
    if len(labelled) < len(pairs):
        raise UserError(f"choices[{name!r}]: two values have the same text among {[p[0] for p in pairs]}")
    return labelled


def _told(label: str, value: Any) -> str:
    """A value of a choice, with its label if that is not the value's own text."""
    text = to_text(brief(value))
    return text if label == text else f"{label}: {text}"


def _label(value: Any) -> str:
    return value.__name__ if inspect.isroutine(value) or inspect.isclass(value) else str(value)


def _check_signature(factory: Callable[..., Any], names: tuple[str, ...]) -> tuple[str, ...]:
    """The arguments of the task that the factory takes; UserError if it cannot be called with ``names``."""
    if not callable(factory):
        raise UserError(
            f"factory: expected a function that returns a torch.nn.Module, got {type(factory).__name__}"
        )
    reserved = [name for name in names if name in _TASK]
    if reserved:
        raise UserError(f"choices: {reserved[0]!r} is given by the task and cannot be a choice")
    try:
        parameters = inspect.signature(factory).parameters.values()
    except ValueError:  # some callables of extension modules have no signature
        return ()
    keywords = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    for name in names:
        if name not in keywords and not takes_any:
            known = ", ".join(sorted(keywords)) or "none"
            raise UserError(f"choices: the factory takes no keyword argument {name!r}; it takes: {known}")
    needed = {
        p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    }
    missing = sorted(needed - set(names) - set(_TASK))
    if missing:
        raise UserError(f"choices: the factory needs {missing[0]!r} too; add it, or give it a default")
    return tuple([name for name in _TASK if name in keywords])
