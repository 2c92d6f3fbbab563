"""A NATS server that is killed, started again or hangs: nothing accepted is lost, nobody waits for ever."""

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import nats
import orjson
import pytest
from nats.aio.msg import Msg

import quarterhour.broker.nats.work
from quarterhour.body import PIECE_BYTES_MAX, BodyKind, Claim
from quarterhour.broker import Broker, BrokerOptions
from quarterhour.broker.nats import connection, who
from quarterhour.broker.nats.layout import Layout
from quarterhour.broker.port import ANSWER_S, Beat, Cursor, Run
from quarterhour.clock import SystemClock, boot_s
from quarterhour.errors import BrokerUnavailable, Conflict
from quarterhour.function import Mode
from quarterhour.ids import firing_id, new_id
from tests.broker.nats_inside import look_inside
from tests.broker.worlds import World, complete, invocation, manifest, pulled, retry, taken
from tests.nats_server import NatsServer
from tests.waiting import eventually


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    with NatsServer(tmp_path) as started:
        yield started


@pytest.fixture
async def own(server: NatsServer) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        yield World(url=server.url, stack=stack)


async def kill(server: NatsServer, *brokers: Broker) -> None:
    """SIGKILL, and wait until these have noticed."""
    server.kill()
    await eventually(lambda: not any(broker.connected for broker in brokers), what="they see it is away")


async def start(server: NatsServer, *brokers: Broker) -> None:
    """Start it, and wait until these are connected again."""
    server.start()
    await eventually(lambda: all(broker.connected for broker in brokers), what="they are connected again")


async def fails_at_once(broker: Broker) -> None:
    """Every operation is refused now, and soon."""
    sent = invocation()
    started = time.monotonic()
    for operation in (
        broker.enqueue(sent),
        broker.tend(["report"]),
        pulled(broker),
        broker.status(sent.id),
        broker.read("report", sent.id),
        broker.functions(),
        broker.cursors(),
        broker.place(Cursor(function="report", schedule="@daily", placed_until=0.0), [sent]),
        broker.announce([manifest()]),
        broker.call("runner", sent),
        broker.beat(Beat(runner="r", functions=(), slots=0)),
        broker.who_runs(sent.id),
        broker.cancel(sent.id),
    ):
        with pytest.raises(BrokerUnavailable):
            await operation
    assert time.monotonic() - started < ANSWER_S


async def test_a_killed_server_loses_nothing_that_was_accepted(own: World, server: NatsServer) -> None:
    broker = await own.connect(lease_s=30)
    await broker.prepare([manifest()])
    accepted: set[str] = set()

    async def accept() -> None:
        while True:
            sent = invocation()
            try:
                await broker.enqueue(sent)
            except BrokerUnavailable:
                return
            accepted.add(sent.id)

    accepting = [asyncio.create_task(accept()) for _ in range(32)]
    await eventually(lambda: len(accepted) > 500, what="500 are accepted")
    server.kill()
    await asyncio.wait_for(asyncio.gather(*accepting), ANSWER_S + 1)
    assert not broker.connected
    await fails_at_once(broker)

    await start(server, broker)
    delivered: set[str] = set()

    async def all_there() -> bool:
        delivered.update(delivery.invocation.id for delivery in await pulled(broker, 500))
        return accepted <= delivered

    await eventually(all_there, what="all that was accepted is delivered")


async def test_settling_while_the_server_is_killed_is_all_or_nothing(own: World, server: NatsServer) -> None:
    broker = await own.connect(lease_s=30)
    await broker.prepare([manifest()])
    await asyncio.gather(*(broker.enqueue(invocation()) for _ in range(200)))
    settlements = [retry(delivery, after_s=0.0) for delivery in await taken(broker, 200)]
    done = 0

    async def settle(number: int) -> None:
        nonlocal done
        await asyncio.sleep(number * 0.002)
        while True:
            try:
                await broker.settle(settlements[number])
            except BrokerUnavailable:
                await asyncio.sleep(0.05)
            else:
                done += 1
                return

    settling = [asyncio.create_task(settle(number)) for number in range(200)]
    await eventually(lambda: done > 60, what="some are settled")
    server.kill()
    server.start()
    await asyncio.wait_for(asyncio.gather(*settling), 60)
    retries: set[str] = set()

    async def all_retried() -> bool:
        for delivery in await pulled(broker, 400):
            if delivery.invocation.attempt == 2:
                assert delivery.number > 1 or delivery.invocation.id not in retries, "it was stored twice"
                retries.add(delivery.invocation.id)
        return len(retries) == 200

    await eventually(all_retried, what="each has its one retry")


async def test_what_the_server_may_have_forgotten_is_doubtful(own: World, server: NatsServer) -> None:
    broker = await own.connect(lease_s=1.5)
    await broker.prepare([manifest()])
    for _ in range(3):
        await broker.enqueue(invocation())
    [first] = await taken(broker, at_most=1)
    assert not first.doubtful
    await kill(server, broker)
    await start(server, broker)
    await broker.prepare([manifest()])  # which notes down how far the stream goes
    noted_by = boot_s()
    [old] = await eventually(lambda: pulled(broker, 1), what="something is delivered")
    assert old.doubtful
    before = first.invocation.id, old.invocation.id
    later = invocation()
    await broker.enqueue(later)
    known: dict[str, bool] = {}

    async def sure() -> bool:
        deliveries = await pulled(broker)
        known.update({one.invocation.id: one.doubtful for one in deliveries})
        return known.get(later.id) is False

    await eventually(sure, deadline_s=30, what="for one lease even what came later is doubtful")
    assert all(known[id] for id in before if id in known), "what was there before stays so"
    await asyncio.sleep(max(0.0, noted_by + 1.5 - boot_s()))
    newcomer = await own.connect("newcomer", lease_s=1.5)
    newcomers: dict[str, bool] = {}

    async def has_both() -> bool:
        deliveries = await pulled(newcomer)
        newcomers.update({one.invocation.id: one.doubtful for one in deliveries})
        assert not any(one.recovering for one in deliveries), "the start was more than a lease ago"
        return later.id in newcomers and len(newcomers) > 1

    await eventually(has_both, deadline_s=30, what="the newcomer is delivered something of both kinds")
    assert not newcomers.pop(later.id), "what came since the server's start is nobody's to doubt"
    assert all(newcomers.values())


async def test_who_is_new_knows_that_the_server_was_started_a_moment_ago(
    own: World, server: NatsServer
) -> None:
    before = await own.connect(lease_s=60)
    await before.prepare([manifest()])
    waits, later = invocation(), invocation()
    await before.enqueue(waits)
    await kill(server, before)
    await start(server, before)
    for _ in range(2):  # the second one finds the note of the first
        newcomer = await own.connect("newcomer", lease_s=60)
        await newcomer.prepare([manifest()])
    await before.enqueue(later)
    found: dict[str, tuple[bool, bool]] = {}

    async def has_both() -> bool:
        found.update({one.invocation.id: (one.doubtful, one.recovering) for one in await pulled(newcomer)})
        return len(found) == 2

    await eventually(has_both, what="both are delivered")
    assert found == {waits.id: (True, True), later.id: (False, False)}


@pytest.mark.parametrize("known", ["nobody", "the one who asks"])
async def test_in_doubt_who_comes_back_is_heard_after_those_who_are_known(
    own: World, server: NatsServer, monkeypatch: pytest.MonkeyPatch, known: str
) -> None:
    runner = await own.connect("runner", lease_s=60)
    if known != "nobody":
        await runner.answer_who_runs(lambda _: None)
    layout = Layout(BrokerOptions(url=own.url, name="test", namespace=own.namespace))
    sent, run = invocation(), Run(runner="other", attempt=1, started_at=0.0)
    asked, away = 0, True

    async def hear(message: Msg) -> None:
        nonlocal asked
        asked += 1
        if not away:
            await asyncio.sleep(0.05)  # the others answer sooner
            answer = {"process": "x", "runner": run.runner, "attempt": run.attempt, "started_at": 0.0}
            await message.respond(orjson.dumps(answer))

    async def was_asked() -> bool:
        assert await runner.who_runs(sent.id) is None
        return asked > 0

    await kill(server, runner)
    await start(server, runner)
    client = await nats.connect(own.url)
    try:
        await client.subscribe(layout.who_runs, cb=hear)
        await eventually(was_asked, what="it was asked and did not answer")
        away = False
        monkeypatch.setattr(who, "ANSWER_S", 5.0)  # for slow machines
        monkeypatch.setattr(who, "ANSWER_IN_DOUBT_S", 10.0)
        assert await runner.who_runs(sent.id) == run
    finally:
        await client.close()


async def test_an_answer_that_comes_after_the_leases_end_prolongs_nothing(own: World) -> None:
    clock = Jumping()
    broker = await own.connect(lease_s=30.0, clock=clock)
    await broker.prepare([manifest()])
    await broker.enqueue(invocation())
    [delivery] = await taken(broker)
    until = await broker.renew(delivery)
    assert until > delivery.leased_until
    clock.jumps = iter([0.0, 60.0])  # when it is sent, and when the answer is there
    ended = await broker.renew(delivery)
    assert ended == until < clock.boot()
    assert await broker.renew(delivery) == ended


class Jumping(SystemClock):
    """Each look at it may come later than it seems."""

    def __init__(self) -> None:
        self.jumps: Iterator[float] = iter(())
        self._late_s = 0.0

    def boot(self) -> float:
        self._late_s += next(self.jumps, 0.0)
        return super().boot() + self._late_s


async def test_what_is_under_way_is_told_when_the_server_goes(
    own: World, server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quarterhour.broker.nats.work, "PULL_S", 30.0)  # it is to be open when the server goes
    runner, gateway = await own.connect("runner", lease_s=90), await own.connect("gateway")
    await runner.serve("runner-1", lambda *_: None)
    calling = asyncio.create_task(gateway.call("runner-1", invocation()))
    await runner.prepare([manifest(concurrency=1)])
    await gateway.enqueue(invocation())
    await gateway.enqueue(invocation())
    assert len(await taken(runner)) == 1
    pulling = asyncio.create_task(pulled(runner))
    await asyncio.sleep(0.05)
    assert not calling.done()
    server.kill()
    started = time.monotonic()
    results = await asyncio.gather(calling, pulling, return_exceptions=True)
    assert [type(result) for result in results] == [BrokerUnavailable, BrokerUnavailable]
    assert time.monotonic() - started < ANSWER_S


async def test_a_server_that_hangs_is_away_within_the_promised_time(own: World, server: NatsServer) -> None:
    broker = await own.connect()
    await broker.prepare([manifest()])
    server.pause()
    try:
        started = time.monotonic()
        operations: list[Coroutine[Any, Any, object]] = [
            *(broker.enqueue(invocation()) for _ in range(200)),
            broker.tend(["report"]),
            broker.read("report", invocation().id),
        ]
        results = await asyncio.gather(*operations, return_exceptions=True)
        assert all(isinstance(result, BrokerUnavailable) for result in results), results
        assert time.monotonic() - started < 2 * ANSWER_S
    finally:
        server.resume()
    await eventually(lambda: _accepts(broker), what="it is back")


async def test_large_bodies_do_not_wait_for_a_server_that_hangs(
    own: World, server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A connection that hangs is given up after two of these, and who waits is told: long after the test.
    monkeypatch.setattr(connection, "PING_EVERY_S", 60)
    broker = await own.connect()
    server.pause()
    try:
        async with asyncio.timeout(5 * ANSWER_S):
            bodies = (kept(broker) for _ in range(40))
            results = await asyncio.gather(*bodies, broker.enqueue(invocation()), return_exceptions=True)
        assert all(isinstance(result, BrokerUnavailable) for result in results), results
    finally:
        server.resume()
    await eventually(lambda: _accepts(broker), what="it is back")


async def test_a_body_whose_server_goes_on_the_way_leaves_nothing_to_complain_of(
    own: World, server: NatsServer
) -> None:
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    await cut_off(await own.connect(), server)
    gc.collect()  # it is then that asyncio complains
    assert not complaints


async def cut_off(broker: Broker, server: NatsServer) -> None:
    """Kill the server while as many pieces of a body are on their way as may be at a time."""
    on_the_way = asyncio.Event()

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(4):
            yield bytes(PIECE_BYTES_MAX)
        on_the_way.set()
        yield bytes(PIECE_BYTES_MAX)

    async def store() -> None:
        with pytest.raises(BrokerUnavailable):
            await broker.keep_body(BodyKind.WORK, new_id(), chunks(), keep_s=60)

    server.pause()  # no piece is answered
    async with asyncio.TaskGroup() as group:
        group.create_task(store())
        await on_the_way.wait()
        await kill(server, broker)


async def kept(broker: Broker) -> Claim:
    """A body of which more is on its way at a time than sockets hold, if there are many of them."""

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(64):
            yield bytes(PIECE_BYTES_MAX)

    return await broker.keep_body(BodyKind.WORK, new_id(), chunks(), keep_s=60)


async def _accepts(broker: Broker) -> bool:
    try:
        await broker.enqueue(invocation())
    except BrokerUnavailable:
        return False
    return True


async def test_what_listens_goes_on_listening(own: World, server: NatsServer) -> None:
    runner, gateway = await own.connect("runner"), await own.connect("gateway")
    await runner.prepare([manifest()])
    beat = Beat(runner="r1", functions=(), slots=1)
    beats, bells = gateway.beats(), runner.bells()
    hearing, ringing = asyncio.ensure_future(anext(beats)), asyncio.ensure_future(anext(bells))
    try:
        await asyncio.sleep(0.1)
        await kill(server, runner, gateway)
        await start(server, runner, gateway)

        async def heard() -> bool:
            await runner.beat(beat)
            return hearing.done()

        await eventually(heard, what="beats are heard again")
        await gateway.enqueue(invocation())
        assert await asyncio.wait_for(ringing, 20) == {"report"}
        assert await hearing == beat
    finally:
        for listening in (hearing, ringing):
            listening.cancel()
        await asyncio.gather(hearing, ringing, return_exceptions=True)
    await gateway.function_changes(0.01)
    await runner.announce([manifest()])
    await asyncio.wait_for(gateway.function_changes(60), 20)
    assert set(await gateway.functions()) == {"report"}


async def test_everything_is_still_there_after_a_clean_restart(own: World, server: NatsServer) -> None:
    broker = await own.connect(lease_s=30)
    await broker.announce([manifest()])
    await broker.prepare([manifest()])
    sent = [invocation() for _ in range(3)]
    for each in sent:
        await broker.enqueue(each)
    done, again, _ = await taken(broker, 3)
    await broker.settle(complete(done))
    await broker.settle(retry(again, after_s=3.0))
    server.stop()
    await eventually(lambda: not broker.connected, what="it sees that the server is away")
    await start(server, broker)
    assert set(await broker.functions()) == {"report"}
    status = await broker.status(done.invocation.id)
    assert status is not None
    assert status.record.state == "succeeded"
    deliveries = await eventually(lambda: _attempts(broker, 2), what="the retry comes")
    assert deliveries == [again.invocation.id]


async def test_what_was_placed_ahead_is_fired_after_a_crash_without_any_gateway(
    own: World, server: NatsServer
) -> None:
    runner = await own.connect("runner", lease_s=30)
    await runner.prepare([manifest()])
    async with AsyncExitStack() as stack:
        gateway = await World(url=own.url, stack=stack, namespace=own.namespace).connect("gateway")
        now = time.time()
        delayed = invocation(due_at=now + 1.5)
        fired = [
            invocation(id=firing_id("report", now + late_s), mode=Mode.SCHEDULED, due_at=now + late_s)
            for late_s in (0.5, 1.0, 2.0)  # the first two fall due while the server is away
        ]
        await gateway.enqueue(delayed)
        stored = await gateway.place(Cursor(function="report", schedule="@daily", placed_until=now), fired)
    await kill(server, runner)
    await asyncio.sleep(1.2)
    await start(server, runner)
    assert await runner.cursors() == {"report": stored}
    found: list[str] = []

    async def all_there() -> bool:
        found.extend(delivery.invocation.id for delivery in await pulled(runner))
        return len(found) >= 4

    await eventually(all_there, what="all of them are fired")
    assert sorted(found) == sorted(one.id for one in (*fired, delayed))
    assert await pulled(runner) == []


async def test_delayed_invocations_are_counted_after_crashes(own: World, server: NatsServer) -> None:
    gateway = await own.connect("gateway", lease_s=30)
    sent = [invocation(due_at=time.time() + 100) for _ in range(20)]
    await asyncio.gather(*(gateway.enqueue(one) for one in sent))
    for crash in range(1, 3):
        # This one is due while the server is away, or at once when it is back.
        await gateway.enqueue(invocation(due_at=time.time() + 0.5))
        await kill(server, gateway)
        await asyncio.sleep(0.5)
        await start(server, gateway)
        await gateway.enqueue(invocation(due_at=time.time() + 100))
        counts = partial(_counts, gateway, waiting=crash, delayed=20 + crash)
        await eventually(counts, what="all of them are counted")
    newcomer = await own.connect("newcomer", lease_s=30)
    await eventually(lambda: _counts(newcomer, waiting=2, delayed=22), what="a newcomer counts them as well")


async def _counts(broker: Broker, *, waiting: int, delayed: int) -> bool:
    depth = (await broker.tend(["report"]))["report"]
    return (depth.waiting, depth.delayed) == (waiting, delayed)


async def test_unplacing_that_ended_half_way_is_seen_and_repeated(own: World, server: NatsServer) -> None:
    broker = await own.connect(lease_s=30)
    await broker.prepare([manifest()])
    later = time.time() + 1000
    sent = invocation(id=firing_id("report", later), mode=Mode.SCHEDULED, due_at=later)
    stored = await broker.place(Cursor(function="report", schedule="@daily", placed_until=later), [sent])
    layout = Layout(BrokerOptions(url=own.url, name="test", namespace=own.namespace))
    mark = layout.unplaced(stored)
    client = await nats.connect(own.url)
    await client.jetstream().publish(mark.subject, mark.payload, headers=mark.headers)
    await client.close()
    async with look_inside(own.url, own.namespace) as inside:
        assert await inside.count("s.>") == 1
    [(name, seen)] = (await broker.cursors()).items()
    assert (name, seen.schedule) == ("report", "")
    with pytest.raises(Conflict):
        await broker.place(replace(stored, placed_until=later + 1), [])
    await broker.unplace(seen)
    assert await broker.cursors() == {}
    async with look_inside(own.url, own.namespace) as inside:
        assert await inside.count("s.>") == 0  # nothing that could fire
        assert await inside.count("q.>") == 0
    assert await pulled(broker) == []


async def _attempts(broker: Broker, attempt: int) -> list[str]:
    return [
        delivery.invocation.id for delivery in await pulled(broker) if delivery.invocation.attempt == attempt
    ]
