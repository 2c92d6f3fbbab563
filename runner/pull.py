"""Pulling: background work is taken queue by queue in turns, never more than there are free slots."""

import asyncio
from collections.abc import Collection
from functools import partial

import structlog

from quarterhour.broker.port import Work
from quarterhour.errors import BrokerUnavailable
from runner.attempt import Attempts
from runner.shares import Shares
from runner.slots import Place, Slots
from runner.turns import Turns

__all__ = ["Puller"]

AGAIN_S = 0.5

log = structlog.get_logger()


class Puller:
    """Turns bells into pulls, and deliveries into attempts that run in `tasks`."""

    def __init__(self, *, work: Work, slots: Slots, attempts: Attempts, tasks: asyncio.TaskGroup) -> None:
        self._work = work
        self._slots = slots
        self._attempts = attempts
        self._tasks = tasks
        self._turns = Turns()
        self._shares = Shares(slots.total)
        self._held_back: set[str] = set()  # functions that have their share, and may have more work
        self._news = asyncio.Event()
        self._pulls: set[asyncio.Task[None]] = set()

    def serve(self, functions: Collection[str]) -> None:
        """From now on work of just these functions is pulled; each is looked at once."""
        self._turns.serve(functions)
        self._shares.serve(functions)
        self.ring(functions)

    async def listen(self) -> None:
        """Hear the bells, until cancelled: a broker that does not answer is asked again."""
        while True:
            try:
                async for names in self._work.bells():
                    self.ring(names)
            except BrokerUnavailable as error:
                log.warning("bells_not_heard", why=str(error))
            await asyncio.sleep(AGAIN_S)

    async def run(self) -> None:
        """Pull, until cancelled. Cancelling starts no further pull; `ended` waits for the open ones."""
        while True:
            free = await self._slots.promise(self._slots.total)
            name = self._turns.next()
            if name is None:
                self._slots.forgo(free)
                self._news.clear()
                await self._news.wait()
                continue
            count = min(self._turns.share(free), self._shares.left(name))
            self._slots.forgo(free - count)
            if not count:
                self._held_back.add(name)
                self._turns.back(name, more=False)
                continue
            self._shares.take(name, count)
            pull = self._tasks.create_task(self._pull(name, count))
            self._pulls.add(pull)
            pull.add_done_callback(self._pulls.discard)

    async def ended(self) -> None:
        """Return when no pull is open any more (within about a second of the last one's start)."""
        if self._pulls:
            await asyncio.wait(self._pulls)

    def ring(self, names: Collection[str]) -> None:
        """These functions may have work."""
        self._turns.ring(names)
        self._news.set()

    async def _pull(self, name: str, count: int) -> None:
        got, failed = 0, False
        try:
            async for delivery in self._work.pull(name, count):
                got += 1
                place = Place(self._slots, partial(self._left, name))
                self._tasks.create_task(self._attempts.take(delivery, place))
        except BrokerUnavailable as error:
            log.warning("pull_failed", function=name, why=str(error))
            failed = True
            await asyncio.sleep(AGAIN_S)
        finally:
            self._slots.forgo(count - got)
            self._shares.give_back(name, count - got)
            self._turns.back(name, more=failed or got == count)
            self._news.set()

    def _left(self, name: str, had_s: float | None) -> None:
        """One of the function's slots is free again."""
        self._shares.give_back(name)
        if had_s is not None:
            self._shares.ran(name, had_s)
        if name in self._held_back:
            self._held_back.discard(name)
            self.ring((name,))
