"""Raw bytes to a gateway's port, and everything that it answers to them: for tests of malformed HTTP."""

import asyncio
import json
import re
from dataclasses import dataclass
from typing import Any

__all__ = ["QUIET_S", "Answer", "Garbled", "answers_in", "talk"]

QUIET_S = 0.2  # after this long without a byte, the client has nothing more to say
END_S = 20.0  # the server's limits are shorter in tests, so what is open then hangs

_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5]\d\d)( [^\r\n]*)?\r\n")
_NAME = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


class Garbled(Exception):  # noqa: N818
    """What came back is not a sequence of answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer. `whole`: its end came before that of the connection."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    whole: bool = True

    def values(self, name: str) -> list[str]:
        """The values of a header."""
        return [value for header, value in self.headers if header == name]

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


async def talk(port: int, *pieces: bytes, quiet_s: float = QUIET_S) -> list[Answer]:
    """What the server answers to these bytes until it closes; the client closes its side when it is quiet.

    Raises `Garbled` if that is no HTTP, `TimeoutError` if the server does not close.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    received = b""
    try:
        async with asyncio.timeout(END_S):
            for piece in pieces:
                writer.write(piece)
                await asyncio.sleep(0)
            finished = False
            while True:
                try:
                    part = await asyncio.wait_for(reader.read(65536), None if finished else quiet_s)
                except TimeoutError:
                    finished = True
                    writer.write_eof()
                    continue
                if not part:
                    break
                received += part
    except ConnectionError:
        pass  # it was closed with bytes of ours unread
    finally:
        writer.transport.abort()
    return answers_in(received)


def answers_in(data: bytes) -> list[Answer]:
    """The answers that the bytes of a connection hold. Raises `Garbled`."""
    found: list[Answer] = []
    while data:
        answer, data = _first(data)
        if answer.status != 100:
            found.append(answer)
        if not answer.whole and data:
            raise Garbled(data)
    return found


def _first(data: bytes) -> tuple[Answer, bytes]:
    head, separator, rest = data.partition(b"\r\n\r\n")
    begin = _STATUS.match(head + b"\r\n")
    if not begin or not separator:
        raise Garbled(data[:200])
    headers = tuple(map(_pair, head.split(b"\r\n")[1:]))
    status = int(begin[1])
    lengths = [int(value) for name, value in headers if name == "content-length"]
    chunked = ("transfer-encoding", "chunked") in headers
    if len(lengths) + chunked > 1:
        raise Garbled(head)
    whole = True
    if status < 200 or status in {204, 304}:
        body = b""
    elif chunked:
        body, rest, whole = _chunks(rest)
    elif lengths:
        body, rest = rest[: lengths[0]], rest[lengths[0] :]
        whole = len(body) == lengths[0]
    else:
        body, rest = rest, b""
    return Answer(status=status, headers=headers, body=body, whole=whole), rest


def _pair(line: bytes) -> tuple[str, str]:
    name, colon, value = line.partition(b":")
    if not colon or not _NAME.fullmatch(name) or re.search(rb"[\x00\r\n]", value):
        raise Garbled(line)
    return name.decode().lower(), value.decode("latin-1").strip()


def _chunks(data: bytes) -> tuple[bytes, bytes, bool]:
    body = b""
    while match := re.match(rb"([0-9A-Fa-f]+)\r\n", data):
        size, data = int(match[1], 16), data[match.end() :]
        body += data[:size]
        if data[size : size + 2] != b"\r\n" and size:
            return body, b"", False
        data = data[size + 2 :]
        if not size:
            return body, data, True
    return body, b"", False
