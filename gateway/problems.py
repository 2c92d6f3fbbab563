"""The one table of what the gateway itself has to complain about: code, status, title.

Written as `application/problem+json` (RFC 9457). `code` is stable and for programs, `detail` is a
sentence for people. Nothing else in the project knows which status a trouble has.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import orjson

from gateway.asgi import OWN_HEADERS, Answer

__all__ = ["CONTENT_TYPE", "KINDS", "Code", "Kind", "Problem", "code_of_status", "problem_answer"]

CONTENT_TYPE = b"application/problem+json"


class Code(StrEnum):
    """The stable names of the gateway's problems; each has a heading in `docs/errors.md`."""

    BAD_REQUEST = "bad_request"
    BAD_DELAY = "bad_delay"
    BAD_IDEMPOTENCY_KEY = "bad_idempotency_key"
    AMBIGUOUS_LENGTH = "ambiguous_length"
    BODY_INCOMPLETE = "body_incomplete"
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    CROSS_SITE = "cross_site"
    NOT_FOUND = "not_found"
    UNKNOWN_FUNCTION = "unknown_function"
    UNKNOWN_INVOCATION = "unknown_invocation"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    BODY_TIMEOUT = "body_timeout"
    ALREADY_ENDED = "already_ended"
    BODY_TOO_LARGE = "body_too_large"
    UNKNOWN_HOST = "unknown_host"
    IDEMPOTENCY_KEY_REUSED = "idempotency_key_reused"
    TOO_MANY_WAITING = "too_many_waiting"
    HEADERS_TOO_LARGE = "headers_too_large"
    INTERNAL = "internal"
    UNKNOWN_TRANSFER_ENCODING = "unknown_transfer_encoding"
    RUNNER_LOST = "runner_lost"
    BAD_REPLY = "bad_reply"
    CANCELLED = "cancelled"
    RESPONSE_TOO_LARGE = "response_too_large"
    BROKER_UNAVAILABLE = "broker_unavailable"
    NOT_READY = "not_ready"
    NO_RUNNER = "no_runner"
    BUSY = "busy"
    OVERLOADED = "overloaded"
    TOO_MANY_BODIES = "too_many_bodies"
    STORE_FULL = "store_full"
    TIMED_OUT = "timed_out"
    NO_ANSWER = "no_answer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What all problems of one code have in common. `retry_after_s`: when asking again makes sense."""

    status: int
    title: str
    retry_after_s: int | None = None
    close: bool = False


KINDS: dict[Code, Kind] = {
    Code.BAD_REQUEST: Kind(status=400, title="The request cannot be understood"),
    Code.BAD_DELAY: Kind(status=400, title="The invocation cannot be put off like that"),
    Code.BAD_IDEMPOTENCY_KEY: Kind(status=400, title="The idempotency key is none"),
    Code.AMBIGUOUS_LENGTH: Kind(status=400, title="The request has two lengths", close=True),
    Code.BODY_INCOMPLETE: Kind(status=400, title="The body is incomplete", close=True),
    Code.UNAUTHORIZED: Kind(status=401, title="An API key is needed"),
    Code.FORBIDDEN: Kind(status=403, title="The API key does not allow this"),
    Code.CROSS_SITE: Kind(status=403, title="Another site's page asks for this"),
    Code.NOT_FOUND: Kind(status=404, title="There is nothing at this address"),
    Code.UNKNOWN_FUNCTION: Kind(status=404, title="There is no such function"),
    Code.UNKNOWN_INVOCATION: Kind(status=404, title="There is no such invocation"),
    Code.METHOD_NOT_ALLOWED: Kind(status=405, title="The method is not allowed here"),
    Code.BODY_TIMEOUT: Kind(status=408, title="The body did not come in time", close=True),
    Code.ALREADY_ENDED: Kind(status=409, title="The invocation has ended already"),
    Code.BODY_TOO_LARGE: Kind(status=413, title="The body is too large", close=True),
    Code.UNKNOWN_HOST: Kind(status=421, title="The gateway is not known by this name"),
    Code.IDEMPOTENCY_KEY_REUSED: Kind(status=422, title="The idempotency key belongs to another request"),
    Code.TOO_MANY_WAITING: Kind(status=429, title="Too many invocations wait already", retry_after_s=10),
    Code.HEADERS_TOO_LARGE: Kind(status=431, title="The headers are too large", close=True),
    Code.INTERNAL: Kind(status=500, title="The gateway failed"),
    Code.UNKNOWN_TRANSFER_ENCODING: Kind(status=501, title="The transfer encoding is unknown", close=True),
    Code.RUNNER_LOST: Kind(status=502, title="The runner of this call was lost"),
    Code.BAD_REPLY: Kind(status=502, title="The runner's reply cannot be understood"),
    Code.CANCELLED: Kind(status=502, title="The call was cancelled"),
    Code.RESPONSE_TOO_LARGE: Kind(status=502, title="The function's response is too large"),
    Code.BROKER_UNAVAILABLE: Kind(status=503, title="The broker is away", retry_after_s=2),
    Code.NOT_READY: Kind(status=503, title="The gateway is not ready", retry_after_s=1),
    Code.NO_RUNNER: Kind(status=503, title="No runner serves this function", retry_after_s=2),
    Code.BUSY: Kind(status=503, title="All runners are busy", retry_after_s=1),
    Code.OVERLOADED: Kind(status=503, title="The gateway has too much to do", retry_after_s=1),
    Code.TOO_MANY_BODIES: Kind(status=503, title="Too many bodies at once", retry_after_s=1, close=True),
    Code.STORE_FULL: Kind(status=503, title="The broker has no room for more", retry_after_s=10),
    Code.TIMED_OUT: Kind(status=504, title="The function took too long"),
    Code.NO_ANSWER: Kind(status=504, title="The runner did not answer in time"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One occurrence: which kind, and a sentence about it."""

    code: Code
    detail: str

    @property
    def kind(self) -> Kind:
        """What all problems of this code have in common."""
        return KINDS[self.code]

    def to_json(self) -> dict[str, Any]:
        """The members of RFC 9457, and `code`."""
        return {
            "type": f"urn:quarterhour:problem:{self.code}",
            "title": self.kind.title,
            "status": self.kind.status,
            "detail": self.detail,
            "code": self.code,
        }


def problem_answer(problem: Problem) -> Answer:
    """The problem as an answer, with `Retry-After` (seconds) where trying again makes sense."""
    kind = problem.kind
    headers = [(b"content-type", CONTENT_TYPE), *OWN_HEADERS]
    if kind.status == 401:
        headers.append((b"www-authenticate", b'Bearer realm="quarterhour"'))
    if kind.retry_after_s is not None:
        headers.append((b"retry-after", b"%d" % kind.retry_after_s))
    return Answer(
        status=kind.status, headers=tuple(headers), body=orjson.dumps(problem.to_json()), close=kind.close
    )


def code_of_status(status: int) -> Code:
    """The code for a status that a web framework came up with."""
    match status:
        case 404:
            return Code.NOT_FOUND
        case 405:
            return Code.METHOD_NOT_ALLOWED
        case 408:
            return Code.BODY_TIMEOUT
        case 413:
            return Code.BODY_TOO_LARGE
        case _ if 400 <= status < 500:
            return Code.BAD_REQUEST
        case _:
            return Code.INTERNAL
