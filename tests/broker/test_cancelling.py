"""Cancelling: what is cancelled does not run, whatever it waits for, and whoever runs it is told."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest

from quarterhour.body import BodyKind
from quarterhour.broker import Broker
from quarterhour.broker.port import Delivery, Settlement
from quarterhour.errors import Conflict
from quarterhour.ids import new_id
from quarterhour.lifecycle import State
from quarterhour.outcome import Cancelled
from quarterhour.record import Record, settled, started, waiting
from quarterhour.retry import Complete
from tests.broker.worlds import (
    SHORT_LEASE_S,
    World,
    bury,
    complete,
    invocation,
    manifest,
    pulled,
    retry,
    taken,
)
from tests.waiting import eventually


@pytest.fixture
async def ready(broker: Broker) -> Broker:
    await broker.prepare([manifest()])
    return broker


async def cancelled(broker: Broker, id: str) -> Record:
    """The record of an invocation that is cancelled by this."""
    record = await broker.cancel(id)
    assert record is not None
    assert record.state is State.CANCELLED
    assert record == await broker.read(record.function, id)
    status = await broker.status(id)
    assert status is not None
    assert (status.record, status.run) == (record, None)
    return record


async def counted(broker: Broker, waiting: int, leased: int, delayed: int) -> None:
    """Return when so many wait, are leased, and are delayed: a queue counts a moment after it was told."""

    async def seen() -> bool:
        depth = (await broker.tend(["report"]))["report"]
        return (depth.waiting, depth.leased, depth.delayed) == (waiting, leased, delayed)

    await eventually(seen, what=f"{waiting} wait, {leased} are leased and {delayed} delayed")


async def never_delivered(broker: Broker, *, until: float) -> None:
    """Pull until the moment (Unix s) by which it would have come."""
    while time.time() < until:
        assert await pulled(broker) == []
        await asyncio.sleep(0.02)


async def test_what_waits(ready: Broker) -> None:
    others = [invocation(), invocation()]
    sent = invocation()
    for each in (others[0], sent, others[1]):
        await ready.enqueue(each)
    before = time.time()
    record = await cancelled(ready, sent.id)
    assert before <= (record.finished_at or 0) <= time.time()
    assert (record.attempt, record.started_at, record.attempts) == (1, None, ())
    await counted(ready, 2, 0, 0)
    found = await taken(ready, 2)
    assert [delivery.invocation.id for delivery in found] == [each.id for each in others]
    for delivery in found:
        await ready.settle(complete(delivery))
    assert await pulled(ready) == []


async def test_what_waits_without_a_queue(broker: Broker) -> None:
    sent = invocation()
    await broker.enqueue(sent)
    await cancelled(broker, sent.id)
    await counted(broker, 0, 0, 0)
    await broker.prepare([manifest()])
    assert await pulled(broker) == []


async def test_what_is_delayed(ready: Broker) -> None:
    far = [invocation(due_at=time.time() + 1000) for _ in range(2)]
    for each in far:
        await ready.enqueue(each)
    await counted(ready, 0, 0, 2)
    await cancelled(ready, far[0].id)
    await counted(ready, 0, 0, 1)
    due_at = time.time() + 1
    sent, other = invocation(due_at=due_at), invocation(due_at=due_at)
    for each in (sent, other):
        await ready.enqueue(each)
    await cancelled(ready, sent.id)
    [delivery] = await taken(ready)
    assert delivery.invocation.id == other.id
    await never_delivered(ready, until=due_at + 0.3)
    await counted(ready, 0, 1, 1)


@pytest.mark.parametrize("after_s", [1000.0, 0.6])
async def test_what_is_to_be_tried_again(ready: Broker, after_s: float) -> None:
    await ready.enqueue(invocation())
    [delivery] = await taken(ready)
    settlement = retry(delivery, after_s=after_s)
    assert settlement.retry is not None
    await ready.settle(settlement)
    record = await cancelled(ready, delivery.invocation.id)
    in_time = time.time() < settlement.retry.due_at
    assert record.next_attempt_at is None
    assert record.attempt == 1 or not in_time
    assert record.attempts == settlement.record.attempts
    if after_s < 1:
        await never_delivered(ready, until=settlement.retry.due_at + 0.5)
    await counted(ready, 0, 0, 0)


async def test_what_is_tried_again_in_the_same_moment(ready: Broker) -> None:
    for after_s in (0.0, 0.02, 0.05, 0.1):
        await ready.enqueue(invocation())
        [first] = await taken(ready)
        settlement = retry(first, after_s=after_s)
        await ready.settle(settlement)
        assert settlement.retry is not None
        await asyncio.sleep(max(0.0, settlement.retry.due_at - time.time()))
        record = await cancelled(ready, first.invocation.id)
        on_its_way: list[Delivery] = []
        while time.time() < settlement.retry.due_at + 0.3:
            for delivery in await pulled(ready):  # it may have been so, but once
                assert not delivery.is_new
                on_its_way.append(delivery)
                await ready.acknowledge(delivery)
            await asyncio.sleep(0.02)
        assert len(on_its_way) <= 1
        assert len(record.attempts) == 1


async def test_a_retry_that_waits(ready: Broker) -> None:
    await ready.enqueue(invocation())
    [first] = await taken(ready)
    await ready.settle(retry(first, after_s=0.0))

    async def is_waiting() -> bool:
        status = await ready.status(first.invocation.id)
        return status is not None and status.record.attempt == 2

    await eventually(is_waiting, what="the retry waits")
    record = await cancelled(ready, first.invocation.id)
    assert (record.attempt, len(record.attempts)) == (2, 1)
    assert await pulled(ready) == []
    await counted(ready, 0, 0, 0)


@pytest.mark.parametrize("noted", [False, True])
async def test_what_is_leased_is_cancelled_and_not_delivered_again(world: World, noted: bool) -> None:
    runner, gateway = await world.connect("runner", lease_s=SHORT_LEASE_S), await world.connect("gateway")
    told: list[str] = []
    await runner.on_cancelled(told.append)
    await runner.prepare([manifest()])
    await gateway.enqueue(invocation())
    [delivery] = await taken(runner)
    id = delivery.invocation.id
    if noted:
        await runner.write(started(waiting(delivery.invocation), runner="runner", now=1.0))
    record = await cancelled(gateway, id)
    assert record.notes == ()
    await eventually(lambda: told, what="the runner is told")
    assert told == [id]
    await never_delivered(runner, until=time.time() + 2 * SHORT_LEASE_S)

    with pytest.raises(Conflict):
        await runner.settle(complete(delivery))
    await runner.settle(ended(delivery, record))
    stored = await gateway.read("report", id)
    assert stored is not None
    assert (stored.state, stored.finished_at) == (State.CANCELLED, record.finished_at)
    assert [(one.attempt, one.outcome, one.logs) for one in stored.attempts] == [(1, "cancelled", "a line\n")]
    await counted(gateway, 0, 0, 0)


def ended(delivery: Delivery, record: Record) -> Settlement:
    """The settlement of an attempt that was ended for the cancel."""
    done = settled(
        record,
        Cancelled(),
        Complete(),
        started_at=1.0,
        finished_at=2.0,
        logs="a line\n",
        runner="runner",
    )
    return replace(complete(delivery), record=done)


async def test_a_start_note_after_the_cancel_is_refused(ready: Broker) -> None:
    await ready.enqueue(invocation())
    [delivery] = await taken(ready)
    await cancelled(ready, delivery.invocation.id)
    with pytest.raises(Conflict):
        await ready.write(started(waiting(delivery.invocation), runner="late", now=1.0))


@pytest.mark.parametrize(("settle", "state"), [(complete, State.SUCCEEDED), (bury, State.DEAD)])
async def test_what_has_ended_stays_as_it_is(
    ready: Broker, settle: Callable[[Delivery], Settlement], state: State
) -> None:
    told: list[str] = []
    await ready.on_cancelled(told.append)
    await ready.enqueue(invocation())
    [delivery] = await taken(ready)
    await ready.settle(settle(delivery))
    before = await ready.read("report", delivery.invocation.id)
    record = await ready.cancel(delivery.invocation.id)
    assert record is not None
    assert record.state is state
    assert record == before == await ready.read("report", delivery.invocation.id)
    assert told == []


async def test_what_nobody_knows(ready: Broker) -> None:
    assert await ready.cancel(new_id()) is None


async def test_twice_is_no_harm_and_tells_again(world: World) -> None:
    runner, gateway = await world.connect("runner"), await world.connect("gateway")
    told: list[str] = []
    await runner.on_cancelled(told.append)
    sent = invocation()
    await gateway.enqueue(sent)
    first = await cancelled(gateway, sent.id)
    assert await cancelled(gateway, sent.id) == first
    await eventually(lambda: len(told) == 2, what="runners are told twice")


async def test_two_at_the_same_time_are_one(world: World) -> None:
    one, other = await world.connect("one"), await world.connect("other")
    sent = invocation()
    await one.enqueue(sent)
    first, second = await asyncio.gather(one.cancel(sent.id), other.cancel(sent.id))
    assert first is not None
    assert first == second == await one.read("report", sent.id)


async def test_it_or_the_end_comes_first(world: World) -> None:
    runner, gateway = await world.connect("runner"), await world.connect("gateway")
    await runner.prepare([manifest()])
    ends = set()
    for number in range(20):
        await gateway.enqueue(invocation())
        [delivery] = await taken(runner)

        async def settle(delivery: Delivery = delivery, after_s: float = number / 5000) -> bool:
            await asyncio.sleep(after_s)
            try:
                await runner.settle(complete(delivery))
            except Conflict:
                return False
            return True

        success, record = await asyncio.gather(settle(), gateway.cancel(delivery.invocation.id))
        stored = await gateway.read("report", delivery.invocation.id)
        assert record == stored
        assert record is not None
        assert record.state is (State.SUCCEEDED if success else State.CANCELLED)
        ends.add(record.state)
    assert ends <= {State.SUCCEEDED, State.CANCELLED}


async def test_a_repeat_of_its_acceptance_does_not_bring_it_back(ready: Broker) -> None:
    sent = invocation()
    await ready.enqueue(sent)
    await cancelled(ready, sent.id)
    await ready.enqueue(sent)
    assert await pulled(ready) == []


async def test_its_large_body_is_left_to_the_sweep(ready: Broker) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"piece"

    sent = invocation(body=None)
    claim = await ready.keep_body(BodyKind.WORK, sent.id, chunks(), keep_s=60)
    await ready.enqueue(replace(sent, claim=claim))
    assert await ready.sweep_bodies(before=time.time() + 1, count_max=10) == 0
    await cancelled(ready, sent.id)
    assert await ready.sweep_bodies(before=time.time() + 1, count_max=10) == 1
