"""The routes of the API, health and metrics, and how Quart's own errors look. No decisions here."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import orjson
import structlog
from quart import Quart, Response, request
from werkzeug.exceptions import HTTPException

from gateway.access import CALLER, Caller
from gateway.api.openapi import document
from gateway.api.page import CONTENT_TYPE as PAGE_TYPE
from gateway.api.page import HEADERS as PAGE_HEADERS
from gateway.api.page import invocation_page, problem_page
from gateway.api.shapes import function_shape, invocation_shape, iso_time, target_shapes
from gateway.api.statuses import WAIT_MAX_S, Statuses
from gateway.asgi import OWN_HEADERS, Scope
from gateway.directory import Functions, Runners
from gateway.metrics import CONTENT_TYPE, Metrics
from gateway.problems import Code, Problem, code_of_status, problem_answer
from quarterhour.broker.port import Queue, Status
from quarterhour.clock import Clock
from quarterhour.errors import BrokerUnavailable
from quarterhour.ids import is_invocation_id
from quarterhour.keys import Role
from quarterhour.lifecycle import State
from quarterhour.record import Record

__all__ = ["ApiRooms", "add_routes"]

_CANCEL_AGAIN = "It is not known whether the invocation was cancelled: cancelling it again does no harm."
_OFFERED = ("application/json", "text/html")  # of what a client likes equally well, the first

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiRooms:
    """What the API shows. `ready` says why the gateway is not, or None."""

    functions: Functions
    runners: Runners
    statuses: Statuses
    queue: Queue
    metrics: Metrics
    clock: Clock
    ready: Callable[[], Problem | None]


def add_routes(app: Quart, rooms: ApiRooms) -> None:
    """Give `app` everything but the functions."""
    _add_headers(app)
    _add_errors(app)
    _add_document(app)
    _add_health(app, rooms)
    _add_directory(app, rooms)
    _add_invocations(app, rooms)


def _add_headers(app: Quart) -> None:
    @app.after_request
    async def own_headers(response: Response) -> Response:
        for name, value in OWN_HEADERS:
            response.headers.setdefault(name.decode("ascii"), value.decode("ascii"))
        return response


def _add_errors(app: Quart) -> None:
    async def http_error(error: HTTPException) -> Any:
        status = error.code or 500
        if status < 400:
            return error.get_response()
        detail = error.description or "The gateway cannot answer this request."
        answer = _problem(Problem(code=code_of_status(status), detail=detail))
        if status == 405 and (allowed := dict(error.get_headers()).get("Allow")):
            answer.headers["Allow"] = allowed
        return answer

    async def broker_away(error: BrokerUnavailable) -> Response:
        return _problem(Problem(code=Code.BROKER_UNAVAILABLE, detail=str(error)))

    async def failed(error: Exception) -> Response:
        log.error("request_failed", path=request.path, exc_info=error)
        return _problem(Problem(code=Code.INTERNAL, detail="The gateway failed; its log says why."))

    app.register_error_handler(HTTPException, http_error)
    app.register_error_handler(BrokerUnavailable, broker_away)
    app.register_error_handler(Exception, failed)


def _add_document(app: Quart) -> None:
    text = orjson.dumps(document())

    @app.get("/openapi.json")
    async def openapi() -> Response:
        return Response(text, content_type="application/json")


def _add_health(app: Quart, rooms: ApiRooms) -> None:
    @app.get("/healthz")
    async def healthz() -> Response:
        return _json({"status": "ok"})

    @app.get("/readyz")
    async def readyz() -> Response:
        problem = rooms.ready()
        return _json({"status": "ready"}) if problem is None else _problem(problem)

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(rooms.metrics.text(), content_type=CONTENT_TYPE)


def _add_directory(app: Quart, rooms: ApiRooms) -> None:
    @app.get("/v1/functions")
    async def functions() -> Response:
        names = sorted(filter(_readable, rooms.functions.by_name))
        # A runner announces before its first beat, but the beat may be heard first.
        unread = sorted(filter(_readable, rooms.runners.served - rooms.functions.by_name.keys()))
        return _json({"functions": [_function(rooms, name) for name in names], "unread": unread})

    @app.get("/v1/functions/<name>")
    async def function(name: str) -> Response:
        if name not in rooms.functions.by_name or not _readable(name):
            detail = f"Nobody has announced a function {name[:128]!r}; GET /v1/functions lists them all."
            return _problem(Problem(code=Code.UNKNOWN_FUNCTION, detail=detail))
        return _json(_function(rooms, name))

    @app.get("/v1/runners/targets")
    async def targets() -> Response:
        return _json(target_shapes(rooms.runners.beats))


def _add_invocations(app: Quart, rooms: ApiRooms) -> None:
    @app.get("/v1/invocations/<invocation_id>")
    async def invocation(invocation_id: str) -> Response:
        # Whoever asks to wait is a program, whatever its Accept says.
        wait = request.args.get("wait")
        as_page = wait is None and request.accept_mimetypes.best_match(_OFFERED) == "text/html"
        try:
            found = await _find(rooms.statuses, invocation_id, "0" if wait is None else wait)
        except BrokerUnavailable as error:
            found = Problem(code=Code.BROKER_UNAVAILABLE, detail=str(error))
        if as_page:
            response = _page(found, now=rooms.statuses.now(), refresh=request.args.get("refresh") != "off")
        elif isinstance(found, Problem):
            response = _problem(found)
        else:
            response = _json(invocation_shape(found))
        response.vary.add("Accept")
        return response

    @app.delete("/v1/invocations/<invocation_id>")
    async def cancel(invocation_id: str) -> Response:
        try:
            found = await _cancel(rooms, invocation_id)
        except BrokerUnavailable as error:
            found = Problem(code=Code.BROKER_UNAVAILABLE, detail=f"{error} {_CANCEL_AGAIN}")
        return _problem(found) if isinstance(found, Problem) else _json(invocation_shape(found))


async def _cancel(rooms: ApiRooms, invocation_id: str) -> Status | Problem:
    """The invocation once it is cancelled. Raises `BrokerUnavailable`."""
    if not is_invocation_id(invocation_id):
        return _unknown_invocation()
    if not _caller().may_for_all(Role.ADMIN):
        status = await rooms.statuses.status(invocation_id, 0)
        if status is None or not _readable(status.record.function):
            return _unknown_invocation()
        if not _caller().may(Role.ADMIN, status.record.function):
            detail = "The API key of this request is not one that may cancel invocations of this function."
            return Problem(code=Code.FORBIDDEN, detail=detail)
    record = await rooms.queue.cancel(invocation_id)
    if record is None:
        return _unknown_invocation()
    return Status(record=record) if record.state is State.CANCELLED else _already_ended(record)


def _already_ended(record: Record) -> Problem:
    how = "succeeded" if record.state is State.SUCCEEDED else "was set aside as dead"
    detail = (
        f"Invocation {record.id} {how} at {iso_time(record.finished_at)}; there is nothing left to cancel."
    )
    return Problem(code=Code.ALREADY_ENDED, detail=detail)


def _unknown_invocation() -> Problem:
    detail = (
        "No background invocation with this id is known. Synchronous ones are not kept, "
        "and background ones are forgotten some days after their end."
    )
    return Problem(code=Code.UNKNOWN_INVOCATION, detail=detail)


async def _find(statuses: Statuses, invocation_id: str, wait: str) -> Status | Problem:
    """What is known of the invocation. Raises `BrokerUnavailable`."""
    wait_s = _wait_s(wait)
    if wait_s is None:
        detail = f"wait must be a number of seconds from 0 to {WAIT_MAX_S:g}."
        return Problem(code=Code.BAD_REQUEST, detail=detail)
    status = None
    if is_invocation_id(invocation_id) and await _may_be_read(statuses, invocation_id):
        status = await statuses.status(invocation_id, wait_s)
    return _unknown_invocation() if status is None else status


async def _may_be_read(statuses: Statuses, invocation_id: str) -> bool:
    # Before any waiting: how long an answer takes must not tell that there is something to wait for.
    if _caller().may_for_all(Role.READ):
        return True
    status = await statuses.status(invocation_id, 0)
    return status is not None and _readable(status.record.function)


def _readable(function: str) -> bool:
    """Whether whoever asks may know of the function; what may not be known is as if it were not there."""
    return _caller().may(Role.READ, function)


def _caller() -> Caller:
    return cast("Caller", cast("Scope", request.scope)[CALLER])  # the edge puts it there


def _function(rooms: ApiRooms, name: str) -> dict[str, Any]:
    return function_shape(
        rooms.functions.by_name[name], runners=len(rooms.runners.serving(name)), now=rooms.clock.now()
    )


def _wait_s(text: str) -> float | None:
    try:
        wait_s = float(text)
    except ValueError:
        return None
    return min(wait_s, WAIT_MAX_S) if 0 <= wait_s < float("inf") else None


def _json(value: Any) -> Response:
    return Response(orjson.dumps(value), content_type="application/json")


def _page(found: Status | Problem, *, now: float, refresh: bool) -> Response:
    if isinstance(found, Problem):
        response = _problem(found)
        response.set_data(problem_page(found))
    else:
        response = Response(invocation_page(invocation_shape(found), now=now, refresh=refresh))
    response.content_type = PAGE_TYPE
    response.headers.update(PAGE_HEADERS)
    return response


def _problem(problem: Problem) -> Response:
    answer = problem_answer(problem)
    response = Response(answer.body, status=answer.status)
    for name, value in answer.headers:
        response.headers[name.decode("ascii")] = value.decode("ascii")
    return response
