"""Open pulls: which delivery belongs to which, so that its lease is counted from the right moment.

A delivery comes under the subject of its message, which names the function but not the pull. It may
come late, long after its lease has ended, if this process or its link stood still; taken for a
delivery of the pull that is open by then, it would run beside its next holder. So a pull whose end
nobody has seen is followed by pulls at a new address: what comes to the old one stays its own.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from quarterhour.broker.nats.layout import Layout
from quarterhour.broker.nats.link import Link, Msg, Subscription, has_status
from quarterhour.clock import Clock
from quarterhour.errors import BrokerUnavailable

__all__ = ["NAK", "Pull", "Pulls"]

NAK = b"-NAK"
LATE_S = 5.0  # after a pull was asked for, its end is waited for no longer where the connection is closed
LOOK_EVERY_S = 0.01


@dataclass(slots=True, kw_only=True, eq=False)
class Pull:
    """One pull of at most `wanted` deliveries, each leased until `leased_until` (boot s).

    An exception in `arrived` says why nothing more comes. `ended`: the server sends no more.
    """

    address: str
    wanted: int
    leased_until: float
    arrived: asyncio.Queue[Msg | Exception]
    ended: bool = False
    closed: bool = False

    async def next(self, timeout_s: float) -> Msg:
        """The next delivery, or the status that says that there is none.

        Raises `TimeoutError`, `BrokerUnavailable`.
        """
        if self.arrived.empty():
            async with asyncio.timeout(timeout_s):
                message = await self.arrived.get()
        else:
            message = self.arrived.get_nowait()
        if isinstance(message, Exception):
            raise message
        self.count(message)
        return message

    def count(self, message: Msg) -> None:
        """A message of this pull is here: it may be the last one."""
        self.wanted -= 1
        self.ended = has_status(message) or not self.wanted


@dataclass(slots=True, eq=False)
class _Address:
    """Where deliveries come: by function, the pull that is open there, or whose end was not seen."""

    inbox: str
    pulls: dict[str, Pull] = field(default_factory=dict)
    subscription: Subscription | None = None


class Pulls:
    """Opens pulls, at most one of a function at a time.

    What comes after a pull was closed is given back, but only while its lease lasts: later, even to
    give it back would take it from its next holder.
    """

    def __init__(self, link: Link, layout: Layout, clock: Clock, *, lease_s: float) -> None:
        """Pulls over `link`."""
        self._link = link
        self._layout = layout
        self._clock = clock
        self._lease_s = lease_s
        self._count = 0
        self._addresses: list[_Address] = []  # the last one is that of new pulls
        self._moving = asyncio.Lock()

    @asynccontextmanager
    async def open(self, function: str, wanted: int) -> AsyncIterator[Pull]:
        """A pull that is about to be asked for. Raises `BrokerUnavailable`."""
        address = await self._address(function)
        self._count += 1
        with self._link.many_replies(self._layout.next_work(function)) as (_, arrived):
            pull = Pull(
                address=f"{address.inbox}{function}.{self._count}",
                wanted=wanted,
                leased_until=self._clock.boot() + self._lease_s,
                arrived=arrived,
            )
            address.pulls[function] = pull
            try:
                yield pull
            finally:
                pull.closed = True
                if pull.ended:
                    del address.pulls[function]
                while not pull.arrived.empty():
                    message = pull.arrived.get_nowait()
                    if not isinstance(message, Exception):
                        await self._too_late(address, function, pull, message)

    async def close(self) -> None:
        """Return once every pull has ended, so that nothing is on its way that nobody would give back.

        The servers do not tell the end of a pull whose leader they have changed: that one is not waited
        for longer than servers and link take when they are slow.
        """
        while self._link.connected and self._may_bring():  # noqa: ASYNC110 - once, and time ends it too
            await asyncio.sleep(LOOK_EVERY_S)

    def _may_bring(self) -> bool:
        leased_after = self._clock.boot() + max(0.0, self._lease_s - LATE_S)
        pulls = (pull for address in self._addresses for pull in address.pulls.values())
        return any(pull.leased_until > leased_after for pull in pulls)

    async def _address(self, function: str) -> _Address:
        """Where the function's next pull goes: not to where an earlier one may still bring something."""
        if not self._link.connected:
            raise self._link.away()
        async with self._moving:
            if not self._addresses or function in self._addresses[-1].pulls:
                await self._move()
            return self._addresses[-1]

    async def _move(self) -> None:
        """Have new pulls use a new address, and leave those to which nothing of use can come any more."""
        address = _Address(f"{self._link.inbox}pull.{self._count}.")

        async def hear(message: Msg) -> None:
            await self._hear(address, message)

        # The server hears of it before the pull, since that comes after it on the same connection.
        address.subscription = await self._link.subscribe_soon(f"{address.inbox}>", hear)
        now = self._clock.boot()
        old, self._addresses = self._addresses, [address]
        for one in old:
            if any(now < pull.leased_until for pull in one.pulls.values()):
                self._addresses.insert(-1, one)
            elif one.subscription is not None:
                await self._link.unsubscribe(one.subscription)

    async def _hear(self, address: _Address, message: Msg) -> None:
        """What comes is a status under the pull's own address, or a delivery under that of its message."""
        if has_status(message):
            function = message.subject.removeprefix(address.inbox).partition(".")[0]
        else:
            function = self._layout.parts(message.subject)[1]
        pull = address.pulls.get(function)
        if pull is None or (has_status(message) and message.subject != pull.address):
            return
        if pull.closed:
            await self._too_late(address, function, pull, message)
        else:
            pull.arrived.put_nowait(message)

    async def _too_late(self, address: _Address, function: str, pull: Pull, message: Msg) -> None:
        """It came after its pull was closed: give it back, if it is a delivery."""
        pull.count(message)
        if pull.ended and address.pulls.get(function) is pull:
            del address.pulls[function]
        if has_status(message) or self._clock.boot() >= pull.leased_until:
            return
        with suppress(BrokerUnavailable):
            await self._link.publish(message.reply, NAK)
