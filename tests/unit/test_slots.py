"""Slots: never more than there are, calls before background work, nothing lost when a waiter gives up."""

import asyncio

from runner.slots import CALLS_PER_SLOT, Slots


async def test_slots_are_counted() -> None:
    slots = Slots(3)
    assert await slots.acquire(0)
    assert await slots.reserve(5) == 2
    assert slots.free == 0
    slots.release(3)
    assert slots.free == 3


async def test_a_call_that_waits_gets_the_next_slot_before_background_work() -> None:
    slots = Slots(1)
    await slots.reserve(1)
    puller = asyncio.ensure_future(slots.reserve(1))
    await asyncio.sleep(0)
    call = asyncio.ensure_future(slots.acquire(5))
    await asyncio.sleep(0)
    slots.release()
    assert await call
    assert not puller.done()
    slots.release()
    assert await puller == 1


async def test_a_call_waits_no_longer_than_it_may() -> None:
    slots = Slots(1)
    await slots.reserve(1)
    assert not await slots.acquire(0.01)
    slots.release()
    assert slots.free == 1
    assert await slots.acquire(0.01)


async def test_only_so_many_calls_wait() -> None:
    slots = Slots(1)
    await slots.reserve(1)
    waiting = [asyncio.ensure_future(slots.acquire(5)) for _ in range(CALLS_PER_SLOT)]
    await asyncio.sleep(0)
    assert not await slots.acquire(5)
    slots.release()
    assert await waiting[0]
    for call in waiting[1:]:
        call.cancel()
    await asyncio.gather(*waiting[1:], return_exceptions=True)
    slots.release()
    assert slots.free == 1


async def test_a_cancelled_call_that_was_just_given_a_slot_gives_it_back() -> None:
    slots = Slots(1)
    await slots.reserve(1)
    call = asyncio.ensure_future(slots.acquire(5))
    await asyncio.sleep(0)
    slots.release()
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    assert slots.free == 1


async def test_background_work_goes_on_once_the_waiting_calls_have_given_up() -> None:
    slots = Slots(1)
    await slots.reserve(1)
    call = asyncio.ensure_future(slots.acquire(0.01))
    puller = asyncio.ensure_future(slots.reserve(1))
    assert not await call
    slots.release()
    assert await asyncio.wait_for(puller, 5) == 1
