"""The body of a request, read within limits of size and time.

An answer that comes before the end of the body is no use if the client never reads it: a connection
that is closed with unread bytes is reset, and takes the answer with it. So what is left is drained.
A large body is never held whole: it is passed on as it comes, and all that is held is counted.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

from gateway.asgi import Receive
from gateway.problems import Code, Problem
from gateway.request import Head
from quarterhour.body import PIECE_BYTES_MAX, Claim

__all__ = ["SMALL_BYTES_MAX", "BodyLimits", "Incoming", "Keep", "Memory"]

Keep = Callable[[AsyncIterator[bytes]], Awaitable[Claim]]

SMALL_BYTES_MAX = 16 * 1024

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


class Memory:
    """How many bytes of bodies the gateway holds, all requests together, and may hold at most.

    A body of up to `SMALL_BYTES_MAX` is not counted. Whoever sends half a body and then waits holds it for as
    long as the limits of time allow: a few hundred such clients could have everybody else refused who sends a
    body. A part that is kept for small ones would only take some more of them. So what most requests send is
    never refused for others' sake; it has a bound all the same, since there are only so many connections, and
    each may take four times as much for its headers.
    """

    __slots__ = ("_left_bytes",)

    def __init__(self, bytes_max: int) -> None:
        self._left_bytes = bytes_max

    def take(self, size_bytes: int) -> bool:
        """Whether there is room for so many more; if so, they are counted until they are given back."""
        if size_bytes > self._left_bytes:
            return False
        self._left_bytes -= size_bytes
        return True

    def give_back(self, size_bytes: int) -> None:
        """So many are held no more."""
        self._left_bytes += size_bytes


class _BadBodyError(Exception):
    """What is wrong with a body that is being passed on."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


class Incoming:
    """The body of one request. `unread`: some of it may still come.

    Up to `inline_bytes_max` it is held, until `release`; a larger one is passed on as it comes.
    """

    __slots__ = (
        "_bytes_max",
        "_ends_at",
        "_head",
        "_held_bytes",
        "_inline_bytes_max",
        "_limits",
        "_memory",
        "_receive",
        "_size_bytes",
        "unread",
    )

    def __init__(
        self,
        head: Head,
        receive: Receive,
        limits: BodyLimits,
        *,
        memory: Memory,
        inline_bytes_max: int,
    ) -> None:
        self._head = head
        self._receive = receive
        self._limits = limits
        self._memory = memory
        self._inline_bytes_max = inline_bytes_max
        self._bytes_max = 0
        self._held_bytes = 0
        self._size_bytes = 0
        self._ends_at = 0.0
        self.unread = head.has_body

    async def read(self, bytes_max: int, keep: Keep) -> bytes | Claim | Problem | None:
        """The whole body, None if the request has none, or what is wrong with it.

        A large one is handed to `keep` piece by piece, and what that returns is returned; what it raises
        is raised.
        """
        if not self.unread:
            return None
        length = self._head.length
        if length is not None and (len(length) > _DIGITS_MAX or int(length) > bytes_max):
            return _too_large(bytes_max)
        self._bytes_max = bytes_max
        self._ends_at = asyncio.get_running_loop().time() + self._limits.whole_s
        held = bytearray()  # and no list of chunks: those of a byte or two take thirty times their size
        try:
            more = True
            while more and self._size_bytes <= self._inline_bytes_max:
                chunk, more = await self._next()
                held += chunk
            if self._size_bytes > self._inline_bytes_max:
                return await keep(self._passed_on(held))
        except _BadBodyError as bad:
            return bad.problem
        return bytes(held)

    def release(self) -> None:
        """What was read is held no more."""
        if self._held_bytes:
            self._memory.give_back(self._held_bytes)
            self._held_bytes = 0

    async def _passed_on(self, held: bytearray) -> AsyncIterator[bytes]:
        """What has come already, and the rest as it comes."""
        while held:
            yield bytes(held[:PIECE_BYTES_MAX])
            del held[:PIECE_BYTES_MAX]
        more = self.unread
        while more:
            chunk, more = await self._next()
            yield chunk
        self.release()

    async def _next(self) -> tuple[bytes, bool]:
        """The next chunk, and whether there is more after it. Raises `_BadBodyError`."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout_at(min(loop.time() + self._limits.silence_s, self._ends_at)):
                message = await self._receive()
        except TimeoutError:
            self.unread = False  # nor is it waited for any longer
            came = f"{self._size_bytes} bytes of the body came"
            detail = f"{came}, and then the gateway stopped waiting for the rest."
            raise _BadBodyError(Problem(code=Code.BODY_TIMEOUT, detail=detail)) from None
        if message["type"] != "http.request":
            self.unread = False
            detail = "The connection ended, or was HTTP no more, before the end of the body."
            raise _BadBodyError(Problem(code=Code.BODY_INCOMPLETE, detail=detail))
        chunk: bytes = message.get("body", b"")
        self._size_bytes += len(chunk)
        if self._size_bytes > self._bytes_max:
            raise _BadBodyError(_too_large(self._bytes_max))
        self._hold(len(chunk))
        self.unread = message.get("more_body", False)
        return chunk, self.unread

    def _hold(self, size_bytes: int) -> None:
        """Count what is held; of a body that is passed on, no more is on its way than was held at first."""
        before_bytes = self._size_bytes - size_bytes
        if before_bytes > self._inline_bytes_max or self._size_bytes <= SMALL_BYTES_MAX:
            return
        more_bytes = self._size_bytes - self._held_bytes
        if not self._memory.take(more_bytes):
            detail = (
                "The gateway holds as many bytes of other requests' bodies as it may. Nothing was started."
            )
            raise _BadBodyError(Problem(code=Code.TOO_MANY_BODIES, detail=detail))
        self._held_bytes += more_bytes

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
