"""Connections that a client leaves in disorder: nothing of them is left, whatever it had sent."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from gateway.body import BodyLimits
from gateway.hypercorn_server import _Connection
from quarterhour.invocation import Invocation
from quarterhour.reply import Reply
from tests.process.gateway_rig import PREFIX, Rig, answered, connected, function, open_rig
from tests.waiting import eventually

ORIGIN = "https://app.example.com"
ASKS = f"Origin: {ORIGIN}\r\nAccess-Control-Request-Method: PUT\r\n"
TINY = b"1\r\nx\r\n"
PLACES = 10  # in Hypercorn's queue between a connection and the application


@pytest.fixture
async def rig(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Rig]:
    short = BodyLimits(silence_s=0.3, whole_s=0.5, drain_silence_s=0.1, drain_s=0.2)
    monkeypatch.setattr(_Connection, "open", 0)  # whatever others have left
    async with open_rig("hypercorn", cors_origins=(ORIGIN,), body=short) as rig:
        yield rig


@pytest.fixture
async def patient_rig(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Rig]:
    monkeypatch.setattr(_Connection, "open", 0)  # whatever others have left
    async with open_rig("hypercorn") as rig:
        yield rig


async def open_with(rig: Rig, request: str, body: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    writer.write(f"{request} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n".encode())
    writer.write((ASKS if request.startswith("OPTIONS") else "").encode() + b"\r\n" + body)
    return reader, writer


def reset(writer: asyncio.StreamWriter) -> None:
    """End the connection with RST and without FIN, as clients do that do not care."""
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def nothing_left(rig: Rig) -> None:
    await rig.raw(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")  # whoever came before has been let in by now
    await eventually(lambda: _Connection.open == 0, what="no connection was counted any more")


REQUESTS = [f"OPTIONS {PREFIX}/hello", f"POST {PREFIX}/missing", f"POST {PREFIX}/hello", "POST /healthz"]


@pytest.mark.parametrize("request_line", REQUESTS)
async def test_whoever_sends_on_and_on_is_cut_off(rig: Rig, request_line: str) -> None:
    reader, writer = await open_with(rig, request_line, TINY * 2 * PLACES)
    try:
        async with asyncio.timeout(30):
            while not reader.at_eof():
                writer.write(TINY * 2 * PLACES)
                with suppress(TimeoutError):
                    await asyncio.wait_for(reader.read(1024), 0.005)
    except ConnectionError:
        pass
    finally:
        writer.transport.abort()
    await nothing_left(rig)


@pytest.mark.parametrize("request_line", REQUESTS)
@pytest.mark.parametrize("chunks", [2 * PLACES, 500 * PLACES])
async def test_whoever_leaves_unread_what_he_sent_is_gone(rig: Rig, request_line: str, chunks: int) -> None:
    for turns in range(6):
        _, writer = await open_with(rig, request_line, TINY * chunks)
        for _ in range(turns):
            await asyncio.sleep(0.001)
        reset(writer)
    await nothing_left(rig)


async def test_an_answer_to_whoever_has_gone_keeps_no_connection(patient_rig: Rig) -> None:
    rig = patient_rig
    begun, go_on = asyncio.Semaphore(0), asyncio.Event()

    async def slow(_: Invocation) -> Reply:
        begun.release()
        await go_on.wait()
        return answered()

    await rig.announce(function("slow"))
    await rig.runner("runner-2", "slow", handler=slow)
    for _ in range(3):
        _, writer = await open_with(rig, f"POST {PREFIX}/slow", b"0\r\n\r\n")
        await begun.acquire()
        reset(writer)
    await rig.raw(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    go_on.set()
    await nothing_left(rig)


@pytest.mark.parametrize(
    "key", ["", "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"]
)
@pytest.mark.parametrize("after", [b"", b"x"])
async def test_what_is_refused_as_no_websocket_is_cut_off(rig: Rig, key: str, after: bytes) -> None:
    async with connected(rig) as (reader, writer):
        upgrade = "Connection: upgrade\r\nUpgrade: websocket\r\n"
        writer.write(f"GET {PREFIX}/hello HTTP/1.1\r\nHost: x\r\n{upgrade}{key}\r\n".encode() + after)
        answer = await asyncio.wait_for(reader.read(), 30)
        assert answer.split()[1] in {b"400", b"403"}
    await nothing_left(rig)
