"""Names, families and properties of the choices of a space, for people.

A space may say this itself, by a method ``describe_choices()`` that returns for each decision its label and,
for each of its choices, a label and a mapping of properties. What pynas has is described here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from pynas._errors import printable
from pynas.spaces import (
    DARTSCNN,
    DARTSRNN,
    CustomSpace,
    NASBench101,
    NASBench201,
    NATSSize,
    ProxylessNAS,
    SearchSpace,
    SPOSShuffleNet,
    TemplateSpace,
    TransNASMacro,
    TransNASMicro,
)
from pynas.spaces.darts_cnn import space as darts
from pynas.spaces.darts_rnn.space import ACTIVATIONS
from pynas.spaces.nasbench101 import cell as nasbench101
from pynas.spaces.nasbench201 import space as nasbench201
from pynas.spaces.nats_size.space import WIDTHS
from pynas.spaces.proxylessnas import space as proxylessnas
from pynas.spaces.spos_shufflenet import space as spos

_FAMILIES = (
    ("none", ("none", "zero")),
    ("skip", ("skip", "identity")),
    ("pool", ("pool",)),
    ("separable", ("sep_", "dil_", "separable", "depthwise", "mbconv", "shuffle", "xception", "inverted")),
    ("conv", ("conv", "vgg", "residual", "dense")),
)


@dataclass(frozen=True)
class Choice:
    """One choice of a decision."""

    label: str
    family: str
    properties: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Decision:
    """A decision and its choices."""

    label: str
    choices: tuple[Choice, ...]


def family_of(label: str) -> str:
    """The family of an operation by its name; ``block`` if that says nothing."""
    lower = label.lower()
    return next((name for name, parts in _FAMILIES if any(part in lower for part in parts)), "block")


def labels_of(space: SearchSpace) -> tuple[Decision, ...]:
    """The decisions of a space, with as many choices as it has."""
    own = getattr(space, "describe_choices", None)
    if callable(own):
        found: Sequence[Decision] = _told(own())
    else:
        found = next((make(space) for kind, make in _MAKERS if isinstance(space, kind)), ())
    counts = space.num_choices
    if tuple(len(decision.choices) for decision in found) == counts:
        return tuple(found)
    return tuple(  # of a user's own class: numbers are all that is known
        Decision(str(i), tuple(Choice(str(choice), "other") for choice in range(count)))
        for i, count in enumerate(counts)
    )


def _template(space: SearchSpace) -> list[Decision]:
    """The layers of a template, with the alternatives that somebody drew."""
    found = []
    for i, layer in enumerate(cast(TemplateSpace, space).design.layers):
        choices = []
        for block in layer.alternatives:
            facts = {"kind": block.kind, **block.properties}
            choices.append(Choice(_text(block.label), family_of(block.kind), facts))
        found.append(Decision(_text(layer.name or f"layer {i + 1}"), tuple(choices)))
    return found


def _told(described: Any) -> list[Decision]:
    decisions = []
    for label, choices in described:
        found = [
            Choice(
                _text(name),
                str(properties.get("family", family_of(str(name)))),
                {
                    _text(k): v if isinstance(v, (bool, int, float)) else _text(v)
                    for k, v in properties.items()
                },
            )
            for name, properties in choices
        ]
        decisions.append(Decision(_text(label), tuple(found)))
    return decisions


def _text(value: object) -> str:
    return printable(str(value))[:80]


def _operations(names: Sequence[str], **more: Any) -> tuple[Choice, ...]:
    return tuple(
        Choice(name, family_of(name), {"operation": name, **_kernel(name), **more}) for name in names
    )


def _kernel(name: str) -> dict[str, int]:
    for size in (1, 3, 5, 7):
        if f"{size}x{size}" in name:
            return {"kernel": size}
    return {}


def _edges(space: SearchSpace) -> list[Decision]:
    names: tuple[str, ...] = nasbench201.OPERATIONS
    if isinstance(space, TransNASMicro):
        from pynas.spaces.transnas.micro import OPERATIONS

        names = OPERATIONS
    return [Decision(f"{s}-{t}", _operations(names)) for s, t in nasbench201.EDGES]


def _darts(space: SearchSpace) -> list[Decision]:
    found = []
    for cell in darts.CELLS:
        for node, node_pairs in enumerate(darts.PAIRS):
            sources = tuple(
                Choice(f"{_source(a)}, {_source(b)}", "source", {"sources": f"{_source(a)}, {_source(b)}"})
                for a, b in node_pairs
            )
            found.append(Decision(f"{cell} {node}: sources", sources))
            for which in ("lower", "higher"):
                found.append(Decision(f"{cell} {node}: {which}", _operations(darts.OPERATIONS, cell=cell)))
    return found


def _source(number: int) -> str:
    return ("k-2", "k-1")[number] if number < 2 else str(number - 2)


def _darts_rnn(space: SearchSpace) -> list[Decision]:
    found = []
    for node in range(len(space.num_choices) // 2):
        sources = tuple(Choice(f"from {j}", "source", {"source": j}) for j in range(node + 1))
        found.append(Decision(f"{node + 1}: source", sources))
        activations = tuple(Choice(name, "block", {"activation": name}) for name in ACTIVATIONS)
        found.append(Decision(f"{node + 1}: activation", activations))
    return found


def _nasbench101(space: SearchSpace) -> list[Decision]:
    switch = tuple(Choice(name, "edge", {"edge": name}) for name in ("no edge", "edge"))
    names = ["in", *(str(vertex) for vertex in range(1, nasbench101.MAX_VERTICES - 1)), "out"]
    edges = [Decision(f"{names[s]}-{names[t]}", switch) for s, t in nasbench101.EDGES]
    vertices = range(1, nasbench101.MAX_VERTICES - 1)
    return edges + [Decision(f"vertex {v}", _operations(nasbench101.OPERATIONS)) for v in vertices]


def _nats_size(space: SearchSpace) -> list[Decision]:
    places = ("stem and cell 1", "reduction 1", "cell 2", "reduction 2", "cell 3")
    widths = tuple(Choice(str(width), "width", {"channels": width}) for width in WIDTHS)
    return [Decision(place, widths) for place in places]


def _transnas_macro(space: SearchSpace) -> list[Decision]:
    kinds = ("keep", "double channels", "halve resolution", "double and halve")
    some = tuple(Choice(kind, "block", {"module": kind}) for kind in kinds)
    maybe = (Choice("none", "none", {"module": "none"}), *some)
    return [
        Decision(f"module {i + 1}", some if count == len(some) else maybe)
        for i, count in enumerate(space.num_choices)
    ]


def _spos(space: SearchSpace) -> list[Decision]:
    found = []
    for stage, (blocks, channels) in enumerate(spos.STAGES):
        for block in range(blocks):
            facts = {"channels": channels, "stride": 1 if block else 2}
            found.append(Decision(f"{stage + 1}.{block + 1}", _operations(spos.CHOICES, **facts)))
    return found


def _proxylessnas(space: SearchSpace) -> list[Decision]:
    found = []
    counts = iter(space.num_choices)
    for stage, (blocks, stride) in enumerate(zip(proxylessnas.BLOCKS, proxylessnas.STRIDES, strict=True)):
        for block in range(blocks):
            names = proxylessnas.OPERATIONS[: next(counts)]
            choices = _operations(names, stride=1 if block else stride)
            found.append(Decision(f"{stage + 1}.{block + 1}", choices))
    return found


def _custom(space: SearchSpace) -> list[Decision]:
    return [
        Decision(
            _text(name),
            tuple(
                Choice(_text(label), family_of(str(label)), {_text(name): _text(label)}) for label in values
            ),
        )
        for name, values in cast(CustomSpace, space).choices.items()
    ]


_MAKERS = (
    (NASBench201, _edges),
    (TransNASMicro, _edges),
    (DARTSCNN, _darts),
    (DARTSRNN, _darts_rnn),
    (NASBench101, _nasbench101),
    (NATSSize, _nats_size),
    (TransNASMacro, _transnas_macro),
    (SPOSShuffleNet, _spos),
    (ProxylessNAS, _proxylessnas),
    (CustomSpace, _custom),
    (TemplateSpace, _template),
)
