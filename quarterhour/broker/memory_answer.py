"""The answer to a call in the broker in memory: encoded and decoded again, as over a wire."""

import asyncio

from quarterhour.broker.flow import Inlet, Outlet
from quarterhour.broker.memory_store import reply_bytes
from quarterhour.broker.port import Stream
from quarterhour.outcome import Response
from quarterhour.reply import Chunk, Reply, decode_reply

__all__ = ["MemoryAnswer"]


class MemoryAnswer:
    """Answers one call."""

    def __init__(self, reply: asyncio.Future[Reply | Stream]) -> None:
        self._reply = reply
        self._outlet = Outlet()
        self._inlet: Inlet | None = None

    async def __call__(self, reply: Reply) -> None:
        """The reply, or the end of a stream."""
        if self._inlet is not None:
            self._inlet.feed(decode_reply(reply_bytes(reply)))
        elif not self._reply.done():
            self._reply.set_result(decode_reply(reply_bytes(reply)))

    async def begin(self, head: Response) -> None:
        """Begin a stream."""

        async def grant(size_bytes: int) -> None:
            self._outlet.grant(size_bytes)

        async def stop() -> None:
            self._outlet.close()

        self._inlet = Inlet(grant, stop)
        if self._reply.done():  # the caller has given up
            self._outlet.close()
        else:
            chunks = self._inlet.chunks()
            self._reply.set_result(Stream(head=head, chunks=chunks, close=self._inlet.close))

    async def send(self, chunk: bytes) -> None:
        """Send a piece of the body."""
        await self._outlet.take(len(chunk))
        if self._inlet is not None:
            self._inlet.feed(Chunk(data=chunk))
