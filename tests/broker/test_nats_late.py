"""A delivery that comes late, because the link stood still: it is nobody's any more, and does no harm."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from quarterhour.broker import Broker
from tests.broker.nats_inside import Inside, look_inside, pulling_patiently
from tests.broker.worlds import World, invocation, manifest, pulled, taken
from tests.faults.proxy import Proxy
from tests.nats_server import NatsServer
from tests.waiting import eventually

LEASE_S = 1.2


@pytest.fixture
async def worlds(tmp_path: Path) -> AsyncIterator[tuple[World, World, Proxy]]:
    """The same server, over a link that can be hindered and without."""
    with NatsServer(tmp_path) as server:
        async with Proxy(server.port) as link, AsyncExitStack() as stack:
            near = World(url=server.url, stack=stack)
            far = World(url=f"nats://127.0.0.1:{link.port}", stack=stack, namespace=near.namespace)
            yield near, far, link


async def taken_over(near_world: World, far_world: World, link: Proxy) -> tuple[Broker, Proxy]:
    """What was delivered over the link has not arrived, and somebody else has it since its lease ended."""
    near = await near_world.connect("near", lease_s=LEASE_S)
    far = await far_world.connect("far", lease_s=LEASE_S)
    for broker in (near, far):
        await broker.prepare([manifest()])
    async with look_inside(near_world.url, near_world.namespace) as inside:
        await near.enqueue(invocation())
        await eventually(inside.waiting, what="the queue has seen it")
        link.deafen()
        assert await pulled(far) == []
        await eventually(lambda: is_delivered(inside), what="it is on its way to the far one")
    longer = await near_world.connect("longer")
    with pulling_patiently():
        [delivery] = await taken(near)
    await longer.prepare(
        [manifest()]
    )  # the near one keeps what it has, however long this machine stands still
    assert delivery.number == 2
    return far, link


async def is_delivered(inside: Inside) -> bool:
    return bool((await inside.queue())["num_ack_pending"])


async def test_a_late_delivery_is_not_taken_for_one_of_the_next_pull(
    worlds: tuple[World, World, Proxy],
) -> None:
    far, link = await taken_over(*worlds)
    async with asyncio.TaskGroup() as group:
        pull = group.create_task(pulled(far))
        await asyncio.sleep(0.1)  # it is open now
        link.heal()
    assert pull.result() == []


async def test_a_late_delivery_is_not_given_back_from_under_its_next_holder(
    worlds: tuple[World, World, Proxy],
) -> None:
    far, link = await taken_over(*worlds)
    link.heal()
    await far.functions()  # what was held back comes before this answer
    assert await pulled(far) == []
    async with look_inside(worlds[0].url, worlds[0].namespace) as inside:
        assert (await inside.queue())["num_redelivered"] == 1


async def test_what_is_on_its_way_to_one_who_ends_is_not_left_to_its_lease(
    worlds: tuple[World, World, Proxy],
) -> None:
    near_world, far_world, link = worlds
    near = await near_world.connect("near", lease_s=60)
    async with AsyncExitStack() as until_it_ends:
        far = await replace(far_world, stack=until_it_ends).connect("far", lease_s=60)
        for broker in (near, far):
            await broker.prepare([manifest()])
        assert await pulled(far) == []
        async with look_inside(near_world.url, near_world.namespace) as inside:
            await near.enqueue(invocation())
            await eventually(inside.waiting, what="the queue has seen it")
            link.deafen()
            assert await pulled(far) == []
            await eventually(lambda: is_delivered(inside), what="it is on its way to the far one")
        asyncio.get_running_loop().call_later(0.3, link.heal)
    with pulling_patiently():
        [delivery] = await taken(near)
    assert delivery.number == 2
