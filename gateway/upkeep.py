"""Upkeep: once a second every gateway looks after the queues.

It rings for work that runners may have missed, reads how deep the queues are, and sets aside what
waited too long: runners do that as well, but there may be none. Once a minute it also removes large bodies
that nobody came to need: their gateway died before it had queued the work, or their runner after it had
settled it. It never runs anything.
"""

import asyncio
from collections.abc import Mapping
from typing import Protocol

import structlog

from gateway.background import Backlog, StoreRoom
from gateway.directory import Functions
from gateway.metrics import Metrics
from quarterhour.broker.port import Bodies, Connection, Delivery, Depth, Queue, Records, Settlement, Work
from quarterhour.clock import Clock
from quarterhour.errors import BrokerUnavailable, Conflict
from quarterhour.function import Manifest
from quarterhour.record import Record, buried, due, is_settled, waiting
from quarterhour.retry import BuryReason

__all__ = ["Upkeep"]

EVERY_S = 1.0
AGAIN_S = 10.0
SWEEP_EVERY_S = 60.0
SWEPT_AGE_S = 3600.0  # a body comes, and is queued, in far less time
SWEPT_AT_ONCE = 200
PULLED_AT_ONCE = 5  # those that are still young are handed back, which costs their runner a start note
PULLS_MAX = 20  # of one function each second: an hour's backlog is set aside within minutes

log = structlog.get_logger()


class UpkeepBroker(Connection, Bodies, Queue, Work, Records, Protocol):
    """What upkeep needs of the broker."""


class Upkeep:
    """The gateway's share in looking after the queues."""

    def __init__(
        self,
        *,
        broker: UpkeepBroker,
        functions: Functions,
        backlog: Backlog,
        room: StoreRoom,
        metrics: Metrics,
        clock: Clock,
        waiting_age_s: float,
    ) -> None:
        self._broker = broker
        self._functions = functions
        self._backlog = backlog
        self._room = room
        self._metrics = metrics
        self._clock = clock
        self._waiting_age_s = waiting_age_s
        self._again_at: dict[str, float] = {}
        self._sweep_at = clock.boot()

    async def run(self) -> None:
        """Tend once a second, for as long as the gateway lives."""
        while True:
            self._metrics.connected(connected=self._broker.connected)
            try:
                await self.tend()
            except BrokerUnavailable as error:
                log.warning("queues_not_tended", why=str(error))
            await asyncio.sleep(EVERY_S)

    async def tend(self) -> None:
        """Look after all queues once."""
        queued = {name: one for name, one in self._functions.by_name.items() if one.has_queue}
        seen = self._backlog.mark()
        depths = await self._broker.tend(queued)
        self._backlog.replace(depths, seen)
        known = {name: depth for name, depth in depths.items() if name in self._functions.by_name}
        self._metrics.depths(known, now=self._clock.now())
        await self._look_at_store()
        await self._expire(queued, depths)
        await self._sweep()

    async def _look_at_store(self) -> None:
        seen = self._room.mark()
        use = await self._broker.store_use()
        self._room.replace(use, seen)
        self._metrics.store(use)

    async def _expire(self, functions: Mapping[str, Manifest], depths: Mapping[str, Depth]) -> None:
        before = self._clock.now() - self._waiting_age_s
        for name, depth in depths.items():
            old = depth.waiting and depth.oldest_due_at is not None and depth.oldest_due_at < before
            if old and self._clock.boot() >= self._again_at.get(name, 0.0):
                await self._expire_oldest(functions[name], before)

    async def _sweep(self) -> None:
        if self._clock.boot() < self._sweep_at:
            return
        self._sweep_at = self._clock.boot() + SWEEP_EVERY_S
        before = self._clock.now() - SWEPT_AGE_S
        removed = await self._broker.sweep_bodies(before=before, count_max=SWEPT_AT_ONCE)
        if removed:
            log.warning("orphaned_bodies_removed", count=removed)

    async def _expire_oldest(self, function: Manifest, before: float) -> None:
        await self._broker.prepare([function])
        for _ in range(PULLS_MAX):
            # Iterated to its end, as a pull must be, and only then settled one by one.
            deliveries = [delivery async for delivery in self._broker.pull(function.name, PULLED_AT_ONCE)]
            old = [one for one in deliveries if one.invocation.due_at < before]
            for delivery in deliveries:
                if delivery in old:
                    await self._set_aside(delivery)
                else:
                    await self._broker.hand_back(delivery)
            if deliveries and not old:  # the old ones are with a runner; do not stir up the others
                self._again_at[function.name] = self._clock.boot() + AGAIN_S
            if len(old) < PULLED_AT_ONCE:
                return

    async def _set_aside(self, delivery: Delivery) -> None:
        invocation = delivery.invocation
        if delivery.doubtful and await self._broker.who_runs(invocation.id) is not None:
            return  # whoever runs it keeps this delivery's lease alive with his own
        record = await self._record(delivery)
        if is_settled(record, invocation.attempt):
            await self._broker.acknowledge(delivery)
            return
        end = buried(record, BuryReason.EXPIRED, now=self._clock.now())
        try:
            await self._broker.settle(Settlement(delivery=delivery, record=end))
        except Conflict:  # somebody else has moved it on: the next look finds it as it is then
            await self._broker.hand_back(delivery)
            return
        self._metrics.expired(invocation.function)
        log.error(
            "invocation_expired",
            function=invocation.function,
            invocation=invocation.id,
            waited_s=round(self._clock.now() - invocation.due_at),
        )

    async def _record(self, delivery: Delivery) -> Record:
        invocation = delivery.invocation
        record = None
        if not delivery.is_new:
            record = await self._broker.read(invocation.function, invocation.id)
        return waiting(invocation) if record is None else due(record, invocation)
