"""Clients that take their time on purpose: each has an end, and nobody else waits for it."""

import asyncio
from typing import Any
from unittest.mock import AsyncMock

import pytest

import gateway.hypercorn_server
import gateway.server
from gateway.body import SMALL_BYTES_MAX, BodyLimits, Incoming, Keep, Memory
from gateway.problems import Code, Problem
from gateway.request import read_head
from quarterhour.body import INLINE_BYTES_MAX, Claim
from quarterhour.invocation import Invocation
from quarterhour.reply import Reply
from tests.process.gateway_rig import (
    PREFIX,
    FakeRunner,
    Rig,
    Streams,
    answered,
    function,
    json_of,
    open_rig,
    read_answer,
)
from tests.waiting import eventually

MIB = 1024 * 1024


@pytest.mark.parametrize("server", ["hypercorn", "granian"])
async def test_headers_that_come_byte_by_byte_have_an_end(
    server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway.server, "KEEP_ALIVE_S", 1.0)
    monkeypatch.setattr(gateway.server, "HEADER_READ_S", 1.0)
    async with open_rig(server) as rig:

        async def dribble() -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
            writer.write(f"GET {PREFIX}/hello HTTP/1.1\r\nHost: x\r\n".encode())
            try:
                async with asyncio.timeout(20):
                    while not reader.at_eof():
                        writer.write(b"X-A: b\r\n")
                        try:
                            await asyncio.wait_for(reader.read(1024), 0.1)
                        except TimeoutError:
                            continue
            except ConnectionError:
                pass
            finally:
                writer.transport.abort()

        slow = [asyncio.create_task(dribble()) for _ in range(100)]
        await asyncio.sleep(0.3)  # they are all in the middle of it
        assert (await rig.client.get(f"{PREFIX}/hello")).status_code == 200
        await asyncio.gather(*slow)


async def test_there_are_no_more_connections_than_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway.server, "CONNECTIONS_MAX", 3)
    async with open_rig("hypercorn") as rig:
        ask = f"GET {PREFIX}/hello HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()

        async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
            writer.write(ask)
            return reader, writer

        async def is_served() -> bool:
            reader, writer = await connect()
            try:
                return (await reader.readline()).startswith(b"HTTP/1.1 200")
            except ConnectionError:
                return False
            finally:
                writer.transport.abort()

        held = [await connect() for _ in range(3)]
        for reader, _ in held:
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        assert not await is_served()
        for _, writer in held:
            writer.transport.abort()
        await eventually(is_served, what="there was room again")


async def test_a_body_that_comes_byte_by_byte_has_an_end() -> None:
    scope = {"raw_path": b"/", "query_string": b"", "headers": [(b"content-length", b"9999")]}

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(0.02)
        return {"type": "http.request", "body": b"x", "more_body": True}

    limits = BodyLimits(silence_s=0.2, whole_s=0.3)
    memory = Memory(100_000)
    incoming = Incoming(read_head(scope), receive, limits, memory=memory, inline_bytes_max=10_000)
    async with asyncio.timeout(30):
        problem = await incoming.read(10_000, keep=AsyncMock())
    assert isinstance(problem, Problem)
    assert problem.code is Code.BODY_TIMEOUT


@pytest.fixture
def reading(monkeypatch: pytest.MonkeyPatch) -> list[Incoming]:
    """The bodies that gateways wait for or have read."""
    begun: list[Incoming] = []
    read = Incoming.read

    async def noted(self: Incoming, bytes_max: int, keep: Keep) -> bytes | Claim | Problem | None:
        begun.append(self)
        return await read(self, bytes_max, keep)

    monkeypatch.setattr(Incoming, "read", noted)
    return begun


async def begin_body(rig: Rig, name: str, size: int, begun: bytes) -> Streams:
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    writer.write(f"POST {PREFIX}/{name} HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n".encode())
    writer.write(begun)
    await writer.drain()
    return reader, writer


async def held_back(rig: Rig, name: str) -> tuple[FakeRunner, asyncio.Event]:
    """A function that waits for an event."""
    go_on = asyncio.Event()

    async def wait(_: Invocation) -> Reply:
        await go_on.wait()
        return answered()

    await rig.announce(function(name))
    return await rig.runner(f"of-{name}", name, handler=wait), go_on


@pytest.mark.parametrize("server", ["hypercorn", "granian"])
async def test_whoever_still_sends_keeps_nobody_out_and_gets_in_if_there_is_room(
    server: Any, reading: list[Incoming]
) -> None:
    async with open_rig(server, requests_max=2) as rig:
        runner, go_on = await held_back(rig, "slow")
        clients = [await begin_body(rig, "slow", 2, b"x") for _ in range(5)]
        await eventually(lambda: len(reading) == 5, what="all of them are waited for")
        assert (await rig.client.post(f"{PREFIX}/hello", content=b"x")).status_code == 200
        for _, writer in clients:
            writer.write(b"x")
        answers = [asyncio.create_task(read_answer(reader)) for reader, _ in clients]
        await eventually(lambda: sum(answer.done() for answer in answers) == 3, what="three were refused")
        await eventually(lambda: len(runner.taken) == 2, what="two were let in")
        go_on.set()
        statuses = sorted([(await answer).split()[1] for answer in answers])
        assert statuses == [b"200"] * 2 + [b"503"] * 3
        for _, writer in clients:
            writer.close()


@pytest.mark.parametrize("name", ["large", "hello-background"])
async def test_whoever_is_not_let_in_after_all_leaves_no_body(name: str, reading: list[Incoming]) -> None:
    async with open_rig(requests_max=1) as rig:
        runner, go_on = await held_back(rig, "slow")
        await rig.announce(function("large"))
        reader, writer = await begin_body(rig, name, MIB, bytes(MIB - 1))
        await eventually(lambda: rig.broker.store.bodies, what="some of it is stored")
        call = asyncio.create_task(rig.client.post(f"{PREFIX}/slow"))
        await eventually(lambda: runner.taken, what="another request is under way")
        writer.write(b"x")
        refused = await asyncio.wait_for(read_answer(reader), 30)
        assert (refused.split()[1], json_of(refused)["code"]) == (b"503", "overloaded")
        await eventually(lambda: not rig.broker.store.bodies, what="no body is left")
        assert not rig.broker.store.queues.get(name)
        go_on.set()
        assert (await call).status_code == 200
        writer.close()


@pytest.mark.parametrize("server", ["hypercorn", "granian"])
async def test_whoever_holds_half_a_body_keeps_no_small_one_out(server: Any, reading: list[Incoming]) -> None:
    async with open_rig(server, body_memory_bytes_max=MIB) as rig:
        size = INLINE_BYTES_MAX - 1
        clients = [await begin_body(rig, "hello", size + 1, bytes(size)) for _ in range(2)]

        async def full() -> bool:
            answer = await rig.client.post(f"{PREFIX}/hello", content=bytes(SMALL_BYTES_MAX + 1))
            return answer.status_code == 503 and answer.json()["code"] == "too_many_bodies"

        await eventually(full, what="they hold all that may be held")
        for small in (b"{}" * 500, bytes(SMALL_BYTES_MAX)):
            assert (await rig.client.post(f"{PREFIX}/hello", content=small)).status_code == 200
        for _, writer in clients:
            writer.write(b"x")
        for reader, writer in clients:
            assert (await asyncio.wait_for(read_answer(reader), 30)).split()[1] == b"200"
            writer.close()


@pytest.mark.parametrize("server", ["hypercorn", "granian"])
async def test_a_client_that_does_not_read_is_cut_off(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway.hypercorn_server, "WRITE_S", 0.2)
    monkeypatch.setattr(gateway.server, "STALLED_S", 0.2)
    size = 6 * MIB

    async def large(invocation: Invocation) -> Reply:
        return answered(200, b"x" * size)

    async with open_rig(server) as rig:
        await rig.announce(function("large"))
        await rig.runner("runner-2", "large", handler=large)
        assert (await rig.client.get("/healthz")).status_code == 200
        before = len(asyncio.all_tasks())
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
        writer.write(f"GET {PREFIX}/large HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await asyncio.sleep(1.2)  # and reads nothing
        assert (await rig.client.get(f"{PREFIX}/hello")).status_code == 200
        received = 0
        try:
            async with asyncio.timeout(30):
                while part := await reader.read(MIB):
                    received += len(part)
        except ConnectionError:
            pass
        writer.close()
        assert received < size
        await eventually(lambda: len(asyncio.all_tasks()) <= before, what="nothing was left of it")


@pytest.mark.parametrize("server", ["hypercorn", "granian"])
async def test_a_client_that_has_gone_costs_nothing_more(server: Any) -> None:
    async with open_rig(server) as rig:
        before = len(asyncio.all_tasks())
        for _ in range(20):
            reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
            writer.write(f"GET {PREFIX}/hello HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            await reader.readuntil(b"\r\n\r\n")
            writer.close()
            await writer.wait_closed()
        await eventually(lambda: len(asyncio.all_tasks()) <= before, what="nothing was left of them")
