"""Leases: the right to run an attempt, kept alive while the runner holds its delivery.

One task renews them all, and looks whether what it renews was cancelled. A lease that cannot be renewed
is not given up here: the guard ends its attempt in time, whatever becomes of this process.
"""

import asyncio
import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import structlog

from quarterhour.broker.port import Delivery, Records, Work
from quarterhour.clock import Clock
from quarterhour.errors import BrokerUnavailable, EnvelopeError
from quarterhour.lifecycle import State
from runner.sandbox.pool import Attempt

__all__ = ["Lease", "Leases"]

RENEWALS_AT_ONCE = 64
LOOKS_AT_ONCE = 64
ENDED = -math.inf

log = structlog.get_logger()


class Lease:
    """The lease of one delivery: until when (boot clock, seconds), and the attempt that runs under it.

    `cancelled`: nobody wants the invocation any more, whether or not its attempt is begun. Its holder is
    the task that it is made in.
    """

    __slots__ = ("_holder", "attempt", "cancelled", "delivery", "until")

    def __init__(self, delivery: Delivery) -> None:
        self.delivery = delivery
        self.until = delivery.leased_until
        self.attempt: Attempt | None = None
        self.cancelled = False
        self._holder = asyncio.current_task()

    def give_up(self) -> None:
        """Break off whatever its holder still does about it."""
        if self._holder is not None:
            self._holder.cancel()

    def end(self) -> None:
        """The delivery is about to be handed back: it is ours no more, whatever is still answered."""
        self.until = ENDED

    def cancel(self) -> None:
        """The invocation was cancelled: what runs of it ends."""
        self.cancelled = True
        if self.attempt is not None:
            self.attempt.cancel()

    def extend(self, until: float) -> None:
        """A renewal was answered."""
        if self.until == ENDED:
            return
        self.until = until
        if self.attempt is not None:
            self.attempt.extend(until)


class Leases:
    """All leases that this runner holds, renewed every third of their length."""

    def __init__(self, work: Work, kept: Records, *, lease_s: float, clock: Clock) -> None:
        self._work = work
        self._records = kept
        self._lease_s = lease_s
        self._clock = clock
        self._held: set[Lease] = set()
        self._renewals = asyncio.Semaphore(RENEWALS_AT_ONCE)
        self._looks = asyncio.Semaphore(LOOKS_AT_ONCE)  # of their own: no renewal waits for a look
        self._looking: set[Lease] = set()  # where a look is under way, or waits: that one will do

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
        async with asyncio.TaskGroup() as looks:
            while True:
                await asyncio.sleep(self._lease_s / 30)
                now = self._clock.boot()
                # A lease that has ended stays ended: renewing it would prolong that of its next holder.
                due = [lease for lease in self._held if now < lease.until < now + self._lease_s * 2 / 3]
                async with asyncio.TaskGroup() as group:
                    for lease in due:
                        group.create_task(self._renew(lease, looks))

    async def _renew(self, lease: Lease, looks: asyncio.TaskGroup) -> None:
        async with self._renewals:
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
            else:
                if lease not in self._looking:
                    self._looking.add(lease)
                    look = looks.create_task(self._look_for_cancel(lease))
                    look.add_done_callback(lambda _: self._looking.discard(lease))

    async def _look_for_cancel(self, lease: Lease) -> None:
        """Who was cut off when runners were told of a cancel finds it in the record.

        It costs one read for each third of a lease that an attempt runs for; short ones cost nothing.
        """
        invocation = lease.delivery.invocation
        async with self._looks:
            if lease not in self._held:
                return
            with suppress(BrokerUnavailable, EnvelopeError):  # with the next renewal it looks again
                record = await self._records.read(invocation.function, invocation.id)
                if record is not None and record.state is State.CANCELLED:
                    lease.cancel()
