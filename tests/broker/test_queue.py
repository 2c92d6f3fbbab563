"""The queue as gateways use it: accepting, tending, bells."""

import asyncio
import time
from collections.abc import Iterable
from contextlib import aclosing
from typing import Any

import pytest

import quarterhour.broker.memory
import quarterhour.broker.nats.bells
from quarterhour.broker import Broker
from quarterhour.broker.port import Depth
from quarterhour.errors import TooLarge
from tests.broker.worlds import World, complete, invocation, manifest, pulled, retry, taken
from tests.waiting import eventually


@pytest.fixture
def rung_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever listens to bells looks for himself at first, and then not while a test lasts."""
    monkeypatch.setattr(quarterhour.broker.memory, "BELLS_SILENCE_S", 120.0)
    monkeypatch.setattr(quarterhour.broker.nats.bells, "SILENCE_S", 120.0)


async def hear(bells: Any, names: Iterable[str]) -> None:
    """Return once all of `names` were rung for."""
    missing = set(names)
    async with asyncio.timeout(30):
        while missing:
            missing -= await anext(bells)


async def silent(bells: Any, for_s: float = 0.3) -> bool:
    """Whether nothing is rung for, for a while."""
    try:
        async with asyncio.timeout(for_s):
            await anext(bells)
    except TimeoutError:
        return True
    return False


async def test_the_same_id_again_is_stored_once(broker: Broker) -> None:
    await broker.prepare([manifest()])
    sent = invocation()
    for _ in range(3):
        await broker.enqueue(sent)
    [delivery] = await taken(broker)
    await broker.enqueue(sent)
    assert await pulled(broker) == []
    await broker.settle(complete(delivery))
    await broker.enqueue(sent)
    assert await pulled(broker) == []


async def test_the_largest_body_goes_through(broker: Broker) -> None:
    await broker.prepare([manifest()])
    largest = invocation(body=bytes(broker.body_bytes_max))
    await broker.enqueue(largest)
    [delivery] = await taken(broker)
    assert delivery.invocation == largest


async def test_what_is_too_large_is_refused_and_harms_nothing(broker: Broker) -> None:
    await broker.prepare([manifest()])
    with pytest.raises(TooLarge, match="bytes"):
        await broker.enqueue(invocation(body=bytes(broker.body_bytes_max + 1024 * 1024)))
    assert broker.connected
    await broker.enqueue(invocation())
    assert len(await taken(broker)) == 1


async def test_how_deep_queues_are(world: World) -> None:
    broker = await world.connect(lease_s=30)
    assert await broker.tend(["report"]) == {"report": Depth()}
    earlier = time.time()
    for _ in range(3):
        await broker.enqueue(invocation())
    deep = (await broker.tend(["report"]))["report"]  # nobody has prepared it yet
    assert (deep.waiting, deep.leased) == (3, 0)

    await broker.prepare([manifest(), manifest("idle")])
    [delivery] = await taken(broker, at_most=1)

    async def counted() -> Depth | None:
        depths = await broker.tend(["report", "idle", "unknown"])
        assert depths["idle"] == depths["unknown"] == Depth()
        deep = depths["report"]
        return deep if (deep.waiting, deep.leased) == (2, 1) else None

    deep = await eventually(counted, what="two wait and one is leased")
    assert deep.oldest_due_at is not None
    assert earlier - 1 < deep.oldest_due_at < time.time() + 1

    await broker.settle(complete(delivery))

    async def settled() -> bool:
        return (await broker.tend(["report"]))["report"].leased == 0

    await eventually(settled, what="the settled one is no longer counted")


async def test_the_age_of_the_queue_moves_on(world: World) -> None:
    broker = await world.connect(lease_s=30)
    await broker.prepare([manifest()])
    await broker.enqueue(invocation())
    await asyncio.sleep(0.2)
    between = time.time()
    await broker.enqueue(invocation())

    async def oldest(waiting: int) -> float | None:
        depth = (await broker.tend(["report"]))["report"]
        return depth.oldest_due_at if depth.waiting == waiting else None

    before = await eventually(lambda: oldest(2), what="both wait")
    await taken(broker, at_most=1)
    after = await eventually(lambda: oldest(1), what="one waits")
    assert before < between - 0.1 < after


@pytest.mark.usefixtures("rung_only")
async def test_accepting_rings(world: World) -> None:
    runner, gateway = await world.connect("runner"), await world.connect("gateway")
    await runner.prepare([manifest(), manifest("other"), manifest("waits")])
    async with aclosing(runner.bells()) as bells:  # type: ignore[type-var]
        assert await silent(bells)
    await runner.enqueue(invocation("waits"))
    async with aclosing(runner.bells()) as bells:  # type: ignore[type-var]
        await hear(bells, {"waits"})  # it has looked
        first = asyncio.create_task(hear(bells, {"report", "other"}))
        for name in ("report", "other", "report"):
            await asyncio.sleep(0.02)
            await gateway.enqueue(invocation(name))
        await first


async def test_who_begins_to_listen_hears_of_what_waits(world: World) -> None:
    runner, gateway = await world.connect("runner"), await world.connect("gateway")
    await runner.prepare([manifest()])
    await gateway.enqueue(invocation())
    async with aclosing(runner.bells()) as bells:  # type: ignore[type-var]
        await hear(bells, {"report"})


@pytest.mark.usefixtures("rung_only")
async def test_tending_rings_for_what_waits_or_is_leased(world: World) -> None:
    runner, gateway = await world.connect("runner", lease_s=30), await world.connect("gateway")
    await runner.prepare([manifest(), manifest("idle")])
    async with aclosing(runner.bells()) as bells:  # type: ignore[type-var]
        await gateway.enqueue(invocation())
        await hear(bells, {"report"})
        await asyncio.sleep(0.2)  # the ring of the accept is over
        waiting = asyncio.ensure_future(anext(bells))
        await asyncio.sleep(0)
        await gateway.tend(["report", "idle"])
        assert await asyncio.wait_for(waiting, 30) == {"report"}
        await taken(runner)
        leased = asyncio.ensure_future(anext(bells))
        await asyncio.sleep(0)
        await gateway.tend(["report", "idle"])
        assert await asyncio.wait_for(leased, 30) == {"report"}


@pytest.mark.usefixtures("rung_only")
async def test_tending_rings_for_what_was_left_by_a_function_without_a_queue(world: World) -> None:
    runner, gateway = await world.connect("runner", lease_s=30), await world.connect("gateway")
    await runner.prepare([manifest()])
    async with aclosing(runner.bells()) as bells:  # type: ignore[type-var]
        await gateway.enqueue(invocation())
        await hear(bells, {"report"})
        await asyncio.sleep(0.2)  # the ring of the accept is over
        rung = asyncio.ensure_future(anext(bells))
        await asyncio.sleep(0)
        assert await gateway.tend([]) == {}
        assert await asyncio.wait_for(rung, 30) == {"report"}


@pytest.mark.usefixtures("rung_only")
async def test_a_retry_is_rung_for_once_it_is_due(world: World) -> None:
    runner, gateway = await world.connect("runner"), await world.connect("gateway")
    await runner.prepare([manifest(), manifest("waits")])
    await gateway.enqueue(invocation())
    [delivery] = await taken(runner)
    await runner.settle(retry(delivery, after_s=0.3))

    async def settled() -> bool:
        return (await gateway.tend(["report"]))["report"].leased == 0

    async def rung() -> bool:
        return (await gateway.tend(["report"]))["report"].waiting == 1

    await eventually(settled, what="nobody rings for the first attempt any more")
    await gateway.enqueue(invocation("waits"))
    async with aclosing(runner.bells()) as bells:  # type: ignore[type-var]
        await hear(bells, {"waits"})  # it has looked
        await eventually(rung, what="the retry waits")
        await hear(bells, {"report"})


async def test_without_any_gateway_the_runner_looks_for_itself(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quarterhour.broker.memory, "BELLS_SILENCE_S", 0.3)
    monkeypatch.setattr(quarterhour.broker.nats.bells, "SILENCE_S", 0.3)
    runner = await world.connect("runner", lease_s=30)
    await runner.prepare([manifest()])
    await runner.enqueue(invocation())
    await taken(runner)
    async with aclosing(runner.bells()) as bells:  # type: ignore[type-var]
        await hear(bells, {"report"})
        await asyncio.sleep(0.1)
        for _ in range(2):  # nobody rings, and still it is named again and again
            await hear(bells, {"report"})
