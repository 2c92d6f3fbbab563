"""Attempts for which there was no worker: they cost nothing, and are not repeated at once."""

import asyncio
from typing import Any, cast

import pytest

from quarterhour.broker.port import Answer, Bodies, Delivery
from quarterhour.clock import SystemClock
from quarterhour.function import Mode
from quarterhour.invocation import Invocation, Request
from quarterhour.lifecycle import State
from quarterhour.reply import Refusal, Refused, Reply
from runner.metrics import Metrics
from runner.sandbox.job import AttemptLost, Job
from runner.sandbox.pool import Sandbox
from runner.serve import Server
from runner.slots import Slots
from tests.unit.scenes import ID, Scene, play
from tests.unit.simulated import ENTRY, LEASE_S

DELIVERIES = 7  # two more than the notes that would bury it


class NoWorker:
    """An attempt on a runner that may open no more files."""

    started_at = None

    async def run(self) -> Any:
        raise AttemptLost(reason="worker")

    def extend(self, until: float) -> None: ...

    def stop(self) -> None: ...


class Full:
    """A sandbox without room for a worker."""

    def attempt(self, job: Job) -> NoWorker:
        return NoWorker()


def test_a_background_invocation_comes_again_after_its_lease_and_is_not_buried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def act(scene: Scene) -> None:
        async def delivered() -> list[Delivery]:
            return [one async for one in scene.runner.broker.pull("f", 1)]

        with monkeypatch.context() as full:
            full.setattr(scene.runner, "attempt", Full().attempt)
            for _ in range(DELIVERIES):
                (delivery,) = await delivered()
                await scene.take(delivery)
                assert await delivered() == []
                await asyncio.sleep(LEASE_S + 1)
        await scene.take(await scene.delivery())
        assert (await scene.record()).state is State.SUCCEEDED

    assert play(act).count("attempt_lost") == DELIVERIES


async def test_a_call_is_refused_so_that_another_runner_gets_it() -> None:
    replies: list[Reply] = []

    async def answer(reply: Reply) -> None:
        replies.append(reply)

    slots = Slots(1)
    async with asyncio.TaskGroup() as tasks:
        server = Server(
            sandbox=cast("Sandbox", Full()),
            bodies=cast("Bodies", None),
            slots=slots,
            find=lambda _: ENTRY,
            metrics=Metrics(slots=1),
            clock=SystemClock(),
            tasks=tasks,
        )
        invocation = Invocation(
            id=ID,
            function="f",
            mode=Mode.SYNCHRONOUS,
            attempt=1,
            accepted_at=0,
            due_at=0,
            request=Request(method="POST", path="/"),
            body=None,
        )
        server.take(invocation, b"", cast("Answer", answer))
    assert replies == [Refused(reason=Refusal.BUSY)]
    assert slots.free == 1
