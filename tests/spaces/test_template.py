"""Spaces of templates: conformance, equal networks, text, blocks against torch."""

from __future__ import annotations

import copy
import itertools
import pickle
import random
from collections import defaultdict
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from pynas._errors import UserError
from pynas.architecture import Architecture
from pynas.spaces import template
from pynas.spaces.identity import constructor_options, identity
from pynas.spaces.template import KINDS, Block, Layer, Template, TemplateSpace
from pynas.spaces.template.network import block
from pynas.spaces.template.plan import macs, params, side
from pynas.testing.spaces import CHECKS, Check
from tests.spaces.designs import THIN

EQUAL = Template(
    (
        Layer((Block("conv"), Block("identity"), Block("conv", channels=16))),
        Layer((Block("identity"), Block("conv"), Block("run", convolutions=1), Block("vgg"))),
        Layer((Block("conv"), Block("identity"), Block("pool", kernel=1))),
    ),
    image_size=8,
    name="many that are equal",
)
STRANGE = Template(
    (
        Layer(
            (
                Block("conv", kernel=5, padding="valid"),
                Block("run", convolutions=1, kernel=5, padding="valid"),
            )
        ),
        Layer((Block("conv", channels=12, norm="group", activation="gelu"),)),
        Layer((Block("residual", norm="none", activation="silu"), Block("dense", norm="none", growth=3))),
        Layer((Block("pool", kernel=3, stride=2, padding="valid"), Block("conv", stride=2, padding="valid"))),
    ),
    stem=Block("vgg", channels=6, convolutions=3, kernel=1, stride=2, norm="group", activation="none"),
    image_size=23,
)

SINGLE = Template((Layer((Block("shuffle", channels=20, stride=2),)),), image_size=9)
DESIGNS = {
    "thin": THIN,
    "fused": template.fused(),
    "equal": EQUAL,
    "strange": STRANGE,
    "single": SINGLE,
}
SPACES = {name: TemplateSpace(template=design) for name, design in DESIGNS.items()}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", SPACES)
def test_conformance(name: str, check: Check) -> None:
    if name == "single" and check.__name__ in ("mutation_makes_a_move", "mutation_reaches_every_neighbour"):
        pytest.skip("there is one architecture")
    check(copy.deepcopy(SPACES[name]))


def test_the_ready_ones() -> None:
    sizes = {name: TemplateSpace(template=name).size for name in template.READY}
    assert sizes == {"example": 1200, "digits": 64, "fused": 168}
    used = {block.kind for layer in template.example().layers for block in layer.alternatives}
    assert used == set(KINDS)
    TemplateSpace().check_image_size(8)  # the digits
    unique = {name: len(list(TemplateSpace(template=name).unique())) for name in template.READY}
    assert unique == sizes | {
        "digits": 60
    }  # a residual block in the third layer or in the fourth is one network


# ---- equal networks ----------------------------------------------------------------------------------


def test_equal_networks_count_once() -> None:
    space = SPACES["equal"]
    classes: dict[Any, set[Architecture]] = defaultdict(set)
    for arch in space.all():
        operations = tuple(itertools.chain(*space.plans(arch)))
        classes[operations].add(space.canonical(arch))
    assert all(len(forms) == 1 for forms in classes.values())
    # No, one, two, three or four convolutions one after the other.
    assert len(list(space.unique())) == len(classes) == 5
    assert space.size == 36


def test_equal_networks_compute_the_same() -> None:
    space = SPACES["equal"]
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    for arch in itertools.islice(space.all(), 0, None, 5):
        form = space.canonical(arch)
        one, other = (space.build(a).double().eval() for a in (arch, form))
        own = dict(zip(one.state_dict(), one.state_dict().values(), strict=True))
        assert [t.shape for t in other.state_dict().values()] == [t.shape for t in own.values()]
        other.load_state_dict(dict(zip(other.state_dict(), own.values(), strict=True)))
        assert torch.equal(one(x), other(x))


def test_the_canonical_form_is_the_first_by_decisions() -> None:
    space = SPACES["equal"]
    first: dict[Any, Architecture] = {}
    for arch in space.all():
        first.setdefault(tuple(itertools.chain(*space.plans(arch))), arch)
    assert set(space.unique()) == set(first.values())


def test_canonical_forms_of_the_largest_templates_are_quick() -> None:
    layer = Layer((*(Block("run", convolutions=n) for n in (1, 3, 7)), Block("vgg"), Block("identity")))
    space = TemplateSpace(template=Template((layer,) * 64))
    rng = random.Random(0)
    for _ in range(5):
        arch = space.sample(rng)
        form = space.canonical(arch)
        assert space.canonical(form) == form
        assert space.params(form) == space.params(arch)


# ---- identity and text -------------------------------------------------------------------------------


def test_identity_is_the_content() -> None:
    here = identity(SPACES["thin"])
    assert here == identity(TemplateSpace(template=THIN)) == constructor_options(SPACES["thin"])
    again = TemplateSpace(**here)
    assert again.design == DESIGNS["thin"].replace(name="").rename_layer(0, "").rename_layer(
        1, ""
    ).rename_layer(2, "")
    renamed = DESIGNS["thin"].rename_layer(0, "other").replace(name="other")
    assert identity(TemplateSpace(template=renamed)) == here
    for changed in (
        DESIGNS["thin"].set(0, 0, activation="silu"),
        DESIGNS["thin"].move_layer(0, 2),
        DESIGNS["thin"].replace(image_size=16),
        DESIGNS["thin"].set_stem(kernel=5),
        DESIGNS["thin"].remove_alternative(0, 3),
    ):
        assert identity(TemplateSpace(template=changed)) != here
        assert TemplateSpace(template=changed).digest != SPACES["thin"].digest


def test_spaces_go_to_other_processes() -> None:
    space = SPACES["fused"]
    arch = space.sample(random.Random(0))
    copied = pickle.loads(pickle.dumps(space))
    assert copied.design == space.design
    assert copied.macs(arch) == space.macs(arch)


def test_text_names_the_blocks() -> None:
    space = SPACES["equal"]
    assert space.format(Architecture("template", (2, 2, 1))) == "conv_c16|run_n1|identity"
    twice = TemplateSpace(template=Template((Layer((Block("conv"), Block("conv"), Block("vgg"))),)))
    assert [twice.format(arch) for arch in twice.all()] == ["conv", "conv~2", "vgg"]
    assert list(twice.unique()) == [Architecture("template", (0,)), Architecture("template", (2,))]
    for text, message in (
        ("conv|vgg", "at position 8 expected '|' and a block of layer 2, found the end of the text"),
        (
            "conv|vgh|conv",
            "at position 5 expected a block of layer 1 out of identity, conv, run_n1, vgg, found ",
        ),
        ("conv|vgg|conv|conv", "at position 13 expected the end of the text after 3 layers"),
    ):
        with pytest.raises(UserError) as error:
            space.parse(text)
        assert message in str(error.value)
    with pytest.raises(UserError, match=r"did you mean 'vgg'\?"):
        space.parse("conv|vgh|conv")


@pytest.mark.slow
def test_labels_tell_all_blocks_apart() -> None:
    blocks = set()
    for kind in KINDS.values():
        for values in itertools.product(
            *([*(p.choices or (p.low, p.high)), p.default] for p in kind.properties)
        ):
            names = [p.name for p in kind.properties]
            blocks.add(Block(kind.name, **dict(zip(names, values, strict=True))))
    assert len({each.label for each in blocks}) == len(blocks) > 2000


# ---- blocks against torch ----------------------------------------------------------------------------


@st.composite
def blocks(draw: st.DrawFn) -> Block:
    kind = draw(st.sampled_from(list(KINDS.values())))
    values: dict[str, Any] = {}
    for each in kind.properties:
        if each.choices:
            values[each.name] = draw(st.sampled_from(each.choices))
        elif each.name == "kernel":
            values[each.name] = draw(st.sampled_from([1, 3, 5, 7]))
        else:
            values[each.name] = draw(st.integers(each.low, min(each.high, 9)))
    return Block(kind.name, **values)


@pytest.mark.slow
@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(blocks(), st.integers(1, 9), st.integers(7, 24))
def test_plans_are_what_torch_counts(made: Block, channels: int, size: int) -> None:
    if made.kind == "shuffle" and (made["channels"] or channels) % 2:
        with pytest.raises(UserError, match="channels: expected an even number of output channels"):
            made.plan(channels)
        return
    plan, out = made.plan(channels)
    after = side(plan, size)
    module = block(plan)
    x = torch.randn(2, channels, size, size)
    if after < 1:
        with pytest.raises(RuntimeError):
            module(x)
        return
    with FlopCounterMode(display=False) as counter:
        y = module(x)
    assert y.shape == (2, out, after, after)
    assert counter.get_total_flops() == 4 * macs(plan, size)
    assert sum(p.numel() for p in module.parameters()) == params(plan)


def bn(y: torch.Tensor) -> torch.Tensor:
    return F.batch_norm(y, None, None, training=True)


def ws(module: nn.Module) -> list[torch.Tensor]:
    return [m.weight for m in module.modules() if isinstance(m, nn.Conv2d)]


def test_blocks_written_out() -> None:
    """Each against functions, at the starting values of batch norms."""
    torch.manual_seed(0)
    x = torch.randn(3, 8, 9, 9, dtype=torch.float64)

    def made(*args: Any, **properties: Any) -> tuple[torch.Tensor, list[torch.Tensor]]:
        module = block(Block(*args, **properties).plan(8)[0]).double()
        return module(x), ws(module)

    def same(y: torch.Tensor, expected: torch.Tensor) -> None:
        torch.testing.assert_close(y, expected, rtol=1e-10, atol=1e-10)

    y, (a,) = made("conv", kernel=5, stride=2, activation="gelu")
    same(y, F.gelu(bn(F.conv2d(x, a, None, 2, 2))))
    y, (a,) = made("conv", order="pre", channels=4)
    same(y, bn(F.conv2d(x.relu(), a, padding=1)))
    y, (a, b) = made("separable", dilation=2)
    same(y, bn(F.conv2d(F.conv2d(x, a, padding=2, dilation=2, groups=8), b)).relu())
    y, (a, b, c) = made("vgg", convolutions=3, stride=2)
    z = x
    for w in (a, b, c):
        z = bn(F.conv2d(z, w, padding=1)).relu()
    same(y, F.max_pool2d(z, 2, 2, ceil_mode=True))
    y, (a, b) = made("residual")
    same(y, (bn(F.conv2d(bn(F.conv2d(x, a, padding=1)).relu(), b, padding=1)) + x).relu())
    y, (a, b, c, s) = made("residual", form="bottleneck", channels=16, stride=2)
    assert [w.shape[0] for w in (a, b, c)] == [4, 4, 16]
    inner = bn(F.conv2d(bn(F.conv2d(x, a)).relu(), b, None, 2, 1)).relu()
    same(y, (bn(F.conv2d(inner, c)) + bn(F.conv2d(x, s, None, 2))).relu())
    y, (a, b, t) = made("dense", convolutions=2, growth=5, stride=2)
    z = torch.cat((x, F.conv2d(bn(x).relu(), a, padding=1)), 1)
    z = torch.cat((z, F.conv2d(bn(z).relu(), b, padding=1)), 1)
    same(y, F.avg_pool2d(F.conv2d(bn(z).relu(), t), 2, 2, ceil_mode=True))
    y, (a, d, b) = made("inverted")
    z = F.relu6(bn(F.conv2d(F.relu6(bn(F.conv2d(x, a))), d, padding=1, groups=32)))
    same(y, x + bn(F.conv2d(z, b)))
    y, (a, d, b) = made("shuffle")
    z = bn(F.conv2d(bn(F.conv2d(bn(F.conv2d(x[:, 4:], a)).relu(), d, padding=1, groups=4)), b)).relu()
    expected = torch.empty_like(x)
    expected[:, 0::2], expected[:, 1::2] = x[:, :4], z
    same(y, expected)
    y, (a, d, b, e, f) = made("shuffle", channels=12, stride=2)
    z = bn(F.conv2d(bn(F.conv2d(bn(F.conv2d(x, a)).relu(), d, None, 2, 1, groups=6)), b)).relu()
    same(y[:, 1::2], z)
    same(y[:, 0::2], bn(F.conv2d(bn(F.conv2d(x, e, None, 2, 1, groups=8)), f)).relu())
    y, _ = made("pool", operation="average", stride=2)
    same(y, F.avg_pool2d(x, 3, 2, 1, count_include_pad=False))


def test_images_of_other_sizes() -> None:
    space = SPACES["strange"]
    arch = space.sample(random.Random(0))
    for size in (23, 40):
        with FlopCounterMode(display=False) as counter:
            space.build(arch)(torch.zeros(2, 3, size, size))
        assert counter.get_total_flops() == 4 * space.macs(arch, image_size=size)
    with pytest.raises(
        UserError, match=r"image_size: layers\[3\], alternatives\[\d\].* 9 x 9 pixels; use larger"
    ):
        space.macs(arch, image_size=9)
    space.check_image_size(23)
    with pytest.raises(UserError, match="does not fit on what is left of 9 x 9 pixels"):
        space.check_image_size(9)
    either = Template(
        (Layer((Block("conv", stride=2), Block("conv", kernel=9, padding="valid"))),), image_size=16
    )
    space = TemplateSpace(template=either)
    space.check_image_size(16)
    with pytest.raises(
        UserError, match=r"the alternatives of layers\[0\] give sides of 10 and 12; use images of"
    ):
        space.check_image_size(20)


def test_bad_arguments() -> None:
    with pytest.raises(UserError, match="template: expected a Template or a text, got int"):
        TemplateSpace(template=3)  # type: ignore[arg-type]
    with pytest.raises(
        UserError, match=r"one of example, digits, fused, got 'mine.json'; TemplateSpace.open"
    ):
        TemplateSpace(template="mine.json")
    with pytest.raises(UserError, match="layers: expected at least one layer, got none; add a layer"):
        TemplateSpace(template=Template(()))
    with pytest.raises(UserError, match="num_classes: expected a positive integer"):
        SPACES["thin"].params(SPACES["thin"].from_index(0), num_classes=0)
