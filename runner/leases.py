"""Leases: the right to run an attempt, kept alive while the runner holds its delivery.

One task renews them all. A lease that cannot be renewed is not given up here: the guard ends its
attempt in time, whatever becomes of this process.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from quarterhour.broker.port import Delivery, Work
from quarterhour.clock import Clock
from quarterhour.errors import BrokerUnavailable
from runner.sandbox.pool import Attempt

__all__ = ["Lease", "Leases"]

RENEWALS_AT_ONCE = 64

log = structlog.get_logger()


class Lease:
    """The lease of one delivery: until when (boot clock, seconds), and the attempt that runs under it."""

    __slots__ = ("attempt", "delivery", "until")

    def __init__(self, delivery: Delivery) -> None:
        self.delivery = delivery
        self.until = delivery.leased_until
        self.attempt: Attempt | None = None

    def extend(self, until: float) -> None:
        """A renewal was answered."""
        self.until = until
        if self.attempt is not None:
            self.attempt.extend(until)


class Leases:
    """All leases that this runner holds, renewed every third of their length."""

    def __init__(self, work: Work, *, lease_s: float, clock: Clock) -> None:
        self._work = work
        self._lease_s = lease_s
        self._clock = clock
        self._held: set[Lease] = set()

    @contextmanager
    def hold(self, delivery: Delivery) -> Iterator[Lease]:
        """While entered, the lease of `delivery` is renewed."""
        lease = Lease(delivery)
        self._held.add(lease)
        try:
            yield lease
        finally:
            self._held.discard(lease)

    async def keep(self) -> None:
        """Renew what is due, until cancelled."""
        at_once = asyncio.Semaphore(RENEWALS_AT_ONCE)
        while True:
            await asyncio.sleep(self._lease_s / 30)
            now = self._clock.boot()
            # A lease that has ended stays ended: renewing it would prolong that of its next holder.
            due = [lease for lease in self._held if now < lease.until < now + self._lease_s * 2 / 3]
            async with asyncio.TaskGroup() as group:
                for lease in due:
                    group.create_task(self._renew(lease, at_once))

    async def _renew(self, lease: Lease, at_once: asyncio.Semaphore) -> None:
        async with at_once:
            if lease not in self._held or lease.until <= self._clock.boot():
                return
            try:
                lease.extend(await self._work.renew(lease.delivery))
            except BrokerUnavailable:
                left_s = lease.until - self._clock.boot()
                invocation = lease.delivery.invocation
                log.warning(
                    "lease_not_renewed",
                    function=invocation.function,
                    invocation=invocation.id,
                    left_s=round(left_s, 1),
                )
