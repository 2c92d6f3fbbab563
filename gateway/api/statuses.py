"""Waiting for the end of an invocation, for those who ask with `?wait=`."""

import asyncio

from quarterhour.broker.port import Records, Status
from quarterhour.clock import Clock
from quarterhour.lifecycle import FINAL

__all__ = ["WAIT_MAX_S", "Statuses"]

WAIT_MAX_S = 60.0
LOOK_AGAIN_S = 5.0  # at the latest, whether or not a change was heard
LOOK_SOON_S = 0.1  # the first time: what changed just before anybody listened was not heard
WAITING_MAX = 2000


class Statuses:
    """Answers what is known of an invocation, at once or when it has ended."""

    def __init__(self, records: Records, clock: Clock, stopping: asyncio.Event) -> None:
        self._records = records
        self._clock = clock
        self._stopping = stopping
        self._waiting = 0

    async def status(self, invocation_id: str, wait_s: float) -> Status | None:
        """What is known, after `wait_s` at most; None if there is no such background invocation.

        Nobody waits at a gateway that stops, or that has `WAITING_MAX` who wait already. Raises
        `BrokerUnavailable`.
        """
        status = await self._records.status(invocation_id)
        if wait_s <= 0 or _is_final(status) or self._waiting >= WAITING_MAX:
            return status
        self._waiting += 1
        try:
            return await self._at_its_end(invocation_id, self._clock.boot() + wait_s)
        finally:
            self._waiting -= 1

    def now(self) -> float:
        """Unix seconds, to tell how long ago the moments of a status are."""
        return self._clock.now()

    async def _at_its_end(self, invocation_id: str, until: float) -> Status | None:
        again_s = LOOK_SOON_S
        async with self._records.changes(invocation_id) as changed:
            while True:
                status = await self._records.status(invocation_id)
                left_s = until - self._clock.boot()
                if _is_final(status) or left_s <= 0 or self._stopping.is_set():
                    return status
                await changed(min(left_s, again_s))
                again_s = LOOK_AGAIN_S


def _is_final(status: Status | None) -> bool:
    return status is None or status.record.state in FINAL
