"""Flow control of a response that comes bit by bit: what is on its way never exceeds a window.

A broker's messages know no back-pressure: what nobody reads would pile up somewhere, or be dropped.
So the runner sends only as much as it has credit for, and the gateway grants more when its client has
read. Adapters join an `Outlet` in the runner to an `Inlet` in the gateway; nothing here sends a message.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable

from quarterhour.errors import StreamBroken, StreamClosed
from quarterhour.outcome import Succeeded, error_of
from quarterhour.reply import Chunk, Refused, Reply

__all__ = ["WINDOW_BYTES", "Inlet", "Outlet"]

WINDOW_BYTES = 256 * 1024
GRANT_BYTES = 64 * 1024  # what was read is granted anew in portions of this size
SILENCE_S = 120.0  # a gateway whose client reads nothing for so long has given up itself, or is gone


class Outlet:
    """The runner's end."""

    __slots__ = ("_changed", "_closed", "_credit_bytes")

    def __init__(self) -> None:
        self._credit_bytes = WINDOW_BYTES
        self._changed = asyncio.Event()
        self._closed = False

    async def take(self, size_bytes: int) -> None:
        """Return when so much may be sent. Raises `StreamClosed`: nobody reads any more."""
        while self._credit_bytes <= 0 and not self._closed:
            self._changed.clear()
            try:
                async with asyncio.timeout(SILENCE_S):
                    await self._changed.wait()
            except TimeoutError:
                self._closed = True
        if self._closed:
            message = "Nobody reads the response any more."
            raise StreamClosed(message)
        self._credit_bytes -= size_bytes

    def grant(self, size_bytes: int) -> None:
        """So much was read."""
        self._credit_bytes += size_bytes
        self._changed.set()

    def close(self) -> None:
        """Nobody reads any more."""
        self._closed = True
        self._changed.set()


class Inlet:
    """The gateway's end. `grant(bytes)` lets the runner send more, `stop()` lets it end."""

    __slots__ = ("_arrived", "_ended", "_grant", "_parts", "_stop")

    def __init__(self, grant: Callable[[int], Awaitable[None]], stop: Callable[[], Awaitable[None]]) -> None:
        self._grant = grant
        self._stop = stop
        self._parts: deque[Chunk | Reply | Exception] = deque()  # no more than a window
        self._arrived = asyncio.Event()
        self._ended = False

    def feed(self, part: Chunk | Reply | Exception) -> None:
        """The next part has come, or none will, because of an error."""
        self._parts.append(part)
        self._arrived.set()

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body. Asking for the next chunk says that the last one was read.

        Raises `StreamBroken` if the function failed on the way, `BrokerUnavailable`.
        """
        read_bytes = 0
        while not self._ended:
            part = await self._next()
            match part:
                case Chunk(data=data):
                    yield data
                    read_bytes += len(data)
                    if read_bytes >= GRANT_BYTES:
                        await self._grant(read_bytes)
                        read_bytes = 0
                case Exception():
                    self._ended = True
                    raise part
                case _:
                    self._ended = True
                    _check(part)

    async def close(self) -> None:
        """Nobody reads any further."""
        if not self._ended:
            self._ended = True
            self._parts.clear()
            await self._stop()

    async def _next(self) -> Chunk | Reply | Exception:
        while not self._parts:
            self._arrived.clear()
            await self._arrived.wait()
        return self._parts.popleft()


def _check(end: Reply) -> None:
    if isinstance(end, Succeeded):
        return
    error = None if isinstance(end, Refused) else error_of(end)
    why = f"{error.type}: {error.message}" if error is not None else "it was refused"
    message = f"The function failed while its response was under way: {why}"
    raise StreamBroken(message)
