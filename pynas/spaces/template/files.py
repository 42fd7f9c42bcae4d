"""Templates as JSON: a small file with a format name and a version, read strictly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from pynas._errors import UserError
from pynas._io import strict_json
from pynas._io.atomic import replacing
from pynas._io.files import listed, shortened
from pynas.spaces.template.blocks import Block
from pynas.spaces.template.design import MAX_ALTERNATIVES, MAX_LAYERS, Layer, Template
from pynas.spaces.template.problems import located, refuse

FORMAT: Final = "pynas template"
VERSION: Final = 1
LARGEST: Final = 1 << 20  # bytes of a file: 64 layers of 32 alternatives with all properties take half of it

_FIELDS = {"format", "version", "name", "image_size", "stem", "layers"}


def to_record(template: Template, *, names: bool = True) -> dict[str, Any]:
    """``template`` as JSON values; properties that have their defaults are left out.

    Args:
        template: Any template, also one with problems.
        names: Whether names are told, on which no network depends.
    """
    record: dict[str, Any] = {"format": FORMAT, "version": VERSION}
    if names and template.name:
        record["name"] = template.name
    record |= {"image_size": template.image_size, "stem": _block_record(template.stem)}
    record["layers"] = [
        ({"name": layer.name} if names and layer.name else {})
        | {"alternatives": [_block_record(block) for block in layer.alternatives]}
        for layer in template.layers
    ]
    return record


def _block_record(block: Block) -> dict[str, Any]:
    return {"kind": block.kind, **dict(block.given)}


def from_record(record: Any) -> Template:
    """Inverse of :func:`to_record`; shapes are not checked, so that an editor can open what has problems.

    Raises:
        TemplateError: It is no such record; the message names layer and property.
    """
    found = _object(record, "an object with format, version, image_size, stem and layers")
    if found.get("format") != FORMAT:
        raise refuse(f"{FORMAT!r}", shortened(repr(found.get("format"))), property="format")
    if type(found.get("version")) is not int or found["version"] != VERSION:
        advice = "it may need a later version of pynas"
        raise refuse(str(VERSION), shortened(repr(found.get("version"))), advice, property="version")
    _only(found, _FIELDS, _FIELDS - {"name"})
    layers = _list(found["layers"], "layers", MAX_LAYERS)
    with located("stem"):
        stem = _block(found["stem"])
    read = [_layer(layer, i) for i, layer in enumerate(layers)]
    return Template(tuple(read), stem, found["image_size"], found.get("name", ""))


def _layer(record: Any, i: int) -> Layer:
    where = f"layers[{i}]"
    with located(where, i):
        found = _object(record, "an object with alternatives")
        _only(found, {"name", "alternatives"}, {"alternatives"})
        records = _list(found["alternatives"], "alternatives", MAX_ALTERNATIVES)
        blocks = []
        for k, each in enumerate(records):
            with located(f"{where}, alternatives[{k}]", i, k):
                blocks.append(_block(each))
        return Layer(tuple(blocks), found.get("name", ""))


def _block(record: Any) -> Block:
    found = dict(_object(record, "an object with kind and properties"))
    if "kind" not in found:
        raise refuse("a kind", "none", property="kind")
    kind = found.pop("kind")
    return Block(kind, **found)


def _object(value: Any, expected: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise refuse(expected, shortened(repr(value)))
    return value


def _list(value: Any, what: str, most: int) -> list[Any]:
    if not isinstance(value, list):
        raise refuse("a list", shortened(repr(value)), property=what)
    if len(value) > most:
        raise refuse(f"at most {most}", f"{len(value)}", property=what)
    return value


def _only(found: dict[str, Any], known: set[str], needed: set[str]) -> None:
    unknown = [name for name in found if name not in known]
    if unknown:
        raise refuse(f"only {', '.join(sorted(known))}", listed(unknown), "leave it out", property="names")
    missing = sorted(needed - found.keys())
    if missing:
        raise refuse(f"{missing[0]!r}", "none", property=missing[0])


def to_json(template: Template, *, names: bool = True) -> str:
    """``template`` as one line of JSON."""
    return json.dumps(to_record(template, names=names), separators=(",", ":"), ensure_ascii=False)


def from_json(text: str) -> Template:
    """Inverse of :func:`to_json`; TemplateError or UserError if it is no template."""
    if len(text) > LARGEST:
        raise UserError(f"template: expected at most {LARGEST:,} characters, got {len(text):,}")
    try:
        record = strict_json.loads(text)
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"template: expected JSON: {error}") from None
    return from_record(record)


def save(template: Template, path: str | Path) -> None:
    """Write ``template`` to a JSON file, whole or not at all.

    Raises:
        TemplateError: It has problems; a file can be searched by whoever gets it.
        UserError: The file cannot be written.
    """
    template.check()
    text = json.dumps(to_record(template), indent=1, ensure_ascii=False)
    with replacing(Path(path)) as file:
        file.write(f"{text}\n".encode())


def load(path: str | Path) -> Template:
    """Read a file of :func:`save`, and check its shapes.

    Raises:
        UserError: There is no such file, it is larger than 1 MiB, or no template; the message names the file,
            and the layer and the property in it.
    """
    place = Path(path)
    record = strict_json.read(
        place, "a template", hint="; pynas.spaces.template.save writes one", largest=LARGEST
    )
    try:
        return from_record(record).check()
    except UserError as error:
        raise UserError(f"{place}: not a template: {error}") from None
