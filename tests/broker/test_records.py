"""Records: compare-and-set, status, changes, and how long they are kept."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from quarterhour.broker import Broker
from quarterhour.broker.port import Delivery, Run, Settlement, Status
from quarterhour.errors import Conflict
from quarterhour.ids import new_id
from quarterhour.lifecycle import State
from quarterhour.record import started, waiting
from tests.broker.worlds import World, bury, complete, invocation, manifest, retry, taken
from tests.waiting import eventually


@pytest.fixture
async def ready(broker: Broker) -> Broker:
    await broker.prepare([manifest()])
    return broker


async def test_a_record_that_is_not_there(broker: Broker) -> None:
    assert await broker.read("report", new_id()) is None


async def test_a_record_is_written_over_the_revision_that_it_carries(broker: Broker) -> None:
    first = waiting(invocation())
    second = await broker.write(first)
    assert second == replace(first, revision=second.revision)
    third = await broker.write(started(second, runner="one", now=1.0))
    assert third.revision > second.revision > 0
    assert await broker.read("report", first.id) == third


@pytest.mark.parametrize("stale", ["first", "second"])
async def test_a_record_is_not_written_over_another_revision(broker: Broker, stale: str) -> None:
    first = waiting(invocation())
    second = await broker.write(first)
    third = await broker.write(started(second, runner="one", now=1.0))
    late = {"first": first, "second": second}[stale]
    with pytest.raises(Conflict):
        await broker.write(started(late, runner="late", now=2.0))
    assert await broker.read("report", first.id) == third


async def test_the_same_record_again_is_no_conflict(broker: Broker) -> None:
    note = started(waiting(invocation()), runner="one", now=1.0)
    stored = await broker.write(note)
    assert await broker.write(note) == stored


async def test_of_two_writers_at_the_same_time_one_comes_second(world: World) -> None:
    one, other = await world.connect("one"), await world.connect("other")
    record = waiting(invocation())
    results = await asyncio.gather(
        one.write(started(record, runner="one", now=1.0)),
        other.write(started(record, runner="other", now=1.0)),
        return_exceptions=True,
    )
    assert sorted(isinstance(result, Conflict) for result in results) == [False, True]


async def test_ended_records_are_forgotten_in_time(world: World) -> None:
    broker = await world.connect(record_succeeded_s=1.0, record_failed_s=3600.0)
    await broker.prepare([manifest()])
    for _ in range(2):
        await broker.enqueue(invocation())
    good, bad = await taken(broker, 2)
    before = time.monotonic()
    await broker.settle(complete(good))
    await broker.settle(bury(bad))
    status = await broker.status(good.invocation.id)
    assert status is not None or time.monotonic() - before >= 1.0

    async def forgotten() -> bool:
        return await broker.read("report", good.invocation.id) is None

    await eventually(forgotten, what="the record of the success is gone")
    assert await broker.read("report", bad.invocation.id) is not None


async def test_the_status_of_an_unknown_id(broker: Broker) -> None:
    assert await broker.status(new_id()) is None


async def test_the_status_of_what_waits(ready: Broker) -> None:
    sent = invocation()
    await ready.enqueue(sent)
    status = await ready.status(sent.id)
    assert status is not None
    assert status.record == waiting(sent)
    assert status.run is None


async def test_the_status_of_what_runs(world: World) -> None:
    runner, gateway = await world.connect("runner", lease_s=30), await world.connect("gateway")
    await runner.prepare([manifest()])
    await gateway.enqueue(invocation())
    [delivery] = await taken(runner)
    running = Run(runner="runner", attempt=1, started_at=time.time())
    wanted = delivery.invocation.id
    await runner.answer_who_runs(lambda invocation_id: running if invocation_id == wanted else None)

    async def running_now() -> Status | None:
        status = await gateway.status(wanted)
        return status if status is not None and status.run is not None else None

    # The question is open for a moment only, and a runner that stands still then is not heard.
    status = await eventually(running_now, what="the runner answers")
    assert status.run == running
    assert status.record == waiting(delivery.invocation)


async def test_the_status_of_what_runs_from_its_second_delivery_on(ready: Broker) -> None:
    await ready.enqueue(invocation())
    [delivery] = await taken(ready)
    note = await ready.write(started(waiting(delivery.invocation), runner="one", now=1.0))
    status = await ready.status(delivery.invocation.id)
    assert status is not None
    assert status.record == note


async def test_the_status_of_a_retry(ready: Broker) -> None:
    for after_s in (1000.0, 0.5):  # the first one for the time before it is due, the last one for after it
        await ready.enqueue(invocation())
        [first] = await taken(ready)
        settlement = retry(first, after_s=after_s)
        await ready.settle(settlement)
        assert settlement.retry is not None
        status = await ready.status(first.invocation.id)
        assert status is not None
        if time.time() < settlement.retry.due_at:
            assert replace(status.record, revision=0) == settlement.record
            assert status.record.state is State.RETRYING

    async def is_waiting() -> bool:
        now = await ready.status(first.invocation.id)
        return now is not None and now.record.state is State.WAITING

    await eventually(is_waiting, what="the retry waits")
    status = await ready.status(first.invocation.id)
    assert status is not None
    assert status.record.attempt == 2
    assert settlement.retry is not None
    assert status.record.due_at == settlement.retry.due_at
    assert status.record.next_attempt_at is None
    assert [attempt.attempt for attempt in status.record.attempts] == [1]


async def test_the_status_of_what_has_ended(ready: Broker) -> None:
    for _ in range(2):
        await ready.enqueue(invocation())
    good, bad = await taken(ready, 2)
    await ready.settle(complete(good))
    await ready.settle(bury(bad))
    for delivery, state in ((good, State.SUCCEEDED), (bad, State.DEAD)):
        status = await ready.status(delivery.invocation.id)
        assert status is not None
        assert (status.record.state, status.run) == (state, None)


@pytest.mark.parametrize(("settle", "state"), [(complete, State.SUCCEEDED), (bury, State.DEAD)])
async def test_a_change_wakes_who_waits_for_it(
    world: World, settle: Callable[[Delivery], Settlement], state: State
) -> None:
    runner, gateway = await world.connect("runner"), await world.connect("gateway")
    await runner.prepare([manifest()])
    await gateway.enqueue(invocation())
    [delivery] = await taken(runner)
    wanted = delivery.invocation.id

    async def ended() -> bool:
        status = await gateway.status(wanted)
        return status is not None and status.record.state is state

    async with gateway.changes(wanted) as changed:
        started_at = time.monotonic()
        settling = asyncio.create_task(runner.settle(settle(delivery)))
        while not await ended():
            await changed(60.0)
        assert time.monotonic() - started_at < 30.0
        await settling


async def test_without_a_change_the_wait_ends_in_time(broker: Broker) -> None:
    async with broker.changes(new_id()) as changed:
        started_at = time.monotonic()
        await broker.write(waiting(invocation()))  # another one's
        await changed(0.2)
        assert 0.15 < time.monotonic() - started_at < 10.0
