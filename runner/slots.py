"""Slots: a runner's capacity for attempts, shared by synchronous calls and background work.

A synchronous caller waits for an answer, so the next free slot is always a call's before it is the
puller's. Waiting is bounded: in time by the caller, in number by `CALLS_PER_SLOT`, and where calls
have kept coming faster than they are served, by one for each slot: nobody then waits for longer than one run.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from time import monotonic

__all__ = ["Place", "Slots"]

CALLS_PER_SLOT = 4  # so many calls may wait for each slot; a longer queue could not be served in time
BURST_S = 0.1  # calls that wait for longer than this, one after the other, are no burst any more


class Slots:
    """Counts the free slots; whoever takes one gives it back by `release`."""

    def __init__(self, total: int, now: Callable[[], float] = monotonic) -> None:
        self.total = total
        self.free = total
        self.now = now
        self._waits_since = 0.0
        self._promised = 0
        self._calls: deque[asyncio.Future[None]] = deque()
        self._changed = asyncio.Event()

    async def acquire(self, wait_s: float) -> bool:
        """Take one slot for a call, waiting at most `wait_s`. False: there was none."""
        if self.free and not self._calls:
            self.free -= 1
            return True
        if len(self._calls) >= self._calls_max():
            return False
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._calls.append(waiter)
        try:
            async with asyncio.timeout(wait_s):
                await waiter
        except BaseException as error:
            self._give_up(waiter)
            if isinstance(error, TimeoutError):
                return False
            raise
        return True

    def _calls_max(self) -> int:
        """How many calls may wait now."""
        if not self._calls:
            self._waits_since = self.now()
        is_burst = self.now() < self._waits_since + BURST_S
        return self.total * (CALLS_PER_SLOT if is_burst else 1)

    async def promise(self, most: int) -> int:
        """Between 1 and `most` slots for work that is yet to come, as soon as one is free and unpromised.

        A promise holds no slot: what it is for may never come, and a call must not wait for that.
        Each is followed by `forgo`, or by the `Place` of what has come.
        """
        while self.free <= self._promised or self._calls:
            await self._change()
        count = min(self.free - self._promised, most)
        self._promised += count
        return count

    def forgo(self, count: int = 1) -> None:
        """Give `count` promises back: nothing has come."""
        self._promised -= count
        self._changed.set()

    async def redeem(self) -> None:
        """Take the slot of one promise; it may have to wait for calls that came first."""
        while not self.free or self._calls:
            await self._change()
        self.free -= 1
        self._promised -= 1

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def release(self) -> None:
        """Give a slot back: to a waiting call first."""
        self.free += 1
        while self.free and self._calls:
            waiter = self._calls.popleft()
            if not waiter.done():
                self.free -= 1
                waiter.set_result(None)
        if self.free:
            self._changed.set()

    def _give_up(self, waiter: asyncio.Future[None]) -> None:
        if waiter.done() and not waiter.cancelled():
            self.release()  # it was handed a slot in the very moment in which it stopped waiting
            return
        with suppress(ValueError):  # a release in that very moment has passed it by already
            self._calls.remove(waiter)
        if self.free and not self._calls:
            self._changed.set()


class Place:
    """What one piece of background work has of the slots: a promise, then a slot, then nothing.

    Who stands back has no promise meanwhile, and is still the one that `left` will be told of.
    """

    __slots__ = ("_give_back", "_left", "_slots", "_taken_at")

    def __init__(self, slots: Slots, left: Callable[[float | None], None] = lambda _: None) -> None:
        """The place of work that has come; it takes over one promise.

        `left` is told, once, for how many seconds it had its slot; None: it never had one.
        """
        self._slots = slots
        self._left = left
        self._taken_at: float | None = None
        self._give_back: Callable[[], None] | None = slots.forgo

    def stand_back(self) -> None:
        """Give the promise back for now: something else has to be waited for, and others need the slot."""
        self._slots.forgo()
        self._give_back = _nothing

    async def come_forward(self) -> None:
        """Wait for a new promise."""
        await self._slots.promise(1)
        self._give_back = self._slots.forgo

    async def take(self) -> None:
        """Wait for the promised slot."""
        await self._slots.redeem()
        self._give_back = self._slots.release
        self._taken_at = self._slots.now()

    def leave(self) -> None:
        """Give back what is left of it; the second time, nothing is."""
        give_back, self._give_back = self._give_back, None
        if give_back is not None:
            give_back()
            self._left(None if self._taken_at is None else self._slots.now() - self._taken_at)


def _nothing() -> None:
    """What who stands back has to give back."""
