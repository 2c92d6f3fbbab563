"""A TCP server in the test's own event loop, of which nothing is left at the end."""

import asyncio
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from tests.waiting import eventually

__all__ = ["tcp_server"]


@asynccontextmanager
async def tcp_server(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    *,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[int]:
    """Serve on a port of loopback, which is given; `serve` sees one connection through.

    At the end all are closed, also those that a client was still about to close: a test that left one
    open would fail another, in which it happened to be collected.
    """
    served: list[tuple[asyncio.Future[None], asyncio.StreamWriter]] = []

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.append((asyncio.ensure_future(serve(reader, writer)), writer))

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for serving, writer in served:
            serving.cancel()
            writer.transport.abort()
        await asyncio.gather(*(serving for serving, _ in served), return_exceptions=True)
        if sys.version_info >= (3, 12):
            await server.wait_closed()
        else:  # there it does not wait for the connections
            await eventually(lambda: not vars(server)["_active_count"], what="every connection was closed")
