"""A small HTTP/1.1 load client for where `wrk` is not installed: kept connections, one request each.

It understands answers with a Content-Length and nothing else, which is what is measured here.
"""

import asyncio
import re
import time
from typing import cast

__all__ = ["run_connections"]

LAST_ANSWER_S = 10.0

_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)\r\n", re.IGNORECASE)


class _Connection(asyncio.Protocol):
    """Sends its request again and again until `ends_at`; `done` is set when its last answer has come."""

    def __init__(self, request: bytes, ends_at: float) -> None:
        self.latencies_s: list[float] = []
        self.failed = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._request = request
        self._ends_at = ends_at
        self._buffer = b""
        self._sent_at = 0.0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)
        self._send()

    def data_received(self, data: bytes) -> None:
        """Part of an answer, usually the whole."""
        self._buffer += data
        head_bytes = self._buffer.find(b"\r\n\r\n")
        if head_bytes < 0:
            return
        found = _LENGTH.search(self._buffer, 0, head_bytes + 2)
        if len(self._buffer) < head_bytes + 4 + (int(found[1]) if found else 0):
            return
        now = time.perf_counter()
        if self._buffer.startswith(b"HTTP/1.1 2"):
            self.latencies_s.append(now - self._sent_at)
        else:
            self.failed += 1
        self._buffer = b""
        if now < self._ends_at:
            self._send()
        else:
            self._finish()

    def connection_lost(self, exc: Exception | None) -> None:
        """The server has closed the connection: with a request under way, that is a failure."""
        del exc
        if not self.done.done():
            self.failed += 1
            self._finish()

    def _send(self) -> None:
        assert self._transport is not None
        self._sent_at = time.perf_counter()
        self._transport.write(self._request)

    def _finish(self) -> None:
        if not self.done.done():
            self.done.set_result(None)
        if self._transport is not None:
            self._transport.close()


async def run_connections(
    port: int, path: str, connections: int, duration_s: float, method: str
) -> tuple[list[float], int, float]:
    """Latencies (seconds), the number of failed requests, and the seconds that it took."""
    loop = asyncio.get_running_loop()
    request = f"{method} {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n\r\n".encode("ascii")
    began = time.perf_counter()
    ends_at = began + duration_s
    opened = [
        (await loop.create_connection(lambda: _Connection(request, ends_at), "127.0.0.1", port))[1]
        for _ in range(connections)
    ]
    await asyncio.wait([one.done for one in opened], timeout=duration_s + LAST_ANSWER_S)
    took_s = time.perf_counter() - began
    silent = sum(1 for one in opened if not one.done.done())
    latencies_s = [latency_s for one in opened for latency_s in one.latencies_s]
    return latencies_s, sum(one.failed for one in opened) + silent, took_s
