"""The reply to a synchronous call, as it travels from the runner to the gateway.

The same envelope as an invocation's: a JSON header and the raw body of the function's response.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

from quarterhour.errors import EnvelopeError
from quarterhour.invocation import pack, unpack
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

__all__ = ["Refusal", "Refused", "Reply", "decode_reply", "encode_reply"]


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


def encode_reply(reply: Reply) -> bytes:
    """The reply as an envelope."""
    match reply:
        case Succeeded(response=response):
            return pack(
                {"result": "succeeded", "status": response.status, "headers": response.headers},
                response.body,
            )
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
                headers = tuple((name, value) for name, value in header["headers"])
                return Succeeded(response=Response(status=header["status"], headers=headers, body=body))
            case "timed_out":
                return TimedOut(limit_s=header["limit_s"])
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
