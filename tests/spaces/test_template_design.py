"""Templates as values: what an editor does to them, what is wrong with them, undo, files."""

# ruff: noqa: E501  # messages stand whole

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from pynas._errors import UserError
from pynas.spaces import template
from pynas.spaces.template import Block, History, Layer, Shape, Template, TemplateError, TemplateSpace
from tests.spaces.designs import THIN

EXAMPLE = template.example()


# ---- values ------------------------------------------------------------------------------------------


def test_blocks_are_values() -> None:
    block = Block("conv", kernel=5, channels=32)
    assert block == Block("conv", channels=32, kernel=5, stride=1, norm="batch")
    assert hash(block) == hash(Block("conv", channels=32, kernel=5))
    assert block.replace(kernel=3) == Block("conv", channels=32)
    assert block.replace(channels=None).label == "conv_k5"
    assert (block["kernel"], block["activation"]) == (5, "relu")
    assert eval(repr(block)) == block
    with pytest.raises(FrozenInstanceError):
        block.kind = "vgg"  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        EXAMPLE.name = "mine"  # type: ignore[misc]
    assert {EXAMPLE: 1}[template.example()] == 1


def test_the_palette_is_json() -> None:
    palette = json.loads(json.dumps(template.palette()))
    kinds = {kind["kind"]: kind for kind in palette}
    assert set(kinds) == set(template.KINDS)
    for kind in palette:
        assert kind["title"]
        assert kind["text"]
        defaults = {each["name"]: each["default"] for each in kind["properties"]}
        assert Block(kind["kind"], **defaults) == Block(kind["kind"])
        for each in kind["properties"]:
            for value in each.get("choices", [each.get("low"), each.get("high")]):
                Block(kind["kind"], **{each["name"]: value})
    assert kinds["conv"]["properties"][1] == {
        "name": "kernel",
        "default": 3,
        "text": "side of the kernel, in pixels",
        "optional": False,
        "low": 1,
        "high": 31,
        "odd": True,
    }


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Block("convolution"), "kind: expected one of conv, separable, "),
        (lambda: Block("residuals"), "did you mean 'residual'?"),
        (lambda: Block(["conv"]), "kind: expected one of conv,"),
        (
            lambda: Block("conv", kernel=4),
            "kernel: expected an odd integer in 1..31, got 4; use 3 or 5, whose",
        ),
        (lambda: Block("conv", kernel=33), "kernel: expected an odd integer in 1..31, got 33"),
        (lambda: Block("conv", kernel=True), "kernel: expected an odd integer in 1..31, got True"),
        (lambda: Block("conv", kernel=3.0), "kernel: expected an odd integer in 1..31, got 3.0"),
        (lambda: Block("conv", kernel=None), "kernel: expected an odd integer in 1..31, got None"),
        (lambda: Block("conv", channels=0), "channels: expected an integer in 1..8192 or None, got 0"),
        (lambda: Block("conv", stride=True), "stride: expected one of 1, 2, got True"),
        (lambda: Block("conv", norm=["batch"]), "norm: expected one of batch, group, none, got ['batch']"),
        (lambda: Block("conv", filters=3), "filters: expected a property of conv, one of channels, kernel, "),
        (lambda: Block("conv", kernal=3), "got 'kernal'; did you mean 'kernel'?"),
        (lambda: Block("conv", self=3), "self: expected a property of conv"),
        (
            lambda: Block("identity", stride=2),
            "expected a property of identity, no property at all, got 'stride'",
        ),
        (
            lambda: Block("conv", kernel=4, stride=3),
            "got 4; use 3 or 5, whose middle is a pixel (and 1 more)",
        ),
        (
            lambda: Layer(()),
            "alternatives: expected 1 to 32 blocks, got 0; a layer without blocks is left out",
        ),
        (lambda: Layer((Block("conv"),) * 33), "alternatives: expected 1 to 32 blocks, got 33"),
        (lambda: Layer("conv"), "alternatives: expected a sequence, got 'conv'"),
        (lambda: Layer(("conv",)), "alternatives: expected each a Block, got 'conv'"),
        (
            lambda: Layer(Block("conv"), "a\nb"),
            "name: expected a text of at most 80 characters on one line, got",
        ),
        (
            lambda: Layer(Block("conv"), "x" * 81),
            "name: expected a text of at most 80 characters on one line",
        ),
        (lambda: Template((Block("conv"),) * 65), "layers: expected at most 64, got 65"),
        (lambda: Template(3), "layers: expected a sequence, got 3"),
        (lambda: Template((), image_size=0), "image_size: expected an integer in 1..1024, got 0"),
        (lambda: Template((), stem="conv"), "stem: expected a Block, got str"),
    ],
)
def test_values_that_cannot_be(make: Callable[[], object], message: str) -> None:
    with pytest.raises(TemplateError) as error:
        make()
    assert message in str(error.value)


# ---- shapes ------------------------------------------------------------------------------------------


def test_shapes_are_carried() -> None:
    assert EXAMPLE.problems() == ()
    assert EXAMPLE.check() is EXAMPLE
    assert EXAMPLE.shapes() == tuple(Shape(*s) for s in ((16, 32),) * 2 + ((32, 16),) * 2 + ((64, 8),) * 2)
    assert str(EXAMPLE.shapes()[2]) == "32 x 16 x 16"
    wider = EXAMPLE.set_stem(channels=24)
    assert wider.shapes()[:3] == (Shape(24, 32), Shape(24, 32), Shape(32, 16))


SMALL = Template((Layer((Block("conv", channels=8),), "first"), Layer(Block("conv"))), image_size=8)


@pytest.mark.parametrize(
    ("made", "message", "place"),
    [
        (
            EXAMPLE.set(1, 2, channels=48),
            "layers[1] 'down to half', alternatives[2] inverted_c48_s2: channels: expected 32 x 16 x 16, the output "
            "of the layer's first alternative (conv_c32_s2), got 48 x 16 x 16; set channels=32",
            (1, 2, "channels"),
        ),
        (
            EXAMPLE.set(1, 2, stride=1),
            "layers[1] 'down to half', alternatives[2] inverted_c32: stride: expected 32 x 16 x 16, the output of "
            "the layer's first alternative (conv_c32_s2), got 32 x 32 x 32; set stride=2",
            (1, 2, "stride"),
        ),
        (
            EXAMPLE.set(0, 1, padding="valid"),
            "conv_k5_valid: stride: expected 16 x 32 x 32, the output of the layer's first alternative (conv), got "
            "16 x 28 x 28; change its channels or stride or padding or kernel, or the first alternative",
            (0, 1, "stride"),
        ),
        (
            EXAMPLE.add_alternative(1, Block("identity")),
            "layers[1] 'down to half', alternatives[4] identity: channels: expected 32 x 16 x 16, the output of the "
            "layer's first alternative (conv_c32_s2), got 16 x 32 x 32; change its kind, or the first alternative",
            (1, 4, "channels"),
        ),
        (
            EXAMPLE.set_stem(channels=15).add_layer(Block("shuffle"), 0),
            "layers[0], alternatives[0] shuffle: channels: expected an even number of output channels, which are "
            "two halves, got the 15 that come in; set channels=16",
            (0, 0, "channels"),
        ),
        (
            SMALL.set(0, 0, stride=2)
            .set(1, 0, stride=2)
            .add_layer(Block("pool", stride=2))
            .add_layer(Block("vgg")),
            "layers[3], alternatives[0] vgg: kernel: expected a kernel of at most 1, got 3 on 1 x 1 pixels; its "
            "outermost weights would only meet padding: set kernel=1",
            (3, 0, "kernel"),
        ),
        (
            SMALL.replace(image_size=1).set_stem(kernel=1).set(0, 0, kernel=1, stride=2),
            "layers[0] 'first', alternatives[0] conv_c8_k1_s2: stride: expected at least 2 x 2 pixels to halve, got "
            "1 x 1 pixels; set stride=1, or halve less often before",
            (0, 0, "stride"),
        ),
        (
            SMALL.set(1, 0, kernel=9, padding="valid"),
            "layers[1], alternatives[0] conv_k9_valid: kernel: expected a window of at most 8 pixels, got 9 on 8 x "
            "8 pixels; set kernel=7 or padding='same'",
            (1, 0, "kernel"),
        ),
        (
            SMALL.replace(stem=Block("separable", channels=8)),
            "stem: kind: expected one of conv, vgg, run, got 'separable'",
            (None, None, "kind"),
        ),
        (
            SMALL.set_stem(channels=None),
            "stem: channels: expected a number of channels, got None; set channels=16",
            (None, None, "channels"),
        ),
        (Template(()), "layers: expected at least one layer, got none; add a layer", (None, None, "layers")),
        (
            Template((Block("conv", channels=8192), *(Block("run", convolutions=7, kernel=5),) * 2)),
            "layers: expected at most 2,147,483,648 parameters in all alternatives together, got 23,4",
            (None, None, "layers"),
        ),
        (
            Template(
                (Block("conv", channels=1, kernel=1, norm="group"),), Block("conv", channels=4, kernel=1), 1
            ),
            "norm: expected a norm over more than one value, got a group of one; use norm='batch'",
            (0, 0, "norm"),
        ),
    ],
)
def test_problems_name_the_place(made: Template, message: str, place: tuple[Any, ...]) -> None:
    problems = made.problems()
    assert message in str(problems[0])
    assert (problems[0].layer, problems[0].alternative, problems[0].property) == place
    with pytest.raises(TemplateError) as error:
        TemplateSpace(template=made)
    assert error.value.problems == problems
    assert len(str(error.value).splitlines()) == 1


def test_advice_mends() -> None:
    """What a message says to set makes a template of it."""
    broken = EXAMPLE.set(1, 2, channels=48, stride=1).set(3, 1, stride=1)
    for _ in range(5):
        if not broken.problems():
            break
        first = broken.problems()[0]
        name, _, value = first.advice.removeprefix("set ").partition("=")
        broken = broken.set(first.layer, first.alternative, **{name: int(value)})
    assert broken == EXAMPLE


def test_all_problems_are_told() -> None:
    broken = EXAMPLE.set(0, 1, channels=17).set(1, 2, channels=48).set(3, 2, stride=1)
    assert [(p.layer, p.alternative) for p in broken.problems()] == [(0, 1), (1, 2), (3, 2)]
    with pytest.raises(TemplateError, match=r"\(and 2 more\)"):
        broken.check()
    assert len(broken.shapes()) == 6


# ---- editing -----------------------------------------------------------------------------------------


def kinds(made: Template) -> list[list[str]]:
    return [[block.kind for block in layer.alternatives] for layer in made.layers]


def test_editing() -> None:
    made = Template((Block("conv"), (Block("vgg"), Block("run"))))
    before = made
    assert kinds(made.add_layer(Block("pool"))) == [["conv"], ["vgg", "run"], ["pool"]]
    assert kinds(made.add_layer((Block("pool"), Block("identity")), 0)) == [
        ["pool", "identity"],
        ["conv"],
        ["vgg", "run"],
    ]
    assert kinds(made.remove_layer(0)) == kinds(made.remove_layer(-2)) == [["vgg", "run"]]
    assert kinds(made.duplicate_layer(1)) == [["conv"], ["vgg", "run"], ["vgg", "run"]]
    three = made.add_layer(Block("pool"))
    assert kinds(three.move_layer(0, 2)) == [["vgg", "run"], ["pool"], ["conv"]]
    assert kinds(three.move_layer(2, 0)) == [["pool"], ["conv"], ["vgg", "run"]]
    assert three.move_layer(1, 1) == three
    assert kinds(made.add_alternative(0, Block("dense"), 0)) == [["dense", "conv"], ["vgg", "run"]]
    assert kinds(made.remove_alternative(1, 0)) == [["conv"], ["run"]]
    assert kinds(made.replace_alternative(1, -1, Block("dense"))) == [["conv"], ["vgg", "dense"]]
    changed = made.set(1, kernel=5).set(1, 0, activation="silu").rename_layer(1, "second")
    assert changed.layers[1] == Layer(
        (Block("vgg", kernel=5, activation="silu"), Block("run", kernel=5)), "second"
    )
    assert made.set(1, order="pre").layers[1].alternatives == (Block("vgg"), Block("run", order="pre"))
    assert made.replace(image_size=8, name="x") == Template(made.layers, image_size=8, name="x")
    assert made == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.remove_layer(9), "layer: expected an index from -5 to 4, got 9"),
        (lambda t: t.remove_layer(True), "layer: expected an index from -5 to 4, got True"),
        (
            lambda t: t.add_layer(Block("conv"), 6),
            "at: expected an index from -6 to 5, got 6",
        ),
        (lambda t: t.move_layer(0, 5), "to: expected an index from -5 to 4, got 5"),
        (
            lambda t: t.remove_alternative(2, 5),
            "layers[2] 'middle': alternative: expected an index from -5 to 4, got 5",
        ),
        (
            lambda t: Template((Block("conv"),)).remove_alternative(0, 0),
            "layers[0], alternatives[0] conv: expected another alternative besides it, got none; remove the layer",
        ),
        (
            lambda t: t.set(2, 1, kernel=4),
            "layers[2] 'middle', alternatives[1] dense: kernel: expected an odd integer in 1..31, got 4; use 3 or 5",
        ),
        (
            lambda t: t.set(2, 4, stride=1),
            "layers[2] 'middle', alternatives[4] identity: stride: expected a property",
        ),
        (
            lambda t: t.set(2, growth=3, form="basic"),
            "layers[2] 'middle': growth, form: expected an alternative with",
        ),
        (lambda t: t.set_stem(kernel=2), "stem: kernel: expected an odd integer in 1..31, got 2; use 1 or 3"),
        (
            lambda t: t.add_alternative(1, "conv"),
            "layers[1] 'down to half': alternatives: expected each a Block",
        ),
        (lambda t: t.rename_layer(1, 3), "layers[1] 'down to half': name: expected a text"),
        (
            lambda t: t.replace(colour=3),
            "fields: expected one of layers, stem, image_size, name, got 'colour'",
        ),
    ],
)
def test_changes_that_cannot_be(change: Callable[[Template], object], message: str) -> None:
    with pytest.raises(TemplateError) as error:
        change(EXAMPLE)
    assert message in str(error.value)


def test_undo_and_redo() -> None:
    history = History(EXAMPLE)
    assert (history.undoable, history.redoable) == (None, None)
    one = history.do(history.template.remove_layer(4), "remove a layer")
    two = history.do(history.template.set(0, 1, kernel=7), "set kernel=7")
    assert history.do(two, "nothing") == two
    assert (history.undoable, history.redoable) == ("set kernel=7", None)
    assert history.undo() == one
    assert (history.undoable, history.redoable) == ("remove a layer", "set kernel=7")
    assert history.redo() == two
    history.undo()
    assert history.undo() == EXAMPLE
    history.do(EXAMPLE.duplicate_layer(0), "duplicate")
    assert history.redoable is None
    with pytest.raises(UserError, match="redo: there is nothing to redo"):
        history.redo()
    history.undo()
    with pytest.raises(UserError, match="undo: there is no change to undo"):
        history.undo()
    short = History(EXAMPLE, limit=2)
    for size in (8, 16, 24):
        short.do(EXAMPLE.replace(image_size=size))
    short.undo()
    assert short.undo().image_size == 8
    assert short.undoable is None
    with pytest.raises(UserError, match="template: expected a Template, got dict"):
        History({})  # type: ignore[arg-type]
    with pytest.raises(UserError, match="limit: expected a positive integer, got 0"):
        History(EXAMPLE, limit=0)


class Editing(RuleBasedStateMachine):
    """Any sequence of changes: each is done or refused; undo brings all of them back."""

    def __init__(self) -> None:
        super().__init__()
        self.history = History(EXAMPLE)
        self.states = [EXAMPLE]

    def change(self, make: Callable[[], Template]) -> None:
        before = self.history.template
        try:
            after = make()
        except TemplateError:
            assert self.history.template is before
            return
        if self.history.do(after) != before:
            self.states.append(after)

    indices = st.integers(-3, 6)

    @rule(i=indices, j=indices)
    def move(self, i: int, j: int) -> None:
        self.change(lambda: self.history.template.move_layer(i, j))

    @rule(i=indices, how=st.sampled_from(["remove_layer", "duplicate_layer"]))
    def layer(self, i: int, how: str) -> None:
        self.change(lambda: getattr(self.history.template, how)(i))

    @rule(i=indices, kind=st.sampled_from(sorted(template.KINDS)))
    def add(self, i: int, kind: str) -> None:
        self.change(lambda: self.history.template.add_alternative(i, Block(kind)))

    @rule(i=indices, k=indices)
    def remove(self, i: int, k: int) -> None:
        self.change(lambda: self.history.template.remove_alternative(i, k))

    @rule(
        i=indices,
        k=st.none() | indices,
        value=st.sampled_from(
            [
                ("channels", 12),
                ("channels", None),
                ("kernel", 5),
                ("kernel", 2),
                ("stride", 2),
                ("norm", "none"),
            ]
        ),
    )
    def set(self, i: int, k: int | None, value: tuple[str, Any]) -> None:
        self.change(lambda: self.history.template.set(i, k, **{value[0]: value[1]}))

    @rule()
    def undo(self) -> None:
        if len(self.states) > 1:
            self.states.pop()
            assert self.history.undo() == self.states[-1]

    @invariant()
    def is_whole(self) -> None:
        made = self.history.template
        assert made == self.states[-1]
        assert template.from_json(template.to_json(made)) == made
        if not made.problems():
            assert TemplateSpace(template=made).design == made


TestEditing = Editing.TestCase
TestEditing.settings = settings(
    max_examples=40, stateful_step_count=20, deadline=None, derandomize=True, database=None
)


# ---- files -------------------------------------------------------------------------------------------


def test_files(tmp_path: Path) -> None:
    for name, make in template.READY.items():
        template.save(make(), tmp_path / f"{name}.json")
        assert template.load(tmp_path / f"{name}.json") == make()
    template.save(THIN, tmp_path / "thin.json")
    record = json.loads((tmp_path / "thin.json").read_text())
    assert record["format"] == "pynas template"
    assert record["version"] == 1
    assert record["layers"][1] == {
        "name": "down",
        "alternatives": [
            {"kind": "conv", "channels": 16, "stride": 2},
            {"kind": "inverted", "channels": 16, "stride": 2, "expansion": 2},
        ],
    }
    with pytest.raises(TemplateError):
        template.save(EXAMPLE.set(1, 1, channels=3), tmp_path / "example.json")
    assert template.load(tmp_path / "example.json") == EXAMPLE
    largest = Template(
        (Layer((Block("separable", activation="leaky_relu", padding="valid"),) * 32, "ü" * 80),) * 64
    )
    assert len(json.dumps(template.to_record(largest), indent=1)) < 1 << 20
    with pytest.raises(UserError, match="cannot write"):
        template.save(EXAMPLE, tmp_path / "no" / "folder.json")


GOOD = template.to_record(THIN)


def changed(path: str, value: Any) -> dict[str, Any]:
    record: Any = json.loads(json.dumps(GOOD))
    *parents, last = [int(key) if key.isdigit() else key for key in path.split("/")]
    inner = record
    for key in parents:
        inner = inner[key]
    inner[last] = value
    return record  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ([], "expected an object with format, version, image_size, stem and layers, got []"),
        ({}, "format: expected 'pynas template', got None"),
        (changed("format", "keras"), "format: expected 'pynas template', got 'keras'"),
        (changed("version", 2), "version: expected 1, got 2; it may need a later version of pynas"),
        (changed("version", True), "version: expected 1, got True"),
        (changed("image_size", "8"), "image_size: expected an integer in 1..1024, got '8'"),
        (
            changed("extra", 1),
            "names: expected only format, image_size, layers, name, stem, version, got extra",
        ),
        (changed("name", 1), "name: expected a text of at most 80 characters on one line, got 1"),
        (changed("stem", None), "stem: expected an object with kind and properties, got None"),
        (changed("stem/kernel", 2), "stem: kernel: expected an odd integer in 1..31, got 2; use 1 or 3"),
        (changed("layers", {}), "layers: expected a list, got {}"),
        (changed("layers", [1] * 65), "layers: expected at most 64, got 65"),
        (changed("layers/1", []), "layers[1]: expected an object with alternatives, got []"),
        (
            changed("layers/1/colour", 1),
            "layers[1]: names: expected only alternatives, name, got colour; leave it",
        ),
        (changed("layers/1", {"name": "x"}), "layers[1]: alternatives: expected 'alternatives', got none"),
        (changed("layers/1/name", "\u202e"), "layers[1]: name: expected a text of at most 80"),
        (changed("layers/1/alternatives", []), "layers[1]: alternatives: expected 1 to 32 blocks, got 0"),
        (changed("layers/1/alternatives", [1] * 33), "layers[1]: alternatives: expected at most 32, got 33"),
        (
            changed("layers/1/alternatives/1", {}),
            "layers[1], alternatives[1]: kind: expected a kind, got none",
        ),
        (
            changed("layers/1/alternatives/1/kind", "shufle"),
            "layers[1], alternatives[1]: kind: expected one of conv, separable, depthwise, vgg, run, residual, dense",
        ),
        (
            changed("layers/1/alternatives/1/kind", ["conv"]),
            "layers[1], alternatives[1]: kind: expected one of conv",
        ),
        (
            changed("layers/1/alternatives/1/self", 1),
            "layers[1], alternatives[1]: self: expected a property of",
        ),
        (
            changed("layers/1/alternatives/0/kernel", 4),
            "layers[1], alternatives[0]: kernel: expected an odd integer",
        ),
    ],
)
def test_records_that_are_no_templates(record: Any, message: str, tmp_path: Path) -> None:
    for read in (lambda: template.from_record(record), lambda: template.from_json(json.dumps(record))):
        with pytest.raises(TemplateError) as error:
            read()
        assert message in str(error.value)
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(record))
    with pytest.raises(UserError) as named:
        template.load(path)
    assert str(named.value).startswith(f"{path}: not a template: ")
    assert message in str(named.value)


def test_files_that_are_no_templates(tmp_path: Path) -> None:
    path = tmp_path / "bad.json"
    with pytest.raises(UserError, match=r"bad.json: no such file; pynas.spaces.template.save writes one"):
        template.load(path)
    broken = template.to_record(THIN.set(1, 1, channels=3))
    for text, message in (
        ("{", "not a template: "),
        ('{"format": "pynas template", "format": 1}', "the name 'format' comes twice"),
        (" " * ((1 << 20) + 1), "1048577 bytes are more than one ever has"),
        (
            json.dumps(broken),
            "layers[1] 'down', alternatives[1] inverted_c3_s2_e2: channels: expected 16 x 4 x 4",
        ),
    ):
        path.write_text(text)
        with pytest.raises(UserError) as error:
            template.load(path)
        assert str(path) in str(error.value)
        assert message in str(error.value)
    with pytest.raises(UserError, match="template: expected JSON"):
        template.from_json("{")
    with pytest.raises(UserError, match="expected at most 1,048,576 characters"):
        template.from_json(" " * ((1 << 20) + 1))


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["kind", "kernel", "name", "self"]), inner, max_size=3)
        ),
        max_leaves=8,
    ),
    st.sampled_from(
        ["format", "version", "stem", "layers", "layers/0", "layers/0/alternatives/0", "image_size"]
    ),
)
def test_any_value_anywhere(value: Any, path: str) -> None:
    message = ""
    try:
        template.from_record(changed(path, value)).problems()
    except TemplateError as error:
        message = str(error)
    assert len(message.splitlines()) <= 1
