"""Requests byte by byte: what an HTTP client would tidy up or refuse to send arrives here as it is."""

import asyncio
import json
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

__all__ = ["PREFIX", "Answer", "exchange", "request"]

PREFIX = "/.netlify/functions"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back. `rest`: bytes that the server sent after the answer, and should not have."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    rest: bytes

    def values(self, name: str) -> list[str]:
        """The values of a header, in the order in which they came."""
        return [value for header, value in self.headers if header == name]

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


def request(path: str, method: str = "GET", headers: str = "", body: bytes | None = None) -> bytes:
    """A request. `headers`: whole lines; the length of a body is added."""
    if body is not None:
        headers += f"Content-Length: {len(body)}\r\n"
    # Of itself a gateway tells only those that know it as this machine.
    host = "localhost" if path.startswith("/v1") else "example.org"
    head = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{headers}\r\n"
    return head.encode("latin-1") + (body or b"")


async def exchange(port: int, data: bytes, *, deadline_s: float = 30.0) -> Answer:
    """Send `data` and read one answer, up to the end of the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(deadline_s):
            writer.write(data)
            await writer.drain()
            head = await reader.readuntil(b"\r\n\r\n")
            return _answer(head, await reader.read())
    finally:
        writer.transport.abort()  # what was not read of a request that was refused is not waited for
        with suppress(OSError):
            await writer.wait_closed()


def _answer(head: bytes, rest: bytes) -> Answer:
    first, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    pairs = (line.partition(":") for line in lines)
    headers = tuple((name.lower(), value.strip()) for name, _, value in pairs)
    length = next((int(value) for name, value in headers if name == "content-length"), 0)
    return Answer(status=int(first.split(" ")[1]), headers=headers, body=rest[:length], rest=rest[length:])
