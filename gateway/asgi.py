"""The words of ASGI that the gateway uses, and its answers in them; no server, no framework."""

from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Answer", "App", "HeaderPairs", "Message", "Receive", "Scope", "Send"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
HeaderPairs = tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A whole answer to a request. `headers` are without those of the connection and the length.

    `close` ends the connection after it: what the client sends on is not to be trusted or waited for.
    """

    status: int
    headers: HeaderPairs = ()
    body: bytes = b""
    close: bool = False
