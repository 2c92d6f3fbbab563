"""Slots: never more than there are, calls before background work, nothing lost when a waiter gives up."""

import asyncio

import pytest

from runner.slots import BURST_S, CALLS_PER_SLOT, Place, Slots


async def filled(total: int) -> tuple[Slots, list[Place]]:
    """Slots that are all taken by background work."""
    slots = Slots(total)
    places = [Place(slots) for _ in range(await slots.promise(total))]
    for place in places:
        await place.take()
    return slots, places


async def test_slots_are_counted() -> None:
    slots = Slots(3)
    assert await slots.acquire(0)
    assert await slots.promise(5) == 2
    assert slots.free == 2  # a promise holds none
    places = [Place(slots), Place(slots)]
    for place in places:
        await place.take()
    assert slots.free == 0
    for place in places:
        place.leave()
        place.leave()
    slots.release()
    assert slots.free == 3


async def test_no_more_is_promised_than_is_free() -> None:
    slots = Slots(2)
    assert await slots.promise(1) == 1
    assert await slots.promise(5) == 1
    third = asyncio.ensure_future(slots.promise(1))
    await asyncio.sleep(0)
    assert not third.done()
    slots.forgo(1)
    assert await third == 1


async def test_a_call_takes_a_promised_slot_and_the_promise_waits() -> None:
    slots = Slots(1)
    assert await slots.promise(1) == 1
    assert await slots.acquire(0)
    place = Place(slots)
    taking = asyncio.ensure_future(place.take())
    await asyncio.sleep(0)
    assert not taking.done()
    slots.release()
    await taking
    assert slots.free == 0
    place.leave()
    assert await slots.promise(1) == 1


async def test_a_call_that_waits_gets_the_next_slot_before_background_work() -> None:
    slots, places = await filled(1)
    puller = asyncio.ensure_future(slots.promise(1))
    await asyncio.sleep(0)
    call = asyncio.ensure_future(slots.acquire(5))
    await asyncio.sleep(0)
    places[0].leave()
    assert await call
    assert not puller.done()
    slots.release()
    assert await puller == 1


async def test_a_call_waits_no_longer_than_it_may() -> None:
    slots, places = await filled(1)
    assert not await slots.acquire(0.01)
    places[0].leave()
    assert slots.free == 1
    assert await slots.acquire(0.01)


async def test_only_so_many_calls_wait() -> None:
    slots, places = await filled(1)
    waiting = [asyncio.ensure_future(slots.acquire(5)) for _ in range(CALLS_PER_SLOT)]
    await asyncio.sleep(0)
    assert not await slots.acquire(5)
    places[0].leave()
    assert await waiting[0]
    for call in waiting[1:]:
        call.cancel()
    await asyncio.gather(*waiting[1:], return_exceptions=True)
    slots.release()
    assert slots.free == 1


async def test_a_cancelled_call_that_was_just_given_a_slot_gives_it_back() -> None:
    slots, places = await filled(1)
    call = asyncio.ensure_future(slots.acquire(5))
    await asyncio.sleep(0)
    places[0].leave()
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    assert slots.free == 1


async def test_a_slot_that_is_free_in_the_moment_in_which_a_call_gives_up_is_nobodys() -> None:
    slots = Slots(1)
    assert await slots.acquire(0)
    waiter = asyncio.ensure_future(slots.acquire(60))
    await asyncio.sleep(0)
    waiter.cancel()
    slots.release()  # it passes by the waiter, which has not heard yet that it is to go
    with pytest.raises(asyncio.CancelledError):
        await waiter
    assert slots.free == 1


async def test_background_work_goes_on_once_the_waiting_calls_have_given_up() -> None:
    slots, places = await filled(1)
    call = asyncio.ensure_future(slots.acquire(0.01))
    puller = asyncio.ensure_future(slots.promise(1))
    assert not await call
    places[0].leave()
    assert await asyncio.wait_for(puller, 20) == 1


async def test_calls_that_keep_coming_wait_one_for_each_slot() -> None:
    now = 0.0
    slots = Slots(2, lambda: now)
    assert await slots.acquire(0)
    assert await slots.acquire(0)
    waiting = [asyncio.ensure_future(slots.acquire(10)) for _ in range(3)]
    await asyncio.sleep(0)
    now = BURST_S  # somebody has waited all the time since
    assert not await slots.acquire(10)
    slots.release()
    slots.release()
    assert await waiting[0]
    assert await waiting[1]
    waiting.append(asyncio.ensure_future(slots.acquire(10)))
    await asyncio.sleep(0)
    assert not waiting[3].done()  # two wait now
    assert not await slots.acquire(10)
    slots.release()
    slots.release()
    assert await waiting[2]
    assert await waiting[3]
    slots.release()
    slots.release()
    assert slots.free == 2
    # Nobody waits any more: the next ones are a burst again.
    assert await slots.acquire(0)
    assert await slots.acquire(0)
    burst = [asyncio.ensure_future(slots.acquire(10)) for _ in range(8)]
    await asyncio.sleep(0)
    assert not any(one.done() for one in burst)
    assert not await slots.acquire(10)
    for _ in range(10):
        slots.release()
    assert all([await one for one in burst])


async def test_a_place_tells_once_how_long_it_had_its_slot() -> None:
    now = 5.0
    told: list[float | None] = []
    slots = Slots(2, lambda: now)
    places = [Place(slots, told.append) for _ in range(await slots.promise(2))]
    await places[0].take()
    now = 8.0
    for place in (*places, *places):
        place.leave()
    assert told == [3.0, None]


async def test_who_stands_back_leaves_its_slot_to_others_and_comes_forward_again() -> None:
    slots = Slots(1)
    told: list[float | None] = []
    place = Place(slots, told.append)
    assert await slots.promise(1) == 1
    place.stand_back()
    assert await slots.promise(1) == 1
    coming = asyncio.ensure_future(place.come_forward())
    await asyncio.sleep(0)
    assert not coming.done()
    slots.forgo()
    await coming
    assert told == []
    await place.take()
    place.leave()
    assert (slots.free, len(told)) == (1, 1)


async def test_who_leaves_while_it_stands_back_gives_nothing_back_and_is_told_of() -> None:
    slots = Slots(2)
    told: list[float | None] = []
    places = [Place(slots, told.append) for _ in range(await slots.promise(2))]
    places[0].stand_back()
    places[0].leave()
    assert told == [None]
    assert await slots.promise(2) == 1  # the other's is still promised
