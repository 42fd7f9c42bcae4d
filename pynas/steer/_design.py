"""Templates that somebody draws on the page: checked, saved, and opened as a search of their own."""

from __future__ import annotations

import importlib
import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from pynas._errors import UserError
from pynas.steer._formats import formats
from pynas.steer._layout import layout
from pynas.steer._settings import Malformed, Refused

if TYPE_CHECKING:
    from pynas.spaces import SearchSpace
    from pynas.steer.server import Desk

_MODULE = "pynas.spaces.template"
_NAME = re.compile(r"[A-Za-z0-9_-]{1,60}")


class NoDesign(UserError):  # noqa: N818
    """There is no design here."""


def offers(desk: Desk) -> dict[str, Any]:
    """What the state says of design and export."""
    return {"design": desk.another is not None and _templates() is not None, "formats": list(formats())}


def _templates() -> ModuleType | None:
    return importlib.import_module(_MODULE) if importlib.util.find_spec(_MODULE) is not None else None


def _design(desk: Desk) -> Any:
    found = _templates()
    if found is None or desk.another is None:
        raise NoDesign("templates cannot be designed here")
    return found


def palette(desk: Desk) -> dict[str, Any]:
    """The kinds of block, and a template to begin with."""
    templates = _design(desk)
    return {"palette": templates.palette(), "example": templates.to_record(templates.example())}


def check(desk: Desk, body: dict[str, Any]) -> dict[str, Any]:
    """What is wrong with a template, and what it is if nothing is."""
    templates = _design(desk)
    try:
        template = templates.from_record(_record(body))
    except templates.TemplateError as error:
        return _told(error.problems)
    problems = template.problems()
    if problems:
        return _told(problems)
    space = templates.TemplateSpace(template=template)
    return {
        "ok": True,
        "problems": [],
        "size": str(space.size),
        "params": _range(space),
        "template": layout(space),
    }


def _told(problems: Any) -> dict[str, Any]:
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
    templates = _design(desk)
    name = body.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise Malformed("name: expected 1 to 60 letters, digits, - and _", "name")
    if desk.folder is None:
        raise Refused("templates cannot be saved here; take the JSON from the page")
    file = f"{name}.json"
    path = Path(desk.folder) / file
    if path.exists() and file not in desk.saved:
        raise Refused(f"{file} is there already, and was not saved from here; choose another name")
    templates.save(templates.from_record(_record(body)).check(), path)
    desk.saved.add(file)
    return {"file": file, "spec": f"template:{file}"}


def open_template(desk: Desk, body: dict[str, Any]) -> dict[str, Any]:
    """Begin a search of a template in place of the present one."""
    templates = _design(desk)
    if ("spec" in body) == ("template" in body):
        raise Malformed("open: expected either spec or template", "template")
    if "template" in body:
        space = templates.TemplateSpace(template=templates.from_record(_record(body)).check())
    else:
        spec = body["spec"]
        kind, _, name = spec.partition(":") if isinstance(spec, str) else ("", "", "")
        if kind != "template" or not _NAME.fullmatch(name.removesuffix(".json")) or desk.folder is None:
            raise Malformed("spec: expected template:NAME.json, saved from here", "spec")
        space = templates.TemplateSpace(template=templates.load(Path(desk.folder) / name))
    return {"session": desk.open(space).session}


def _record(body: dict[str, Any]) -> Any:
    if "template" not in body:
        raise Malformed("template: expected the document of a template, got nothing", "template")
    return body["template"]
