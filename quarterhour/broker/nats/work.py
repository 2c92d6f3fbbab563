"""Background work as runners take it: pulled by hand, held by a lease, settled once.

A pull is one request, and at most one of a function is open at a time; which delivery belongs to
which is seen to in `pulls.py`.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass

import orjson
import structlog

from quarterhour.broker.names import function_token
from quarterhour.broker.nats.append import Append
from quarterhour.broker.nats.bells import Bells
from quarterhour.broker.nats.layout import EMPTIED, NS, Layout, Place
from quarterhour.broker.nats.link import Link, Msg, has_status
from quarterhour.broker.nats.pulls import NAK, Pull, Pulls
from quarterhour.broker.nats.records import Records
from quarterhour.broker.nats.stream import Stream
from quarterhour.broker.port import BrokerOptions, Delivery, Settlement
from quarterhour.broker.unreadable import unreadable
from quarterhour.errors import Conflict, EnvelopeError, UnknownVersion
from quarterhour.function import Manifest
from quarterhour.invocation import Invocation, decode_invocation
from quarterhour.record import is_settled

__all__ = ["Work"]

PULL_S = 1.0
GLANCE_S = 0.05
UNREAD_DELAY_S = 30.0

ACK, RENEW, TERM = b"", b"+WPI", b"+TERM"

log = structlog.get_logger()


@dataclass(slots=True)
class _Lease:
    """The token of a delivery: where to answer it, and up to when (boot s) it is ours."""

    ack: str
    function: str
    leased_until: float


class Work:
    """Pulls, renews, settles."""

    def __init__(
        self,
        link: Link,
        layout: Layout,
        *,
        stream: Stream,
        append: Append,
        bells: Bells,
        records: Records,
        options: BrokerOptions,
    ) -> None:
        """Work for the runner of `options`."""
        self._link = link
        self._layout = layout
        self._stream = stream
        self._append = append
        self._bells = bells
        self._records = records
        self._options = options
        self._clock = options.clock
        self._lease_s = options.lease_s
        self._patience_s = min(PULL_S, options.lease_s / 3)
        self._limits: dict[str, int | None] = {}
        self._doubts = 0  # those up to which `_stored_before` was the last message
        self._stored_before = 0
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._pulls = Pulls(link, layout, self._clock, lease_s=self._lease_s)
        self.bells = bells.heard

    async def prepare(self, functions: Collection[Manifest]) -> None:
        """Create or update the queues of these functions."""
        await self._look_back()
        limits = {manifest.name: manifest.concurrency for manifest in functions}
        await self._stream.ensure_queues(limits)
        self._limits |= limits

    # Pulling

    async def pull(self, function: str, count: int) -> AsyncIterator[Delivery]:
        """At most `count` deliveries that wait now."""
        async with self._turns[function_token(function)]:
            await self._look_back()
            if self._stored_before:  # whoever lives is connected by then, and can say what he runs
                await asyncio.sleep(max(0.0, self._link.calm_at - self._clock.boot()))
            request = await self._request(function, count)
            if request is None:
                return
            async with self._pulls.open(function_token(function), count) as pull:
                await self._link.publish(self._layout.next_work(function), request, pull.address)
                while (message := await self._next(pull)) is not None:
                    delivery = await self._delivery(message, pull.leased_until)
                    if delivery is not None:
                        yield delivery

    async def aclose(self) -> None:
        """Return when no delivery is on its way any more: what comes until then is given back."""
        await self._pulls.close()

    async def _look_back(self) -> None:
        """Once for each connection, and each new leader: learn what was there before the server began.

        A server that has crashed may have forgotten its last deliveries, and acknowledgements too; of what
        was stored since it was started it has forgotten nothing.
        """
        doubts = self._link.doubts
        if self._doubts != doubts:
            self._stored_before = await self._stored_before_start()
            self._doubts = doubts

    async def _stored_before_start(self) -> int:
        """The last sequence that a server may have forgotten something about.

        Whoever is the first to look for work at a server notes down how far the stream goes; servers
        have a new id after each start. In a cluster another server may be the one that forgets: there it
        is how far the stream goes now.
        """
        server_id = self._link.server_id  # first: of a later server, a larger number does no harm
        last, now = await self._stream.extent()
        if self._stream.replicas > 1:
            return last
        noted = await self._stream.last(self._layout.server(server_id))
        if noted is None:
            try:
                await self._append.store(self._layout.begun(server_id, last))
            except Conflict:
                noted = await self._stream.last(self._layout.server(server_id))
        before, ago_s = (last, 0.0) if noted is None else (int(noted.data), now - noted.stored_at)
        if before:  # we may be new, and have seen nothing of the start
            self._link.recovering_until = self._clock.boot() + self._lease_s - ago_s
        return before

    async def _request(self, function: str, count: int) -> bytes | None:
        """What to ask of the server; None if there is no such queue.

        `no_wait` ends the pull as soon as it has brought something and no more waits. If nothing
        waits at first, it ends after `expires`, which must not be missing: the server acknowledges a
        message a moment before its queue sees it, and where a function is at its limit the pull
        would stay open for ever. A function at its limit is worth waiting for, an empty queue is not.
        """
        expires_s = GLANCE_S
        if self._limits.get(function, 1) is not None:
            backlog = await self._stream.backlog(function)
            if backlog is None:
                return None
            if backlog.pending and backlog.unacknowledged >= backlog.limit:
                expires_s = self._patience_s
        return orjson.dumps({"batch": count, "no_wait": True, "expires": round(expires_s * NS)})

    async def _next(self, pull: Pull) -> Msg | None:
        """The next delivery of a pull, None at its end."""
        if pull.ended:
            return None
        try:
            message = await pull.next(self._patience_s + GLANCE_S)
        except TimeoutError:
            return None
        return None if has_status(message) else message

    async def _delivery(self, message: Msg, leased_until: float) -> Delivery | None:
        place = self._layout.place(message.subject)
        if place is None:  # somebody else wrote it
            log.warning("dropped_unread", subject=message.subject)
            await self._link.publish(message.reply, TERM)
            return None
        if message.data == EMPTIED:  # it is cancelled, and about to be removed
            await self._link.publish(message.reply, ACK)
            return None
        try:
            invocation = _read(message.data, place)
        except UnknownVersion as error:
            await self._hand_back_unread(message, error)
            return None
        except EnvelopeError as error:
            await self._bury(message, place, error)
            return None
        doubtful = (
            self._link.in_doubt
            or self._stream.forgets_unseen
            or _sequence(message.reply) <= self._stored_before
        )
        return Delivery(
            invocation=invocation,
            envelope=message.data,
            number=_number(message.reply),
            leased_until=leased_until,
            doubtful=doubtful,
            recovering=doubtful and self._link.recovering,
            token=_Lease(message.reply, place.function, leased_until),
        )

    async def _hand_back_unread(self, message: Msg, error: EnvelopeError) -> None:
        """Leave it to somebody who can read it."""
        log.warning("handed_back_unread", subject=message.subject, why=str(error))
        delay = orjson.dumps({"delay": round(UNREAD_DELAY_S * NS)})
        await self._link.publish(message.reply, NAK + b" " + delay)

    async def _bury(self, message: Msg, place: Place, error: EnvelopeError) -> None:
        """Set aside what cannot be read, unless it has its end already or an unreadable record."""
        try:
            known = await self._records.read(place.function, place.id)
        except EnvelopeError as unread:
            await self._hand_back_unread(message, unread)
            return
        log.warning("buried_unread", subject=message.subject, why=str(error))
        if known is None or not is_settled(known, place.attempt):
            record = unreadable(
                error,
                known,
                function=place.function,
                invocation_id=place.id,
                attempt=place.attempt,
                now=self._clock.now(),
                runner=self._options.name,
            )
            letter = self._layout.buried(record, message.data, bytes_max=self._link.payload_bytes_max)
            try:
                await self._append.store(self._layout.stored(record), letter)
            except Conflict:
                return  # somebody else is at it; it will be delivered again
        await self._link.publish(message.reply, ACK)

    # Leases

    async def renew(self, delivery: Delivery) -> float:
        """Extend the lease; one that has ended is not asked for any more, it may be somebody else's."""
        lease = _lease(delivery)
        sent_at = self._clock.boot()
        if sent_at < lease.leased_until:
            await self._link.request(lease.ack, RENEW)
            if self._clock.boot() < lease.leased_until:  # else the server may have been late as well
                lease.leased_until = sent_at + self._lease_s
        return lease.leased_until

    async def settle(self, settlement: Settlement) -> None:
        """Store the record with what follows from it, then acknowledge."""
        retry, now = settlement.retry, self._clock.now()
        bytes_max = self._link.payload_bytes_max
        try:
            await self._append.store(*self._layout.settled(settlement, now, bytes_max=bytes_max))
        except Conflict:
            if await self._records.same_as(settlement.record) is None:
                raise
        await self._link.publish(_lease(settlement.delivery).ack, ACK)
        if retry is not None and retry.due_at <= now:
            self._bells.ring_soon(retry.function)

    async def acknowledge(self, delivery: Delivery) -> None:
        """Take the delivery off the queue."""
        await self._link.publish(_lease(delivery).ack, ACK)

    async def hand_back(self, delivery: Delivery) -> None:
        """Let it be delivered again at once, unless its lease has ended anyway."""
        lease = _lease(delivery)
        if self._clock.boot() < lease.leased_until:
            await self._link.request(lease.ack, NAK)
            self._bells.ring_soon(lease.function)


def _read(data: bytes, place: Place) -> Invocation:
    invocation = decode_invocation(data)
    if (invocation.function, invocation.id, invocation.attempt) != (place.function, place.id, place.attempt):
        message = f"An envelope of {invocation.function!r} {invocation.id!r} lies where it does not belong."
        raise EnvelopeError(message)
    return invocation


def _number(ack: str) -> int:
    """How often it was delivered, from `$JS.ACK.<stream>.<consumer>.<number>.<sequence>…`."""
    tokens = ack.split(".")
    return int(tokens[4] if len(tokens) == 9 else tokens[6])  # a domain adds two tokens


def _sequence(ack: str) -> int:
    """Where in the stream it lies."""
    tokens = ack.split(".")
    return int(tokens[5] if len(tokens) == 9 else tokens[7])


def _lease(delivery: Delivery) -> _Lease:
    if not isinstance(delivery.token, _Lease):
        message = "The delivery is another broker's."
        raise TypeError(message)
    return delivery.token
