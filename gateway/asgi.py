"""The words of ASGI that the gateway uses, and its answers in them; no server, no framework."""

from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

__all__ = ["OWN_HEADERS", "Answer", "App", "HeaderPairs", "Message", "Receive", "Scope", "Send", "values_of"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
HeaderPairs = tuple[tuple[bytes, bytes], ...]

# What browsers may do with everything that the gateway itself says: nothing but show it. A page of its own
# says instead what that page needs; what functions answer is theirs. Strict-Transport-Security is not among
# them: it would hold for every other port of the machine as well.
OWN_HEADERS: HeaderPairs = (
    (b"cache-control", b"no-store"),
    (
        b"content-security-policy",
        b"default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A whole answer to a request. `headers` are without those of the connection and the length.

    `close` ends the connection after it: what the client sends on is not to be trusted or waited for.
    """

    status: int
    headers: HeaderPairs = ()
    body: bytes = b""
    close: bool = False


def values_of(scope: Scope, name: bytes) -> list[bytes]:
    """What the request's headers of this name (lower case) say."""
    return [value for header, value in scope["headers"] if header == name]
