"""Which functions there are, which runners live; the connection itself, and names that are none."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, aclosing
from typing import Any

import pytest

from quarterhour.broker import Broker
from quarterhour.broker.port import Beat
from quarterhour.ids import new_id
from quarterhour.record import waiting
from quarterhour.retry import RetryPolicy
from tests.broker.worlds import World, invocation, manifest, pulled, taken

BAD_FUNCTIONS = ["", "..", "a.b", "*", ">", "a b", "a\x00b", "a\r\nPUB x 0", "ä", "x" * 300]
AN_ID = "0190a0b0-0000-7000-8000-000000000000"
BAD_IDS = ["", "*", ">", "nobody", AN_ID.upper(), f"{AN_ID}.1", f"{AN_ID}\n"]


async def test_what_is_announced_is_known(world: World) -> None:
    runner, gateway = await world.connect("runner"), await world.connect("gateway")
    assert await gateway.functions() == {}
    report = manifest(
        schedule="@hourly",
        path=("/a",),
        method=("GET",),
        concurrency=3,
        error="no",
        retry=RetryPolicy(retries=1, delays_s=(0.5,)),
    )
    await runner.announce([report, manifest("hello", background=False)])
    assert await gateway.functions() == {"report": report, "hello": manifest("hello", background=False)}
    await runner.announce([manifest(timeout_s=1.0)])
    assert (await gateway.functions())["report"] == manifest(timeout_s=1.0)


async def test_what_is_withdrawn_is_unknown_and_its_work_stays(world: World) -> None:
    broker = await world.connect()
    await broker.prepare([manifest()])
    await broker.announce([manifest(), manifest("hello")])
    await broker.enqueue(invocation())
    await broker.withdraw(["report", "never-there"])
    assert set(await broker.functions()) == {"hello"}
    assert len(await taken(broker)) == 1


async def test_very_many_functions(broker: Broker) -> None:
    many = {f"f{number}": manifest(f"f{number}") for number in range(600)}
    await broker.announce(list(many.values()))
    assert await broker.functions() == many


async def test_changes_of_functions_are_told(world: World) -> None:
    runner, gateway = await world.connect("runner"), await world.connect("gateway")
    for change in (runner.announce([manifest()]), runner.withdraw(["report"])):
        waiting_for_it = asyncio.create_task(gateway.function_changes(60.0))
        await asyncio.sleep(0.05)
        assert not waiting_for_it.done()
        await change
        await asyncio.wait_for(waiting_for_it, 20)


async def test_a_change_between_two_waits_is_not_missed(world: World) -> None:
    runner, gateway = await world.connect("runner"), await world.connect("gateway")
    await gateway.function_changes(0.01)
    await runner.announce([manifest()])
    await asyncio.wait_for(gateway.function_changes(60.0), 20)


async def test_without_a_change_of_functions_the_wait_ends_in_time(broker: Broker) -> None:
    started_at = time.monotonic()
    await broker.function_changes(0.2)
    assert 0.15 < time.monotonic() - started_at < 10.0


async def test_beats_are_heard_by_all(world: World) -> None:
    runner, *gateways = [await world.connect(name) for name in ("runner", "g1", "g2")]
    full = Beat(runner="r1", functions=("a", "b"), slots=16, draining=True, metrics="127.0.0.1:9465")
    small = Beat(runner="r2", functions=(), slots=0)

    async def listen(gateway: Broker) -> list[Beat]:
        async with aclosing(gateway.beats()) as beats:  # type: ignore[type-var]
            return [await anext(beats), await anext(beats)]

    called = asyncio.Semaphore(0)

    async def answer() -> None:
        called.release()

    await runner.on_roll_call(answer)
    listening = [asyncio.create_task(listen(gateway)) for gateway in gateways]
    for _ in gateways:
        await asyncio.wait_for(called.acquire(), 20)
    await runner.beat(full)
    await runner.beat(small)
    for task in listening:
        assert await asyncio.wait_for(task, 20) == [full, small]


async def test_who_begins_to_listen_is_answered_at_once(world: World) -> None:
    runner, gateway = await world.connect("runner"), await world.connect("gateway")
    beat = Beat(runner="r1", functions=("a",), slots=16)
    await runner.on_roll_call(lambda: runner.beat(beat))
    async with aclosing(gateway.beats()) as beats:  # type: ignore[type-var]
        assert await asyncio.wait_for(anext(beats), 20) == beat


async def test_an_open_connection(broker: Broker) -> None:
    assert broker.connected
    assert broker.body_bytes_max >= 6 * 1024 * 1024
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(broker.lost(), 0.05)


async def test_what_is_raised_while_connected_comes_out_as_it_is(world: World) -> None:
    async def use() -> None:
        async with AsyncExitStack() as stack:
            await World(url=world.url, stack=stack).connect()
            message = "mine"
            raise KeyError(message)

    with pytest.raises(KeyError, match="mine"):
        await use()


Use = Callable[[Broker, str], Coroutine[Any, Any, object]]


@pytest.mark.parametrize("name", BAD_FUNCTIONS)
@pytest.mark.parametrize(
    "use",
    [
        lambda broker, name: broker.enqueue(invocation(name)),
        lambda broker, name: broker.tend([name]),
        lambda broker, name: broker.prepare([manifest(name)]),
        lambda broker, name: pulled(broker, function=name),
        lambda broker, name: broker.read(name, new_id()),
        lambda broker, name: broker.write(waiting(invocation(name))),
        lambda broker, name: broker.announce([manifest(name)]),
        lambda broker, name: broker.withdraw([name]),
        lambda broker, name: broker.call(name, invocation()),
        lambda broker, name: broker.serve(name, lambda *_: None),
    ],
)
async def test_a_name_that_is_none_is_refused(broker: Broker, name: str, use: Use) -> None:
    with pytest.raises(ValueError, match="cannot name a"):
        await use(broker, name)
    assert broker.connected


@pytest.mark.parametrize("text", BAD_IDS)
@pytest.mark.parametrize(
    "use",
    [
        lambda broker, text: broker.enqueue(invocation(id=text)),
        lambda broker, text: broker.read("report", text),
        lambda broker, text: broker.status(text),
        lambda broker, text: broker.cancel(text),
        lambda broker, text: broker.who_runs(text),
        lambda broker, text: broker.changes(text).__aenter__(),
    ],
)
async def test_an_id_that_is_none_is_refused(broker: Broker, text: str, use: Use) -> None:
    with pytest.raises(ValueError, match="is no invocation id"):
        await use(broker, text)
    assert broker.connected
