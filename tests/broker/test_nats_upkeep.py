"""What only NATS does: trimming, times to live, dead letters, and what must not be left behind."""

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

import quarterhour.broker.nats.queue
import quarterhour.broker.nats.work
from quarterhour.errors import BrokerUnavailable
from quarterhour.invocation import decode_invocation, encode_invocation, unpack
from quarterhour.record import Record, encode_record, is_settled
from tests.broker.nats_inside import Inside, look_inside
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

AN_ID = "0190a0b0-0000-7000-8000-000000000000"


@pytest.fixture
async def inside(nats_world: World) -> AsyncIterator[Inside]:
    async with look_inside(nats_world.url, nats_world.namespace) as view:
        yield view


async def test_what_is_settled_is_trimmed(
    nats_world: World, inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quarterhour.broker.nats.queue, "TRIM_EVERY_S", 0.0)
    broker = await nats_world.connect(lease_s=30)
    await broker.prepare([manifest(), manifest("other")])
    await broker.enqueue(invocation("other"))
    for _ in range(30):
        await broker.enqueue(invocation())

    async def all_seen() -> bool:
        return await inside.waiting() == 30

    await eventually(all_seen, what="the queue has seen all")
    deliveries = await taken(broker, 20, at_most=20)
    await asyncio.gather(*(broker.settle(complete(delivery)) for delivery in deliveries[1:]))

    async def trimmed(left: int) -> bool:
        depth = (await broker.tend(["report", "other"]))["report"]
        assert depth.waiting == 10
        return await inside.count("q.report.>") == left

    # The first holds the floor, and the rest of the queue with it, as long as it runs.
    await broker.tend(["report", "other"])
    assert await inside.count("q.report.>") == 30
    await broker.settle(complete(deliveries[0]))
    await eventually(lambda: trimmed(10), what="the settled twenty are gone")
    assert await inside.count("q.other.>") == 1
    assert len(await taken(broker, 10, at_most=20)) == 10


async def test_a_long_life_does_not_grow_the_stream(
    nats_world: World, inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quarterhour.broker.nats.queue, "TRIM_EVERY_S", 0.0)
    broker = await nats_world.connect(record_succeeded_s=1, lease_s=30)
    await broker.prepare([manifest()])
    for _ in range(5):
        await asyncio.gather(*(broker.enqueue(invocation()) for _ in range(50)))
        deliveries = await taken(broker, 50)
        await asyncio.gather(*(broker.settle(complete(delivery)) for delivery in deliveries))
        await broker.tend(["report"])

    async def empty() -> bool:
        await broker.tend(["report"])
        return all(
            subject.startswith(f"{inside.namespace}.c._server.") for subject in await inside.subjects()
        )

    await eventually(empty, what="the stream has no more than a note about the server")


async def test_how_long_things_are_kept(nats_world: World, inside: Inside) -> None:
    broker = await nats_world.connect(
        record_succeeded_s=100.4, record_failed_s=200.0, dead_letter_s=300.0, lease_s=30
    )
    await broker.prepare([manifest()])
    for _ in range(3):
        await broker.enqueue(invocation())
    good, bad, again = await taken(broker, 3)
    await broker.settle(complete(good))
    await broker.settle(bury(bad))
    await broker.settle(retry(again, after_s=60))
    kept = {}
    for kind, delivery in (("r", good), ("r", bad), ("d", bad), ("r", again)):
        headers, _ = await inside.message(f"{kind}.report.{delivery.invocation.id}")
        kept[kind, delivery.invocation.id] = headers.get("Nats-TTL")
    assert kept == {
        ("r", good.invocation.id): "101s",
        ("r", bad.invocation.id): "200s",
        ("d", bad.invocation.id): "300s",
        ("r", again.invocation.id): None,
    }


async def test_a_dead_letter_holds_what_it_takes_to_run_it_again(nats_world: World, inside: Inside) -> None:
    broker = await nats_world.connect()
    await broker.prepare([manifest()])
    sent = invocation()
    await broker.enqueue(sent)
    [delivery] = await taken(broker)
    settlement = bury(delivery)
    await broker.settle(settlement)
    _, data = await inside.message(f"d.report.{sent.id}")
    evidence, envelope = unpack(data)
    assert evidence["reason"] == "failed"
    assert decode_invocation(envelope) == sent
    assert encode_record(settlement.record) in data


async def test_pulls_leave_nothing_behind(nats_world: World, inside: Inside) -> None:
    broker = await nats_world.connect(lease_s=30)
    await broker.prepare([manifest(), manifest("limited", concurrency=1)])
    for name in ("report", "report", "limited", "limited"):
        await broker.enqueue(invocation(name))
    assert len(await taken(broker, 2)) == 2
    assert len(await pulled(broker, 10)) == 0
    assert len(await taken(broker, function="limited")) == 1
    assert len(await pulled(broker, 10, "limited")) == 0  # at its limit: the server keeps this one open

    async def none_open() -> bool:
        return not await _is_waiting(inside) and not await _is_waiting(inside, "limited")

    await eventually(none_open, what="no pull is open")
    assert (await inside.queue("limited"))["num_ack_pending"] == 1


async def test_a_delivery_that_comes_when_nobody_pulls_is_handed_back(
    nats_world: World, inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(quarterhour.broker.nats.work, "PULL_S", 30.0)  # it is to be seen while it is open
        hasty = await nats_world.connect("hasty", lease_s=90)
    patient = await nats_world.connect("patient", lease_s=90)
    for broker in (hasty, patient):
        await broker.prepare([manifest(concurrency=1)])
    await hasty.enqueue(invocation())
    await hasty.enqueue(invocation())
    [first] = await taken(hasty)
    pulling = asyncio.create_task(pulled(hasty))
    await eventually(lambda: _is_waiting(inside), what="its pull is open at the server")
    pulling.cancel()
    await asyncio.gather(pulling, return_exceptions=True)
    await hasty.settle(complete(first))  # frees the place: the server answers the pull that was dropped

    async def delivered() -> bool:
        return bool(await pulled(patient))

    await eventually(delivered, what="the other runner gets it, long before the lease ends")


async def _is_waiting(inside: Inside, function: str = "report") -> bool:
    return bool((await inside.queue(function))["num_waiting"])


async def test_a_schedule_that_is_stored_twice_fires_once(nats_world: World, inside: Inside) -> None:
    broker = await nats_world.connect(lease_s=30)
    await broker.prepare([manifest()])
    await broker.enqueue(invocation())
    [first] = await taken(broker)
    settlement = retry(first, after_s=1000)
    assert settlement.retry is not None
    await broker.settle(settlement)
    headers, payload = await inside.message(f"s.retry.{first.invocation.id}")
    ours = {name: value for name, value in headers.items() if name.startswith("Nats-Schedule")}
    await inside.put(f"s.retry.{first.invocation.id}", payload, ours)
    assert await inside.count("s.>") == 1
    soon = datetime.fromtimestamp(time.time() + 0.6, UTC).isoformat(timespec="microseconds")
    await inside.put(f"s.retry.{first.invocation.id}", payload, ours | {"Nats-Schedule": f"@at {soon}"})
    [delivery] = await taken(broker)
    assert delivery.invocation == settlement.retry
    assert await pulled(broker) == []
    assert await inside.count("s.>") == 0  # nothing that could fire again


async def test_a_retry_that_fires_again_finds_its_record(nats_world: World, inside: Inside) -> None:
    broker = await nats_world.connect(lease_s=30)
    await broker.prepare([manifest()])
    await broker.enqueue(invocation())
    [first] = await taken(broker)
    settlement = retry(first, after_s=0.0)
    await broker.settle(settlement)
    [second] = await taken(broker)
    known = await broker.read("report", first.invocation.id)
    await broker.settle(complete(second, known=known))
    assert settlement.retry is not None
    await inside.put(f"q.report.{first.invocation.id}.2", encode_invocation(settlement.retry))
    [again] = await taken(broker)
    record = await broker.read("report", first.invocation.id)
    assert record is not None
    assert is_settled(record, again.invocation.attempt)
    await broker.acknowledge(again)


@pytest.mark.parametrize("subject", ["q.report.nobody.1", "q.report.{id}.first", "q.report.{id}"])
async def test_what_a_stranger_put_on_a_queue_is_not_in_the_way(
    nats_world: World, inside: Inside, subject: str
) -> None:
    broker = await nats_world.connect(lease_s=SHORT_LEASE_S)
    await broker.prepare([manifest()])
    await inside.put(subject.format(id=invocation().id), b"whatever")
    sent = invocation()
    await broker.enqueue(sent)
    assert [delivery.invocation for delivery in await taken(broker)] == [sent]
    await asyncio.sleep(0.8)
    assert [delivery.invocation for delivery in await taken(broker)] == [sent]


async def test_an_envelope_on_another_ones_place_is_a_dead_letter(nats_world: World, inside: Inside) -> None:
    broker = await nats_world.connect()
    await broker.prepare([manifest()])
    place = invocation()
    await inside.put(f"q.report.{place.id}.1", encode_invocation(invocation()))

    async def buried() -> Record | None:
        assert await pulled(broker) == []
        return await broker.read("report", place.id)

    record = await eventually(buried, what="it is set aside")
    assert record.state == "dead"
    _, data = await inside.message(f"d.report.{place.id}")
    assert data


async def test_what_cannot_be_read_and_leaves_no_room_for_evidence_is_cut(
    nats_world: World, inside: Inside
) -> None:
    broker = await nats_world.connect()
    await broker.prepare([manifest()])
    largest = b"\xff" * (inside.client.max_payload - 300)
    await inside.put(f"q.report.{AN_ID}.1", largest)

    async def buried() -> bytes:
        assert await pulled(broker) == []
        return (await inside.message(f"d.report.{AN_ID}"))[1]

    letter = await eventually(buried, what="it is set aside")
    header, rest = unpack(letter)
    assert header["state"] == "dead"
    assert 0 < len(rest) < len(largest)
    assert largest.startswith(rest)


async def test_what_cannot_be_read_is_left_alone_if_its_record_cannot_either(
    nats_world: World, inside: Inside
) -> None:
    broker = await nats_world.connect()
    await broker.prepare([manifest()])
    await inside.put(f"q.report.{AN_ID}.1", b"no envelope")
    await inside.put(f"r.report.{AN_ID}", b"no record")

    async def was_delivered() -> bool:
        assert await pulled(broker) == []
        return bool((await inside.queue())["delivered"]["consumer_seq"])

    await eventually(was_delivered, what="somebody has looked at it")
    assert await inside.count("q.>") == 1
    assert await inside.count("d.>") == 0
    assert (await inside.message(f"r.report.{AN_ID}"))[1] == b"no record"


async def test_headers_of_users_are_no_headers_of_nats(nats_world: World, inside: Inside) -> None:
    broker = await nats_world.connect()
    sent = invocation()
    await broker.enqueue(sent)
    headers, _ = await inside.message(f"q.report.{sent.id}.1")
    assert {name for name in headers if not name.startswith("Nats-")} == set()


async def test_only_what_is_delayed_has_a_counter_and_only_while_it_is_of_use(
    nats_world: World, inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quarterhour.broker.nats.queue, "TRIM_EVERY_S", 0.0)
    broker, other = await nats_world.connect(lease_s=30), await nats_world.connect("other", lease_s=30)
    await broker.prepare([manifest()])
    await broker.enqueue(invocation())
    assert await inside.consumers() == {"fn-report"}
    far = invocation(due_at=time.time() + 1000)
    for each in (far, invocation(due_at=time.time() + 1)):
        await broker.enqueue(each)

    async def delayed(count: int) -> bool:
        return (await broker.tend(["report"]))["report"].delayed == count

    await eventually(lambda: delayed(1), what="the first one is delayed, and the other was fired")
    await broker.tend([])  # nobody announces it, but there is something to count
    assert await inside.consumers() == {"fn-report", "delay-report"}
    await broker.cancel(far.id)
    await eventually(lambda: delayed(0), what="none is delayed any more")
    assert await inside.consumers() == {"fn-report", "delay-report"}
    await asyncio.gather(broker.tend([]), other.tend([]))  # withdrawn
    assert await inside.consumers() == {"fn-report"}
    await broker.enqueue(invocation(due_at=time.time() + 1000))  # and back, before anybody has looked
    await eventually(lambda: delayed(1), what="it is counted again")


async def test_what_is_deleted_by_a_stranger_is_no_longer_counted(nats_world: World, inside: Inside) -> None:
    broker = await nats_world.connect()
    sent = [invocation(due_at=time.time() + 100) for _ in range(3)]
    for one in sent:
        await broker.enqueue(one)
    exactly = f"{inside.namespace}.s.delay.report.{sent[0].id}"
    await inside.api(f"STREAM.PURGE.{inside.namespace}", {"filter": exactly})

    async def counted() -> bool:
        return (await broker.tend(["report"]))["report"].delayed == 2

    await eventually(counted, what="two are counted")


async def test_a_delayed_invocation_that_cannot_be_counted_is_not_accepted(
    nats_world: World, inside: Inside
) -> None:
    broker = await nats_world.connect()
    # A consumer under the counter's name, of another kind.
    config = {"durable_name": "delay-report", "name": "delay-report", "ack_policy": "explicit"}
    name = f"CONSUMER.CREATE.{inside.namespace}.delay-report"
    await inside.api(name, {"stream_name": inside.namespace, "config": config})
    with pytest.raises(BrokerUnavailable, match="NATS refused"):
        await broker.enqueue(invocation(due_at=time.time() + 100))
    assert await inside.count() == 0


async def test_a_server_that_does_not_serve_a_stream_is_not_taken_for_an_empty_one(
    nats_world: World, inside: Inside
) -> None:
    broker = await nats_world.connect()
    await broker.announce([manifest()])
    await inside.api(f"STREAM.DELETE.KV_{nats_world.namespace}-functions")
    with pytest.raises(BrokerUnavailable):
        await broker.functions()
    await inside.api(f"STREAM.DELETE.{nats_world.namespace}")
    for read in (broker.cursors(), broker.read("report", AN_ID), broker.status(AN_ID)):
        with pytest.raises(BrokerUnavailable):
            await read
