"""The candidates of a mixed operation: their layers, parameter names and shapes, by family.

A family says how its search space writes a candidate: "darts" normalises its pools (Liu et al., ICLR 2019),
"nasbench201" (Dong & Yang, ICLR 2020) and "transnas" (Duan et al., CVPR 2021) do not. Names of parameters are
those of the spaces' published modules.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

FAMILIES: dict[str, tuple[str, ...]] = {
    "darts": (
        "none",
        "max_pool_3x3",
        "avg_pool_3x3",
        "skip_connect",
        "sep_conv_3x3",
        "sep_conv_5x5",
        "dil_conv_3x3",
        "dil_conv_5x5",
    ),
    "nasbench201": ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3"),
    "transnas": ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3"),
}
"""Candidates of each family, in its published order."""

FAMILY_CODES = {family: code for code, family in enumerate(FAMILIES)}
"""Codes of the families in the compiled operator."""

CODES = {name: code for code, name in enumerate((*FAMILIES["darts"], "nor_conv_1x1", "nor_conv_3x3"))}
"""Codes of the candidates in the compiled operator."""

SAVE_CODES = {"nothing": 0, "products": 1, "everything": 2}
"""Codes of what forward keeps for backward."""


@dataclass(frozen=True)
class Relu:
    """max(0, x)."""


@dataclass(frozen=True)
class Conv:
    """A convolution without bias, padded so that stride 1 keeps the image's size."""

    key: str
    kernel: int
    stride: int = 1
    dilation: int = 1
    depthwise: bool = False

    @property
    def padding(self) -> int:
        """Zeros on each side."""
        return self.dilation * (self.kernel // 2)

    def shape(self, channels: int) -> tuple[int, ...]:
        """Of its weight, as many channels out as in."""
        return (channels, 1 if self.depthwise else channels, self.kernel, self.kernel)


@dataclass(frozen=True)
class Reduce:
    """Two 1x1 convolutions of stride 2 side by side, the second of the image moved up and left by a pixel."""

    keys: tuple[str, str]

    def shapes(self, channels: int) -> tuple[tuple[int, ...], ...]:
        """Of its two weights: the first makes the smaller half of the channels."""
        half = channels // 2
        return ((half, channels, 1, 1), (channels - half, channels, 1, 1))


@dataclass(frozen=True)
class Norm:
    """Batch normalisation; `plain` ones have no affine parameters even in an affine edge."""

    key: str
    plain: bool = False


@dataclass(frozen=True)
class Pool:
    """A 3x3 pool with padding 1; the mean counts pixels of the image only."""

    kind: Literal["max", "avg"]
    stride: int


Layer: TypeAlias = Relu | Conv | Reduce | Norm | Pool


def layers(name: str, family: str, stride: int) -> tuple[Layer, ...] | None:
    """The layers of candidate `name` in order; () is the identity and None the zero operation."""
    if name == "none":
        return None
    if name == "skip_connect":
        if stride == 1:
            return ()
        keys = ("conv_1", "conv_2") if family == "darts" else ("convs.0", "convs.1")
        return (Relu(), Reduce(keys), Norm("bn"))
    kind, _, window = name.partition("_")
    kernel = int(window[-1])
    if kind in ("max", "avg"):
        pool = Pool("max" if kind == "max" else "avg", stride)
        return (pool, Norm("1", plain=True)) if family == "darts" else (pool,)
    if kind == "nor":
        return (Relu(), Conv("op.1", kernel, stride), Norm("op.2"))
    dilation = 2 if kind == "dil" else 1
    first: tuple[Layer, ...] = (
        Relu(),
        Conv("op.1", kernel, stride, dilation, depthwise=True),
        Conv("op.2", 1),
        Norm("op.3"),
    )
    if kind == "dil":
        return first
    return (*first, Relu(), Conv("op.5", kernel, depthwise=True), Conv("op.6", 1), Norm("op.7"))


def norms(name: str, family: str, stride: int) -> tuple[Norm, ...]:
    """The batch norms of a candidate, in order."""
    return tuple(layer for layer in layers(name, family, stride) or () if isinstance(layer, Norm))


def parameter_shapes(
    name: str, family: str, channels: int, stride: int, affine: bool
) -> list[tuple[str, tuple[int, ...]]]:
    """Names and shapes of a candidate's parameters in the order of its state_dict."""
    result: list[tuple[str, tuple[int, ...]]] = []
    for layer in layers(name, family, stride) or ():
        if isinstance(layer, Conv):
            result.append((f"{layer.key}.weight", layer.shape(channels)))
        elif isinstance(layer, Reduce):
            shapes = layer.shapes(channels)
            result.extend((f"{key}.weight", shape) for key, shape in zip(layer.keys, shapes, strict=True))
        elif isinstance(layer, Norm) and affine and not layer.plain:
            result.extend((f"{layer.key}.{kind}", (channels,)) for kind in ("weight", "bias"))
    return result


def resolve(
    candidates: str | Sequence[str], family: str | None = None, op: str = "mixed_op"
) -> tuple[tuple[str, ...], str]:
    """Names and family of a mixture given as a family's name or as candidates."""
    if family is not None and family not in FAMILIES:
        raise ValueError(f"{op}: family: expected one of {', '.join(FAMILIES)}, got {family!r}")
    if isinstance(candidates, str):
        if candidates not in FAMILIES or family not in (None, candidates):
            raise ValueError(
                f"{op}: candidates: expected one of the families {', '.join(FAMILIES)}, or a sequence of "
                f"candidates, got {candidates!r}" + (f" with family {family!r}" if family else "")
            )
        return FAMILIES[candidates], candidates
    names = tuple(candidates)
    families = [known for known, members in FAMILIES.items() if set(names) <= set(members)]
    if not names or not families:
        choices = "; ".join(f"{known}: {', '.join(members)}" for known, members in FAMILIES.items())
        raise ValueError(
            f"{op}: candidates: expected at least one, all of the same family ({choices}), got {list(names)}"
        )
    if family is not None:
        if family not in families:
            raise ValueError(f"{op}: candidates: expected candidates of {family!r}, got {list(names)}")
        return names, family
    if "avg_pool_3x3" in names and len(families) > 1:
        raise ValueError(
            f"{op}: family: avg_pool_3x3 is normalised in 'darts' and not in 'nasbench201', and "
            f"{list(names)} fit both; say which"
        )
    return names, families[0]


def mixed_op_parameters(
    candidates: str | Sequence[str] = "darts",
    channels: int = 16,
    stride: int = 1,
    affine: bool = False,
    *,
    family: str | None = None,
) -> list[tuple[str, tuple[int, ...]]]:
    """Names ("<k>.<key>", k the candidate's position) and shapes of a mixture's parameters, in order.

    The order is that of the state_dict of the candidates' modules. Batch norms are listed by
    :func:`mixed_op_norms`.
    """
    names, family = resolve(candidates, family, "mixed_op_parameters")
    return [
        (f"{k}.{key}", shape)
        for k, name in enumerate(names)
        for key, shape in parameter_shapes(name, family, channels, stride, affine)
    ]


def mixed_op_norms(
    candidates: str | Sequence[str] = "darts", stride: int = 1, *, family: str | None = None
) -> list[str]:
    """Names ("<k>.<key>") of a mixture's batch norms in order: each has a running mean and variance [C]."""
    names, family = resolve(candidates, family, "mixed_op_norms")
    return [f"{k}.{norm.key}" for k, name in enumerate(names) for norm in norms(name, family, stride)]
