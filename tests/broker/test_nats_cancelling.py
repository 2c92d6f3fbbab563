"""Cancelling in NATS: whoever dies on the way leaves nothing that could run, nor anything that stays."""

import time
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from quarterhour.broker.nats.cancelling import Cancelling
from quarterhour.errors import BrokerUnavailable
from quarterhour.lifecycle import State
from tests.broker.nats_inside import look_inside
from tests.broker.worlds import SHORT_LEASE_S, World, invocation, manifest, pulled, retry, taken
from tests.nats_server import NatsServer
from tests.waiting import eventually

DIED = "It died, says the test."


async def die(*_: object) -> None:
    raise BrokerUnavailable(DIED)


@pytest.mark.parametrize("step", ["_remove", "_tell"])
async def test_what_waits_does_not_run_wherever_the_gateway_died(
    nats_world: World, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    gateway, runner = await nats_world.connect("gateway"), await nats_world.connect("runner")
    await runner.prepare([manifest()])
    sent = invocation()
    await gateway.enqueue(sent)
    with monkeypatch.context() as patched:
        patched.setattr(Cancelling, step, die)
        with pytest.raises(BrokerUnavailable):
            await gateway.cancel(sent.id)
    status = await gateway.status(sent.id)
    assert status is not None
    assert status.record.state is State.CANCELLED
    assert await pulled(runner) == []

    async def nothing_waits() -> bool:
        depth = (await gateway.tend(["report"]))["report"]
        return (depth.waiting, depth.leased) == (0, 0)

    await eventually(nothing_waits, what="nothing waits any more")
    record = await gateway.cancel(sent.id)
    assert record == status.record


async def test_nothing_but_the_record_is_left(nats_world: World, nats: NatsServer) -> None:
    broker = await nats_world.connect()
    await broker.prepare([manifest()])
    waits, delayed, fails = invocation(), invocation(due_at=time.time() + 60), invocation()
    await broker.enqueue(fails)
    [delivery] = await taken(broker)
    await broker.settle(retry(delivery, after_s=60))
    for each in (waits, delayed):
        await broker.enqueue(each)
    for each in (waits, delayed, fails):
        await broker.cancel(each.id)
    async with look_inside(nats.url, nats_world.namespace) as inside:
        records = {f"{nats_world.namespace}.r.report.{each.id}" for each in (waits, delayed, fails)}
        found = {subject for subject in await inside.subjects() if ".c._server." not in subject}
        assert found == records
        for each in (waits, delayed, fails):
            headers, _ = await inside.message(f"r.report.{each.id}")
            assert headers["Nats-TTL"] == "604800s"

        async def is_empty() -> bool:
            queue = await inside.queue()
            return (queue["num_pending"], queue["num_ack_pending"]) == (0, 0)

        await eventually(is_empty, what="nothing is left on the queue")


async def test_what_a_killed_server_brings_back_is_not_taken_for_new(tmp_path: Path) -> None:
    with NatsServer(tmp_path) as server:
        async with AsyncExitStack() as stack:
            own = World(url=server.url, stack=stack)
            broker = await own.connect(lease_s=SHORT_LEASE_S)
            await broker.prepare([manifest()])
            due_at = time.time() + 1.5
            leased, waits, delayed = invocation(), invocation(), invocation(due_at=due_at)
            await broker.enqueue(leased)
            assert len(await taken(broker)) == 1
            for each in (waits, delayed):
                await broker.enqueue(each)
            for each in (leased, waits, delayed):
                await broker.cancel(each.id)
            server.kill()
            await eventually(lambda: not broker.connected, what="it is away")
            server.start()
            await eventually(lambda: broker.connected, what="it is back")

            async def take_back() -> None:
                for delivery in await pulled(broker):  # it may have forgotten what it has removed
                    assert not delivery.is_new
                    await broker.acknowledge(delivery)

            while time.time() < due_at + 0.5:
                await take_back()
            for each in (leased, waits, delayed):
                record = await broker.read("report", each.id)
                assert record is not None
                assert record.state is State.CANCELLED

            async def nothing_is_left() -> bool:
                await take_back()
                depth = (await broker.tend(["report"]))["report"]
                return (depth.waiting, depth.leased, depth.delayed) == (0, 0, 0)

            await eventually(nothing_is_left, what="nothing is left")
