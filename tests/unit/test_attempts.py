"""What a runner does with a delivery while it has others in its hands: in time that only seems to pass."""

import asyncio
from dataclasses import replace
from itertools import pairwise
from typing import Any

from quarterhour.lifecycle import State
from quarterhour.outcome import Error, Failed, Outcome
from runner.slots import Place, Slots
from tests.unit.scenes import ID, Scene, play
from tests.unit.simulated import LEASE_S

ANSWER_S = 2.0  # the broker's, in what follows


async def settled(scene: Scene) -> asyncio.Task[None]:
    """The first attempt's task, once its retry is on the queue, without delay: the answer is slow."""
    stored = asyncio.Event()
    settle, succeed = scene.runner.broker.settle, scene.runner.outcome

    async def settle_slowly(settlement: Any) -> None:
        await settle(settlement)
        stored.set()
        await asyncio.sleep(ANSWER_S)

    def outcome() -> Outcome:
        return succeed() if len(scene.world.runs) > 1 else Failed(error=Error(type="E", message="m"))

    scene.runner.broker.settle = settle_slowly  # type: ignore[method-assign]
    scene.runner.outcome = outcome  # type: ignore[method-assign]
    task = scene.take(await scene.delivery())
    await stored.wait()
    return task


def test_a_retry_that_overtakes_the_answer_to_its_settlement_is_begun_after_it() -> None:
    async def act(scene: Scene) -> None:
        first = await settled(scene)
        retry = scene.take(await scene.delivery())
        await asyncio.gather(first, retry)
        assert (await scene.record()).state is State.SUCCEEDED
        one, two = scene.world.runs
        assert one.ended is not None
        assert two.began - one.ended <= ANSWER_S + 0.1  # which it takes to find a worker

    assert play(act) == ["function_failed", "attempt_succeeded"]


def test_the_same_attempt_again_is_let_go() -> None:
    async def act(scene: Scene) -> None:
        first = scene.take(await scene.delivery())
        await asyncio.sleep(1)
        scene.world.store.queues["f"][ID, 1].free_at = 0.0  # as if the broker had forgotten it
        began = scene.world.clock.now()
        await scene.take(await scene.delivery())
        assert scene.world.clock.now() == began
        await first
        assert len(scene.world.runs) == 1

    assert play(act) == ["delivered_while_running", "attempt_succeeded"]


def test_a_retry_waits_no_longer_than_its_lease() -> None:
    async def act(scene: Scene) -> None:
        delivery = await scene.delivery()
        first = scene.take(delivery)
        await asyncio.sleep(1)
        # As if another runner had settled the first, while this one still runs it.
        retry = replace(delivery, invocation=replace(delivery.invocation, attempt=2))
        began = scene.world.clock.now()
        await scene.take(retry)
        assert scene.world.clock.now() - began < LEASE_S
        assert not first.done()
        await first

    assert play(act) == ["delivered_while_running", "attempt_succeeded"]


def test_a_retry_that_is_cancelled_while_it_waits_is_not_begun() -> None:
    async def act(scene: Scene) -> None:
        first = await settled(scene)
        retry = scene.take(await scene.delivery())
        await scene.gateway.cancel(ID)
        scene.world.cancelled_at[ID] = scene.world.clock.now()
        await asyncio.gather(first, retry)
        assert len(scene.world.runs) == 1
        assert (await scene.record()).state is State.CANCELLED
        assert scene.is_nothing_left()

    play(act)


def test_a_retry_that_waits_while_the_runner_is_stopped_is_handed_back() -> None:
    async def act(scene: Scene) -> None:
        first = await settled(scene)
        retry = scene.take(await scene.delivery())
        scene.runner.attempts.draining = True
        await asyncio.gather(first, retry)
        assert len(scene.world.runs) == 1
        assert not scene.world.store.queues["f"][ID, 2].leased

    assert play(act) == ["function_failed"]


def test_suspects_that_wait_for_their_turn_keep_no_slot_from_others() -> None:
    async def act(scene: Scene) -> None:
        deliveries = [await scene.suspect()]
        for number in (2, 3):
            await scene.accept(f"{ID[:-1]}{number}")
            deliveries.append(await scene.suspect())
        slots = Slots(3)
        places = [Place(slots) for _ in range(await slots.promise(3))]
        tasks = [scene.take(*each) for each in zip(deliveries, places, strict=True)]
        await asyncio.sleep(1)
        assert len(scene.world.runs) == 1
        async with asyncio.timeout(1):
            assert await slots.promise(3) == 2
        slots.forgo(2)
        await asyncio.gather(*tasks)
        assert slots.free == await slots.promise(3) == 3
        assert len(scene.world.runs) == 3
        for one, two in pairwise(scene.world.runs):
            assert one.ended is not None
            assert one.ended <= two.began

    assert play(act) == ["attempt_succeeded"] * 3
