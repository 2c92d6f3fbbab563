"""A link that can be cut, blocked and slowed: a small TCP proxy between one process and one NATS server."""

import asyncio
from contextlib import suppress
from types import TracebackType
from typing import Self

__all__ = ["Link", "Proxy"]

CHUNK_BYTES = 64 * 1024


class Proxy:
    """Listens on a port of its own, on loopback, and forwards to `target`, another port."""

    def __init__(self, target: int) -> None:
        self.port = 0
        self._target = target
        self._delay_s = 0.0
        self._cut = False
        self._up, self._down = asyncio.Event(), asyncio.Event()  # what goes to the target, and what comes
        self._up.set()
        self._down.set()
        self._open: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._tasks = asyncio.TaskGroup()

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()

        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._tasks.create_task(self._connected(reader, writer))

        self._server = await asyncio.start_server(connected, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        await self._tasks.__aexit__(kind, error, trace)

    def heal(self) -> None:
        """Forward as if nothing had been; what was held back goes first."""
        self._cut, self._delay_s = False, 0.0
        self._up.set()
        self._down.set()

    def cut(self) -> None:
        """Close what is open, and each new connection at once."""
        self._cut = True
        self._up.set()
        self._down.set()
        for writer in self._open:
            writer.transport.abort()

    def block(self) -> None:
        """Forward nothing, and keep the connections: nobody is told."""
        self._up.clear()
        self._down.clear()

    def deafen(self) -> None:
        """Hold back what the target sends; what is sent to it arrives."""
        self._down.clear()

    def slow(self, delay_s: float) -> None:
        """Hold back everything for this long, one piece after the other."""
        self._delay_s = delay_s

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._cut:
            writer.transport.abort()
            return
        try:
            other_reader, other_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        ends = {writer, other_writer}
        self._open |= ends
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._forward(reader, other_writer, self._up))
                group.create_task(self._forward(other_reader, writer, self._down))
        finally:
            self._open -= ends
            for end in ends:
                end.transport.abort()

    async def _forward(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, flowing: asyncio.Event
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(CHUNK_BYTES):
                await flowing.wait()
                if self._delay_s:
                    await asyncio.sleep(self._delay_s)
                writer.write(data)
                await writer.drain()
        writer.transport.abort()


class Link:
    """All the ways from one process to the servers: they are hindered together."""

    def __init__(self, proxies: list[Proxy], *, query: str) -> None:
        self._proxies = proxies
        self.url = ",".join(f"nats://127.0.0.1:{proxy.port}" for proxy in proxies) + query

    def heal(self) -> None:
        for proxy in self._proxies:
            proxy.heal()

    def cut(self) -> None:
        for proxy in self._proxies:
            proxy.cut()

    def block(self) -> None:
        for proxy in self._proxies:
            proxy.block()

    def deafen(self) -> None:
        for proxy in self._proxies:
            proxy.deafen()

    def slow(self, delay_s: float) -> None:
        for proxy in self._proxies:
            proxy.slow(delay_s)
