"""The reply to a synchronous call, as it travels from the runner to the gateway.

The same envelope as an invocation's: a JSON header and the raw body of the function's response. A
response that comes bit by bit travels in pieces: its head, chunks of its body, and a reply as its end.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, assert_never

from quarterhour.body import Claim
from quarterhour.errors import EnvelopeError
from quarterhour.invocation import header_pairs, pack, unpack
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

__all__ = [
    "Chunk",
    "Piece",
    "Refusal",
    "Refused",
    "Reply",
    "Streaming",
    "decode_piece",
    "decode_reply",
    "encode_piece",
    "encode_reply",
]


class Refusal(StrEnum):
    """Why a runner did not start a call; the gateway may try another runner."""

    BUSY = "busy"
    DRAINING = "draining"
    NOT_SERVED = "not_served"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The call was not started."""

    reason: Refusal


Reply = Outcome | Refused


@dataclass(frozen=True, slots=True, kw_only=True)
class Streaming:
    """A response begins: its status and headers; the body follows."""

    head: Response


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Some bytes of the body."""

    data: bytes


Piece = Streaming | Chunk | Reply


def encode_reply(reply: Reply) -> bytes:
    """The reply as an envelope."""
    match reply:
        case Succeeded(response=response):
            header = {"result": "succeeded", "status": response.status, "headers": response.headers}
            if response.claim is not None:
                header["claim"] = response.claim.to_json()
            return pack(header, response.body)
        case TimedOut(limit_s=limit_s):
            return pack({"result": "timed_out", "limit_s": limit_s}, b"")
        case Failed() | Crashed() | Cancelled():
            error = error_of(reply)
            return pack({"result": reply.result, "error": error.to_json() if error else None}, b"")
        case Refused(reason=reason):
            return pack({"result": "refused", "reason": reason}, b"")
        case _:
            assert_never(reply)


def decode_reply(data: bytes) -> Reply:
    """The reply in an envelope. Raises `EnvelopeError`.

    A crash comes back as a failure of type `Crashed`: the gateway only shows it.
    """
    header, body = unpack(data)
    try:
        match header["result"]:
            case "succeeded":
                return Succeeded(response=_response(header, body))
            case "timed_out":
                return TimedOut(limit_s=float(header["limit_s"]))
            case "failed" | "crashed":
                return Failed(error=Error.from_json(header["error"]))
            case "cancelled":
                return Cancelled()
            case "refused":
                return Refused(reason=Refusal(header["reason"]))
            case other:
                message = f"A reply has the unknown result {other!r}."
                raise EnvelopeError(message)
    except (KeyError, TypeError, ValueError) as error:
        message = f"A reply's header lacks or garbles {error}."
        raise EnvelopeError(message) from None


def encode_piece(piece: Piece) -> bytes:
    """A piece of a response that comes bit by bit, as an envelope."""
    match piece:
        case Streaming(head=head):
            return pack({"result": "streaming", "status": head.status, "headers": head.headers}, b"")
        case Chunk(data=data):
            return pack({"result": "chunk"}, data)
        case _:
            return encode_reply(piece)


def decode_piece(data: bytes) -> Piece:
    """The piece in an envelope. Raises `EnvelopeError`."""
    header, body = unpack(data)
    match header.get("result"):
        case "chunk":
            return Chunk(data=body)
        case "streaming":
            try:
                return Streaming(head=_response(header, b""))
            except (KeyError, TypeError, ValueError) as error:
                message = f"The head of a response lacks or garbles {error}."
                raise EnvelopeError(message) from None
        case _:
            return decode_reply(data)


def _response(header: dict[str, Any], body: bytes) -> Response:
    status = header["status"]
    if type(status) is not int or not 200 <= status <= 599:
        message = "the status, which is a number from 200 to 599"
        raise ValueError(message)
    claim = Claim.from_json(header["claim"]) if "claim" in header else None
    return Response(status=status, headers=header_pairs(header["headers"]), body=body, claim=claim)
