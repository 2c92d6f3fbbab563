"""Hearing of work while the broker comes and goes."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from quarterhour.broker.port import Work
from quarterhour.errors import BrokerUnavailable
from runner import pull
from runner.attempt import Attempts
from runner.pull import Puller
from runner.slots import Place, Slots
from tests.waiting import eventually


class Away:
    """A broker that does not answer at first."""

    def __init__(self) -> None:
        self.asked = 0
        self.pulled: list[str] = []

    async def bells(self) -> AsyncIterator[frozenset[str]]:
        self.asked += 1
        if self.asked < 3:
            message = "It did not answer."
            raise BrokerUnavailable(message)
        yield frozenset({"report"})
        await asyncio.Event().wait()

    async def pull(self, function: str, count: int) -> AsyncIterator[Any]:
        self.pulled.append(function)
        return
        yield


async def test_bells_are_listened_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pull, "AGAIN_S", 0.001)
    away = Away()
    async with asyncio.TaskGroup() as tasks:
        puller = Puller(work=cast("Work", away), slots=Slots(1), attempts=cast("Attempts", None), tasks=tasks)
        puller.serve(["report"])
        running = [tasks.create_task(puller.listen()), tasks.create_task(puller.run())]
        # Once because it is served from now on, and once for the bell that was heard in the end.
        await eventually(lambda: away.pulled == ["report", "report"], what="the bell led to a pull")
        for task in running:
            task.cancel()
    assert away.asked == 3


class Endless:
    """A queue of each function that never ends, and attempts that never end."""

    def __init__(self) -> None:
        self.pulled: list[tuple[str, int]] = []
        self.places: list[tuple[str, Any]] = []

    async def pull(self, function: str, count: int) -> AsyncIterator[Any]:
        self.pulled.append((function, count))
        for _ in range(count):
            yield function

    async def take(self, function: str, place: Place) -> None:
        await place.take()
        self.places.append((function, place))


async def test_a_long_queue_of_long_runs_leaves_a_slot_to_others() -> None:
    world = Endless()
    slots = Slots(16)
    async with asyncio.TaskGroup() as tasks:
        puller = Puller(work=cast("Work", world), slots=slots, attempts=cast("Attempts", world), tasks=tasks)
        puller.serve(["slow", "other"])
        puller._turns.next()  # "other" has nothing yet
        puller._turns._line.clear()
        puller._turns._out.clear()
        puller.ring(["slow"])
        running = tasks.create_task(puller.run())
        await eventually(lambda: len(world.places) == 15, what="all but one slot were taken")
        await asyncio.sleep(0)
        assert world.pulled == [("slow", 15)]
        puller.ring(["other"])
        await eventually(lambda: slots.free == 0, what="the other function had the last one")
        assert world.pulled[-1] == ("other", 1)
        name, place = world.places[0]
        assert name == "slow"
        place.leave()
        await eventually(lambda: slots.free == 0, what="somebody had it again")
        running.cancel()
