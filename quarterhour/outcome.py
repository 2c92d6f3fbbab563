"""The outcome: what one attempt came to. Outcomes are values, matched exhaustively."""

from dataclasses import dataclass
from typing import Any

from quarterhour.body import Claim

__all__ = [
    "Cancelled",
    "Crashed",
    "Error",
    "Failed",
    "Outcome",
    "Response",
    "Succeeded",
    "TimedOut",
    "error_of",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Error:
    """What went wrong in an attempt, in the shape that Netlify's and Lambda's clients know."""

    type: str
    message: str
    trace: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {"type": self.type, "message": self.message, "trace": list(self.trace)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Error":
        """What `to_json` wrote. Raises `KeyError`, `TypeError`."""
        error = cls(type=data["type"], message=data["message"], trace=tuple(data.get("trace", ())))
        if not all(isinstance(text, str) for text in (error.type, error.message, *error.trace)):
            message = "an error, which is made of texts"
            raise TypeError(message)
        return error


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """What a function returned, judged to be sendable: status 200-599, header pairs, raw body.

    A large body is in the broker, for `claim`; `body` is empty then.
    """

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    claim: Claim | None = None

    @property
    def size_bytes(self) -> int:
        """How many bytes the body has."""
        return len(self.body) if self.claim is None else self.claim.size_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Succeeded:
    """The handler returned.

    `response` answers a synchronous call; `value` is what a background function returned, as JSON
    (None: nothing).
    """

    response: Response = Response()
    value: bytes | None = None
    result = "succeeded"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The handler raised, returned what is no result, or returned a status that means failure.

    `retry`: whether another attempt makes sense; `retry_after_s`: seconds, if the function said so.
    """

    error: Error
    retry: bool = True
    retry_after_s: float | None = None
    result = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedOut:
    """The attempt reached its limit (seconds) and was killed."""

    limit_s: float
    result = "timed_out"


@dataclass(frozen=True, slots=True, kw_only=True)
class Crashed:
    """The worker ended under the handler: `exit_status`, `signal` (such as SIGKILL), or else `detail`."""

    exit_status: int | None = None
    signal: str | None = None
    detail: str = ""
    result = "crashed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancelled:
    """Somebody asked for the attempt to be stopped."""

    result = "cancelled"


Outcome = Succeeded | Failed | TimedOut | Crashed | Cancelled


def error_of(outcome: Outcome) -> Error | None:
    """The error that an outcome stands for, None for a success."""
    match outcome:
        case Succeeded():
            return None
        case Failed(error=error):
            return error
        case TimedOut(limit_s=limit_s):
            return Error(type="TimedOut", message=f"Task timed out after {limit_s:.2f} seconds")
        case Crashed():
            return Error(type="Crashed", message=_crash_message(outcome))
        case Cancelled():
            return Error(type="Cancelled", message="The invocation was cancelled.")


def _crash_message(crashed: Crashed) -> str:
    if crashed.signal is not None:
        how = f"was killed by {crashed.signal}"
    elif crashed.exit_status is not None:
        how = f"exited with status {crashed.exit_status}"
    else:
        how = crashed.detail or "closed its connection"
    return f"The worker {how} before the handler returned."
