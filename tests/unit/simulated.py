"""A small world for walking the interleavings of the lifecycle: time that jumps, a broker that misbehaves.

The rooms of the runner are the real ones (`Attempts`, `Leases`, `Settlements`); the broker is the one in
memory behind `Unruly`, which answers late, not at all, or that it is away though it has stored, and which
`crash` makes forget deliveries, acknowledgements and firings; the sandbox keeps leases as a guard does.
"""

import asyncio
import selectors
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from random import Random
from typing import Any, TypeVar, cast

from quarterhour.broker import Broker, BrokerOptions
from quarterhour.broker.memory import MemoryBroker
from quarterhour.broker.memory_store import Message, Store
from quarterhour.broker.port import ANSWER_S, Delivery, Run, Settlement
from quarterhour.errors import BrokerUnavailable
from quarterhour.function import Manifest
from quarterhour.invocation import decode_invocation
from quarterhour.lifecycle import FINAL, State
from quarterhour.outcome import Cancelled, Crashed, Error, Failed, Outcome, Succeeded
from quarterhour.record import Record, is_settled
from quarterhour.retry import BuryReason, RetryPolicy
from runner.attempt import Attempts
from runner.catalog import Entry
from runner.leases import Leases
from runner.metrics import Metrics
from runner.sandbox.job import AttemptLost, Code, Finished, Job
from runner.sandbox.pool import Sandbox
from runner.settlement import Settlements
from runner.slots import Place, Slots

__all__ = ["ENTRY", "LEASE_S", "RETRIES", "SimulatedRunner", "VirtualLoop", "World"]

LEASE_S = 9.0
MARGIN_S = 0.5  # the guard's
PULL_EVERY_S = 1.0
RETRIES = 2
# From the moment that a runner is in touch: what it waits for in vain, then a renewal, and the look after it.
NOTICED_S = ANSWER_S + LEASE_S / 3 + LEASE_S / 15
SLOTS = 3
AWAY = "The broker is away, says the test."

T = TypeVar("T")


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in which waiting takes no time."""

    def __init__(self) -> None:
        self.moment = 1000.0
        super().__init__(_Jump(self))

    def time(self) -> float:
        return self.moment


class _Jump(selectors.SelectSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._virtual = loop

    def select(self, timeout: float | None = None) -> list[Any]:
        assert timeout is not None, "everybody waits for somebody else"
        self._virtual.moment += max(0.0, timeout)
        return []


class LoopClock:
    """The loop's time."""

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    boot = now


@dataclass(slots=True, eq=False)
class Went:
    """One run of a handler. `guarded`: its guard kept its lease all the time."""

    runner: str
    id: str
    attempt: int
    began: float
    ended: float | None = None
    guarded: bool = True


class Watched(Store):
    """A store that looks at every record that is written, and remembers what is put on a queue."""

    def __init__(self, world: "World") -> None:
        super().__init__()
        self._world = world

    def put(self, message: Message) -> None:
        self._world.put_at[message.id, message.attempt] = self._world.clock.now()
        self._world.was_put[message.id, message.attempt] = replace(message)
        super().put(message)

    def compare_and_set(self, record: Record, options: BrokerOptions, now: float) -> Record:
        before = self.record(record.id, now)
        stored = super().compare_and_set(record, options, now)
        if before is None or stored.revision != before.revision:
            self._world.check(before, stored)
        return stored


class World:
    """What the runners share, and everything that happened."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.clock = LoopClock()
        self.store = Watched(self)
        self.runs: list[Went] = []
        self.outcomes: Counter[tuple[str, int]] = Counter()  # that handlers came to
        self.open: Counter[str] = Counter()  # deliveries that were not answered
        self.killed: Counter[tuple[str, int]] = Counter()  # runs that took their runner along
        self.put_at: dict[tuple[str, int], float] = {}
        self.was_put: dict[tuple[str, int], Message] = {}
        self.crashed_at = float("-inf")
        self.trouble = 0.0  # how likely the broker misbehaves
        self.calm_since = float("-inf")
        self.cancel_answered: dict[str, State] = {}  # what the answer to a cancel was
        self.cancelled_at: dict[str, float] = {}

    def hinder(self, trouble: float) -> None:
        if trouble:
            self.calm_since = float("inf")
        elif self.trouble:
            self.calm_since = self.clock.now()
        self.trouble = trouble

    def check(self, before: Record | None, stored: Record) -> None:
        """What must hold for every record that replaces another."""
        if before is not None:
            added = before.state is stored.state is State.CANCELLED and stored.attempts != before.attempts
            assert before.state not in FINAL or added, "a final state was left"
            assert stored.attempts[: len(before.attempts)] == before.attempts, "an outcome was replaced"
        assert [one.attempt for one in stored.attempts] == list(range(1, len(stored.attempts) + 1))
        assert len(stored.attempts) <= RETRIES + 1
        for one in stored.attempts:
            assert self.outcomes[stored.id, one.attempt], "an attempt was recorded that came to nothing"
        if stored.reason is BuryReason.RUNNER_LOST:
            # This one; five with a note; and the first, which needs none unless its count was forgotten.
            lost = self.open[stored.id] - 1
            assert lost >= (6 if self.crashed_at < 0 else 5), "it was buried though fewer were lost"

    def crash(self) -> None:
        """The broker is killed and is back: of its last moments it has forgotten what it pleases."""
        self.crashed_at = self.clock.now()
        self.store._accepted.clear()
        for queue in self.store.queues.values():
            for message in queue.values():
                if self.random.random() < 0.7:
                    message.number, message.leased, message.free_at = 0, False, 0.0
        for (id, attempt), message in list(self.was_put.items()):
            # An acknowledgement, or a schedule's removal, is forgotten: there it is again.
            if self.random.random() < 0.3 and (id, attempt) not in self.store.queues.get("f", {}):
                self.store.put(replace(message, number=0, leased=False, free_at=0.0))

    def is_doubtful(self, delivery: Delivery) -> bool:
        put_at = self.put_at[delivery.invocation.id, delivery.invocation.attempt]
        return put_at <= self.crashed_at or self.clock.now() < self.crashed_at + LEASE_S

    def begin(self, runner: str, broker: "Unruly", id: str, attempt: int) -> Went:
        """A handler is started."""
        record = self.store.record(id, self.clock.now())
        if id in self.cancelled_at:
            assert id in broker.missed, "it is cancelled, its runner was told, and it runs"
        else:
            assert record is None or not is_settled(record, attempt), "it has its outcome, and runs again"
        if self.crashed_at < 0:
            assert self.killed[id, attempt] <= 5, "it kills one runner after the other"
        run = Went(runner, id, attempt, self.clock.now())
        self.runs.append(run)
        return run

    def end(self, run: Went, broker: "Unruly") -> None:
        """A handler has ended, one way or another."""
        run.ended = self.clock.now()
        if run.id in self.cancelled_at and run.guarded:
            told_at = broker.told.get(run.id)
            if told_at is not None:
                assert run.ended <= max(told_at, run.began), "it goes on though its runner was told"
            in_touch_at = max(self.cancelled_at[run.id], run.began, self.calm_since, broker.in_touch_since)
            assert run.ended <= in_touch_at + NOTICED_S, "it goes on though its runner could know"

    def at_rest(self, ids: list[str]) -> None:
        """What must hold in the end."""
        for id in ids:
            record = self.store.record(id, self.clock.now())
            assert record is not None
            assert record.state in FINAL
            assert record.state is self.cancel_answered.get(id, record.state), "it was answered otherwise"
            runs = sorted((run for run in self.runs if run.id == id), key=lambda run: run.began)
            for first, second in pairwise(runs):
                assert first.ended is not None
                assert first.ended <= second.began or not first.guarded, (first, second)
        assert not any(self.store.queues.values())
        assert not self.store.later


class Unruly:
    """The port of a runner's broker, with everything that can go wrong on the way there and back."""

    def __init__(self, inner: MemoryBroker, world: World) -> None:
        self._inner = inner
        self._world = world
        self._open: list[Delivery] = []  # not answered yet
        self._leased_until: dict[int, float] = {}
        self.cut = False
        self.in_touch_since = float("-inf")
        self.gone = False
        self.told: dict[str, float] = {}  # of which cancels, and when
        self.missed: set[str] = set()

    def cut_off(self) -> None:
        self.cut, self.in_touch_since = True, float("inf")

    def heal(self) -> None:
        self.cut, self.in_touch_since = False, self._world.clock.now()

    def hears(self, id: str) -> bool:
        """Whether it arrives that something is cancelled."""
        lost = self.cut or self.gone or self._world.random.random() < max(0.3, self._world.trouble)
        if lost:
            self.missed.add(id)
        else:
            self.told.setdefault(id, self._world.clock.now())
        return not lost

    async def _ask(self, operation: Callable[[], Awaitable[T]]) -> T:
        if self.gone:
            await asyncio.Event().wait()
        world = self._world
        if self.cut:
            await asyncio.sleep(ANSWER_S)
            raise BrokerUnavailable(AWAY)
        if world.random.random() >= world.trouble:
            return await operation()
        match world.random.randrange(4):
            case 0:
                raise BrokerUnavailable(AWAY)
            case 1:  # the question is on its way for long
                await asyncio.sleep(world.random.uniform(0, ANSWER_S))
                return await self._ask_quietly(operation)
            case 2:  # the answer is
                answer = await operation()
                await asyncio.sleep(world.random.uniform(0, ANSWER_S))
                return answer
            case _:  # and this one is lost
                await operation()
                await asyncio.sleep(world.random.uniform(0, ANSWER_S))
                raise BrokerUnavailable(AWAY)

    async def _ask_quietly(self, operation: Callable[[], Awaitable[T]]) -> T:
        if self.gone:
            await asyncio.Event().wait()
        return await operation()

    async def pull(self, function: str, count: int) -> AsyncIterator[Delivery]:
        if self.cut or self.gone:
            raise BrokerUnavailable(AWAY)
        async for delivery in self._inner.pull(function, count):
            given = replace(delivery, doubtful=self._world.is_doubtful(delivery))
            self._open.append(given)
            self._world.open[delivery.invocation.id] += 1
            yield given

    async def renew(self, delivery: Delivery) -> float:
        """As NATS does it: whoever holds the message now is prolonged, whoever asks."""
        clock, sent_at = self._world.clock, self._world.clock.boot()
        message = cast("Message", delivery.token)

        async def prolong() -> None:
            if message.is_leased(clock.boot()):
                message.free_at = clock.boot() + LEASE_S

        if sent_at < self._until(delivery):
            await self._ask(prolong)
            if clock.boot() < self._until(delivery):
                self._leased_until[id(delivery)] = sent_at + LEASE_S
        return self._until(delivery)

    async def settle(self, settlement: Settlement) -> None:
        await self._ask(lambda: self._inner.settle(settlement))
        self._answered(settlement.delivery)

    async def acknowledge(self, delivery: Delivery) -> None:
        await self._ask(lambda: self._inner.acknowledge(delivery))
        self._answered(delivery)

    async def hand_back(self, delivery: Delivery) -> None:
        message = cast("Message", delivery.token)

        async def free() -> None:
            message.leased, message.free_at = False, 0.0

        if self._world.clock.boot() < self._until(delivery):
            await self._ask(free)
        self._answered(delivery)

    async def who_runs(self, id: str) -> Run | None:
        return await self._ask(lambda: self._inner.who_runs(id))

    async def read(self, function: str, id: str) -> Record | None:
        return await self._ask(lambda: self._inner.read(function, id))

    async def write(self, record: Record) -> Record:
        return await self._ask(lambda: self._inner.write(record))

    def _until(self, delivery: Delivery) -> float:
        return self._leased_until.get(id(delivery), delivery.leased_until)

    def _answered(self, delivery: Delivery) -> None:
        for one in self._open:
            if one is delivery:
                self._open.remove(one)
                self._world.open[delivery.invocation.id] -= 1
                return


class HeldAttempt:
    """An attempt in a worker whose guard keeps its lease, unless the guard is stopped as well."""

    def __init__(self, owner: "SimulatedRunner", job: Job) -> None:
        self.started_at: float | None = None
        self._owner = owner
        self._job = job
        self._until = job.leased_until or 0.0
        self._changed = asyncio.Event()
        self._stopped = False
        self._cancelled = False

    def extend(self, until: float) -> None:
        self._until = until
        self._changed.set()

    def stop(self) -> None:
        self._stopped = True
        self._changed.set()

    def cancel(self) -> None:
        self._cancelled = True
        self._changed.set()

    async def run(self) -> Finished:
        world, clock = self._owner.world, self._owner.world.clock
        await asyncio.sleep(world.random.choice((0.0, 0.0, 0.1)))  # for a worker
        if self._cancelled or self._stopped:
            raise AttemptLost(reason="cancelled" if self._cancelled else "stopped")
        if self._until <= clock.boot():
            raise AttemptLost(reason="lease")
        attempt = decode_invocation(self._job.envelope).attempt
        self.started_at = clock.now()
        run = world.begin(self._owner.name, self._owner.broker, self._job.invocation, attempt)
        run.guarded = not self._owner.guard_stopped
        ends_at = clock.now() + world.random.choice((0.0, 0.05, 1.0, 5.0, 25.0))
        try:
            outcome = await self._until_it_ends(ends_at, run)
        finally:
            world.end(run, self._owner.broker)
            world.killed[run.id, attempt] += self._owner.broker.gone
        world.outcomes[run.id, attempt] += 1
        return Finished(outcome=outcome, started_at=run.began, finished_at=clock.now(), logs="")

    async def _until_it_ends(self, ends_at: float, run: Went) -> Outcome:
        clock = self._owner.world.clock
        while clock.now() < ends_at:
            self._changed.clear()
            if self._cancelled and not self._owner.guard_stopped:
                return Cancelled()
            if self._stopped:
                raise AttemptLost(reason="stopped")
            killed_at = self._until - MARGIN_S
            if self._owner.guard_stopped:
                run.guarded, killed_at = False, ends_at
            if clock.now() >= killed_at:
                raise AttemptLost(reason="lease")
            with suppress(TimeoutError):
                async with asyncio.timeout_at(min(ends_at, killed_at)):
                    await self._changed.wait()
        return self._owner.outcome()


class SimulatedRunner:
    """A runner: the real rooms, and somebody who pulls."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.guard_stopped = False
        options = BrokerOptions(url="memory://", name=name, lease_s=LEASE_S, clock=world.clock)
        inner = MemoryBroker(world.store, options)
        world.store.listeners.add(inner.listener)
        self._inner = inner
        self.broker = Unruly(inner, world)
        self._slots = Slots(SLOTS)
        self.metrics = Metrics(slots=SLOTS)
        broker = cast("Broker", self.broker)
        self.leases = Leases(broker, broker, lease_s=LEASE_S, clock=world.clock)
        self.attempts = Attempts(
            runner=name,
            work=broker,
            kept=broker,
            bodies=broker,
            sandbox=cast("Sandbox", self),
            find=lambda _: ENTRY,
            leases=self.leases,
            settlements=Settlements(
                work=broker, kept=broker, metrics=self.metrics, clock=world.clock, at_once=2
            ),
            metrics=self.metrics,
            clock=world.clock,
            waiting_age_s=1e6,
        )
        inner.listener.find = self.attempts.running
        inner.listener.stop = self._hear_of_cancel
        self._task = asyncio.ensure_future(self._run())

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.leases.keep())
            while True:
                free = await self._slots.promise(SLOTS)
                got = 0
                with suppress(BrokerUnavailable):
                    async for delivery in self.broker.pull("f", free):
                        got += 1
                        tasks.create_task(self.attempts.take(delivery, Place(self._slots)))
                self._slots.forgo(free - got)
                await asyncio.sleep(PULL_EVERY_S)

    def _hear_of_cancel(self, id: str) -> None:
        if self.broker.hears(id):
            self.attempts.cancel(id)

    def attempt(self, job: Job) -> HeldAttempt:
        return HeldAttempt(self, job)

    def outcome(self) -> Outcome:
        error = Error(type="E", message="m")
        chosen = self.world.random.choice((0, 0, 1, 1, 2, 3))
        return (
            Succeeded(),
            Failed(error=error),
            Failed(error=error, retry=False),
            Crashed(detail="says the test"),
        )[chosen]

    async def kill(self) -> None:
        """SIGKILL: what runs ends at once, nothing more is sent."""
        self.broker.gone = True
        self.world.store.listeners.discard(self._inner.listener)
        await self.cancel()

    async def cancel(self) -> None:
        """Something else in the process has failed: its tasks are cancelled, the broker is still there."""
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        self.world.store.listeners.discard(self._inner.listener)

    async def drain(self) -> None:
        """SIGTERM, with no time to drain."""
        self.attempts.draining = True
        self.attempts.stop()
        await self.attempts.ended()
        await self.cancel()

    def refusals(self) -> float:
        return (
            self.metrics.registry.get_sample_value("quarterhour_outcomes_refused_total", {"function": "f"})
            or 0.0
        )


ENTRY = Entry(
    manifest=Manifest(
        name="f",
        runtime="python",
        background=True,
        timeout_s=900,
        retry=RetryPolicy(retries=RETRIES, delays_s=(0.0, 3.0)),
    ),
    code=cast("Code", object()),
)
