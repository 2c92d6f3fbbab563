"""Walks through the life of invocations with runners that come and go and a broker that misbehaves.

Every walk must end with each invocation in exactly one final state and nothing left behind; on the way
no outcome is recorded twice or lost, no two runs of an invocation overlap, and one that is cancelled does
not begin any more, and ends, as soon as its runner can know of it. See `simulated.py`.
"""

import asyncio
import os
from random import Random
from typing import Any

import structlog
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from quarterhour.broker import BrokerOptions
from quarterhour.broker.memory import MemoryBroker
from quarterhour.function import Mode
from quarterhour.invocation import Invocation, Request
from quarterhour.lifecycle import FINAL, State
from tests.unit.simulated import SimulatedRunner, VirtualLoop, World

WALKS = 5000 if os.environ.get("QUARTERHOUR_TEST_LONG") == "true" else 200
STEPS = 12
INVOCATIONS = 3
REST_S = 600.0
CUT_S = (2.0, 6.0, 15.0)  # less than a lease, and more
CUT_WHILE_CANCELLED = 0.3


class Walk:
    """Two runners, some invocations, and what happens to them."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.world = World(random)
        options = BrokerOptions(url="memory://", name="gateway", clock=self.world.clock)
        self.gateway = MemoryBroker(self.world.store, options)
        self.runners = [SimulatedRunner(self.world, "runner-1"), SimulatedRunner(self.world, "runner-2")]
        self.started = 2
        self.accepted: list[Invocation] = []

    async def accept(self) -> None:
        now = self.world.clock.now()
        invocation = Invocation(
            id=f"01900000-0000-7000-8000-00000000000{len(self.accepted)}",
            function="f",
            mode=Mode.BACKGROUND,
            attempt=1,
            accepted_at=now,
            due_at=now + self.random.choice((0.0, 0.0, 4.0)),
            request=Request(method="POST", path="/"),
            body=None,
        )
        self.accepted.append(invocation)
        await self.gateway.enqueue(invocation)

    async def step(self) -> None:
        await asyncio.sleep(self.random.choice((0.0, 0.06, 0.5, 2.0, 8.0)))
        number = self.random.randrange(len(self.runners))
        runner = self.runners[number]
        match self.random.randrange(12):
            case 0:
                await runner.kill()
                self.replace(number)
            case 1:
                await runner.cancel()
                self.replace(number)
            case 2:
                await runner.drain()
                self.replace(number)
            case 3:
                runner.broker.cut_off()
                await asyncio.sleep(self.random.choice(CUT_S))
                runner.broker.heal()
            case 4:
                runner.guard_stopped = not runner.guard_stopped
            case 5 | 6:
                self.world.crash()
            case 7:
                self.world.hinder(self.random.choice((0.0, 0.2, 0.6)))
            case 8 | 9:
                await self.cancel()
            case _:
                if len(self.accepted) < INVOCATIONS:
                    await self.accept()

    async def cancel(self) -> None:
        """Somebody cancels an invocation, perhaps while a runner is cut off."""
        runner = self.random.choice(self.runners)
        if self.random.random() < CUT_WHILE_CANCELLED:
            runner.broker.cut_off()
        id = self.random.choice(self.accepted).id
        record = await self.gateway.cancel(id)
        assert record is not None
        assert self.world.cancel_answered.setdefault(id, record.state) is record.state
        if record.state is State.CANCELLED:
            self.world.cancelled_at.setdefault(id, self.world.clock.now())
        if runner.broker.cut:
            await asyncio.sleep(self.random.choice(CUT_S))
            runner.broker.heal()

    async def poison(self) -> None:
        """Whoever runs something is killed."""
        for number in await self.who_runs():
            await self.runners[number].kill()
            self.replace(number)

    async def deploy(self) -> None:
        """Whoever runs something is stopped."""
        for number in await self.who_runs():
            await self.runners[number].drain()
            self.replace(number)

    async def who_runs(self) -> list[int]:
        ends_at = self.world.clock.now() + REST_S
        while not self.is_at_rest() and self.world.clock.now() < ends_at:
            running = {run.runner for run in self.world.runs if run.ended is None}
            if found := [number for number, one in enumerate(self.runners) if one.name in running]:
                return found
            await asyncio.sleep(0.01)
        return []

    def replace(self, number: int) -> None:
        self.started += 1
        self.runners[number] = SimulatedRunner(self.world, f"runner-{self.started}")

    def is_at_rest(self) -> bool:
        now, store = self.world.clock.now(), self.world.store
        records = [store.record(invocation.id, now) for invocation in self.accepted]
        ended = all(record is not None and record.state in FINAL for record in records)
        return ended and not any(store.queues.values()) and not store.later

    async def run(self) -> None:
        await self.accept()
        step = self.random.choice((self.step, self.step, self.step, self.poison, self.deploy))
        for _ in range(self.random.randrange(STEPS)):
            await step()
        self.world.hinder(0.0)
        for runner in self.runners:
            runner.guard_stopped = False
        ends_at = self.world.clock.now() + REST_S
        while not self.is_at_rest() and self.world.clock.now() < ends_at:  # noqa: ASYNC110
            await asyncio.sleep(0.5)
        for runner in self.runners:
            await runner.drain()
        self.world.at_rest([invocation.id for invocation in self.accepted])


# True randomness: choices that hypothesis makes itself are too tame to find anything in so few walks.
@given(st.randoms(use_true_random=True))
@settings(max_examples=WALKS, phases=[Phase.generate])
def test_whatever_happens_each_invocation_comes_to_one_end(random: Random) -> None:
    async def walk() -> None:
        await Walk(random).run()

    with structlog.testing.capture_logs() as logs, asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(walk())
    assert [entry for entry in logs if entry["event"] == "delivery_failed"] == []


class Slowest(Random):
    """Everything takes as long as it may."""

    def choice(self, seq: Any) -> Any:
        return seq[-1]


def test_what_is_not_started_yet_is_in_a_runners_hands_all_the_same() -> None:
    async def walk() -> None:
        walk = Walk(Slowest())
        await walk.accept()
        (id,) = [invocation.id for invocation in walk.accepted]
        runs = []
        while not walk.world.runs:
            runs += [run for one in walk.runners if (run := one.attempts.running(id)) is not None]
            await asyncio.sleep(0.01)
        assert runs
        assert {run.started_at for run in runs} == {None}
        for one in walk.runners:
            await one.drain()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(walk())
