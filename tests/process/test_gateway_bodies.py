"""Large bodies at the gateway's edge: passed on as they come, within limits, and removed in the end."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

import gateway.upkeep
from gateway.body import SMALL_BYTES_MAX, BodyLimits
from quarterhour.body import INLINE_BYTES_MAX, BodyKind
from quarterhour.broker.memory import MemoryBroker
from quarterhour.broker.port import Key
from quarterhour.errors import BrokerUnavailable
from quarterhour.invocation import Invocation
from quarterhour.outcome import Response, Succeeded
from quarterhour.reply import Reply
from quarterhour.settings import Server
from tests.process.gateway_rig import PREFIX, Rig, connected, function, json_of, open_rig
from tests.waiting import eventually

LIMIT = 2 * 1024 * 1024
LARGE = INLINE_BYTES_MAX + 1
BACKGROUND = f"{PREFIX}/hello-background"


@pytest.fixture(params=["hypercorn", "granian"])
async def rig(request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    server: Server = request.param
    async with open_rig(
        server, request_bytes_max=LIMIT, response_bytes_max=LIMIT, body_memory_bytes_max=LIMIT
    ) as rig:
        yield rig


async def in_chunks(size: int) -> AsyncIterator[bytes]:
    for _ in range(size // 50_000):
        yield bytes(50_000)
    yield bytes(size % 50_000)


async def nothing_kept(rig: Rig) -> None:
    await eventually(lambda: not rig.broker.store.bodies, what="no body is left")


async def test_a_large_one_goes_beside_its_envelope(rig: Rig) -> None:
    answer = await rig.client.post(BACKGROUND, content=in_chunks(LARGE))
    assert answer.status_code == 202
    [delivery] = [delivery async for delivery in rig.broker.pull("hello-background", 10)]
    claim = delivery.invocation.claim
    assert claim is not None
    assert (claim.kind, claim.id, claim.size_bytes) == (BodyKind.WORK, delivery.invocation.id, LARGE)
    assert delivery.invocation.body is None
    assert b"".join([piece async for piece in rig.broker.read_body(claim)]) == bytes(LARGE)


async def test_a_calls_body_is_there_until_its_answer(rig: Rig) -> None:
    seen: list[bytes] = []

    async def take(invocation: Invocation) -> Reply:
        assert invocation.claim is not None
        seen.extend([piece async for piece in rig.broker.read_body(invocation.claim)])

        async def chunks() -> AsyncIterator[bytes]:
            yield b"y" * LARGE

        claim = await rig.broker.keep_body(BodyKind.RESPONSE, invocation.id, chunks(), keep_s=60)
        return Succeeded(response=Response(headers=(("x-a", "b"),), claim=claim))

    await rig.announce(function("one"))
    await rig.runner("taking", "one", handler=take)
    answer = await rig.client.put(f"{PREFIX}/one", content=bytes(LARGE))
    assert (answer.status_code, answer.headers["content-length"]) == (200, str(LARGE))
    assert (answer.content, answer.headers["x-a"]) == (b"y" * LARGE, "b")
    assert b"".join(seen) == bytes(LARGE)
    await nothing_kept(rig)
    head = await rig.client.request("HEAD", f"{PREFIX}/one", content=bytes(LARGE))
    assert (head.content, head.headers["content-length"]) == (b"", str(LARGE))
    await nothing_kept(rig)


async def test_a_response_that_is_larger_than_allowed(rig: Rig) -> None:
    async def give(invocation: Invocation) -> Reply:
        async def chunks() -> AsyncIterator[bytes]:
            yield bytes(LIMIT + 1)

        claim = await rig.broker.keep_body(BodyKind.RESPONSE, invocation.id, chunks(), keep_s=60)
        return Succeeded(response=Response(claim=claim))

    await rig.announce(function("one"))
    await rig.runner("giving", "one", handler=give)
    answer = await rig.client.get(f"{PREFIX}/one")
    assert (answer.status_code, answer.json()["code"]) == (502, "response_too_large")
    await nothing_kept(rig)


@pytest.mark.parametrize("path", [BACKGROUND, f"{PREFIX}/hello"])
async def test_too_much_is_noticed_on_the_way(rig: Rig, path: str) -> None:
    answer = await rig.client.post(path, content=in_chunks(LIMIT + 1))
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
    await nothing_kept(rig)


async def test_a_client_that_goes_away_leaves_nothing(rig: Rig) -> None:
    async with connected(rig) as (_, writer):
        writer.write(f"POST {BACKGROUND} HTTP/1.1\r\nHost: x\r\nContent-Length: {LIMIT}\r\n\r\n".encode())
        writer.write(bytes(LIMIT - 1))
        await eventually(lambda: rig.broker.store.bodies, what="some of it is stored")
        writer.transport.abort()
    await nothing_kept(rig)
    assert not rig.broker.store.queues.get("hello-background")


@pytest.mark.parametrize("server", ["hypercorn", "granian"])
async def test_a_client_that_falls_silent(server: Server) -> None:
    head = f"POST {BACKGROUND} HTTP/1.1\r\nHost: x\r\nContent-Length: {LIMIT}\r\n\r\n".encode()
    async with open_rig(server, request_bytes_max=LIMIT, body=BodyLimits(silence_s=1.0)) as rig:
        answer = json_of(await rig.raw(head + bytes(LIMIT - 1)))
        assert answer["code"] == "body_timeout"
        await nothing_kept(rig)


async def test_bodies_that_are_held_have_a_bound_together(rig: Rig) -> None:
    go_on = asyncio.Event()

    async def hold(_: Invocation) -> Reply:
        await go_on.wait()
        return Succeeded()

    await rig.announce(function("one"))
    runner = await rig.runner("holding", "one", handler=hold)
    held = bytes(LIMIT // 4)
    async with asyncio.TaskGroup() as tasks:
        calls = [tasks.create_task(rig.client.post(f"{PREFIX}/one", content=held)) for _ in range(4)]
        await eventually(lambda: len(runner.taken) == 4, what="they are with the runner")
        refused = await rig.client.post(BACKGROUND, content=bytes(SMALL_BYTES_MAX + 1))
        assert (refused.status_code, refused.json()["code"]) == (503, "too_many_bodies")
        assert int(refused.headers["retry-after"]) > 0
        for small in (None, b"x", bytes(SMALL_BYTES_MAX)):  # is no matter
            assert (await rig.client.post(BACKGROUND, content=small)).status_code == 202
        go_on.set()
    assert [call.result().status_code for call in calls] == [200] * 4
    assert (await rig.client.post(BACKGROUND, content=held)).status_code == 202


async def test_a_key_covers_a_large_body(rig: Rig) -> None:
    async def post(fill: bytes) -> Any:
        return await rig.client.post(BACKGROUND, headers={"idempotency-key": "k"}, content=fill * LARGE)

    first, again, other = await post(b"a"), await post(b"a"), await post(b"b")
    assert first.headers["location"] == again.headers["location"]
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    first_id = first.headers["x-nf-request-id"]
    await eventually(
        lambda: list(rig.broker.store.bodies) == [(BodyKind.WORK, first_id)], what="the first one's is kept"
    )


async def test_what_may_be_queued_keeps_its_body(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A 503 says "not known"."""

    async def lost(self: MemoryBroker, invocation: Invocation, key: Key | None) -> str:
        message = "Away."
        raise BrokerUnavailable(message)

    monkeypatch.setattr(MemoryBroker, "enqueue", lost)
    answer = await rig.client.post(BACKGROUND, content=bytes(LARGE))
    assert (answer.status_code, answer.json()["code"]) == (503, "broker_unavailable")
    assert len(rig.broker.store.bodies) == 1
    # Nobody has queued it, so an upkeep finds it, but for its age.
    monkeypatch.setattr(gateway.upkeep, "SWEPT_AGE_S", -60.0)
    monkeypatch.setattr(rig.gateway._upkeep, "_sweep_at", 0.0)
    await nothing_kept(rig)
