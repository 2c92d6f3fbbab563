"""Storing many at the same time: batches are shared, and nobody suffers for another's fault."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from quarterhour.broker.nats.append import Append
from quarterhour.broker.nats.layout import Message
from quarterhour.broker.nats.link import Link
from quarterhour.errors import Conflict
from quarterhour.lifecycle import State
from quarterhour.record import waiting
from tests.broker.nats_inside import Inside, look_inside
from tests.broker.worlds import World, complete, invocation, manifest, retry, taken


@pytest.fixture
async def inside(nats_world: World) -> AsyncIterator[Inside]:
    async with look_inside(nats_world.url, nats_world.namespace) as view:
        yield view


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the batches that are sent."""
    sizes: list[int] = []
    send = Append._publish_batch

    async def count(self: Append, messages: list[Message]) -> int:
        sizes.append(len(messages))
        return await send(self, messages)

    monkeypatch.setattr(Append, "_publish_batch", count)
    return sizes


async def test_few_go_alone(nats_world: World, inside: Inside, batches: list[int]) -> None:
    broker = await nats_world.connect()
    await asyncio.gather(*(broker.enqueue(invocation()) for _ in range(5)))
    assert batches == []
    assert await inside.count("q.>") == 5


async def test_many_share_batches(nats_world: World, inside: Inside, batches: list[int]) -> None:
    broker = await nats_world.connect()

    async def accept() -> None:
        for _ in range(10):
            await broker.enqueue(invocation())

    await asyncio.gather(*(accept() for _ in range(64)))
    assert await inside.count("q.>") == 640
    assert sum(batches) > 400
    assert len(batches) < 40


async def test_batches_are_bounded_in_messages(nats_world: World, inside: Inside, batches: list[int]) -> None:
    broker = await nats_world.connect()
    await asyncio.gather(*(broker.enqueue(invocation()) for _ in range(1200)))
    assert await inside.count("q.>") == 1200
    assert max(batches) <= 500


async def test_batches_are_bounded_in_bytes(nats_world: World, inside: Inside, batches: list[int]) -> None:
    broker = await nats_world.connect()
    body = bytes(300_000)
    await asyncio.gather(*(broker.enqueue(invocation(body=body)) for _ in range(40)))
    assert await inside.count("q.>") == 40
    assert max(batches) <= 3


async def test_repeats_in_a_batch_do_not_hurt_the_others(nats_world: World, inside: Inside) -> None:
    broker = await nats_world.connect()
    sent = [invocation() for _ in range(40)]
    await broker.enqueue(sent[0])
    await asyncio.gather(*(broker.enqueue(each) for each in [*sent, *sent[:5]]))
    assert await inside.count("q.>") == 40


async def test_a_conflict_in_a_batch_does_not_hurt_the_others(nats_world: World, inside: Inside) -> None:
    broker = await nats_world.connect()
    records = [waiting(invocation()) for _ in range(40)]
    taken = await broker.write(replace(records[3], state=State.RUNNING))
    results = await asyncio.gather(*(broker.write(record) for record in records), return_exceptions=True)
    assert [number for number, result in enumerate(results) if isinstance(result, Conflict)] == [3]
    for number, result in enumerate(results):
        stored = await broker.read("report", records[number].id)
        assert stored == (taken if number == 3 else result)


async def test_a_revision_from_a_batch_is_the_records_own(nats_world: World, batches: list[int]) -> None:
    broker = await nats_world.connect()
    records = await asyncio.gather(*(broker.write(waiting(invocation())) for _ in range(64)))
    assert max(batches) > 10
    again = await asyncio.gather(*(broker.write(replace(record, attempt=2)) for record in records))
    assert len({record.revision for record in [*records, *again]}) == 128


async def test_record_and_retry_are_stored_together_or_not_at_all(nats_world: World, inside: Inside) -> None:
    broker = await nats_world.connect(lease_s=30)
    await broker.prepare([manifest()])
    await broker.enqueue(invocation())
    [delivery] = await taken(broker)
    await broker.write(replace(complete(delivery).record, state=State.RUNNING))
    with pytest.raises(Conflict):
        await broker.settle(retry(delivery, after_s=60))
    assert await inside.count("s.>") == 0
    assert (await inside.queue())["num_ack_pending"] == 1


async def test_one_who_gives_up_is_left_out(nats_world: World, inside: Inside) -> None:
    broker = await nats_world.connect()
    accepting = [asyncio.create_task(broker.enqueue(invocation())) for _ in range(40)]
    await asyncio.sleep(0)
    for task in accepting[20:]:
        task.cancel()
    await asyncio.gather(*accepting, return_exceptions=True)
    await broker.enqueue(invocation())
    assert 21 <= await inside.count("q.>") <= 41
    assert all(task.exception() is None for task in accepting[:20])


async def test_a_message_alone_waits_for_no_batch(nats_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    broker = await nats_world.connect()
    sent = 0
    request = Link.request

    async def count(self: Link, subject: str, *arguments: object, **more: object) -> object:
        nonlocal sent
        sent += subject.startswith(f"{nats_world.namespace}.q.")
        return await request(self, subject, *arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Link, "request", count)
    for _ in range(3):
        await broker.enqueue(invocation())
    assert sent == 3
