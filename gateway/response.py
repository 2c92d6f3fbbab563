"""A reply becomes an answer; the results of synchronous functions as Netlify's clients know them.

What a handler returned was judged by its runner: here it is only written down.
"""

from typing import assert_never

import orjson

from gateway.asgi import OWN_HEADERS, Answer, HeaderPairs
from gateway.problems import Code, Problem, problem_answer
from quarterhour.outcome import (
    Cancelled,
    Crashed,
    Error,
    Failed,
    Outcome,
    Response,
    Succeeded,
    TimedOut,
    error_of,
)

__all__ = ["NOT_FOUND", "accepted", "head_headers", "outcome_answer", "wire_headers"]

NOT_FOUND = Answer(
    status=404,
    headers=((b"content-type", b"text/plain; charset=utf-8"), *OWN_HEADERS),
    body=b"Function not found...",
)

# They belong to the connection or to the gateway, not to the function.
_NOT_THE_FUNCTIONS = frozenset(
    {
        "connection",
        "content-length",
        "date",
        "keep-alive",
        "proxy-connection",
        "server",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "x-nf-request-id",
    }
)

_REPLAYED = (b"idempotent-replayed", b"true")  # as Stripe's API says it; the draft has no word for it


def outcome_answer(outcome: Outcome, *, expose_errors: bool, body_bytes_max: int) -> Answer:
    """The answer to a synchronous call that has run."""
    match outcome:
        case Succeeded(response=response):
            if response.size_bytes > body_bytes_max:
                return problem_answer(_too_large(response, body_bytes_max))
            return _written(response)
        case Failed(error=error):
            return _failed(error, expose_errors=expose_errors)
        case Crashed():
            error = error_of(outcome) or Error(type="Crashed", message="")
            return _failed(error, expose_errors=expose_errors)
        case TimedOut(limit_s=limit_s):
            detail = f"Task timed out after {limit_s:.2f} seconds"
            return problem_answer(Problem(code=Code.TIMED_OUT, detail=detail))
        case Cancelled():
            detail = "The call was cancelled before the function had returned."
            return problem_answer(Problem(code=Code.CANCELLED, detail=detail))
        case _:
            assert_never(outcome)


def accepted(invocation_id: str, *, replayed: bool) -> Answer:
    """The answer to a background request whose invocation is safely queued, maybe since an earlier one."""
    location = (b"location", f"/v1/invocations/{invocation_id}".encode("ascii"))
    return Answer(status=202, headers=(location, _REPLAYED) if replayed else (location,))


def wire_headers(answer: Answer, *, request_id: str | None) -> list[tuple[bytes, bytes]]:
    """All headers of the answer. 204 and 304 have no body, and so no length."""
    headers = list(answer.headers)
    if answer.status not in {204, 304}:
        headers.append((b"content-length", b"%d" % len(answer.body)))
    if request_id is not None:
        headers.append((b"x-nf-request-id", request_id.encode("ascii")))
    if answer.close:
        headers.append((b"connection", b"close"))
    return headers


def head_headers(head: Response, *, request_id: str) -> list[tuple[bytes, bytes]]:
    """The headers of a response whose body follows. Its length is known if it is there already."""
    headers = [*_sendable(head.headers), (b"x-nf-request-id", request_id.encode("ascii"))]
    if head.claim is not None:
        headers.append((b"content-length", b"%d" % head.size_bytes))
    return headers


def _written(response: Response) -> Answer:
    bodiless = response.status in {204, 304}
    return Answer(
        status=response.status,
        headers=_sendable(response.headers),
        body=b"" if bodiless else response.body,
    )


def _sendable(headers: tuple[tuple[str, str], ...]) -> HeaderPairs:
    return tuple(
        (_bytes(lowered), _bytes(value))
        for name, value in headers
        if (lowered := name.lower()) not in _NOT_THE_FUNCTIONS
    )


def _bytes(text: str) -> bytes:
    # A header is bytes; what Latin-1 has no byte for goes as UTF-8, as browsers and curl show it.
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return text.encode()


def _failed(error: Error, *, expose_errors: bool) -> Answer:
    shown: dict[str, object] = {"errorType": error.type, "errorMessage": error.message}
    if expose_errors:
        shown["trace"] = error.trace
    return Answer(
        status=500,
        headers=((b"content-type", b"application/json"), *OWN_HEADERS),
        body=orjson.dumps(shown),
    )


def _too_large(response: Response, body_bytes_max: int) -> Problem:
    detail = f"The function's response has {response.size_bytes} bytes; {body_bytes_max} are allowed."
    return Problem(code=Code.RESPONSE_TOO_LARGE, detail=detail)
