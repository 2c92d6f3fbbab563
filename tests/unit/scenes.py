"""A scene for one runner: a gateway, an invocation, and what the runner does with it step by step.

Deliveries are pulled and taken by the test, in time that only seems to pass.
"""

import asyncio
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any, cast

import structlog

from quarterhour.broker import BrokerOptions
from quarterhour.broker.memory import MemoryBroker
from quarterhour.broker.port import Delivery
from quarterhour.function import Mode
from quarterhour.invocation import Invocation, Request
from quarterhour.outcome import Outcome, Succeeded
from quarterhour.record import Record, started, waiting
from runner.slots import Place
from tests.unit.simulated import LEASE_S, SimulatedRunner, VirtualLoop, World

__all__ = ["ID", "Gate", "Idle", "Scene", "play"]

ID = "01900000-0000-7000-8000-000000000001"


class Slowest(Random):
    """A run takes as long as it may."""

    def choice(self, seq: Any) -> Any:
        return seq[-1]


class Idle(SimulatedRunner):
    """A runner that pulls nothing by itself, and hears of every cancel, or of none."""

    deaf = False

    def _hear_of_cancel(self, id: str) -> None:
        if not self.deaf:
            self.attempts.cancel(id)

    async def _run(self) -> None:
        await self.leases.keep()

    def outcome(self) -> Outcome:
        return Succeeded()

    def count(self, result: str) -> float | None:
        labels = {"function": "f", "mode": "background", "result": result}
        return self.metrics.registry.get_sample_value("quarterhour_outcomes_total", labels)


class Gate:
    """A slot that is free once the test says so."""

    def __init__(self, *, is_open: bool = True) -> None:
        self.open = asyncio.Event()
        if is_open:
            self.open.set()
        self.left = False

    def stand_back(self) -> None:
        pass

    async def come_forward(self) -> None:
        pass

    async def take(self) -> None:
        await self.open.wait()

    def leave(self) -> None:
        self.left = True


class Scene:
    """A gateway, a runner, and one invocation."""

    def __init__(self) -> None:
        self.world = World(Slowest())
        options = BrokerOptions(url="memory://", name="gateway", lease_s=LEASE_S, clock=self.world.clock)
        self.gateway = MemoryBroker(self.world.store, options)
        self.runner = Idle(self.world, "runner-1")

    async def accept(self, id: str = ID) -> None:
        now = self.world.clock.now()
        await self.gateway.enqueue(
            Invocation(
                id=id,
                function="f",
                mode=Mode.BACKGROUND,
                attempt=1,
                accepted_at=now,
                due_at=now,
                request=Request(method="POST", path="/"),
                body=None,
            )
        )

    async def delivery(self, runner: Idle | None = None) -> Delivery:
        (found,) = [one async for one in (runner or self.runner).broker.pull("f", 1)]
        return found

    async def suspect(self) -> Delivery:
        """What waits, delivered after two runners were lost with it."""
        lost = await self.delivery()
        note = started(waiting(lost.invocation), runner="lost-1", now=1.0)
        note = await self.gateway.write(note)
        await self.gateway.write(started(note, runner="lost-2", now=1.0))
        self.world.store.queues["f"][lost.invocation.id, 1].free_at = 0.0
        return await self.delivery()

    def take(self, delivery: Delivery, gate: Gate | Place | None = None) -> asyncio.Task[None]:
        place = cast("Place", gate or Gate())
        return asyncio.ensure_future(self.runner.attempts.take(delivery, place))

    async def record(self) -> Record:
        record = await self.gateway.read("f", ID)
        assert record is not None
        return record

    def is_nothing_left(self) -> bool:
        return not any(self.world.store.queues.values()) and not self.world.store.later


def play(act: Callable[[Scene], Awaitable[None]]) -> list[Any]:
    """Play a scene; what was logged."""

    async def whole() -> None:
        scene = Scene()
        await scene.accept()
        await act(scene)
        await scene.runner.drain()

    with structlog.testing.capture_logs() as logs, asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(whole())
    assert [entry for entry in logs if entry["event"] == "delivery_failed"] == []
    return [entry["event"] for entry in logs]
