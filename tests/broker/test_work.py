"""Work as runners take it: leases, redelivery, settlement."""

import asyncio
import time
from contextlib import aclosing
from dataclasses import replace

import pytest

import quarterhour.invocation
from quarterhour.broker import Broker
from quarterhour.broker.port import Delivery, Run
from quarterhour.clock import boot_s
from quarterhour.errors import Conflict
from quarterhour.function import Mode
from quarterhour.ids import new_id
from quarterhour.lifecycle import State
from tests.broker.worlds import LEASE_S, World, bury, complete, invocation, manifest, pulled, retry
from tests.waiting import eventually


async def take(broker: Broker, function: str = "report") -> list[Delivery]:
    """What a runner gets that pulls until there is something."""
    return await eventually(lambda: pulled(broker, function=function), what="something is delivered")


@pytest.fixture
async def ready(broker: Broker) -> Broker:
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
    assert len(await pulled(ready, 3)) == 3
    assert len(await pulled(ready, 3)) == 2


async def test_what_one_has_the_other_does_not_get(world: World) -> None:
    one, other = await world.connect("one"), await world.connect("other")
    await one.prepare([manifest()])
    await other.prepare([manifest()])
    sent = [invocation() for _ in range(20)]
    for each in sent:
        await one.enqueue(each)
    shares = await asyncio.gather(pulled(one, 10), pulled(other, 10))
    got = [delivery.invocation.id for share in shares for delivery in share]
    assert sorted(got) == sorted(each.id for each in sent)


async def test_pulls_of_one_function_at_the_same_time_share_what_waits(ready: Broker) -> None:
    for _ in range(6):
        await ready.enqueue(invocation())
    shares = await asyncio.gather(*(pulled(ready, 2) for _ in range(4)))
    assert sorted(len(share) for share in shares) == [0, 2, 2, 2]


async def test_functions_have_queues_of_their_own(ready: Broker) -> None:
    await ready.prepare([manifest("other")])
    await ready.enqueue(invocation("other"))
    assert await pulled(ready) == []
    assert len(await pulled(ready, function="other")) == 1


async def test_work_that_was_there_before_its_queue_is_delivered(broker: Broker) -> None:
    await broker.enqueue(invocation())
    await broker.prepare([manifest()])
    assert len(await pulled(broker)) == 1


async def test_after_the_lease_it_is_delivered_again(ready: Broker) -> None:
    await ready.enqueue(invocation())
    [first] = await take(ready)
    assert await pulled(ready) == []
    [second] = await take(ready)
    assert boot_s() >= first.leased_until - 0.1
    assert second.number == 2
    assert second.invocation == first.invocation


async def test_a_renewed_lease_goes_on(ready: Broker) -> None:
    await ready.enqueue(invocation())
    [delivery] = await take(ready)
    until = delivery.leased_until
    while boot_s() < delivery.leased_until + LEASE_S:
        sent_at = boot_s()
        until = await ready.renew(delivery)
        assert sent_at + LEASE_S <= until <= boot_s() + LEASE_S
        assert await pulled(ready) == []
        await asyncio.sleep(LEASE_S / 5)
    assert until > delivery.leased_until + LEASE_S


async def test_a_lease_that_has_ended_is_not_renewed(ready: Broker) -> None:
    await ready.enqueue(invocation())
    [first] = await take(ready)
    [second] = await take(ready)
    assert await ready.renew(first) <= boot_s()
    taken_at = second.leased_until - LEASE_S
    [third] = await take(ready)
    assert boot_s() < taken_at + 1.9 * LEASE_S, "the late renewal has prolonged another's lease"
    assert third.number == 3


async def test_what_is_handed_back_is_delivered_again_at_once(world: World) -> None:
    one, other = await world.connect("one"), await world.connect("other")
    await one.prepare([manifest()])
    await other.prepare([manifest()])
    await one.enqueue(invocation())
    [first] = await pulled(one)
    await one.hand_back(first)
    [second] = await take(other)
    assert second.number == 2
    assert boot_s() < first.leased_until


async def test_what_is_handed_back_too_late_stays_with_its_new_holder(ready: Broker) -> None:
    await ready.enqueue(invocation())
    [first] = await take(ready)
    [second] = await take(ready)
    await ready.hand_back(first)
    assert await pulled(ready) == []
    assert second.number == 2


async def test_what_is_acknowledged_is_gone(ready: Broker) -> None:
    await ready.enqueue(invocation())
    [delivery] = await take(ready)
    await ready.acknowledge(delivery)
    await asyncio.sleep(LEASE_S * 1.2)
    assert await pulled(ready) == []


async def test_a_success_is_recorded_and_gone(ready: Broker) -> None:
    await ready.enqueue(invocation())
    [delivery] = await take(ready)
    settlement = complete(delivery)
    await ready.settle(settlement)
    record = await ready.read("report", delivery.invocation.id)
    assert record is not None
    assert record.revision > 0
    assert replace(record, revision=0) == settlement.record
    await asyncio.sleep(LEASE_S * 1.2)
    assert await pulled(ready) == []


async def test_a_retry_comes_when_it_is_due_and_not_before(ready: Broker) -> None:
    await ready.enqueue(invocation())
    [first] = await take(ready)
    settlement = retry(first, after_s=1.0)
    await ready.settle(settlement)
    assert settlement.retry is not None
    assert await pulled(ready) == []
    [second] = await take(ready)
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


async def test_settling_over_another_revision_changes_nothing(ready: Broker) -> None:
    await ready.enqueue(invocation())
    [first] = await take(ready)
    note = await ready.write(replace(complete(first).record, state=State.RUNNING))
    with pytest.raises(Conflict):
        await ready.settle(retry(first, after_s=0.0))
    assert await ready.read("report", first.invocation.id) == note
    assert await pulled(ready) == [], "the retry was stored"
    [again] = await take(ready)
    assert again.number == 2, "it was acknowledged"


async def test_of_two_outcomes_the_second_is_refused(world: World) -> None:
    one, other = await world.connect("one"), await world.connect("other")
    await one.prepare([manifest()])
    await one.enqueue(invocation())
    [first] = await pulled(one)
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
    deliveries = await pulled(ready, 40)
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
    one, other = await world.connect("one", lease_s=10), await world.connect("other", lease_s=10)
    for each in (one, other):
        await each.prepare([manifest(concurrency=2)])
    for _ in range(4):
        await one.enqueue(invocation())
    first, second = await pulled(one, 4)
    started = time.monotonic()
    assert await pulled(other, 4) == []
    assert time.monotonic() - started < 2.0
    await one.settle(complete(first))
    [third] = await take(other)
    assert third.invocation.id not in {first.invocation.id, second.invocation.id}
    assert await pulled(one, 4) == []


async def test_a_limit_can_be_changed(world: World) -> None:
    broker = await world.connect(lease_s=10)
    await broker.prepare([manifest(concurrency=1)])
    for _ in range(3):
        await broker.enqueue(invocation())
    assert len(await pulled(broker)) == 1
    await broker.prepare([manifest(concurrency=None)])
    assert len(await pulled(broker)) == 2


async def test_a_dropped_pull_keeps_nothing(world: World) -> None:
    broker = await world.connect(lease_s=30)
    await broker.prepare([manifest()])
    for _ in range(5):
        await broker.enqueue(invocation())
    async with aclosing(broker.pull("report", 5)) as pull:  # type: ignore[type-var]
        kept = await anext(pull)
    rest: set[str] = set()

    async def all_but_one() -> bool:
        rest.update(delivery.invocation.id for delivery in await pulled(broker))
        return len(rest) == 4

    await eventually(all_but_one, deadline_s=20, what="the other four are delivered")
    assert kept.invocation.id not in rest


async def test_an_envelope_of_a_later_version_is_left_alone(
    ready: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    later, known = invocation(), invocation()
    with monkeypatch.context() as future:
        future.setattr(quarterhour.invocation, "ENVELOPE_VERSION", 3)
        await ready.enqueue(later)
    await ready.enqueue(known)
    [delivery] = await take(ready)
    assert delivery.invocation == known
    await asyncio.sleep(LEASE_S * 1.2)
    assert await ready.read("report", later.id) is None
    again = await pulled(ready)
    assert [each.invocation.id for each in again] == [known.id]


async def test_an_envelope_that_nobody_can_read_is_a_dead_letter(ready: Broker) -> None:
    broken = invocation(mode="no such mode")
    await ready.enqueue(broken)
    await ready.enqueue(invocation())
    assert len(await pulled(ready)) == 1
    status = await ready.status(broken.id)
    assert status is not None
    assert status.record.state is State.DEAD
    [attempt] = status.record.attempts
    assert attempt.error is not None
    assert attempt.error.type == "EnvelopeError"
    await asyncio.sleep(LEASE_S * 1.2)
    assert broken.id not in {delivery.invocation.id for delivery in await pulled(ready)}


async def test_a_retry_that_nobody_can_read_keeps_the_earlier_attempts(ready: Broker) -> None:
    await ready.enqueue(invocation())
    [first] = await take(ready)
    settlement = retry(first, after_s=0.0)
    assert settlement.retry is not None
    broken = replace(settlement.retry, mode="no such mode")  # type: ignore[arg-type]
    await ready.settle(replace(settlement, retry=broken))
    assert await pulled(ready) == []
    status = await ready.status(first.invocation.id)
    assert status is not None
    assert status.record.state is State.DEAD
    assert [attempt.attempt for attempt in status.record.attempts] == [1, 2]
    assert status.record.mode is Mode.BACKGROUND


async def test_who_runs_it(world: World) -> None:
    runner, idle, gateway = [await world.connect(name) for name in ("runner", "idle", "gateway")]
    running = Run(runner="runner", attempt=2, started_at=1234.5)
    wanted, unknown = new_id(), new_id()
    assert await gateway.who_runs(wanted) is None
    await runner.answer_who_runs(lambda invocation_id: running if invocation_id == wanted else None)
    await idle.answer_who_runs(lambda _: None)
    assert await gateway.who_runs(wanted) == running
    assert await runner.who_runs(wanted) is None, "it asks the others"
    assert await idle.who_runs(wanted) == running
    assert await gateway.who_runs(unknown) is None
