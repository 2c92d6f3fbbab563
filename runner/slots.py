"""Slots: a runner's capacity for attempts, shared by synchronous calls and background work.

A synchronous caller waits for an answer, so the next free slot is always a call's before it is the
puller's. Waiting is bounded: in time by the caller, in number by `CALLS_PER_SLOT`.
"""

import asyncio
from collections import deque

__all__ = ["Slots"]

CALLS_PER_SLOT = 4  # so many calls may wait for each slot; a longer queue could not be served in time


class Slots:
    """Counts the free slots; every `acquire` or `reserve` is followed by as many `release`."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.free = total
        self._calls: deque[asyncio.Future[None]] = deque()
        self._freed = asyncio.Event()

    async def acquire(self, wait_s: float) -> bool:
        """Take one slot for a call, waiting at most `wait_s`. False: there was none."""
        if self.free and not self._calls:
            self.free -= 1
            return True
        if len(self._calls) >= CALLS_PER_SLOT * self.total:
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

    async def reserve(self, most: int) -> int:
        """Take between 1 and `most` slots for background work, as soon as one is free."""
        while not self.free or self._calls:
            self._freed.clear()
            await self._freed.wait()
        count = min(self.free, most)
        self.free -= count
        return count

    def release(self, count: int = 1) -> None:
        """Give `count` slots back: to waiting calls first."""
        self.free += count
        while self.free and self._calls:
            waiter = self._calls.popleft()
            if not waiter.done():
                self.free -= 1
                waiter.set_result(None)
        if self.free:
            self._freed.set()

    def _give_up(self, waiter: asyncio.Future[None]) -> None:
        if waiter.done() and not waiter.cancelled():
            self.release()  # it was handed a slot in the very moment in which it stopped waiting
        else:
            self._calls.remove(waiter)
            if self.free and not self._calls:
                self._freed.set()
