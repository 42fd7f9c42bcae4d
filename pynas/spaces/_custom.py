"""A custom space: any function that makes a network, and the arguments to search over."""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pynas._errors import UserError
from pynas._identity.description import brief, describe
from pynas._identity.naming import to_text
from pynas.architecture import Architecture
from pynas.spaces._choices import Condition, Conditions, check_signature, labelled, position
from pynas.spaces.base import InvalidArchitecture, SearchSpace, check_positive

if TYPE_CHECKING:
    from torch import nn

_MOST_DRAWS = 1000


class CustomSpace(SearchSpace):
    """All combinations of named choices; a factory makes the network of each. See :func:`custom`.

    Parameters and multiply-adds are counted on the network itself and cached. It is made on PyTorch's meta
    device, which allocates and computes nothing, or on the CPU if it does not run on meta. The text of an
    architecture is ``width=32,kernel=3,depth=2``, in the order of the choices, without those that have no
    meaning there.

    :attr:`size` counts all combinations, also those for which the factory raises ValueError; :meth:`sample`
    never draws one of these, and building one raises
    :class:`~pynas.spaces.InvalidArchitecture`.

    Args:
        factory: Function or class that returns a network ``[B, in_channels, H, W] -> [B, num_classes]``.
        choices: For each keyword argument of the factory its values, or a dictionary of values by label.
        when: As for :func:`custom`.
        canonical: As for :func:`custom`.
    """

    name: ClassVar[str] = "custom"
    summary: ClassVar[str] = "a user's own space"

    def __init__(
        self,
        factory: Callable[..., nn.Module],
        choices: Mapping[str, Iterable[Any]],
        when: Mapping[str, Condition] | None = None,
        canonical: Callable[..., Mapping[str, Any]] | None = None,
    ) -> None:
        self.factory = factory
        self.choices = {name: labelled(name, values) for name, values in choices.items()}
        if not self.choices:
            raise UserError("choices: expected at least one argument to choose, got none")
        self._task = check_signature(factory, tuple(self.choices), when or ())
        self._when, self._canonical = dict(when or {}), canonical
        self._conditions = Conditions(self.choices, self._when) if self._when else None
        self._forms: dict[tuple[int, ...], tuple[int, ...]] = {}
        self._makes_a_network: dict[tuple[int, ...], bool] = {}
        self._labels = [tuple(values) for values in self.choices.values()]
        self._params: dict[tuple[tuple[int, ...], int, int], int] = {}
        self._macs: dict[tuple[tuple[int, ...], int, int, int], int] = {}

    @property
    def num_choices(self) -> tuple[int, ...]:
        """Number of choices of each argument, in order."""
        return tuple([len(values) for values in self.choices.values()])

    def arguments(self, arch: Architecture) -> dict[str, Any]:
        """The keyword arguments of the factory for ``arch``, without choices that have no meaning there."""
        decisions = self.check(arch)
        return {
            name: list(values.values())[decision]
            for (name, values), decision, on in zip(
                self.choices.items(), decisions, self._active(decisions), strict=True
            )
            if on
        }

    def _active(self, decisions: tuple[int, ...]) -> tuple[bool, ...]:
        return (True,) * len(decisions) if self._conditions is None else self._conditions.active(decisions)

    # ---- the set ---------------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """Number of combinations; those that differ in choices without a meaning are one."""
        return super().size or 0 if self._conditions is None else self._conditions.size

    def is_valid(self, decisions: tuple[int, ...]) -> bool:
        """Whether the decisions of choices without a meaning are 0."""
        return self._conditions is None or self._conditions.is_normal(decisions)

    def index(self, arch: Architecture) -> int:
        """Position in ``0 .. size - 1``."""
        if self._conditions is None:
            return super().index(arch)
        return self._conditions.index(self.check(arch))

    def from_index(self, index: int) -> Architecture:
        """The architecture at a position."""
        if self._conditions is None:
            return super().from_index(index)
        return Architecture(self.name, self._conditions.from_index(self._check_index(index)))

    def sample(self, rng: random.Random) -> Architecture:
        """Draw uniformly among the combinations of which the factory makes a network.

        Raises:
            UserError: It makes none of ``1000`` that were drawn.
        """
        for _ in range(_MOST_DRAWS):
            arch = (
                super().sample(rng) if self._conditions is None else self.from_index(rng.randrange(self.size))
            )
            if self._is_buildable(arch):
                return arch
        raise UserError(
            f"{self.name}: the factory raises ValueError for {_MOST_DRAWS:,} combinations drawn at random: "
            f"{self._why_invalid(arch)}"
        )

    def _is_buildable(self, arch: Architecture) -> bool:
        """Whether the factory makes a network, for 10 classes and 3 channels.

        Always asked and answered alike, so that a resumed search draws the same.
        """
        known = self._makes_a_network.get(arch.decisions)
        if known is None:
            try:
                self.params(arch)
                known = True
            except InvalidArchitecture:
                known = False
            except Exception:  # anything else is for the trial to report
                known = True
            self._makes_a_network[arch.decisions] = known
        return known

    def _why_invalid(self, arch: Architecture) -> str:
        try:
            self.params(arch)
        except InvalidArchitecture as error:
            return str(error)
        return ""

    # ---- moves -----------------------------------------------------------------------------------

    def mutate(self, arch: Architecture, rng: random.Random) -> Architecture:
        """Change one decision that has a meaning; what gains a meaning by that is drawn uniformly."""
        if self._conditions is None:
            return super().mutate(arch, rng)
        decisions = self.check(arch)
        active = self._active(decisions)
        mutable = [i for i, count in enumerate(self.num_choices) if count > 1 and active[i]]
        if not mutable:
            raise UserError(f"{self.name}: {self.format(arch)} has no choice to change")
        i = rng.choice(mutable)
        choice = rng.randrange(self.num_choices[i] - 1)
        found = [*decisions[:i], choice + (choice >= decisions[i])]
        for j in range(i + 1, len(decisions)):
            if not self._conditions.is_next_active(found):
                found.append(0)
            else:
                found.append(decisions[j] if active[j] else rng.randrange(self.num_choices[j]))
        return Architecture(self.name, tuple(found))

    def neighbours(self, arch: Architecture) -> Iterator[Architecture]:
        """Every architecture at distance 1."""
        if self._conditions is None:
            yield from super().neighbours(arch)
            return
        decisions = self.check(arch)
        for i, on in enumerate(self._active(decisions)):
            for choice in range(self.num_choices[i] if on else 0):
                if choice != decisions[i]:
                    for found in self._conditions.moves(decisions, i, choice):
                        yield Architecture(self.name, found)

    def distance(self, a: Architecture, b: Architecture) -> int:
        """Number of choices with a meaning in both in which they differ."""
        x, y = self.check(a), self.check(b)
        both = zip(x, y, self._active(x), self._active(y), strict=True)
        return sum(on and also and p != q for p, q, on, also in both)

    def crossover(self, a: Architecture, b: Architecture, rng: random.Random) -> Architecture:
        """Uniform crossover; choices that lose their meaning become 0."""
        if self._conditions is None:
            return super().crossover(a, b, rng)
        parents = list(zip(self.check(a), self.check(b), strict=True))
        for _ in range(_MOST_DRAWS):
            child = self._conditions.normal([pair[rng.getrandbits(1)] for pair in parents])
            if all(decision in pair for decision, pair in zip(child, parents, strict=True)):
                return Architecture(self.name, child)
        return a.plain

    # ---- identity --------------------------------------------------------------------------------

    def canonical(self, arch: Architecture) -> Architecture:
        """The architecture that ``canonical`` of :func:`custom` names for it; by default itself.

        Raises:
            UserError: That function raises, or what it returns is not an architecture of this space, or has
                another canonical form.
        """
        decisions = self.check(arch)
        if self._canonical is None:
            return arch
        form = self._forms.get(decisions)
        if form is None:
            form = self._form(decisions)
            if form != decisions and (again := self._form(form)) != form:
                shown = [self.format(Architecture(self.name, each)) for each in (decisions, form, again)]
                raise UserError(
                    f"canonical: {shown[0]} becomes {shown[1]}, which itself becomes {shown[2]}; expected "
                    "the same architecture for all that make one network"
                )
            self._forms[decisions] = form
        return Architecture(self.name, form)

    def _form(self, decisions: tuple[int, ...]) -> tuple[int, ...]:
        assert self._canonical is not None
        arch = Architecture(self.name, decisions)
        given: dict[str, Any] = dict.fromkeys(self.choices) | self.arguments(arch)
        parameters = inspect.signature(self._canonical).parameters.values()
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            given = {p.name: given[p.name] for p in parameters if p.name in given}
        try:
            found = self._canonical(**given)
        except Exception as error:  # of the user's function
            raise UserError(f"canonical: {self.format(arch)}: {type(error).__name__}: {error}") from error
        if not isinstance(found, Mapping):
            raise UserError(
                f"canonical: expected the arguments that change, such as {{'width': 8}} or {{}}, got "
                f"{type(found).__name__} for {self.format(arch)}"
            )
        form = list(decisions)
        for name, value in found.items():
            at = position(self.choices[name], value) if name in self.choices else None
            if at is None:
                known = ", ".join(self.choices.get(name, self.choices))
                raise UserError(
                    f"canonical: {name}={value!r} for {self.format(arch)}; expected one of {known}"
                )
            form[list(self.choices).index(name)] = at
        return tuple(form) if self._conditions is None else self._conditions.normal(form)

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
            **({"when": describe(self._when)} if self._when else {}),
            **({} if self._canonical is None else {"canonical": describe(self._canonical)}),
        }

    # ---- notation --------------------------------------------------------------------------------

    def format(self, arch: Architecture) -> str:
        """The choices by name, ``width=32,kernel=3,depth=2``."""
        decisions = self.check(arch)
        chosen = zip(self.choices, self._labels, decisions, self._active(decisions), strict=True)
        return ",".join(f"{name}={labels[decision]}" for name, labels, decision, on in chosen if on)

    def parse(self, text: str) -> Architecture:
        """Read what :meth:`format` writes; surrounding blanks are ignored."""
        text = text.strip()
        decisions: list[int] = []
        place = 0
        for i, (name, labels) in enumerate(zip(self.choices, self._labels, strict=True)):
            if self._conditions is not None and not self._conditions.is_next_active(decisions):
                decisions.append(0)
                continue
            opening = f",{name}=" if i else f"{name}="
            if not text.startswith(opening, place):
                length = len(text[place + 1 :].split(",")[0]) + 1 if place < len(text) else 0
                raise self._parse_error(text, place, length, repr(opening))
            place += len(opening)
            token = text[place:].split(",")[0]
            if token not in labels:
                expected = f"{name} out of {', '.join(labels)}"
                raise self._parse_error(text, place, len(token), expected, labels)
            decisions.append(labels.index(token))
            place += len(token)
        if place < len(text):
            named = text[place + 1 :].partition("=")[0]
            why = f" ({named} has no meaning with these)" if named in self.choices else ""
            raise self._parse_error(text, place, len(text) - place, f"the end of the text{why}")
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
            except InvalidArchitecture:  # perhaps only there
                return count(self.build(arch, num_classes, in_channels))
            except UserError:
                raise
            except Exception:
                # Factories that look at values or read files need the real network.
                return count(self.build(arch, num_classes, in_channels))

    def build(
        self, arch: Architecture, num_classes: int = 10, in_channels: int = 3, prune: bool = False
    ) -> nn.Module:
        """Call the factory, with ``num_classes`` and ``in_channels`` if it takes them; never prunes.

        Raises:
            InvalidArchitecture: The factory raises ValueError.
            UserError: It returns no network, or one whose layers wait for a first batch.
        """
        from torch import nn
        from torch.nn.parameter import is_lazy

        arguments = self.arguments(arch)
        check_positive(num_classes=num_classes, in_channels=in_channels)
        task = {"num_classes": num_classes, "in_channels": in_channels}
        try:
            network = self.factory(**arguments, **{name: task[name] for name in self._task})
        except ValueError as error:
            raise InvalidArchitecture(
                f"{self.format(arch)} is no network: the factory raised: {error}"
            ) from error
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
    when: Mapping[str, Condition] | None = None,
    canonical: Callable[..., Mapping[str, Any]] | None = None,
) -> CustomSpace:
    """Make a search space from a function that makes networks.

        def network(width, kernel, depth, in_channels=3, num_classes=10): ...

        space = pynas.spaces.custom(network, choices={"width": [16, 32], "kernel": [3, 5], "depth": [1, 2]})
        space.parse("width=32,kernel=3,depth=2")

    If the factory has parameters ``num_classes`` and ``in_channels``, it gets those of the task; otherwise
    its networks have the numbers that it chooses. A combination for which it raises ValueError is no
    architecture: sampling draws again, and in a search its trial has failed. ``pynas.spaces.register(space)``
    registers the space under its name. For moves of your own or a graph, subclass :class:`SearchSpace`; for
    networks whose number of decisions varies without a bound, :class:`OpenEndedSpace`.

    Conditional choices and equal networks::

        def network(depth, kernel, second=3): ...

        pynas.spaces.custom(
            network,
            {"depth": [1, 2], "kernel": [3, 5], "second": [3, 5]},
            when={"second": lambda depth: depth > 1},      # or {"second": {"depth": 2}}
            canonical=lambda depth, kernel, second: {"kernel": second, "second": kernel}
            if depth > 1 and second < kernel else {},
        )

    Args:
        factory: Function or class that returns an ``nn.Module`` for one value of each choice.
        choices: For each keyword argument of the factory its values, or a dictionary of values by label. The
            text of a value without label is its ``str``, or the name of a function or class.
        name: Name of the space in architectures and stores.
        image_size: Side, in pixels, of the images that checks and probes use.
        when: Conditions under which a choice has a meaning, by its name: a function of choices before it, or
            the values ``{choice: value}`` or ``{choice: [value, ...]}`` that these must have. Elsewhere the
            factory is called without it, it is left out of the text, and is not counted.
        canonical: Function of the choices that returns those to change, as a mapping, so that all
            architectures of one network become the same one, with no more parameters; ``{}`` where nothing is
            to change. Choices without a meaning are None. A search proposes only one of equal networks.

    Raises:
        UserError: The factory does not take one of the arguments or needs others; a choice has no values, two
            with the same text, or a text that cannot stand in ``name=value,name=value``; a condition reads
            what is no choice before.
    """
    check_positive(image_size=image_size)

    class Made(CustomSpace):
        summary: ClassVar[str] = f"a user's own space of {', '.join(choices)}"

        def __init__(self) -> None:
            super().__init__(factory, choices, when, canonical)

        def __reduce__(self) -> tuple[Any, ...]:  # for processes that evaluate: this class has no module
            return _remade, (factory, choices, name, image_size, when, canonical)

    Made.name, Made.image_size = name, image_size
    Made.__name__ = Made.__qualname__ = f"CustomSpace_{name}"
    return Made()


def _remade(factory: Any, choices: Any, name: str, image_size: int, when: Any, canonical: Any) -> CustomSpace:
    return custom(factory, choices, name=name, image_size=image_size, when=when, canonical=canonical)


def _told(label: str, value: Any) -> str:
    """A value of a choice, with its label if that is not the value's own text."""
    text = to_text(brief(value))
    return text if label == text else f"{label}: {text}"
