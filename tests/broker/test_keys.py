"""Idempotency keys: however often a request comes, by whichever gateway, one invocation is stored."""

import asyncio
import time

import pytest

from quarterhour.broker.port import KEY_KEPT_S, Key
from quarterhour.clock import SystemClock
from quarterhour.errors import BrokerError, BrokerUnavailable, KeyReused
from tests.broker.nats_inside import look_inside
from tests.broker.worlds import World, complete, invocation, manifest, pulled, taken
from tests.nats_server import NatsServer
from tests.waiting import eventually

KEY = Key(text="order 17 > *", fingerprint="f1")


async def test_a_known_key_gives_the_first_id_and_stores_nothing(world: World) -> None:
    broker, other = await world.connect("gateway-1"), await world.connect("gateway-2")
    await broker.prepare([manifest(), manifest("other")])
    first = invocation()
    assert await broker.enqueue(first, KEY) == first.id
    assert await other.enqueue(invocation(), KEY) == first.id
    assert await broker.enqueue(first, KEY) == first.id
    with pytest.raises(KeyReused, match=first.id):
        await other.enqueue(invocation(), Key(text=KEY.text, fingerprint="f2"))
    [delivery] = await taken(broker)
    assert delivery.invocation == first
    await broker.settle(complete(delivery))
    assert await other.enqueue(invocation(), KEY) == first.id  # when it has run, too
    assert await pulled(broker) == []
    elsewhere = invocation("other")
    assert await broker.enqueue(elsewhere, KEY) == elsewhere.id  # each function has keys of its own


async def test_whether_a_key_is_known(world: World) -> None:
    broker, other = await world.connect("gateway-1"), await world.connect("gateway-2")
    await broker.prepare([manifest(), manifest("other")])
    assert not await other.knows("report", KEY.text)
    await broker.enqueue(invocation(), KEY)
    assert await other.knows("report", KEY.text)
    assert not await other.knows("report", "order 18")
    assert not await other.knows("other", KEY.text)


async def test_a_key_of_a_delayed_invocation(broker_with_queue: World) -> None:
    broker = await broker_with_queue.connect()
    later = invocation(due_at=time.time() + 100)
    assert await broker.enqueue(later, KEY) == later.id
    assert await broker.enqueue(invocation(), KEY) == later.id

    async def counted() -> bool:
        return (await broker.tend(["report"]))["report"].delayed == 1

    await eventually(counted, what="one is delayed")
    assert await pulled(broker) == []


async def test_many_at_once_store_one(broker_with_queue: World) -> None:
    gateways = [await broker_with_queue.connect(f"gateway-{number}") for number in range(2)]
    keys = [Key(text=f"key {number % 5}", fingerprint="f") for number in range(60)]
    plain = [invocation() for _ in range(20)]  # what shares a batch with them is not harmed
    async with asyncio.TaskGroup() as tasks:
        keyed = [
            tasks.create_task(gateways[number % 2].enqueue(invocation(), key))
            for number, key in enumerate(keys)
        ]
        for number, each in enumerate(plain):
            tasks.create_task(gateways[number % 2].enqueue(each))
    stored = {task.result() for task in keyed}
    assert len(stored) == 5
    found = await taken(gateways[0], 25, at_most=100)
    assert {each.invocation.id for each in found} == stored | {each.id for each in plain}


async def test_a_key_is_forgotten_after_a_day(broker_with_queue: World) -> None:
    class Later(SystemClock):
        def now(self) -> float:
            return time.time() + KEY_KEPT_S + 1

    broker = await broker_with_queue.connect()
    await broker.enqueue(invocation(), KEY)
    if broker_with_queue.url.startswith("memory"):
        later, again = await broker_with_queue.connect(clock=Later()), invocation()
        assert not await later.knows(again.function, KEY.text)
        assert await later.enqueue(again, KEY) == again.id
    else:
        async with look_inside(broker_with_queue.url, broker_with_queue.namespace) as inside:
            subjects = await inside.subjects("k.>")
            headers, _ = await inside.message(subjects[0].removeprefix(f"{inside.namespace}."))
        assert (len(subjects), headers["Nats-TTL"]) == (1, f"{KEY_KEPT_S:.0f}s")
        assert KEY.text not in subjects[0]


async def test_a_repeat_after_an_answer_that_was_lost(nats_world: World, nats: NatsServer) -> None:
    """The 503 says "not known"; with the same key the client learns what came of it."""
    broker = await nats_world.connect()
    await broker.prepare([manifest()])
    first, again = invocation(), invocation()
    nats.pause()
    try:
        with pytest.raises(BrokerUnavailable):
            await broker.enqueue(first, KEY)
    finally:
        nats.resume()
    async with asyncio.timeout(30):
        while True:
            try:
                stored = await broker.enqueue(again, KEY)
                break
            except BrokerError:
                await asyncio.sleep(0.1)
    assert [each.invocation.id for each in await taken(broker)] == [stored]


@pytest.fixture
async def broker_with_queue(world: World) -> World:
    await (await world.connect()).prepare([manifest()])
    return world
