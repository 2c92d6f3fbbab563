"""Three servers that each keep every message: accept, run, settle and tell go on when one of them is lost."""

import asyncio
import functools
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from quarterhour.broker import Broker, BrokerOptions, connect_patiently
from quarterhour.broker.nats.permissions import ROLES
from quarterhour.broker.port import Delivery
from quarterhour.errors import BrokerUnavailable
from quarterhour.lifecycle import State
from tests.broker.worlds import bury, complete, invocation, manifest, pulled, retry
from tests.nats_cluster import NatsCluster, ask, connected
from tests.nats_roles import GUARDED_CLUSTER, url_of, violations
from tests.waiting import eventually

LONG = os.environ.get("QUARTERHOUR_TEST_LONG") == "true"
AGAIN_S = 60.0  # for an election; measured: 0.1 s after a stepdown, up to 5 s after a kill

T = TypeVar("T")


@asynccontextmanager
async def both(cluster: NatsCluster) -> AsyncIterator[tuple[Broker, Broker]]:
    """A gateway's connection, and a runner's that has prepared its function; each may do what it needs."""
    for_gateway, for_runner = (
        BrokerOptions(url=",".join(url_of(each, role) for each in cluster.servers) + "?replicas=3", name=role)
        for role in ROLES
    )
    async with connect_patiently(for_gateway) as gateway, connect_patiently(for_runner) as runner:
        await patiently(lambda: runner.prepare([manifest()]))
        yield gateway, runner
    assert [line for server in cluster.servers for line in violations(server)] == []


async def accepted(gateway: Broker, runner: Broker, count: int) -> list[Delivery]:
    """So many that are accepted, and delivered."""
    waiting = [invocation() for _ in range(count)]
    await asyncio.gather(*(patiently(functools.partial(gateway.enqueue, each)) for each in waiting))
    deliveries = await taken(runner, count)
    assert {one.invocation.id for one in deliveries} == {each.id for each in waiting}
    return deliveries


async def test_what_is_told_after_another_leader_was_elected(tmp_path: Path) -> None:
    async with NatsCluster(tmp_path, text=GUARDED_CLUSTER) as cluster, both(cluster) as (gateway, runner):
        assert not [warning for warning in gateway.warnings if "replica" in warning]
        for delivery in await accepted(gateway, runner, 3):
            await cluster.step_down("quarterhour")
            await patiently(functools.partial(runner.settle, complete(delivery)))
            assert await state(gateway, delivery) is State.SUCCEEDED
        await what_is_cancelled(cluster, gateway, runner)


async def what_is_cancelled(cluster: NatsCluster, gateway: Broker, runner: Broker) -> None:
    told: list[str] = []
    await runner.on_cancelled(told.append)
    (leased,) = [delivery.invocation for delivery in await accepted(gateway, runner, 1)]
    waits, delayed = invocation(), invocation(due_at=time.time() + 60)
    for each in (waits, delayed):
        await patiently(functools.partial(gateway.enqueue, each))
    for each in (leased, waits, delayed):
        await cluster.step_down("quarterhour")
        record = await patiently(functools.partial(gateway.cancel, each.id))
        assert record is not None
        assert record.state is State.CANCELLED
        assert await patiently(functools.partial(runner.read, "report", each.id)) == record
    await eventually(lambda: set(told) == {leased.id, waits.id, delayed.id}, what="the runner is told of all")

    async def nothing_waits() -> bool:
        depth = (await patiently(lambda: gateway.tend(["report"])))["report"]
        return (depth.waiting, depth.delayed) == (0, 0)

    await eventually(nothing_waits, what="nothing waits any more")


@pytest.mark.skipif(not LONG, reason="takes ten seconds; QUARTERHOUR_TEST_LONG=true runs it")
async def test_two_servers_go_on_and_the_third_catches_up(tmp_path: Path) -> None:
    async with NatsCluster(tmp_path, text=GUARDED_CLUSTER) as cluster, both(cluster) as (gateway, runner):
        await patiently(lambda: runner.announce([manifest()]))
        done, again, dead = await accepted(gateway, runner, 3)
        await cluster.step_down("quarterhour", "fn-report")
        await patiently(lambda: runner.settle(complete(done)))
        leader = await eventually(lambda: cluster.leader("quarterhour"), what="one of them leads")
        leader.kill()
        await patiently(lambda: runner.settle(retry(again, after_s=0)))
        await patiently(lambda: runner.settle(bury(dead)))
        (second,) = await taken(runner, 1)
        assert (second.invocation.id, second.invocation.attempt) == (again.invocation.id, 2)
        assert await state(gateway, done) is State.SUCCEEDED
        assert await state(gateway, dead) is State.DEAD
        await accepted(gateway, runner, 1)
        assert set(await patiently(gateway.functions)) == {"report"}
        leader.start()
        await eventually(lambda: caught_up(cluster), deadline_s=AGAIN_S, what="the third server caught up")


async def patiently(act: Callable[[], Awaitable[T]]) -> T:
    """Repeat what may be repeated, while the cluster elects."""
    found: list[T] = []

    async def done() -> bool:
        try:
            found.append(await act())
        except BrokerUnavailable:
            return False
        return True

    await eventually(done, deadline_s=AGAIN_S, what="the cluster did it")
    return found[0]


async def taken(runner: Broker, count: int) -> list[Delivery]:
    """That many deliveries, in as many pulls as it takes."""
    found: list[Delivery] = []

    async def enough() -> bool:
        try:
            found.extend(await pulled(runner, count - len(found)))
        except BrokerUnavailable:
            return False
        return len(found) == count

    await eventually(enough, deadline_s=AGAIN_S, what="the work was delivered")
    return found


async def state(gateway: Broker, delivery: Delivery) -> State | None:
    status = await patiently(lambda: gateway.status(delivery.invocation.id))
    return status.record.state if status is not None else None


async def caught_up(cluster: NatsCluster) -> bool:
    async with connected(cluster.url) as client:
        info = await ask(client, "STREAM.INFO.quarterhour")
    replicas = (info.get("cluster") or {}).get("replicas", [])
    return len(replicas) == 2 and all(one["current"] and not one.get("offline") for one in replicas)
