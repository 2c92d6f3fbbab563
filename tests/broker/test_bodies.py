"""Large bodies: stored and read in pieces, removed with what they belong to, swept when nobody came to it."""

import hashlib
import random
import time
from collections.abc import AsyncIterator

import pytest

import quarterhour.broker.nats.queue
from quarterhour.body import PIECE_BYTES_MAX, BodyKind, Claim
from quarterhour.broker import Broker
from quarterhour.errors import BodyLost
from quarterhour.ids import new_id
from tests.broker.worlds import World, bury, complete, invocation, manifest, retry, taken
from tests.waiting import eventually

SIZE_BYTES = 5 * PIECE_BYTES_MAX + 17


async def chunks_of(body: bytes, *sizes_bytes: int) -> AsyncIterator[bytes]:
    """The body in chunks of these sizes, over and over, as a client happens to send it."""
    at = number = 0
    while at < len(body):
        size_bytes = sizes_bytes[number % len(sizes_bytes)]
        yield body[at : at + size_bytes]
        at, number = at + size_bytes, number + 1


async def keep(broker: Broker, id: str, body: bytes = b"x" * SIZE_BYTES) -> Claim:
    return await broker.keep_body(BodyKind.WORK, id, chunks_of(body, 65536), keep_s=600)


async def read(broker: Broker, claim: Claim) -> bytes:
    return b"".join([piece async for piece in broker.read_body(claim)])


async def gone(broker: Broker, claim: Claim) -> bool:
    try:
        await read(broker, claim)
    except BodyLost:
        return True
    return False


@pytest.mark.parametrize(
    ("size_bytes", "sizes_bytes"),
    [
        (1, (1,)),
        (PIECE_BYTES_MAX, (65536,)),
        (PIECE_BYTES_MAX + 1, (PIECE_BYTES_MAX,)),
        (SIZE_BYTES, (1, 100_000, 0, 7)),
        (SIZE_BYTES, (3 * PIECE_BYTES_MAX,)),
    ],
)
async def test_what_is_read_is_what_was_stored(
    world: World, size_bytes: int, sizes_bytes: tuple[int, ...]
) -> None:
    gateway, runner = await world.connect("gateway"), await world.connect("runner")
    body = random.Random(size_bytes).randbytes(size_bytes)
    id = new_id()
    claims = [
        await gateway.keep_body(kind, id, chunks_of(body, *sizes_bytes), keep_s=60) for kind in BodyKind
    ]
    for claim in claims:
        assert (claim.size_bytes, claim.id) == (size_bytes, id)
        pieces = [piece async for piece in runner.read_body(claim)]
        assert len(pieces) == claim.pieces
        assert max(map(len, pieces)) <= PIECE_BYTES_MAX
        assert hashlib.sha256(b"".join(pieces)).digest() == hashlib.sha256(body).digest()
    await runner.remove_body(claims[0])
    await runner.remove_body(claims[0])
    assert await gone(gateway, claims[0])
    assert await read(gateway, claims[1]) == body


async def test_whoever_sends_it_fails(broker: Broker) -> None:
    async def breaks_off() -> AsyncIterator[bytes]:
        yield bytes(3 * PIECE_BYTES_MAX)
        raise EOFError

    claim = Claim(kind=BodyKind.WORK, id=new_id(), size_bytes=1, pieces=1)
    with pytest.raises(EOFError):
        await broker.keep_body(BodyKind.WORK, claim.id, breaks_off(), keep_s=60)
    with pytest.raises(BodyLost, match="0 of the 1 bytes"):
        await read(broker, claim)


async def test_an_attempt_and_its_retry_have_the_claim(world: World) -> None:
    broker = await world.connect(lease_s=30)
    await broker.prepare([manifest()])
    id = new_id()
    claim = await keep(broker, id)
    sent = invocation(id=id, body=None, claim=claim)
    await broker.enqueue(sent)
    [first] = await taken(broker)
    assert first.invocation == sent
    assert len(first.envelope) < 2000
    await broker.settle(retry(first, after_s=0))
    [second] = await taken(broker)
    assert (second.invocation.attempt, second.invocation.claim) == (2, claim)
    assert await read(broker, claim) == b"x" * SIZE_BYTES


async def test_the_sweep_takes_only_what_nobody_needs(world: World) -> None:
    broker = await world.connect(lease_s=30, dead_letter_s=1)
    await broker.prepare([manifest()])
    later = time.time() + 1000
    claims: dict[str, Claim] = {}
    for name in ("orphan", "done", "retried", "dead", "delayed", "waiting"):
        id = new_id()
        claims[name] = claim = await keep(broker, id, name.encode())
        if name == "orphan":
            continue
        due_at = later if name == "delayed" else time.time()
        await broker.enqueue(invocation(id=id, body=None, claim=claim, due_at=due_at))
        if name in {"retried", "dead", "done"}:
            [delivery] = await taken(broker)
            how = {
                "retried": retry(delivery, after_s=1000),
                "dead": bury(delivery),
                "done": complete(delivery),
            }
            await broker.settle(how[name])
    claims["call"] = await broker.keep_body(BodyKind.REQUEST, new_id(), chunks_of(b"x", 1), keep_s=60)
    await broker.sweep_bodies(before=time.time() - 60, count_max=100)
    assert await read(broker, claims["orphan"]) == b"orphan"  # it is too young

    async def swept() -> bool:
        await broker.tend(["report"])  # what is settled has to be removed first
        await broker.sweep_bodies(before=later, count_max=2)  # and so on, until it has seen all
        left = {name for name, claim in claims.items() if not await gone(broker, claim)}
        return left == {"waiting", "delayed", "retried", "call"}

    await eventually(swept, what="the dead letter has ended, and all that nobody needs is gone")


async def test_a_dead_letter_keeps_its_body(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quarterhour.broker.nats.queue, "TRIM_EVERY_S", 0.0)
    await broker.prepare([manifest()])
    claims = []
    for settle in (bury, complete):
        id = new_id()
        claims.append(await keep(broker, id))
        await broker.enqueue(invocation(id=id, body=None, claim=claims[-1]))
        [delivery] = await taken(broker)
        await broker.settle(settle(delivery))

    async def swept() -> bool:
        await broker.tend(["report"])
        await broker.sweep_bodies(before=time.time() + 1000, count_max=100)
        return await gone(broker, claims[1])

    await eventually(swept, what="the later delivery is removed from the queue, and with it the earlier one")
    for _ in range(3):
        await broker.sweep_bodies(before=time.time() + 1000, count_max=100)
    assert not await gone(broker, claims[0])
