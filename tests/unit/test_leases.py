"""Many leases at a broker that renews at once and is slow to read: in time that only seems to pass."""

import asyncio
from contextlib import ExitStack
from typing import cast

from quarterhour.broker.port import ANSWER_S, Delivery, Records, Work
from quarterhour.errors import BrokerUnavailable
from quarterhour.record import Record, cancelled, waiting
from runner.leases import LOOKS_AT_ONCE, RENEWALS_AT_ONCE, Leases
from tests.broker.worlds import invocation
from tests.unit.simulated import LEASE_S, LoopClock, VirtualLoop

COUNT = 4 * RENEWALS_AT_ONCE


class SlowToRead:
    """A broker of which `clock` is the time; it counts the reads that are under way for it."""

    def __init__(self, clock: LoopClock) -> None:
        self.clock = clock
        self.reading = 0
        self.reading_max = 0
        self.answers = False

    async def renew(self, _: Delivery) -> float:
        return self.clock.boot() + LEASE_S

    async def read(self, _function: str, _id: str) -> Record:
        if self.answers:
            return cancelled(waiting(invocation()), now=self.clock.now())
        self.reading += 1
        self.reading_max = max(self.reading_max, self.reading)
        try:
            await asyncio.sleep(ANSWER_S)
        finally:
            self.reading -= 1
        message = "It did not answer."
        raise BrokerUnavailable(message)


async def many_leases() -> None:
    clock = LoopClock()
    broker = SlowToRead(clock)
    leases = Leases(cast("Work", broker), cast("Records", broker), lease_s=LEASE_S, clock=clock)
    with ExitStack() as stack:
        held = [
            stack.enter_context(
                leases.hold(
                    Delivery(
                        invocation=invocation(),
                        envelope=b"",
                        number=1,
                        leased_until=clock.boot() + LEASE_S,
                        doubtful=False,
                        token=None,
                    )
                )
            )
            for _ in range(COUNT)
        ]
        keeping = asyncio.ensure_future(leases.keep())
        for _ in range(10):
            await asyncio.sleep(LEASE_S)
            assert all(lease.until > clock.boot() + LEASE_S / 2 for lease in held), "one was not renewed"
        assert broker.reading_max == LOOKS_AT_ONCE
        assert len(asyncio.all_tasks()) <= COUNT + 3, "looks pile up"
        broker.answers = True
        await asyncio.sleep(ANSWER_S + LEASE_S)
        assert all(lease.cancelled for lease in held), "one was never looked at"
        keeping.cancel()


def test_no_renewal_waits_for_a_look_and_looks_do_not_pile_up() -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(many_leases())
