"""Schedules: firings placed ahead under a cursor, and first attempts that are accepted for later."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import pytest

import quarterhour.broker.memory
import quarterhour.broker.nats.bells
from quarterhour.broker import Broker
from quarterhour.broker.port import Cursor, Delivery
from quarterhour.errors import Conflict
from quarterhour.function import Mode
from quarterhour.ids import firing_id, new_id
from quarterhour.invocation import Invocation
from quarterhour.lifecycle import State
from tests.broker.worlds import (
    StoodStill,
    World,
    complete,
    invocation,
    manifest,
    pulled,
    retry,
    taken,
    undisturbed,
)
from tests.waiting import eventually

SCHEDULE = "* * * * * *"


def cursor(function: str = "report", **fields: object) -> Cursor:
    return replace(Cursor(function=function, schedule=SCHEDULE, placed_until=1000.0), **fields)  # type: ignore[arg-type]


def firing(moment: float, function: str = "report") -> Invocation:
    return invocation(
        function, id=firing_id(function, moment), mode=Mode.SCHEDULED, accepted_at=moment, due_at=moment
    )


def ids(found: Sequence[Delivery]) -> list[str]:
    return [delivery.invocation.id for delivery in found]


def in_time_for(moment: float) -> None:
    """Raise `StoodStill` if the moment has come already."""
    if time.time() >= moment:
        raise StoodStill


@pytest.fixture
async def ready(world: World) -> Broker:
    return await prepared(world)


async def prepared(world: World) -> Broker:
    broker = await world.connect(lease_s=30)
    await broker.prepare([manifest(), manifest("other")])
    return broker


async def test_cursors_are_stored_over_the_revision_that_they_carry(ready: Broker) -> None:
    assert await ready.cursors() == {}
    first = await ready.place(cursor(), [])
    other = await ready.place(cursor("other", placed_until=7.25), [])
    assert first == cursor(revision=first.revision)
    assert first.revision > 0
    assert await ready.cursors() == {"report": first, "other": other}
    second = await ready.place(replace(first, placed_until=2000.0), [])
    assert second.revision > first.revision
    assert await ready.cursors() == {"report": second, "other": other}


async def test_there_may_be_many_cursors(ready: Broker) -> None:
    stored = []
    for hundred in range(12):  # so many at a time as a broker answers in time on any machine
        names = [f"f{hundred}-{number}" for number in range(100)]
        stored += await asyncio.gather(*(ready.place(cursor(name), []) for name in names))
    assert await ready.cursors() == {one.function: one for one in stored}


@pytest.mark.usefixtures("patient_pulls")
async def test_a_firing_is_delivered_when_it_is_due_and_not_before(world: World) -> None:
    await undisturbed(world, fired_when_due)


async def fired_when_due(world: World) -> None:
    ready = await prepared(world)
    due_at = time.time() + 0.6
    sent = firing(due_at)
    await ready.place(cursor(), [sent])
    early, status = await pulled(ready), await ready.status(sent.id)
    in_time_for(due_at)
    assert early == []
    assert status is None  # nothing has happened yet
    [delivery] = await taken(ready)
    assert time.time() >= due_at
    assert delivery.invocation == sent
    assert delivery.number == 1
    await ready.settle(complete(delivery))
    assert await pulled(ready) == []
    status = await ready.status(sent.id)
    assert status is not None
    assert (status.record.state, status.record.mode) == (State.SUCCEEDED, Mode.SCHEDULED)


async def test_a_firing_that_is_late_already_is_delivered_at_once(
    world: World, ready: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quarterhour.broker.memory, "BELLS_SILENCE_S", 120.0)
    monkeypatch.setattr(quarterhour.broker.nats.bells, "SILENCE_S", 120.0)
    gateway = await world.connect("gateway")
    bells = ready.bells()
    ringing = asyncio.ensure_future(anext(bells))
    await asyncio.sleep(0.1)
    late, early = firing(time.time() - 100), firing(time.time() + 100)
    await gateway.place(cursor(), [late, early])
    assert await asyncio.wait_for(ringing, 30) == {"report"}
    assert ids(await taken(ready)) == [late.id]


async def test_of_two_who_place_at_the_same_time_one_does(world: World, ready: Broker) -> None:
    one, other = await world.connect("one"), await world.connect("other")
    base = await ready.place(cursor(), [])
    for turn in range(10):
        due_at = time.time() - 10 + turn
        wanted = replace(base, placed_until=due_at)
        results = await asyncio.gather(
            one.place(wanted, [firing(due_at)]),
            other.place(wanted, [firing(due_at)]),
            return_exceptions=True,
        )
        assert sorted(isinstance(result, Conflict) for result in results) == [False, True]
        [base] = [result for result in results if isinstance(result, Cursor)]
    assert await ready.cursors() == {"report": base}
    assert len(await taken(ready, 10, at_most=30)) == 10


async def test_who_is_refused_has_placed_nothing(ready: Broker) -> None:
    stored = await ready.place(cursor(), [])
    for stale in (cursor(), cursor(revision=stored.revision + 1), cursor("other", revision=1)):
        with pytest.raises(Conflict):
            await ready.place(stale, [firing(1.0), firing(2.0)])
    assert await pulled(ready) == []
    assert await ready.cursors() == {"report": stored}


async def test_what_is_unplaced_is_not_fired(world: World) -> None:
    await undisturbed(world, unplaced_in_time)


async def unplaced_in_time(world: World) -> None:
    ready = await prepared(world)
    soon = time.time() + 0.5
    first = await ready.place(cursor(), [firing(soon), firing(soon + 0.1)])
    second = await ready.place(replace(first, placed_until=3.0), [firing(soon + 0.2)])
    await ready.place(cursor("other"), [firing(soon, "other")])
    await ready.unplace(second)
    in_time_for(soon)
    assert set(await ready.cursors()) == {"other"}
    other = await taken(ready, function="other")
    assert len(other) == 1
    await asyncio.sleep(max(0.0, soon + 0.7 - time.time()))
    assert await pulled(ready) == []


async def test_what_has_been_fired_stays_when_the_rest_is_unplaced(ready: Broker) -> None:
    now = time.time()
    stored = await ready.place(cursor(), [firing(now - 1), firing(now + 100)])
    await ready.unplace(stored)
    assert ids(await taken(ready)) == [firing(now - 1).id]


async def test_unplacing_another_revision_removes_nothing(ready: Broker) -> None:
    soon = time.time() + 0.3
    first = await ready.place(cursor(), [])
    second = await ready.place(first, [firing(soon)])
    for stale in (first, replace(second, revision=0)):
        with pytest.raises(Conflict):
            await ready.unplace(stale)
    assert await ready.cursors() == {"report": second}
    found = await eventually(lambda: pulled(ready), what="it is fired")
    assert ids(found) == [firing(soon).id]


async def test_a_schedule_may_come_back(world: World) -> None:
    await undisturbed(world, comes_back)


async def comes_back(world: World) -> None:
    ready = await prepared(world)
    soon = time.time() + 0.4
    await ready.unplace(await ready.place(cursor(), [firing(soon), firing(soon + 100)]))
    in_time_for(soon)
    again = await ready.place(cursor(schedule="@daily"), [firing(soon)])
    assert await ready.cursors() == {"report": again}
    found = await eventually(lambda: pulled(ready), what="it is fired")
    assert ids(found) == [firing(soon).id]
    await ready.settle(complete(found[0]))
    await asyncio.sleep(0.2)
    assert await pulled(ready) == []  # once


# First attempts that are due later


async def test_a_delayed_invocation_waits_for_its_moment(world: World) -> None:
    await undisturbed(world, waits_for_its_moment)


async def waits_for_its_moment(world: World) -> None:
    ready = await prepared(world)
    due_at = time.time() + 0.6
    sent = invocation(due_at=due_at)
    for _ in range(3):
        await ready.enqueue(sent)  # a repeat is stored once
    early, status = await pulled(ready), await ready.status(sent.id)
    in_time_for(due_at)
    assert early == []
    assert status is not None
    assert (status.record.state, status.record.due_at, status.record.function) == (
        State.DELAYED,
        due_at,
        "report",
    )
    [delivery] = await taken(ready)
    assert time.time() >= due_at
    assert delivery.invocation == sent
    waiting = await ready.status(sent.id)
    assert waiting is not None
    assert waiting.record.state is State.WAITING
    await ready.settle(complete(delivery))
    assert await pulled(ready) == []


async def test_delayed_invocations_are_counted_until_they_are_due(world: World) -> None:
    await undisturbed(world, counted_until_due)


async def counted_until_due(world: World) -> None:
    ready = await prepared(world)
    gateway = await world.connect("gateway", lease_s=30)
    assert (await ready.tend(["report"]))["report"].delayed == 0
    now = time.time()
    soon, later = invocation(due_at=now + 1.2), invocation(due_at=now + 100)
    for sent in (soon, soon, later, invocation("other", due_at=now + 100), invocation()):
        await gateway.enqueue(sent)
    await ready.place(cursor(), [firing(now + 100)])
    [first] = await taken(ready)
    await ready.settle(retry(first, after_s=100))

    async def counted(broker: Broker) -> bool:
        depths = await broker.tend(["report", "other", "idle"])
        in_time_for(now + 1.2)
        counts = {name: (depth.waiting, depth.delayed) for name, depth in depths.items()}
        return counts == {"report": (0, 2), "other": (0, 1), "idle": (0, 0)}

    for broker in (ready, gateway):
        await eventually(partial(counted, broker), what="all that are delayed are counted")

    async def fired() -> bool:
        depth = (await gateway.tend(["report"]))["report"]
        assert depth.waiting + depth.delayed <= 2
        return (depth.waiting, depth.delayed) == (1, 1)

    await eventually(fired, what="the one that is due waits, and the other is still delayed")


async def test_delayed_invocations_of_a_withdrawn_function_count_when_it_is_back(ready: Broker) -> None:
    await ready.enqueue(invocation(due_at=time.time() + 100))
    assert await ready.tend([]) == {}
    await ready.enqueue(invocation(due_at=time.time() + 100))

    async def counted() -> bool:
        return (await ready.tend(["report"]))["report"].delayed == 2

    await eventually(counted, what="both are counted")


async def test_the_age_of_a_delayed_invocation_counts_from_when_it_is_due(ready: Broker) -> None:
    due_at = time.time() + 0.5
    await ready.enqueue(invocation(accepted_at=due_at - 1000, due_at=due_at))

    async def age() -> float | None:
        return (await ready.tend(["report"]))["report"].oldest_due_at

    oldest = await eventually(age, what="it waits")
    assert due_at - 0.1 < oldest < due_at + 10  # and not since it was accepted


async def test_delays_are_those_of_one_invocation(ready: Broker) -> None:
    later, now = invocation(due_at=time.time() + 100), invocation()
    await ready.enqueue(later)
    await ready.enqueue(now)
    assert ids(await taken(ready)) == [now.id]
    assert await ready.status(new_id()) is None
