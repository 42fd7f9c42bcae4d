"""Templates that somebody draws on the page: checked, saved, and opened as a search of their own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pynas._errors import UserError
from pynas.spaces import template
from pynas.steer._formats import formats
from pynas.steer._layout import layout
from pynas.steer._settings import Malformed, Refused

if TYPE_CHECKING:
    from pynas.spaces import SearchSpace
    from pynas.steer.server import Desk

_NAME = re.compile(r"[A-Za-z0-9_-]{1,60}")


class NoDesign(UserError):  # noqa: N818
    """There is no design here."""


def offers(desk: Desk) -> dict[str, Any]:
    """What the state says of design and export."""
    return {"design": desk.another is not None, "formats": list(formats())}


def _check(desk: Desk) -> None:
    if desk.another is None:
        raise NoDesign("templates cannot be designed here: the search scores by a program's own function")


def palette(desk: Desk) -> dict[str, Any]:
    """The kinds of block, and a template to begin with."""
    _check(desk)
    return {"palette": template.palette(), "example": template.to_record(template.example())}


def check(desk: Desk, body: dict[str, Any]) -> dict[str, Any]:
    """What is wrong with a template, and what it is if nothing is."""
    _check(desk)
    try:
        drawn = template.from_record(_record(body))
    except template.TemplateError as error:
        return _told(error.problems)
    problems = drawn.problems()
    if problems:
        return _told(problems)
    space = template.TemplateSpace(template=drawn)
    return {
        "ok": True,
        "problems": [],
        "size": str(space.size),
        "params": _range(space),
        "template": layout(space),
    }


def _told(problems: Sequence[template.Problem]) -> dict[str, Any]:
    found = [
        {
            "layer": each.layer,
            "alternative": each.alternative,
            "property": each.property or None,
            "message": str(each),
        }
        for each in problems
    ]
    return {"ok": False, "problems": found, "size": None, "params": None, "template": None}


def _range(space: SearchSpace) -> list[int]:
    """Fewest and most parameters: layers add up, so each is looked at alone."""
    from pynas.architecture import Architecture

    base = [0] * len(space.num_choices)
    first = space.params(Architecture(space.name, tuple(base)))
    low = high = first
    for layer, count in enumerate(space.num_choices):
        changes = []
        for choice in range(count):
            decisions = tuple([choice if i == layer else 0 for i in range(len(base))])
            changes.append(space.params(Architecture(space.name, decisions)) - first)
        low, high = low + min(changes), high + max(changes)
    return [low, high]


def save(desk: Desk, body: dict[str, Any]) -> dict[str, Any]:
    """Write a template into the folder of the command."""
    _check(desk)
    name = body.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise Malformed("name: expected 1 to 60 letters, digits, - and _", "name")
    if desk.folder is None:
        raise Refused("templates cannot be saved here; take the JSON from the page")
    file = f"{name}.json"
    path = Path(desk.folder) / file
    if path.exists() and file not in desk.saved:
        raise Refused(f"{file} is there already, and was not saved from here; choose another name")
    template.save(template.from_record(_record(body)).check(), path)
    desk.saved.add(file)
    return {"file": file, "spec": f"template:{file}"}


def open_template(desk: Desk, body: dict[str, Any]) -> dict[str, Any]:
    """Begin a search of a template in place of the present one."""
    _check(desk)
    if ("spec" in body) == ("template" in body):
        raise Malformed("open: expected either spec or template", "template")
    if "template" in body:
        space = template.TemplateSpace(template=template.from_record(_record(body)).check())
    else:
        spec = body["spec"]
        kind, _, name = spec.partition(":") if isinstance(spec, str) else ("", "", "")
        if kind != "template" or not _NAME.fullmatch(name.removesuffix(".json")) or desk.folder is None:
            raise Malformed("spec: expected template:NAME.json, saved from here", "spec")
        space = template.TemplateSpace(template=template.load(Path(desk.folder) / name))
    return {"session": desk.open(space).session}


def _record(body: dict[str, Any]) -> Any:
    if "template" not in body:
        raise Malformed("template: expected the document of a template, got nothing", "template")
    return body["template"]
