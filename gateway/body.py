"""The body of a request, read within limits of size and time.

An answer that comes before the end of the body is no use if the client never reads it: a connection
that is closed with unread bytes is reset, and takes the answer with it. So what is left is drained.
"""

import asyncio
from contextlib import suppress
from dataclasses import dataclass

from gateway.asgi import Receive, Scope
from gateway.problems import Code, Problem
from gateway.request import Head

__all__ = ["BodyLimits", "Incoming"]

_DIGITS_MAX = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyLimits:
    """How long to wait for a body, and how much of an unwanted one to read. Seconds and bytes.

    `silence_s` bounds each pause, `whole_s` the whole body: 6 MiB take 5 minutes at 20 kB/s. A client
    that stops sending once it sees the answer is waited for no longer than `drain_silence_s`.
    """

    silence_s: float = 20.0
    whole_s: float = 300.0
    drain_silence_s: float = 0.5
    drain_s: float = 10.0
    drain_bytes_max: int = 64 * 1024 * 1024


class Incoming:
    """The body of one request. `unread`: some of it may still come."""

    __slots__ = ("_head", "_limits", "_receive", "unread")

    def __init__(self, scope: Scope, head: Head, receive: Receive, limits: BodyLimits) -> None:
        self._head = head
        self._receive = receive
        self._limits = limits
        # In HTTP/1 a request without a length has no body; later versions need not tell beforehand.
        self.unread = head.has_body or not scope["http_version"].startswith("1")

    async def read(self, bytes_max: int) -> bytes | Problem | None:
        """The whole body, None if the request has none, or what is wrong with it."""
        if not self.unread:
            return None
        length = self._head.length
        if length is not None and (len(length) > _DIGITS_MAX or int(length) > bytes_max):
            return _too_large(bytes_max)
        chunks: list[bytes] = []
        problem = await self._collect(chunks, bytes_max)
        if problem is not None:
            return problem
        self.unread = False
        body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        return body if body or self._head.has_body else None

    async def _collect(self, chunks: list[bytes], bytes_max: int) -> Problem | None:
        size = 0
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + self._limits.whole_s
        try:
            async with asyncio.timeout(self._limits.silence_s) as timer:
                while True:
                    message = await self._receive()
                    if message["type"] != "http.request":
                        self.unread = False
                        detail = "The connection ended, or was HTTP no more, before the end of the body."
                        return Problem(code=Code.BODY_INCOMPLETE, detail=detail)
                    chunk: bytes = message.get("body", b"")
                    size += len(chunk)
                    if size > bytes_max:
                        return _too_large(bytes_max)
                    if chunk:
                        chunks.append(chunk)
                    if not message.get("more_body", False):
                        return None
                    timer.reschedule(min(loop.time() + self._limits.silence_s, ends_at))
        except TimeoutError:
            self.unread = False  # nor is it waited for any longer
            detail = f"{size} bytes of the body came, and then the gateway stopped waiting for the rest."
            return Problem(code=Code.BODY_TIMEOUT, detail=detail)

    async def drain(self) -> None:
        """Read what is left and drop it, until its end or a limit."""
        left = self._limits.drain_bytes_max
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + self._limits.drain_s
        with suppress(TimeoutError):
            async with asyncio.timeout(self._limits.drain_silence_s) as timer:
                while left > 0:
                    message = await self._receive()
                    if message["type"] != "http.request" or not message.get("more_body", False):
                        return
                    left -= len(message.get("body", b""))
                    timer.reschedule(min(loop.time() + self._limits.drain_silence_s, ends_at))


def _too_large(bytes_max: int) -> Problem:
    detail = f"The body has more than the {bytes_max} bytes that are allowed."
    return Problem(code=Code.BODY_TOO_LARGE, detail=detail)
