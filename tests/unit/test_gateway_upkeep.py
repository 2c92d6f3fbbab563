"""Upkeep with a broker in memory and a clock of the test: what waited too long, and what did not."""

import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import pytest

from gateway.background import Backlog, StoreRoom
from gateway.directory import Functions
from gateway.metrics import Metrics
from gateway.upkeep import PULLED_AT_ONCE, Upkeep
from quarterhour.broker import BrokerOptions
from quarterhour.broker.memory import MemoryBroker, connect
from quarterhour.broker.port import Delivery, Settlement
from quarterhour.function import Manifest, Mode
from quarterhour.ids import new_id
from quarterhour.invocation import Invocation, Request, next_attempt
from quarterhour.lifecycle import State
from quarterhour.outcome import Error, Failed
from quarterhour.record import Record, settled, waiting
from quarterhour.retry import BuryReason, Retry, RetryPolicy

AGE_S = 100.0
FUNCTION = Manifest(name="f", runtime="python", background=True, timeout_s=1, retry=RetryPolicy())
ERROR = Error(type="E", message="m")

_numbers = itertools.count()


@dataclass
class Clock:
    """A clock that stands still until the test moves it."""

    moment: float = 1_000_000.0

    def now(self) -> float:
        return self.moment

    def boot(self) -> float:
        return self.moment


@dataclass
class Bench:
    """An upkeep over a queue of one function."""

    clock: Clock
    broker: MemoryBroker
    upkeep: Upkeep
    metrics: Metrics

    async def accept(self) -> Invocation:
        now = self.clock.now()
        request = Request(method="POST", path="/")
        invocation = Invocation(
            id=new_id(),
            function="f",
            mode=Mode.BACKGROUND,
            attempt=1,
            accepted_at=now,
            due_at=now,
            request=request,
            body=None,
        )
        await self.broker.enqueue(invocation)
        return invocation

    async def deliver(self) -> list[Delivery]:
        return [delivery async for delivery in self.broker.pull("f", 100)]

    async def record(self, invocation: Invocation) -> Record | None:
        return await self.broker.read("f", invocation.id)

    def expired(self) -> float | None:
        labels = {"function": "f", "reason": "expired"}
        return self.metrics.registry.get_sample_value("quarterhour_dead_letters_total", labels)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    clock = Clock()
    options = BrokerOptions(url=f"memory://upkeep-{next(_numbers)}", name="test", clock=clock)
    async with connect(options) as broker:
        assert isinstance(broker, MemoryBroker)
        functions, metrics = Functions(), Metrics()
        metrics.announced(functions.replace({"f": FUNCTION})[0])
        upkeep = Upkeep(
            broker=broker,
            functions=functions,
            backlog=Backlog(),
            room=StoreRoom(),
            metrics=metrics,
            clock=clock,
            waiting_age_s=AGE_S,
        )
        yield Bench(clock, broker, upkeep, metrics)


async def test_what_is_young_is_left_alone(bench: Bench) -> None:
    await bench.accept()
    bench.clock.moment += AGE_S
    await bench.upkeep.tend()
    assert [delivery.number for delivery in await bench.deliver()] == [1]
    assert bench.expired() == 0


async def test_what_waited_too_long_is_set_aside_with_its_evidence(bench: Bench) -> None:
    old = [await bench.accept() for _ in range(3 * PULLED_AT_ONCE)]
    bench.clock.moment += AGE_S + 1
    young = await bench.accept()
    await bench.upkeep.tend()
    for invocation in old:
        record = await bench.record(invocation)
        assert record is not None
        assert (record.state, record.reason) == (State.DEAD, BuryReason.EXPIRED)
        assert record.finished_at == bench.clock.now()
    assert set(bench.broker.store.dead_letters) == {invocation.id for invocation in old}
    assert bench.expired() == len(old)
    assert [delivery.invocation.id for delivery in await bench.deliver()] == [young.id]


async def test_a_retry_counts_from_when_it_was_due(bench: Bench) -> None:
    first = await bench.accept()
    (delivery,) = await bench.deliver()
    retry = next_attempt(first, due_at=bench.clock.now() + 60, error=ERROR)
    record = settled(
        waiting(first),
        Failed(error=ERROR),
        Retry(delay_s=60),
        started_at=0,
        finished_at=bench.clock.now(),
        logs="",
        runner="r",
    )
    await bench.broker.settle(Settlement(delivery=delivery, record=record, retry=retry))
    bench.clock.moment += AGE_S + 30
    await bench.upkeep.tend()
    kept = await bench.record(first)
    assert kept is not None
    assert kept.state is State.RETRYING
    bench.clock.moment += 60
    await bench.upkeep.tend()
    dead = await bench.record(first)
    assert dead is not None
    assert (dead.state, dead.reason, dead.attempt) == (State.DEAD, BuryReason.EXPIRED, 2)
    assert [attempt.outcome for attempt in dead.attempts] == ["failed"]


async def test_what_has_its_outcome_is_acknowledged_and_not_set_aside(bench: Bench) -> None:
    first = await bench.accept()
    (delivery,) = await bench.deliver()
    done = replace(waiting(first), state=State.SUCCEEDED, finished_at=bench.clock.now())
    await bench.broker.write(done)
    await bench.broker.hand_back(delivery)
    bench.clock.moment += AGE_S + 1
    await bench.upkeep.tend()
    record = await bench.record(first)
    assert record is not None
    assert record.state is State.SUCCEEDED
    assert await bench.deliver() == []
    assert bench.expired() == 0


async def test_what_somebody_else_has_moved_on_is_handed_back(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await bench.accept()
    bench.clock.moment += AGE_S + 1
    settle = MemoryBroker.settle

    async def meanwhile(self: MemoryBroker, settlement: Settlement) -> None:
        monkeypatch.setattr(MemoryBroker, "settle", settle)
        await self.write(replace(waiting(first), state=State.RUNNING, notes=("r",)))
        await settle(self, settlement)

    monkeypatch.setattr(MemoryBroker, "settle", meanwhile)
    await bench.upkeep.tend()
    record = await bench.record(first)
    assert record is not None
    assert (record.state, bench.expired()) == (State.RUNNING, 0)
    await bench.upkeep.tend()  # the second look goes by the record as it is now
    record = await bench.record(first)
    assert record is not None
    assert (record.state, bench.expired()) == (State.DEAD, 1)
