"""A block of a template: a kind and its properties; and what it computes on a number of channels.

Sources of the kinds: K. Simonyan, A. Zisserman, ICLR 2015, arXiv:1409.1556 (VGG); K. He et al., CVPR 2016,
arXiv:1512.03385 (residual); G. Huang et al., CVPR 2017, arXiv:1608.06993 (dense); M. Sandler et al., CVPR
2018, arXiv:1801.04381 (inverted residual); N. Ma et al., ECCV 2018, arXiv:1807.11164 (ShuffleNetV2).
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from pynas._io.files import shortened
from pynas.spaces.template.kinds import KINDS, Kind, Property, Value
from pynas.spaces.template.plan import Activation, Conv, Join, Norm, Plan, Pool, Shuffle, Sum
from pynas.spaces.template.problems import Problem, TemplateError, refuse


@dataclass(frozen=True, slots=True, init=False)
class Block:
    """One block: ``Block("conv", kernel=5, channels=32)``.

    Blocks are equal if their kind and all properties are, whether these were given or are defaults.

    Args:
        kind: A name in the palette.
        properties: Values of properties of that kind; the others have their defaults.

    Raises:
        TemplateError: There is no such kind or property, or a value is not allowed.
    """

    kind: str
    given: tuple[tuple[str, Value], ...]

    def __init__(self, kind: str, /, **properties: Any) -> None:
        if not isinstance(kind, str) or kind not in KINDS:
            close = difflib.get_close_matches(kind, KINDS, n=1) if isinstance(kind, str) else []
            advice = f"did you mean {close[0]!r}?" if close else ""
            raise refuse(f"one of {', '.join(KINDS)}", shortened(repr(kind)), advice, property="kind")
        found = KINDS[kind]
        problems = [p for name, value in properties.items() if (p := _problem(found, name, value))]
        if problems:
            raise TemplateError(problems)
        given = [(p.name, properties[p.name]) for p in found.properties if p.name in properties]
        kept = [(name, value) for name, value in given if value != _property(found, name).default]
        object.__setattr__(self, "kind", kind)
        object.__setattr__(self, "given", tuple(kept))

    @property
    def properties(self) -> dict[str, Value]:
        """All properties, with their defaults where none was given."""
        return {p.name: p.default for p in KINDS[self.kind].properties} | dict(self.given)

    def __getitem__(self, name: str) -> Any:
        """The value of a property; KeyError if the kind has none of that name."""
        return self.properties[name]

    def has(self, name: str) -> bool:
        """Whether blocks of this kind have the property."""
        return KINDS[self.kind].find(name) is not None

    def replace(self, **properties: Any) -> Block:
        """This block with other values of some properties."""
        return Block(self.kind, **(dict(self.given) | properties))

    @property
    def label(self) -> str:
        """``conv_c32_k5_s2``: the kind and every property that is not the default; one for each block."""
        kind = KINDS[self.kind]
        return "_".join([self.kind, *(_property(kind, name).label(value) for name, value in self.given)])

    def __repr__(self) -> str:
        given = "".join(f", {name}={value!r}" for name, value in self.given)
        return f"Block({self.kind!r}{given})"

    def plan(self, channels: int) -> tuple[Plan, int]:
        """What it computes on ``channels`` input channels, and its output channels.

        Raises:
            TemplateError: It does not take so many channels.
        """
        values: dict[str, Any] = self.properties
        out = values.get("channels") or channels
        return _PLANS[self.kind](values, channels, out)


def _property(kind: Kind, name: str) -> Property:
    found = kind.find(name)
    assert found is not None
    return found


def _problem(kind: Kind, name: str, value: Any) -> Problem | None:
    known = kind.find(name)
    if known is None:
        names = [each.name for each in kind.properties]
        listed = f"one of {', '.join(names)}" if names else "no property at all"
        close = difflib.get_close_matches(name, names, n=1)
        advice = f"did you mean {close[0]!r}?" if close else "leave it out"
        got = shortened(repr(name))
        return Problem(f"a property of {kind.name}, {listed}", got, advice, property=shortened(name))
    if known.allows(value):
        return None
    return Problem(known.expected, shortened(repr(value)), known.advice(value), property=name)


# ---- what each kind computes ---------------------------------------------------------------------------


def _unit(v: dict[str, Any], convolutions: list[Conv], *, order: str = "post", act: bool = True) -> Plan:
    """Convolutions that follow each other, then the norm; the activation after or before all of them."""
    norm, activation = _norm(v, convolutions[-1].channels), _activation(v) if act else ()
    return (*activation, *convolutions, *norm) if order == "pre" else (*convolutions, *norm, *activation)


def _norm(v: dict[str, Any], channels: int) -> Plan:
    return () if v["norm"] == "none" else (Norm(v["norm"], channels),)


def _activation(v: dict[str, Any]) -> Plan:
    return () if v["activation"] == "none" else (Activation(v["activation"]),)


def _conv(v: dict[str, Any], before: int, out: int, kernel: int | None = None, stride: int = 1) -> Conv:
    """A convolution with a bias if no norm follows."""
    k: int = v["kernel"] if kernel is None else kernel
    padding = 0 if v.get("padding") == "valid" else k // 2
    return Conv(before, out, k, stride, padding, bias=v["norm"] == "none")


def _depthwise(v: dict[str, Any], channels: int, stride: int, *, bias: bool) -> Conv:
    k = v["kernel"]
    dilation = v.get("dilation", 1) if k > 1 else 1
    padding = 0 if v.get("padding") == "valid" else dilation * (k // 2)
    return Conv(channels, channels, k, stride, padding, dilation, channels, bias)


def _plan_conv(v: dict[str, Any], before: int, out: int) -> tuple[Plan, int]:
    return _unit(v, [_conv(v, before, out, stride=v["stride"])], order=v["order"]), out


def _plan_separable(v: dict[str, Any], before: int, out: int) -> tuple[Plan, int]:
    plan: Plan = ()
    for i in range(v["repeats"]):
        width, stride = (out, 1) if i else (before, v["stride"])
        pair = [_depthwise(v, width, stride, bias=False), _conv(v, width, out, 1)]
        plan += _unit(v, pair, order=v["order"])
    return plan, out


def _plan_depthwise(v: dict[str, Any], before: int, _: int) -> tuple[Plan, int]:
    conv = _depthwise(v, before, v["stride"], bias=v["norm"] == "none")
    return _unit(v, [conv], order=v["order"]), before


def _plan_vgg(v: dict[str, Any], before: int, out: int) -> tuple[Plan, int]:
    plan: Plan = ()
    for i in range(v["convolutions"]):
        plan += _unit(v, [_conv(v, out if i else before, out)])
    return plan + ((Pool("max", 2, 2, ceil=True),) if v["stride"] == 2 else ()), out


def _plan_run(v: dict[str, Any], before: int, out: int) -> tuple[Plan, int]:
    plan: Plan = ()
    for i in range(v["convolutions"]):
        conv = _conv(v, out if i else before, out, stride=1 if i else v["stride"])
        plan += _unit(v, [conv], order=v["order"])
    return plan, out


def _plan_residual(v: dict[str, Any], before: int, out: int) -> tuple[Plan, int]:
    stride = v["stride"]
    if v["form"] == "basic":
        main = _unit(v, [_conv(v, before, out, stride=stride)]) + _unit(v, [_conv(v, out, out)], act=False)
    else:
        inner = max(1, out // 4)
        main = _unit(v, [_conv(v, before, inner, 1)])
        main += _unit(v, [_conv(v, inner, inner, stride=stride)])
        main += _unit(v, [_conv(v, inner, out, 1)], act=False)
    same = before == out and stride == 1
    shortcut = () if same else _unit(v, [_conv(v, before, out, 1, stride)], act=False)
    return (Sum(main, shortcut), *_activation(v)), out


def _plan_dense(v: dict[str, Any], before: int, out: int) -> tuple[Plan, int]:
    layers: list[Plan] = []
    width, growth = before, v["growth"]
    for _ in range(v["convolutions"]):
        layers.append((*_norm(v, width), *_activation(v), _conv(v, width, growth)))
        width += growth
    transition = (*_norm(v, width), *_activation(v), _conv(v, width, out, 1))
    halving = (Pool("average", 2, 2, ceil=True),) if v["stride"] == 2 else ()
    return (Join(tuple(layers)), *transition, *halving), out


def _plan_inverted(v: dict[str, Any], before: int, out: int) -> tuple[Plan, int]:
    inner = before * v["expansion"]
    main: Plan = () if v["expansion"] == 1 else _unit(v, [_conv(v, before, inner, 1)])
    main += _unit(v, [_depthwise(v, inner, v["stride"], bias=v["norm"] == "none")])
    main += _unit(v, [_conv(v, inner, out, 1)], act=False)
    return ((Sum(main, ()),) if before == out and v["stride"] == 1 else main), out


def _plan_shuffle(v: dict[str, Any], before: int, out: int) -> tuple[Plan, int]:
    if out % 2:
        raise refuse(
            "an even number of output channels, which are two halves",
            f"{out}" if v["channels"] else f"the {out} that come in",
            f"set channels={out + 1}",
            property="channels",
        )
    half, stride, bias = out // 2, v["stride"], v["norm"] == "none"
    split = before == out and stride == 1
    entering = half if split else before
    main = _unit(v, [_conv(v, entering, half, 1)])
    main += _unit(v, [_depthwise(v, half, stride, bias=bias)], act=False)
    main += _unit(v, [_conv(v, half, half, 1)])
    if split:
        return (Shuffle(main),), out
    other = _unit(v, [_depthwise(v, before, stride, bias=bias)], act=False)
    return (Shuffle(main, other + _unit(v, [_conv(v, before, half, 1)])),), out


def _plan_pool(v: dict[str, Any], before: int, _: int) -> tuple[Plan, int]:
    kernel, stride = v["kernel"], v["stride"]
    norm: Plan = () if v["norm"] == "none" else (Norm("batch", before, affine=False),)
    if kernel == stride == 1:
        return norm, before
    operation = "max" if kernel == 1 else v["operation"]  # of one pixel both are that pixel
    padding = 0 if v["padding"] == "valid" else kernel // 2
    return (Pool(operation, kernel, stride, padding), *norm), before


_PLANS: Final[dict[str, Callable[[dict[str, Any], int, int], tuple[Plan, int]]]] = {
    "conv": _plan_conv,
    "separable": _plan_separable,
    "depthwise": _plan_depthwise,
    "vgg": _plan_vgg,
    "run": _plan_run,
    "residual": _plan_residual,
    "dense": _plan_dense,
    "inverted": _plan_inverted,
    "shuffle": _plan_shuffle,
    "pool": _plan_pool,
    "identity": lambda v, before, out: ((), before),
}
