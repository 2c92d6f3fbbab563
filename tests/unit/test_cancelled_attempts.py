"""What a runner does about a cancel, wherever it is with the delivery: in time that only seems to pass."""

import asyncio
from typing import Any, cast

from quarterhour.lifecycle import State
from quarterhour.record import Record
from runner import attempt as module
from runner.slots import Place
from tests.unit.scenes import ID, Gate, Idle, Scene, play
from tests.unit.simulated import LEASE_S


async def cancel(scene: Scene) -> None:
    record = await scene.gateway.cancel(ID)
    assert record is not None
    assert record.state is State.CANCELLED
    scene.world.cancelled_at[ID] = scene.world.clock.now()


def test_what_runs_is_ended_and_its_attempt_is_on_record() -> None:
    async def act(scene: Scene) -> None:
        task = scene.take(await scene.delivery())
        await asyncio.sleep(1)
        await cancel(scene)
        before, ended_at = await scene.record(), scene.world.clock.now()
        await task
        assert scene.world.clock.now() == ended_at
        record = await scene.record()
        assert (record.state, record.finished_at) == (State.CANCELLED, before.finished_at)
        assert [(one.attempt, one.outcome, one.runner) for one in record.attempts] == [
            (1, "cancelled", "runner-1")
        ]
        assert (scene.runner.count("cancelled"), scene.runner.refusals()) == (1, 0)
        assert scene.is_nothing_left()

    assert play(act) == ["attempt_cancelled"]


def test_what_was_not_told_is_noticed_when_its_lease_is_renewed() -> None:
    async def act(scene: Scene) -> None:
        scene.runner.deaf = True
        task = scene.take(await scene.delivery())
        await asyncio.sleep(1)
        await cancel(scene)
        await task
        assert scene.world.clock.now() - scene.world.cancelled_at[ID] < LEASE_S / 3
        assert [one.outcome for one in (await scene.record()).attempts] == ["cancelled"]

    assert play(act) == ["attempt_cancelled"]


def test_what_waits_for_its_slot_is_not_begun() -> None:
    async def act(scene: Scene) -> None:
        gate = Gate(is_open=False)
        task = scene.take(await scene.delivery(), gate)
        await asyncio.sleep(1)
        await cancel(scene)
        gate.open.set()
        await task
        assert gate.left
        assert scene.world.runs == []
        assert scene.world.open[ID] == 0, "it is not acknowledged"
        assert (await scene.record()).attempts == ()

    assert play(act) == ["cancelled_before_start"]


def test_what_waits_to_be_alone_among_suspects_is_not_begun() -> None:
    async def act(scene: Scene) -> None:
        delivery = await scene.suspect()
        async with scene.runner.attempts._suspect:
            task = scene.take(delivery)
            await asyncio.sleep(1)
            await cancel(scene)
        await task
        assert scene.world.runs == []
        assert scene.world.open[ID] == 1, "it is not acknowledged"  # but for the first delivery

    assert play(act) == ["cancelled_before_start"]


def test_what_is_cancelled_while_its_start_is_noted_is_not_begun() -> None:
    async def act(scene: Scene) -> None:
        await scene.delivery()
        scene.world.store.queues["f"][ID, 1].free_at = 0.0
        write = scene.runner.broker.write

        async def write_and_be_late(record: Record) -> Record:
            stored = await write(record)
            await cancel(scene)
            return stored

        scene.runner.broker.write = write_and_be_late  # type: ignore[method-assign]
        await scene.take(await scene.delivery())
        assert scene.world.runs == []
        assert (await scene.record()).notes == ()

    assert play(act) == ["cancelled_before_start"]


def test_what_is_cancelled_while_a_worker_is_sought_is_not_begun() -> None:
    async def act(scene: Scene) -> None:
        task = scene.take(await scene.delivery())
        await asyncio.sleep(0.05)  # it takes 0.1 s
        await cancel(scene)
        await task
        assert scene.world.runs == []

    assert play(act) == ["cancelled_before_start"]


def test_what_is_cancelled_on_its_way_to_the_runner_is_not_begun() -> None:
    async def act(scene: Scene) -> None:
        delivery = await scene.delivery()
        await cancel(scene)
        await scene.take(delivery)
        assert scene.world.runs == []
        assert scene.world.open[ID] == 0

    assert play(act) == ["cancelled_before_start"]


def test_what_is_said_to_be_cancelled_and_is_not_is_given_back() -> None:
    async def act(scene: Scene) -> None:
        scene.runner.attempts.cancel(ID)
        await scene.take(await scene.delivery())
        assert scene.world.runs == []
        await scene.take(await scene.delivery())
        assert (await scene.record()).state is State.SUCCEEDED

    assert play(act) == ["cancel_not_stored", "attempt_succeeded"]


def test_only_so_many_are_remembered() -> None:
    async def act(scene: Scene) -> None:
        for number in range(module.CANCELS_REMEMBERED + 10):
            scene.runner.attempts.cancel(str(number))
        assert len(scene.runner.attempts._cancelled) == module.CANCELS_REMEMBERED
        assert "10" in scene.runner.attempts._cancelled
        assert "9" not in scene.runner.attempts._cancelled

    play(act)


def test_an_end_in_the_same_moment_is_refused_and_nothing_runs_again() -> None:
    async def act(scene: Scene) -> None:
        settle = scene.runner.broker.settle

        async def settle_too_late(settlement: Any) -> None:
            if settlement.record.state is State.SUCCEEDED:
                await scene.gateway.cancel(ID)
            await settle(settlement)

        scene.runner.broker.settle = settle_too_late  # type: ignore[method-assign]
        await scene.take(await scene.delivery())
        record = await scene.record()
        assert (record.state, record.attempts) == (State.CANCELLED, ())
        assert scene.runner.refusals() == 1
        assert scene.is_nothing_left()
        assert scene.world.open[ID] == 0, "it is not acknowledged"

    assert play(act) == ["outcome_refused"]


def test_of_two_runners_that_had_it_one_tells_of_it() -> None:
    async def act(scene: Scene) -> None:
        other = Idle(scene.world, "runner-2")
        first = scene.take(await scene.delivery())
        await asyncio.sleep(1)
        scene.world.store.queues["f"][ID, 1].free_at = 0.0  # as if the broker had forgotten it
        scene.runner._inner.listener.find = None  # and as if the first could not be asked
        second = asyncio.ensure_future(
            other.attempts.take(await scene.delivery(other), cast("Place", Gate()))
        )
        await asyncio.sleep(1)
        assert len(scene.world.runs) == 2
        await cancel(scene)
        await asyncio.gather(first, second)
        assert [one.outcome for one in (await scene.record()).attempts] == ["cancelled"]
        assert sorted((scene.runner.refusals(), other.refusals())) == [0, 1]
        await other.drain()

    assert sorted(set(play(act))) == ["attempt_cancelled", "outcome_refused"]


def test_what_a_runner_is_told_of_another_does_not_touch_its_own() -> None:
    async def act(scene: Scene) -> None:
        task = scene.take(await scene.delivery())
        await asyncio.sleep(1)
        scene.runner.attempts.cancel(ID.replace("1", "2"))
        await task
        assert (await scene.record()).state is State.SUCCEEDED

    play(act)
