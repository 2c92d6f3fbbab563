"""Work as runners take it: leases, redelivery, settlement."""

import asyncio
import time
from contextlib import aclosing
from dataclasses import replace
from itertools import pairwise

import pytest

import quarterhour.broker.nats.work
import quarterhour.invocation
from quarterhour.broker import Broker
from quarterhour.broker.port import Delivery, Run, Status
from quarterhour.clock import boot_s
from quarterhour.errors import Conflict
from quarterhour.function import Mode
from quarterhour.ids import new_id
from quarterhour.lifecycle import State
from tests.broker.worlds import (
    LEASE_S,
    SHORT_LEASE_S,
    StoodStill,
    World,
    bury,
    complete,
    invocation,
    manifest,
    pulled,
    retry,
    taken,
    undisturbed,
)
from tests.waiting import eventually

pytestmark = pytest.mark.usefixtures("patient_pulls")


async def take(broker: Broker, function: str = "report") -> list[Delivery]:
    """What a runner gets that pulls until there is something."""
    return await eventually(lambda: pulled(broker, function=function), what="something is delivered")


async def so_many_wait(broker: Broker, count: int) -> None:
    """Return when the queue has seen so many: the broker accepts a moment earlier."""

    async def seen() -> bool:
        return (await broker.tend(["report"]))["report"].waiting == count

    await eventually(seen, what=f"{count} wait")


async def is_acknowledged(broker: Broker) -> None:
    """Return when nothing is leased any more, which the broker does not confirm."""

    async def seen() -> bool:
        return (await broker.tend(["report"]))["report"].leased == 0

    await eventually(seen, what="it is acknowledged")


@pytest.fixture
async def ready(broker: Broker) -> Broker:
    await broker.prepare([manifest()])
    return broker


@pytest.fixture
async def hasty(world: World) -> Broker:
    """One whose leases end soon."""
    return await prepared(world)


async def prepared(world: World) -> Broker:
    broker = await world.connect(lease_s=SHORT_LEASE_S)
    await broker.prepare([manifest()])
    return broker


async def test_what_is_enqueued_is_delivered_as_it_was(ready: Broker) -> None:
    sent = invocation(trace="00-abc-01", body=b"")
    await ready.enqueue(sent)
    before = boot_s()
    [delivery] = await take(ready)
    assert delivery.invocation == sent
    assert delivery.envelope == quarterhour.invocation.encode_invocation(sent)
    assert delivery.number == 1
    assert not delivery.doubtful
    assert before + LEASE_S <= delivery.leased_until <= boot_s() + LEASE_S


async def test_a_pull_of_nothing_ends_at_once(ready: Broker) -> None:
    took: list[float] = []
    for _ in range(3):
        started = time.monotonic()
        assert await pulled(ready) == []
        took.append(time.monotonic() - started)
    assert min(took) < 0.5


async def test_a_pull_brings_at_most_what_was_asked_for(ready: Broker) -> None:
    for _ in range(5):
        await ready.enqueue(invocation())
    assert len(await taken(ready, 3, at_most=3)) == 3
    assert len(await taken(ready, 2, at_most=3)) == 2


async def test_what_one_has_the_other_does_not_get(world: World) -> None:
    one, other = await world.connect("one"), await world.connect("other")
    await one.prepare([manifest()])
    await other.prepare([manifest()])
    sent = [invocation() for _ in range(20)]
    for each in sent:
        await one.enqueue(each)
    await so_many_wait(one, 20)
    shares = await asyncio.gather(taken(one, 10, at_most=10), taken(other, 10, at_most=10))
    got = [delivery.invocation.id for share in shares for delivery in share]
    assert sorted(got) == sorted(each.id for each in sent)


async def test_pulls_of_one_function_at_the_same_time_share_what_waits(
    ready: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A server that stands still would end a short one in mid-delivery.
    monkeypatch.setattr(quarterhour.broker.nats.work, "GLANCE_S", 3.0)
    for _ in range(6):
        await ready.enqueue(invocation())
    await so_many_wait(ready, 6)
    shares = await asyncio.gather(*(pulled(ready, 2) for _ in range(4)))
    assert sorted(len(share) for share in shares) == [0, 2, 2, 2]


async def test_functions_have_queues_of_their_own(ready: Broker) -> None:
    await ready.prepare([manifest("other")])
    await ready.enqueue(invocation("other"))
    assert await pulled(ready) == []
    assert len(await taken(ready, function="other")) == 1


async def test_work_that_was_there_before_its_queue_is_delivered(broker: Broker) -> None:
    await broker.enqueue(invocation())
    await broker.prepare([manifest()])
    assert len(await taken(broker)) == 1


async def test_after_the_lease_it_is_delivered_again(hasty: Broker) -> None:
    await hasty.enqueue(invocation())
    [first] = await take(hasty)
    early = await pulled(hasty)
    assert early == [] or boot_s() >= first.leased_until
    [second] = early or await take(hasty)
    assert boot_s() >= first.leased_until - 0.1
    assert second.number == 2
    assert second.invocation == first.invocation


async def test_a_renewed_lease_goes_on(world: World) -> None:
    await undisturbed(world, renewed_for_two_leases)


async def renewed_for_two_leases(world: World) -> None:
    broker = await prepared(world)
    await broker.enqueue(invocation())
    [delivery] = await take(broker)
    until = delivery.leased_until
    while boot_s() < delivery.leased_until + SHORT_LEASE_S:
        before, sent_at = until, boot_s()
        until = await broker.renew(delivery)
        renewed_at = boot_s()
        found = await pulled(broker)
        # The server may stand still as well, and end a lease late or before it reads on.
        if renewed_at >= before or boot_s() >= until:
            raise StoodStill
        assert sent_at + SHORT_LEASE_S <= until <= renewed_at + SHORT_LEASE_S
        assert found == []
        await asyncio.sleep(SHORT_LEASE_S / 5)
    assert until > delivery.leased_until + SHORT_LEASE_S


async def test_a_lease_that_has_ended_is_not_renewed(world: World) -> None:
    await undisturbed(world, renewed_too_late)


async def renewed_too_late(world: World) -> None:
    broker = await prepared(world)
    await broker.enqueue(invocation())
    [first] = await take(broker)
    [second] = await take(broker)
    await asyncio.sleep(0.8 * SHORT_LEASE_S)  # it would be a lease from now on
    assert await broker.renew(first) <= boot_s()
    asked_at: list[float] = []

    async def third_time() -> list[Delivery]:
        asked_at.append(boot_s())
        return await pulled(broker)

    [third] = await eventually(third_time, what="it is delivered once more")
    asked_at.append(boot_s())
    taken_at = second.leased_until - SHORT_LEASE_S
    if asked_at[-1] >= taken_at + 1.5 * SHORT_LEASE_S:
        # Whoever asks all the time is answered too late only if it was not there to be had.
        apart_s = [later - earlier for earlier, later in pairwise([taken_at, *asked_at])]
        if max(apart_s[1:]) > 0.3 or apart_s[0] > SHORT_LEASE_S:
            raise StoodStill
    assert boot_s() < taken_at + 1.5 * SHORT_LEASE_S, "the late renewal has prolonged another's lease"
    assert third.number == 3


async def test_what_is_handed_back_is_delivered_again_at_once(world: World) -> None:
    one, other = await world.connect("one"), await world.connect("other")
    await one.prepare([manifest()])
    await other.prepare([manifest()])
    await one.enqueue(invocation())
    [first] = await taken(one)
    await one.hand_back(first)
    [second] = await take(other)
    assert second.number == 2
    assert boot_s() < first.leased_until


async def test_what_is_handed_back_too_late_stays_with_its_new_holder(hasty: Broker) -> None:
    await hasty.enqueue(invocation())
    [first] = await take(hasty)
    [second] = await take(hasty)
    await hasty.hand_back(first)
    assert await pulled(hasty) == [] or boot_s() >= second.leased_until
    assert second.number == 2


async def test_what_is_acknowledged_is_gone(hasty: Broker) -> None:
    await hasty.enqueue(invocation())
    [delivery] = await take(hasty)
    await hasty.acknowledge(delivery)
    await is_acknowledged(hasty)
    await asyncio.sleep(SHORT_LEASE_S * 1.2)
    assert await pulled(hasty) == []


async def test_a_success_is_recorded_and_gone(hasty: Broker) -> None:
    await hasty.enqueue(invocation())
    [delivery] = await take(hasty)
    settlement = complete(delivery)
    await hasty.settle(settlement)
    record = await hasty.read("report", delivery.invocation.id)
    assert record is not None
    assert record.revision > 0
    assert replace(record, revision=0) == settlement.record
    await is_acknowledged(hasty)
    await asyncio.sleep(SHORT_LEASE_S * 1.2)
    assert await pulled(hasty) == []


async def test_a_retry_comes_when_it_is_due_and_not_before(ready: Broker) -> None:
    await ready.enqueue(invocation())
    [first] = await take(ready)
    settlement = retry(first, after_s=1.0)
    await ready.settle(settlement)
    assert settlement.retry is not None
    early = await pulled(ready)
    assert early == [] or time.time() >= settlement.retry.due_at
    [second] = early or await take(ready)
    assert time.time() >= settlement.retry.due_at
    assert second.invocation == settlement.retry
    assert second.number == 1


async def test_a_retry_that_is_due_comes_at_once(ready: Broker) -> None:
    await ready.enqueue(invocation())
    [first] = await take(ready)
    await ready.settle(retry(first, after_s=0.0))
    [second] = await take(ready)
    assert second.invocation.attempt == 2
    known = await ready.read("report", first.invocation.id)
    assert known is not None
    await ready.settle(complete(second, known=known))
    status = await ready.status(first.invocation.id)
    assert status is not None
    assert status.record.state is State.SUCCEEDED
    assert [attempt.attempt for attempt in status.record.attempts] == [1, 2]


async def test_the_largest_body_can_be_buried_with_much_evidence(ready: Broker) -> None:
    await ready.enqueue(invocation(body=bytes(ready.body_bytes_max)))
    [delivery] = await take(ready)
    settlement = bury(delivery)
    [attempt] = settlement.record.attempts
    evidence = tuple(replace(attempt, attempt=number, logs="x" * 64 * 1024) for number in range(1, 7))
    await ready.settle(replace(settlement, record=replace(settlement.record, attempts=evidence)))
    record = await ready.read("report", delivery.invocation.id)
    assert record is not None
    assert record.attempts == evidence


async def test_settling_over_another_revision_changes_nothing(hasty: Broker) -> None:
    await hasty.enqueue(invocation())
    [first] = await take(hasty)
    note = await hasty.write(replace(complete(first).record, state=State.RUNNING))
    with pytest.raises(Conflict):
        await hasty.settle(retry(first, after_s=0.0))
    assert await hasty.read("report", first.invocation.id) == note
    early = await pulled(hasty)
    assert early == [] or boot_s() >= first.leased_until, "the retry was stored"
    [again] = early or await take(hasty)
    assert again.invocation == first.invocation, "the retry was stored"
    assert again.number == 2, "it was acknowledged"


async def test_of_two_outcomes_the_second_is_refused(world: World) -> None:
    one, other = [await world.connect(name, lease_s=SHORT_LEASE_S) for name in ("one", "other")]
    await one.prepare([manifest()])
    await one.enqueue(invocation())
    [first] = await taken(one)
    await other.prepare([manifest()])
    [second] = await take(other)
    await other.settle(complete(second, runner="other"))
    with pytest.raises(Conflict):
        await one.settle(complete(first, runner="one"))
    record = await one.read("report", first.invocation.id)
    assert record is not None
    assert [attempt.runner for attempt in record.attempts] == ["other"]


async def test_the_same_settlement_again_is_no_conflict(ready: Broker) -> None:
    await ready.enqueue(invocation())
    [first] = await take(ready)
    settlement = retry(first, after_s=0.0)
    await ready.settle(settlement)
    await ready.settle(settlement)
    deliveries = await take(ready)
    assert [delivery.invocation.attempt for delivery in deliveries] == [2]
    assert await pulled(ready) == []


async def test_many_settle_at_the_same_time(ready: Broker) -> None:
    for _ in range(40):
        await ready.enqueue(invocation())
    deliveries = await taken(ready, 40)
    settlements = [
        (complete, bury, lambda delivery: retry(delivery, after_s=60))[number % 3](delivery)
        for number, delivery in enumerate(deliveries)
    ]
    spoilt = await ready.write(replace(complete(deliveries[7]).record, state=State.RUNNING))
    results = await asyncio.gather(*(ready.settle(each) for each in settlements), return_exceptions=True)
    assert [number for number, result in enumerate(results) if result is not None] == [7]
    assert isinstance(results[7], Conflict)
    for number, settlement in enumerate(settlements):
        record = await ready.read("report", settlement.record.id)
        assert record is not None
        assert replace(record, revision=0) == (
            replace(spoilt, revision=0) if number == 7 else settlement.record
        )


async def test_a_function_takes_no_more_than_its_concurrency(world: World) -> None:
    one, other = await world.connect("one"), await world.connect("other")
    for each in (one, other):
        await each.prepare([manifest(concurrency=2)])
    for _ in range(4):
        await one.enqueue(invocation())
    first, second = await taken(one, 2, at_most=4)
    started = time.monotonic()
    assert await pulled(other, 4) == []
    assert time.monotonic() - started < 10.0
    await one.settle(complete(first))
    [third] = await take(other)
    assert third.invocation.id not in {first.invocation.id, second.invocation.id}
    assert await pulled(one, 4) == []


async def test_a_limit_can_be_changed(world: World) -> None:
    broker = await world.connect()
    await broker.prepare([manifest(concurrency=1)])
    for _ in range(3):
        await broker.enqueue(invocation())
    assert len(await taken(broker)) == 1
    await broker.prepare([manifest(concurrency=None)])
    assert len(await taken(broker, 2)) == 2


async def test_a_dropped_pull_keeps_nothing(world: World) -> None:
    broker = await world.connect(lease_s=30)
    await broker.prepare([manifest()])
    for _ in range(5):
        await broker.enqueue(invocation())
    await so_many_wait(broker, 5)
    async with aclosing(broker.pull("report", 5)) as pull:  # type: ignore[type-var]
        kept = await anext(pull)
    rest: set[str] = set()

    async def all_but_one() -> bool:
        rest.update(delivery.invocation.id for delivery in await pulled(broker))
        return len(rest) == 4

    await eventually(all_but_one, deadline_s=20, what="the other four are delivered")  # in less than a lease
    assert kept.invocation.id not in rest


async def test_an_envelope_of_a_later_version_is_left_alone(
    hasty: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    later, known = invocation(), invocation()
    with monkeypatch.context() as future:
        future.setattr(quarterhour.invocation, "ENVELOPE_VERSION", 3)
        await hasty.enqueue(later)
    await hasty.enqueue(known)
    [delivery] = await take(hasty)
    assert delivery.invocation == known
    await asyncio.sleep(SHORT_LEASE_S * 1.2)
    assert await hasty.read("report", later.id) is None
    again = await take(hasty)
    assert [each.invocation.id for each in again] == [known.id]


async def test_an_envelope_that_nobody_can_read_is_a_dead_letter(hasty: Broker) -> None:
    broken = invocation(mode="no such mode")
    await hasty.enqueue(broken)
    await hasty.enqueue(invocation())
    assert len(await taken(hasty)) == 1
    status = await hasty.status(broken.id)
    assert status is not None
    assert status.record.state is State.DEAD
    [attempt] = status.record.attempts
    assert attempt.error is not None
    assert attempt.error.type == "EnvelopeError"
    await asyncio.sleep(SHORT_LEASE_S * 1.2)
    assert broken.id not in {delivery.invocation.id for delivery in await pulled(hasty)}


async def test_a_retry_that_nobody_can_read_keeps_the_earlier_attempts(ready: Broker) -> None:
    await ready.enqueue(invocation())
    [first] = await take(ready)
    settlement = retry(first, after_s=0.0)
    assert settlement.retry is not None
    broken = replace(settlement.retry, mode="no such mode")  # type: ignore[arg-type]
    await ready.settle(replace(settlement, retry=broken))

    async def buried() -> Status | None:
        assert await pulled(ready) == []
        status = await ready.status(first.invocation.id)
        return status if status is not None and status.record.state is State.DEAD else None

    status = await eventually(buried, what="it is dead")
    assert [attempt.attempt for attempt in status.record.attempts] == [1, 2]
    assert status.record.mode is Mode.BACKGROUND


async def test_who_runs_it(world: World) -> None:
    runner, idle, gateway = [await world.connect(name) for name in ("runner", "idle", "gateway")]
    running = Run(runner="runner", attempt=2, started_at=1234.5)
    wanted, unknown = new_id(), new_id()
    assert await gateway.who_runs(wanted) is None
    await runner.answer_who_runs(lambda invocation_id: running if invocation_id == wanted else None)
    await idle.answer_who_runs(lambda _: None)

    async def told(asking: Broker) -> Run | None:
        return await asking.who_runs(wanted)

    # A question is open for a moment only, and a runner that stands still then is not heard.
    assert await eventually(lambda: told(gateway), what="the runner answers") == running
    assert await runner.who_runs(wanted) is None, "it asks the others"
    assert await eventually(lambda: told(idle), what="the runner answers") == running
    assert await gateway.who_runs(unknown) is None
