"""What answers each route of docs/design/steering_protocol.md."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pynas._errors import UserError
from pynas._io import strict_json
from pynas._plural import counted
from pynas._user_values import explained
from pynas.architecture import Architecture
from pynas.steer import _design
from pynas.steer._documents import finite
from pynas.steer._formats import formats
from pynas.steer._reading import decisions_of, parsed, text_of
from pynas.steer._security import LARGEST_BODY
from pynas.steer._settings import Malformed, Refused, is_allowed
from pynas.steer.steering import Ended, Steering

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from pynas.steer.search import SteeredSearch
    from pynas.steer.server import Desk

STATIC = Path(__file__).parent / "static"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".json": "application/json",
    ".woff2": "font/woff2",
}

Body = dict[str, Any]

UNKNOWN = {
    404: ("not_found", "no such address"),
    405: ("not_allowed", "this address is not asked in this way"),
}


class NotFound(UserError):  # noqa: N818
    """There is nothing of that name."""


def routes_of(desk: Desk) -> list[Any]:
    """All routes of a page, for Starlette."""
    from starlette.concurrency import run_in_threadpool
    from starlette.responses import FileResponse, Response, StreamingResponse
    from starlette.routing import Route

    from pynas.steer.server import stream

    def get(path: str, answer: Callable[[Steering, Request], Any]) -> Route:
        async def endpoint(request: Request) -> Response:
            return await run_in_threadpool(_answered, lambda: answer(desk.steering, request))

        return Route(path, endpoint, methods=["GET"])

    def post(path: str, answer: Callable[[Steering, Body], Any]) -> Route:
        async def endpoint(request: Request) -> Response:
            raw = await request.body()
            return await run_in_threadpool(_answered, lambda: answer(desk.steering, _body(raw)))

        return Route(path, endpoint, methods=["POST"])

    async def page(request: Request) -> Response:
        return FileResponse(STATIC / "index.html", media_type=TYPES[".html"])

    async def static(request: Request) -> Response:
        name = request.path_params["path"]
        found = (STATIC / name).resolve() if name.isprintable() else STATIC
        if STATIC.resolve() not in found.parents or found.suffix not in TYPES or not found.is_file():
            return _error(404, "not_found", "no such file")
        return FileResponse(found, media_type=TYPES[found.suffix])

    async def plotly(request: Request) -> Response:
        import plotly as installed

        file = Path(str(installed.__file__)).parent / "package_data" / "plotly.min.js"
        if not file.is_file():
            return _error(404, "not_found", "the installed plotly has no plotly.min.js")
        kept = {"cache-control": "private, max-age=86400"}
        return FileResponse(file, media_type=TYPES[".js"], headers=kept)

    async def events(request: Request) -> Response:
        try:
            since = _number(request, "since", header="last-event-id")
        except Malformed as error:
            return _error(400, "bad_request", str(error), error.argument)
        return StreamingResponse(stream(desk, since), media_type="text/event-stream")

    async def export(request: Request) -> Response:
        def make() -> Response:
            found = _export(desk.steering, _number(request, "trial"), request.query_params.get("format", ""))
            headers = {
                "content-disposition": f'attachment; filename="{found.name}"',
                "x-pynas-weights": found.weights,
            }
            return Response(found.content, media_type=found.media_type, headers=headers)

        return await run_in_threadpool(_answered, make)

    return [
        Route("/", page, methods=["GET"]),
        Route("/static/{path:path}", static, methods=["GET"]),
        Route("/vendor/plotly.min.js", plotly, methods=["GET"]),
        get("/api/state", lambda steering, request: steering.state()),
        get("/api/template", lambda steering, request: steering.template()),
        get("/api/candidates", lambda steering, request: steering.candidates()),
        get("/api/trials", lambda steering, request: {"trials": steering.trials(_number(request, "from"))}),
        get("/api/blocks", lambda steering, request: steering.blocks()),
        get("/api/curves", lambda steering, request: {"points": steering.curves(_number(request, "from"))}),
        get(
            "/api/actions", lambda steering, request: {"actions": steering.actions(_number(request, "from"))}
        ),
        Route("/api/events", events, methods=["GET"]),
        post("/api/actions", _act),
        post("/api/preview", _preview),
        post("/api/parse", _parse),
        get("/api/runs", lambda steering, request: _runs(steering)),
        get("/api/runs/{run}", lambda steering, request: _run(steering, request.path_params["run"])),
        Route("/api/export", export, methods=["GET"]),
        get("/api/design/palette", lambda steering, request: _design.palette(desk)),
        post("/api/design/check", lambda steering, body: _design.check(desk, body)),
        post("/api/design/save", lambda steering, body: _design.save(desk, body)),
        post("/api/design/open", lambda steering, body: _design.open_template(desk, body)),
    ]


def _answered(answer: Callable[[], Any]) -> Response:
    """The answer as JSON, or what went wrong; everything that is raised becomes an error of the protocol."""
    from starlette.responses import Response

    try:
        found = answer()
    except Malformed as error:
        return _error(400, "bad_request", str(error), error.argument)
    except (NotFound, _design.NoDesign) as error:
        return _error(404, "not_found", str(error))
    except Ended as error:
        return _error(503, "ended", str(error))
    except UserError as error:  # Refused, and what pynas refuses by itself
        return _error(409, "refused", str(error))
    except Exception as error:
        return _error(500, "error", explained(error))
    if isinstance(found, Response):
        return found
    text = json.dumps(finite(found), separators=(",", ":"), allow_nan=False)
    return Response(text, media_type="application/json")


async def too_large(request: Request, error: Exception) -> Response:
    """The answer to a body that goes on and on."""
    return _error(413, "too_large", f"a body is at most {LARGEST_BODY:,} bytes")


async def unknown(request: Request, error: Exception) -> Response:
    """The answer where no route fits."""
    status = int(getattr(error, "status_code", 404))
    return _error(status, *UNKNOWN[status])


def _error(status: int, code: str, message: str, argument: str | None = None) -> Response:
    from starlette.responses import JSONResponse

    told = {"code": code, "message": message, "argument": argument}
    return JSONResponse({"error": told}, status_code=status)


def _body(raw: bytes) -> Body:
    try:
        found = strict_json.loads(raw.decode("utf-8"))
    except ValueError as error:
        raise Malformed(f"body: no JSON: {error}") from None
    if not isinstance(found, dict):
        raise Malformed("body: expected a JSON object")
    return found


def _number(request: Request, name: str, *, header: str = "") -> int:
    text = (header and request.headers.get(header)) or request.query_params.get(name, "0")
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise Malformed(f"{name}: expected a whole number of at least 0, got {text[:40]!r}", name)
    return int(text)


# ---- acting ----------------------------------------------------------------------------------------


def _action_of(steering: Steering, body: Body) -> tuple[object, str, Body]:
    who = text_of(body.get("who", "page"), "who")
    session = body.get("session", steering.session)
    if session != steering.session:
        raise Refused("the page shows another search: it was opened or started again meanwhile; reload it")
    return body.get("kind"), who, {k: v for k, v in body.items() if k not in ("kind", "who", "session")}


def _act(steering: Steering, body: Body) -> dict[str, Any]:
    kind, who, fields = _action_of(steering, body)
    if not isinstance(kind, str) or not all(name.isidentifier() for name in fields) or "self" in fields:
        raise Malformed("kind: expected the kind of an action, and its fields by name", "kind")
    _, document, revision = steering.acted(kind, who, fields)
    return {"action": document, "revision": revision}


def _preview(steering: Steering, body: Body) -> dict[str, Any]:
    kind, _, fields = _action_of(steering, body)
    return steering.preview(kind, fields)


def _parse(steering: Steering, body: Body) -> dict[str, Any]:
    def ask(search: SteeredSearch) -> dict[str, Any]:
        if "decisions" in body:
            arch: Architecture = decisions_of(search.space, body["decisions"])
        else:
            arch = parsed(search.space, body.get("text"))
        costs = search.costs_with({})
        known = [trial.number for trial in search.trials if trial.architecture == arch]
        return {
            "decisions": arch.decisions,
            "text": search.space.format(arch),
            "allowed": is_allowed(search.state.settings.allowed, arch.decisions),
            "feasible": search.adviser.costs(search.state.settings).feasible(arch),
            "trial": known[-1] if known else None,
            **costs(arch),
        }

    return steering.call(ask)


# ---- runs and files --------------------------------------------------------------------------------


def _runs(steering: Steering) -> dict[str, Any]:
    def ask(search: SteeredSearch) -> list[dict[str, Any]]:
        return [facts for facts, _, _ in search.runs()]

    return {"runs": steering.call(ask)}


def _run(steering: Steering, number: str) -> dict[str, Any]:
    def ask(search: SteeredSearch) -> dict[str, Any]:
        for facts, trials, actions in search.runs(details=number):
            if str(facts["id"]) == number:
                return _curve(facts, trials, actions)
        raise NotFound(f"no run {number[:20]!r} in this store")

    return steering.call(ask)


def _curve(facts: Mapping[str, Any], trials: Any, actions: Any) -> dict[str, Any]:
    objective = facts["objectives"][0]
    values = [
        trial.evaluation.scores.get(objective) if trial.evaluation.status == "ok" else None
        for trial in trials
    ]
    best: list[tuple[int, float]] = []
    for number, value in enumerate(values):
        if value is not None and (not best or value > best[-1][1]):
            best.append((number, value))
    return {**facts, "values": values, "best": best, "steps": actions}


def _export(steering: Steering, number: int, format: str) -> Any:
    from pynas.export import found_by
    from pynas.steer import _export as exporting

    def ask(search: SteeredSearch) -> Callable[[], Any]:
        if number >= len(search.trials):
            raise NotFound(f"trial: there are {len(search.trials)}, no trial {number}")
        trial = search.trials[number]
        by, who = search.by[number]
        found = found_by(search.run.config, trial, len(search.trials))
        found |= {"steered": f"by {counted(len(search.actions), 'action')}", "proposed by": who or by}
        return lambda: exporting.export(
            search.space,
            trial,
            format,
            found=found,
            training=search.training,
            steps=search.steps,
            seed=search.seed,
            **search.task,
        )

    if format not in formats():
        raise Malformed(f"format: expected one of {', '.join(formats())}", "format")
    return steering.compute(steering.call(ask))
