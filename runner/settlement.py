"""Settlement: the single final answer to a delivery, given in one place.

The broker stores the record with its retry or dead letter in one compare-and-set step and then
takes the acknowledgement. What can go wrong is answered here: a broker that is away is asked again,
whoever comes second learns it and drops what he has, and a runner that is being ended finishes what
it has begun.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar

import structlog

from quarterhour import record as records
from quarterhour.broker.port import Records, Settlement, Work
from quarterhour.clock import Clock
from quarterhour.errors import BrokerError, BrokerUnavailable, Conflict
from quarterhour.record import Record
from runner.metrics import Metrics

__all__ = ["Settlements"]

AGAIN_S = 0.2
TRYING_S_MAX = 300.0  # a broker that is away for longer finds the invocation on its queue: it runs again
FINISH_S = 2.0  # what a settlement has that is broken off

log = structlog.get_logger()

T = TypeVar("T")


class Settlements:
    """Settles deliveries; at most `at_once` at a time, so that outcomes do not pile up in memory."""

    def __init__(self, *, work: Work, kept: Records, metrics: Metrics, clock: Clock, at_once: int) -> None:
        self._work = work
        self._records = kept
        self._metrics = metrics
        self._clock = clock
        self._places = asyncio.Semaphore(at_once)

    def place(self) -> asyncio.Semaphore:
        """What to hold while settling: an attempt keeps its slot until it has a place."""
        return self._places

    async def settle(self, settlement: Settlement) -> bool:
        """Settle, however long the broker is away (within bounds). False: another outcome came first.

        If it is cancelled, it is finished nevertheless, unless that takes longer than `FINISH_S`.
        """
        try:
            return await self._settle(settlement)
        except asyncio.CancelledError:
            await self._finish(settlement)
            raise

    async def _finish(self, settlement: Settlement) -> None:
        """Settle again what was broken off: it may be stored and not acknowledged, or on its way.

        Repeating it is safe, and needs no task beside each settlement that would shield it.
        """
        with suppress(TimeoutError, BrokerError):
            async with asyncio.timeout(FINISH_S):
                await self._settle(settlement)
                return
        record = settlement.record
        log.warning("settlement_broken_off", function=record.function, invocation=record.id)

    async def latest(self, record: Record) -> Record | None:
        """The record as it is stored now, asked for with the same patience."""
        return await self._patiently(partial(self._records.read, record.function, record.id))

    async def _settle(self, settlement: Settlement) -> bool:
        try:
            await self._patiently(partial(self._work.settle, settlement))
        except Conflict:
            await self._refused(settlement)
            return False
        return True

    async def _patiently(self, ask: Callable[[], Awaitable[T]]) -> T:
        give_up_at = self._clock.boot() + TRYING_S_MAX
        while True:
            try:
                return await ask()
            except BrokerUnavailable:
                if self._clock.boot() > give_up_at:
                    raise
                await asyncio.sleep(AGAIN_S)

    async def _refused(self, settlement: Settlement) -> None:
        """Another's word stands; if the attempt was settled or cancelled, this delivery is done as well."""
        record, attempt = settlement.record, settlement.delivery.invocation.attempt
        self._metrics.refused(record.function)
        log.warning("outcome_refused", function=record.function, invocation=record.id, attempt=attempt)
        stored = await self._records.read(record.function, record.id)
        if stored is not None and records.is_settled(stored, attempt):
            await self._work.acknowledge(settlement.delivery)
