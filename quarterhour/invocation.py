"""The invocation: one accepted request to run a function, and the envelope that carries it.

Envelope: 4 bytes big-endian length of the header, the header as JSON, the raw body. The gateway
writes it once; broker, runner and worker pass the body on as bytes, never decoded, never base64. A
large body lies in the broker: its envelope ends with the header, which has a claim on it, and the
worker is sent the two as one again.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from quarterhour.body import Claim
from quarterhour.errors import EnvelopeError, UnknownVersion
from quarterhour.function import Mode
from quarterhour.outcome import Error

__all__ = [
    "ENVELOPE_VERSION",
    "Invocation",
    "Request",
    "decode_invocation",
    "encode_invocation",
    "header_pairs",
    "next_attempt",
    "pack",
    "unpack",
]

ENVELOPE_VERSION = 1
ENVELOPE_VERSION_WITH_CLAIM = 2  # who knows none would take the body for empty
HEADER_BYTES_MAX = 1024 * 1024
EARLIER_ERRORS_MAX = 10
_TEXTS = ("id", "function", "method", "path", "query", "client", "scheme")
_NUMBERS = ("accepted_at", "due_at")
EARLIER_MESSAGE_LENGTH_MAX = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the client sent, verbatim: the runtimes make their events out of it.

    `path` and `query` are the raw, still percent-encoded text of the request line (`query` without
    its `?`); `headers` are pairs in the order of arrival, names lower case, values latin-1. `params` are
    the parts of the path that the function's route has names for, as raw as the path.
    """

    method: str
    path: str
    query: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    client: str = ""
    scheme: str = "http"
    params: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Invocation:
    """One accepted request to run a function.

    `attempt` is 1 for the first; `accepted_at` and `due_at` are Unix seconds; `body` is None when
    the request had none (`b""` is an empty one), and when it is a large one: `claim` says where that
    lies; `errors` are those of the earlier attempts, the
    last `EARLIER_ERRORS_MAX` of them, shortened.
    """

    id: str
    function: str
    mode: Mode
    attempt: int
    accepted_at: float
    due_at: float
    request: Request
    body: bytes | None
    claim: Claim | None = None
    trace: str | None = None
    errors: tuple[Error, ...] = ()


def next_attempt(invocation: Invocation, *, due_at: float, error: Error) -> Invocation:
    """The same invocation as its next attempt, due at `due_at`, with what went wrong in this one."""
    # The whole error is evidence, which is the record's; the envelope only tells the handler.
    brief = Error(type=error.type, message=error.message[:EARLIER_MESSAGE_LENGTH_MAX])
    return replace(
        invocation,
        attempt=invocation.attempt + 1,
        due_at=due_at,
        errors=(*invocation.errors, brief)[-EARLIER_ERRORS_MAX:],
    )


def pack(header: dict[str, Any], body: bytes) -> bytes:
    """An envelope of `header` (plain JSON values) and `body`."""
    text = orjson.dumps(header)
    return b"".join((len(text).to_bytes(4, "big"), text, body))


def unpack(data: bytes) -> tuple[dict[str, Any], bytes]:
    """The header and the body of an envelope. Raises `EnvelopeError`."""
    length = int.from_bytes(data[:4], "big")
    if len(data) < 4 or length > HEADER_BYTES_MAX or length > len(data) - 4:
        message = f"An envelope of {len(data)} bytes says its header has {length}."
        raise EnvelopeError(message)
    try:
        header = orjson.loads(data[4 : 4 + length])
    except orjson.JSONDecodeError as error:
        message = f"An envelope's header is not JSON: {error}."
        raise EnvelopeError(message) from None
    if not isinstance(header, dict):
        message = f"An envelope's header is a JSON {type(header).__name__}, not an object."
        raise EnvelopeError(message)
    return header, data[4 + length :]


def encode_invocation(invocation: Invocation) -> bytes:
    """The invocation as an envelope."""
    request = invocation.request
    header = {
        "v": ENVELOPE_VERSION if invocation.claim is None else ENVELOPE_VERSION_WITH_CLAIM,
        "id": invocation.id,
        "function": invocation.function,
        "mode": invocation.mode,
        "attempt": invocation.attempt,
        "accepted_at": invocation.accepted_at,
        "due_at": invocation.due_at,
        "method": request.method,
        "path": request.path,
        "query": request.query,
        "headers": request.headers,
        "client": request.client,
        "scheme": request.scheme,
        "has_body": invocation.body is not None or invocation.claim is not None,
        "trace": invocation.trace,
        "errors": [error.to_json() for error in invocation.errors],
    }
    if request.params:
        header["params"] = request.params
    if invocation.claim is not None:
        header["claim"] = invocation.claim.to_json()
    return pack(header, invocation.body or b"")


def header_pairs(raw: Any) -> tuple[tuple[str, str], ...]:
    """The headers in an envelope. Raises `TypeError`, `ValueError`."""
    pairs = tuple((name, value) for name, value in raw)
    for name, value in pairs:
        if type(name) is not str or type(value) is not str:
            message = "the headers, which are pairs of texts"
            raise TypeError(message)
    return pairs


def _check(header: dict[str, Any]) -> None:
    """That values which are worked with are of the right kind. Raises `KeyError`, `TypeError`."""
    for key in _TEXTS:
        if type(header[key]) is not str:
            raise TypeError(key)
    for key in _NUMBERS:
        if type(header[key]) not in (int, float):
            raise TypeError(key)
    if type(header["attempt"]) is not int or not isinstance(header["trace"], str | None):
        message = "attempt or trace"
        raise TypeError(message)
    params = header.get("params", {})
    if not isinstance(params, dict) or not all(isinstance(value, str) for value in params.values()):
        message = "params"
        raise TypeError(message)


def decode_invocation(data: bytes) -> Invocation:
    """The invocation in an envelope. Raises `UnknownVersion`, `EnvelopeError`."""
    header, body = unpack(data)
    if header.get("v") not in (ENVELOPE_VERSION, ENVELOPE_VERSION_WITH_CLAIM):  # it may be a list
        known = f"{ENVELOPE_VERSION} and {ENVELOPE_VERSION_WITH_CLAIM}"
        message = f"An envelope has version {header.get('v')!r}; this process knows {known}."
        raise UnknownVersion(message)
    try:
        _check(header)
        claim = Claim.from_json(header["claim"]) if header["v"] == ENVELOPE_VERSION_WITH_CLAIM else None
        return Invocation(
            id=header["id"],
            function=header["function"],
            mode=Mode(header["mode"]),
            attempt=header["attempt"],
            accepted_at=header["accepted_at"],
            due_at=header["due_at"],
            request=Request(
                method=header["method"],
                path=header["path"],
                query=header["query"],
                headers=header_pairs(header["headers"]),
                client=header["client"],
                scheme=header["scheme"],
                params=header.get("params", {}),
            ),
            body=body if header["has_body"] and claim is None else None,
            claim=claim,
            trace=header["trace"],
            errors=tuple(Error.from_json(error) for error in header["errors"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        message = f"An envelope's header lacks or garbles {error}."
        raise EnvelopeError(message) from None
