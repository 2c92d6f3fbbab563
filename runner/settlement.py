"""Settlement: the single final answer to a delivery, given in one place.

The broker stores the record with its retry or dead letter in one compare-and-set step and then
takes the acknowledgement. What can go wrong is answered here: a broker that is away is asked again,
and whoever comes second learns it and drops what he has.
"""

import asyncio

import structlog

from quarterhour import record as records
from quarterhour.broker.port import Records, Settlement, Work
from quarterhour.clock import Clock
from quarterhour.errors import BrokerUnavailable, Conflict
from runner.metrics import Metrics

__all__ = ["Settlements"]

AGAIN_S = 0.2
TRYING_S_MAX = 300.0  # a broker that is away for longer finds the invocation on its queue: it runs again

log = structlog.get_logger()


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
        """Settle, however long the broker is away (within bounds). False: another outcome came first."""
        give_up_at = self._clock.boot() + TRYING_S_MAX
        while True:
            try:
                await self._work.settle(settlement)
            except Conflict:
                await self._refused(settlement)
                return False
            except BrokerUnavailable:
                if self._clock.boot() > give_up_at:
                    raise
                await asyncio.sleep(AGAIN_S)
            else:
                return True

    async def _refused(self, settlement: Settlement) -> None:
        """Another runner's word stands; if it settled the attempt, this delivery is done as well."""
        record, attempt = settlement.record, settlement.delivery.invocation.attempt
        self._metrics.refused(record.function)
        log.warning("outcome_refused", function=record.function, invocation=record.id, attempt=attempt)
        stored = await self._records.read(record.function, record.id)
        if stored is not None and records.is_settled(stored, attempt):
            await self._work.acknowledge(settlement.delivery)
