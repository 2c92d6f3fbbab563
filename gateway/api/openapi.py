"""The OpenAPI document: what the gateway serves, in a form for programs. Pure; it serves nothing itself.

What other tables say (problems, states, reasons) is taken from them. A test holds its paths to the routes
that there are, and what is answered to its schemas.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import version
from itertools import groupby
from typing import Any, get_args

from gateway.api.statuses import WAIT_MAX_S
from gateway.metrics import CONTENT_TYPE as METRICS_TYPE
from gateway.problems import CONTENT_TYPE as PROBLEM_TYPE
from gateway.problems import KINDS, Code
from quarterhour.function import NAME_LENGTH_MAX, PREFIX, Mode
from quarterhour.lifecycle import State
from quarterhour.outcome import Outcome
from quarterhour.retry import BuryReason

__all__ = ["document"]

Schema = Mapping[str, Any]

JSON = "application/json"
HTML = "text/html"
_WHATEVER: Mapping[str, Schema] = {"*/*": {}}  # what a function may take and answer, whatever the status
_CALL = "Call"
METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")

# What is wrong with a request before anybody looks at where it goes, or with the gateway.
_ANYWHERE = (
    Code.BAD_REQUEST,
    Code.AMBIGUOUS_LENGTH,
    Code.METHOD_NOT_ALLOWED,
    Code.HEADERS_TOO_LARGE,
    Code.INTERNAL,
    Code.UNKNOWN_TRANSFER_ENCODING,
)
# Where a key may be needed, and a gateway without keys talks to its own machine alone.
_KEPT = (Code.UNAUTHORIZED, Code.FORBIDDEN, Code.UNKNOWN_HOST)
# What a request to a function cannot come to; it can come to everything else.
_NOT_OF_FUNCTIONS = frozenset(
    {
        Code.NOT_FOUND,
        Code.UNKNOWN_FUNCTION,
        Code.UNKNOWN_INVOCATION,
        Code.ALREADY_ENDED,
        Code.UNKNOWN_HOST,
        Code.CROSS_SITE,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method: what it is for, what it answers with 200 by media type, and which problems are its own.

    `open`: it never needs a key. `changes`: it is none that only reads.
    """

    summary: str
    shows: Mapping[str, Schema]
    codes: tuple[Code, ...] = ()
    parameters: tuple[Schema, ...] = ()
    open: bool = False
    changes: bool = False

    def to_json(self) -> dict[str, Any]:
        """As the document has it."""
        # A page for people has its problems as pages as well.
        own_types: dict[str, Schema] = {HTML: {}} if HTML in self.shows else {}
        content = {media_type: {"schema": schema} for media_type, schema in self.shows.items()}
        responses = {"200": {"description": "It is here.", "content": content}}
        kept = () if self.open else (*_KEPT, Code.CROSS_SITE) if self.changes else _KEPT
        responses |= _problems((*_ANYWHERE, *kept, *self.codes), own_types)
        return {
            "summary": self.summary,
            "parameters": list(self.parameters),
            "responses": responses,
            **({"security": []} if self.open else {}),
        }


def document() -> dict[str, Any]:
    """The document, as plain JSON values."""
    paths: dict[str, Any] = {path: {"get": one.to_json()} for path, one in _operations().items()}
    paths["/v1/invocations/{invocation_id}"]["delete"] = _cancel().to_json()
    paths[f"{PREFIX}/{{name}}"] = _function_path()
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Quarterhour",
            "summary": "Serverless and background functions on your own machines.",
            "version": version("quarterhour"),
        },
        "servers": [{"url": "/"}],
        "security": [{}, {"bearer": []}, {"key": []}],
        "paths": paths,
        "components": {
            "schemas": _schemas(),
            "responses": _call_responses(),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
    }


def _operations() -> dict[str, Operation]:
    return {
        "/v1/functions": Operation(
            summary="All functions that runners have announced, and the names of those that a runner serves "
            "but whose announcement is still to be read.",
            shows={JSON: _object(functions=_list(_ref("Function")), unread=_list(_name()))},
        ),
        "/v1/functions/{name}": Operation(
            summary="One function.",
            shows={JSON: _ref("Function")},
            codes=(Code.NOT_FOUND, Code.UNKNOWN_FUNCTION),
            parameters=(_parameter("name", "path", _name(), "The name of a function."),),
        ),
        "/v1/runners/targets": Operation(
            summary="Where runners show their metrics, as Prometheus's HTTP service discovery reads it.",
            shows={JSON: _list(_ref("Target"))},
        ),
        "/v1/invocations/{invocation_id}": Operation(
            summary="A background invocation: its state, its result and its attempts.",
            shows={JSON: _ref("Invocation"), HTML: {}},
            codes=(Code.NOT_FOUND, Code.UNKNOWN_INVOCATION, Code.BROKER_UNAVAILABLE),
            parameters=_invocation_parameters(),
        ),
        "/healthz": Operation(
            summary="Whether the process is alive.",
            shows={JSON: _object(status={"const": "ok"})},
            open=True,
        ),
        "/readyz": Operation(
            summary="Whether requests can be taken.",
            shows={JSON: _object(status={"const": "ready"})},
            codes=(Code.NOT_READY, Code.BROKER_UNAVAILABLE),
            open=True,
        ),
        "/metrics": Operation(
            summary="The gateway's metrics, for Prometheus.", shows={METRICS_TYPE: {"type": "string"}}
        ),
        "/openapi.json": Operation(summary="This document.", shows={JSON: {"type": "object"}}, open=True),
    }


def _cancel() -> Operation:
    return Operation(
        summary="Cancel a background invocation: it does not run, or not on.",
        shows={JSON: _ref("Invocation")},
        codes=(Code.NOT_FOUND, Code.UNKNOWN_INVOCATION, Code.ALREADY_ENDED, Code.BROKER_UNAVAILABLE),
        parameters=(_invocation_id(),),
        changes=True,
    )


def _invocation_id() -> Schema:
    return _parameter("invocation_id", "path", _TEXT, "The id: `x-nf-request-id` of the 202.")


def _invocation_parameters() -> tuple[Schema, ...]:
    wait = {"type": "number", "minimum": 0, "default": 0}
    refresh = {"enum": ["off"]}
    return (
        _invocation_id(),
        _parameter(
            "wait", "query", wait, f"Seconds to wait for its end; more than {WAIT_MAX_S:g} are not waited."
        ),
        _parameter("refresh", "query", refresh, "`off`: the page for browsers does not refresh itself."),
    )


def _function_path() -> dict[str, Any]:
    """The default route of every function, with every method: which ones it takes is its own to say."""
    name = _parameter("name", "path", _name(), "The name of a function.")
    return {"parameters": [name], **{method: _call(method) for method in METHODS}}


def _call(method: str) -> dict[str, Any]:
    body = {"requestBody": {"content": _WHATEVER}} if method in {"put", "post", "patch"} else {}
    responses = {
        name.removeprefix(_CALL): {"$ref": f"#/components/responses/{name}"} for name in _call_responses()
    }
    return {"summary": "Run a function.", **body, "responses": responses}


def _call_responses() -> dict[str, Any]:
    """What a call of a function may come to, whatever the method: `Call` and the status."""
    responses: dict[str, Any] = {
        "202": {
            "description": "The invocation of a background function is on disk, and will run.",
            "headers": {
                "x-nf-request-id": _header(_TEXT, "Its id."),
                "location": _header(_TEXT, "Where its state is shown."),
            },
        },
        "404": {
            "description": "There is no function of this name.",
            "content": {"text/plain": {"schema": _TEXT}, **_WHATEVER},
        },
        "default": {"description": "What the function has answered.", "content": _WHATEVER},
    }
    responses |= _problems((code for code in Code if code not in _NOT_OF_FUNCTIONS), _WHATEVER)
    responses["500"]["content"][JSON] = {"schema": _ref("FunctionError")}
    return {f"{_CALL}{status}": response for status, response in responses.items()}


def _problems(codes: Iterable[Code], others: Mapping[str, Schema]) -> dict[str, Any]:
    """The responses for these problems by their status; `others` are the media types it may have besides."""

    def status(code: Code) -> int:
        return KINDS[code].status

    grouped = groupby(sorted(codes, key=status), status)
    return {str(status): _problem(list(same), others) for status, same in grouped}


def _problem(codes: Sequence[Code], others: Mapping[str, Schema]) -> dict[str, Any]:
    kinds = [KINDS[code] for code in codes]
    schema = {**_ref("Problem"), "properties": {"code": _words(codes), "status": {"const": kinds[0].status}}}
    response: dict[str, Any] = {
        "description": ". ".join(kind.title for kind in kinds) + ".",
        "content": {PROBLEM_TYPE.decode(): {"schema": schema}, **others},
    }
    if any(kind.retry_after_s is not None for kind in kinds):
        after = _header({"type": "integer"}, "Seconds after which to try again.")
        response["headers"] = {"retry-after": after}
    return response


def _schemas() -> dict[str, Schema]:
    return {
        "Function": _function(),
        "Target": _object(targets=_list(_TEXT), labels={"type": "object", "additionalProperties": _TEXT}),
        "Invocation": _invocation(),
        "Attempt": _object(
            attempt=_COUNT,
            started_at=_TIME,
            finished_at=_TIME,
            outcome=_words(_RESULTS),
            error=_or_null(_ref("Error")),
            logs=_TEXT,
            runner=_TEXT,
        ),
        "Error": _object(type=_TEXT, message=_TEXT, trace=_list(_TEXT)),
        "FunctionError": _object("trace", errorType=_TEXT, errorMessage=_TEXT, trace=_list(_TEXT)),
        "Problem": _object(
            type=_TEXT, title=_TEXT, status={"type": "integer"}, detail=_TEXT, code=_words(Code)
        ),
    }


def _function() -> Schema:
    return _object(
        name=_name(),
        mode=_words((Mode.SYNCHRONOUS, Mode.BACKGROUND)),
        runtime=_TEXT,
        url=_TEXT,
        schedule=_or_null(_TEXT),
        next_run=_or_null(_TIME),
        error=_or_null(_TEXT),
        paths=_list(_TEXT),
        excluded_paths=_list(_TEXT),
        methods=_list(_TEXT),
        timeout_s={"type": "number"},
        retries=_COUNT,
        retry_delays_s=_list({"type": "number"}),
        concurrency=_or_null(_COUNT),
        memory_mib=_COUNT,
        runners=_COUNT,
    )


def _invocation() -> Schema:
    return _object(
        "result_truncated",
        id=_TEXT,
        function=_name(),
        mode=_words(Mode),
        state=_words(State),
        attempt=_COUNT,
        accepted_at=_TIME,
        due_at=_TIME,
        started_at=_or_null(_TIME),
        finished_at=_or_null(_TIME),
        next_attempt_at=_or_null(_TIME),
        reason=_or_null(_words(BuryReason)),
        outcome=_or_null(_words(_RESULTS)),
        error=_or_null(_ref("Error")),
        result={"description": "What the function returned: any JSON value, null if nothing."},
        result_truncated={"const": True},
        runner=_or_null(_TEXT),
        attempts=_list(_ref("Attempt")),
    )


_TEXT: Schema = {"type": "string"}
_TIME: Schema = {"type": "string", "format": "date-time"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_RESULTS: tuple[str, ...] = tuple(outcome.result for outcome in get_args(Outcome))


def _name() -> Schema:
    return {"type": "string", "pattern": "^[A-Za-z0-9_-]+$", "minLength": 1, "maxLength": NAME_LENGTH_MAX}


def _object(*optional: str, **properties: Schema) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name not in optional],
        "additionalProperties": False,
    }


def _list(of: Schema) -> Schema:
    return {"type": "array", "items": of}


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _words(words: Iterable[str | StrEnum]) -> Schema:
    return {"enum": [str(word) for word in words]}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _parameter(name: str, place: str, schema: Schema, text: str) -> Schema:
    required = {"required": True} if place == "path" else {}
    return {"name": name, "in": place, "schema": schema, "description": text, **required}


def _header(schema: Schema, text: str) -> Schema:
    return {"schema": schema, "description": text}
