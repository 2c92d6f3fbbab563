"""A broker in this process's memory, for tests and for trying things out: nothing survives the process.

It keeps the port's promises the way a real broker does: what is stored is encoded and decoded
again, leases end on the clock, and revisions are compared. Connections with the same URL and
namespace share one store. Time passes by looking at the clock: retries become due and leases end
when somebody pulls, tends or asks, so that a test's clock drives everything.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TypeVar

import structlog

from quarterhour.broker.memory_bodies import MemoryBodies
from quarterhour.broker.memory_calls import MemoryCalls
from quarterhour.broker.memory_store import (
    MESSAGE_BYTES_MAX,
    DeadLetter,
    Listener,
    Message,
    Store,
    message_of,
)
from quarterhour.broker.names import function_token, invocation_token
from quarterhour.broker.port import (
    Beat,
    Broker,
    BrokerOptions,
    Cursor,
    Delivery,
    Depth,
    Key,
    Run,
    Settlement,
    Status,
    StoreUse,
)
from quarterhour.broker.unreadable import unreadable
from quarterhour.errors import BrokerUnavailable, EnvelopeError, UnknownVersion
from quarterhour.function import Manifest
from quarterhour.invocation import Invocation, decode_invocation
from quarterhour.lifecycle import FINAL, State
from quarterhour.record import Record, cancelled, delayed, due, is_settled, waiting

__all__ = ["MemoryBroker", "Store", "connect", "store_of"]

log = structlog.get_logger()

T = TypeVar("T")

HEADER_BYTES_RESERVED = 256 * 1024
BELLS_SILENCE_S = 5.0
BEATS_WAITING_MAX = 1000
UNKNOWN_VERSION_DELAY_S = 30.0


class MemoryBroker(MemoryBodies, MemoryCalls):
    """One connection to a `Store`: the port, role by role."""

    def __init__(self, store: Store, options: BrokerOptions) -> None:
        """A connection of `options.name` to `store`."""
        self.store = store
        self.listener = Listener()
        self._options = options
        self._clock = options.clock
        self._closed = asyncio.Event()
        self._serving = None
        self._calls = set()

    # Connection

    @property
    def connected(self) -> bool:
        """Whether the store is there."""
        return not self.store.away

    @property
    def body_bytes_max(self) -> int:
        """The largest body that fits into one message."""
        return MESSAGE_BYTES_MAX - HEADER_BYTES_RESERVED

    @property
    def warnings(self) -> tuple[str, ...]:
        """One: that this is no place for work that matters."""
        return ("The broker is memory://: everything accepted is gone when this process ends.",)

    async def lost(self) -> None:
        """Return once the connection is closed."""
        await self._closed.wait()

    def close(self) -> None:
        """Leave the store."""
        self.store.listeners.discard(self.listener)
        self._end_calls()
        self._closed.set()

    def _ready(self) -> None:
        if self.store.away or self._closed.is_set():
            message = "The broker in memory is away."
            raise BrokerUnavailable(message)

    # Queue

    async def enqueue(self, invocation: Invocation, key: Key | None = None) -> str:
        """Put an invocation on the queue, once for each id and each key."""
        self._ready()
        message = message_of(invocation)
        now = self._clock.now()
        if key is not None:
            first = self.store.first_with(key, message.function, now)
            if first is not None:
                return first
            self.store.remember(key, message, now)
        if self.store.accept(message, now) and message.due_at <= now:
            self.store.ring({invocation.function})
        return invocation.id

    async def knows(self, function: str, key_text: str) -> bool:
        """Whether an invocation came with this key."""
        self._ready()
        return self.store.known(function, key_text, self._clock.now()) is not None

    async def cancel(self, invocation_id: str) -> Record | None:
        """Store that it is cancelled, remove what is to come of it, and tell every connection."""
        self._ready()
        record, _ = self._known(invocation_id)
        if record is not None and record.state not in FINAL:
            now = self._clock.now()
            record = self.store.compare_and_set(cancelled(record, now=now), self._options, now)
            self._changed(invocation_id)
        if record is not None and record.state is State.CANCELLED:
            self.store.remove_all(invocation_id)
            for listener in self.store.listeners:
                if listener.stop is not None:
                    listener.stop(invocation_id)
        return record

    async def tend(self, functions: Collection[str]) -> Mapping[str, Depth]:
        """Ring for work that waits, and say how deep the queues are."""
        self._ready()
        self.store.fire(self._clock.now())
        boot = self._clock.boot()
        depths = {name: self.store.depth(function_token(name), boot) for name in functions}
        self.store.ring([name for name, queue in self.store.queues.items() if queue])
        return depths

    async def store_use(self) -> StoreUse:
        """Nobody counts the bytes of what is gone with the process."""
        self._ready()
        return StoreUse()

    # Schedules

    async def cursors(self) -> Mapping[str, Cursor]:
        """All cursors by function."""
        self._ready()
        return dict(self.store.cursors)

    async def place(self, cursor: Cursor, firings: Sequence[Invocation]) -> Cursor:
        """Store the cursor and the firings in one step."""
        self._ready()
        function_token(cursor.function)
        messages = [message_of(firing) for firing in firings]
        now = self._clock.now()
        placed = self.store.place(cursor, messages, now)
        if any(message.due_at <= now for message in messages):
            self.store.ring({cursor.function})
        return placed

    async def unplace(self, cursor: Cursor) -> None:
        """Remove the firings to come, and the cursor."""
        self._ready()
        self.store.fire(self._clock.now())
        self.store.unplace(cursor)

    # Work

    async def prepare(self, functions: Collection[Manifest]) -> None:
        """Note the functions' concurrency limits."""
        self._ready()
        for manifest in functions:
            self.store.concurrency[function_token(manifest.name)] = manifest.concurrency

    async def bells(self) -> AsyncIterator[frozenset[str]]:
        """The names of functions that may have work."""
        with _heard(self.listener.bells, waiting_max=1) as queue:
            queue.put_nowait(self._backlogged())
            while True:
                try:
                    # `wait_for` would lose a cancellation that comes in the moment of a ring (Python 3.11).
                    async with asyncio.timeout(BELLS_SILENCE_S):
                        names = await queue.get()
                except TimeoutError:
                    names = self._backlogged()
                if names:
                    yield names

    def _backlogged(self) -> frozenset[str]:
        self.store.fire(self._clock.now())
        return frozenset(name for name, queue in self.store.queues.items() if queue)

    async def pull(self, function: str, count: int) -> AsyncIterator[Delivery]:
        """At most `count` deliveries that wait now."""
        self._ready()
        self.store.fire(self._clock.now())
        taken = 0
        while taken < count:
            boot = self._clock.boot()
            message = self.store.take(function_token(function), boot, self._options.lease_s)
            if message is None:
                return
            invocation = self._decoded(message)
            if invocation is None:
                continue
            taken += 1
            yield Delivery(
                invocation=invocation,
                envelope=message.envelope,
                number=message.number,
                leased_until=boot + self._options.lease_s,
                doubtful=False,
                token=message,
            )

    def _decoded(self, message: Message) -> Invocation | None:
        try:
            return decode_invocation(message.envelope)
        except UnknownVersion as error:
            log.warning(
                "handed_back_unread", function=message.function, invocation=message.id, why=str(error)
            )
            message.free_at = self._clock.boot() + UNKNOWN_VERSION_DELAY_S
            message.leased = False
        except EnvelopeError as error:
            log.warning("buried_unread", function=message.function, invocation=message.id, why=str(error))
            self._bury(message, error)
        return None

    def _bury(self, message: Message, error: EnvelopeError) -> None:
        now = self._clock.now()
        known = self.store.record(message.id, now)
        if known is None or not is_settled(known, message.attempt):
            record = unreadable(
                error,
                known,
                function=message.function,
                invocation_id=message.id,
                attempt=message.attempt,
                now=now,
                runner=self._options.name,
            )
            self._store_dead(record, message.envelope)
        self.store.remove(message)

    def _store_dead(self, record: Record, envelope: bytes) -> None:
        now = self._clock.now()
        stored = self.store.compare_and_set(record, self._options, now)
        expires_at = now + self._options.dead_letter_s
        self.store.dead_letters[record.id] = DeadLetter(
            record=stored, envelope=envelope, expires_at=expires_at
        )

    async def renew(self, delivery: Delivery) -> float:
        """Extend the lease."""
        self._ready()
        boot = self._clock.boot()
        message = _token(delivery)
        if message.number == delivery.number and message.is_leased(boot):
            message.free_at = boot + self._options.lease_s
            return message.free_at
        return min(delivery.leased_until, boot)

    async def settle(self, settlement: Settlement) -> None:
        """Store the record with what follows from it, then acknowledge."""
        self._ready()
        record, retry = settlement.record, settlement.retry
        now = self._clock.now()
        message = message_of(retry) if retry is not None else None
        if record.state is State.DEAD:
            self._store_dead(record, settlement.delivery.envelope)
        else:
            known = self.store.record(record.id, now)
            stored = self.store.compare_and_set(record, self._options, now)
            repeated = known is not None and known.revision == stored.revision
            if message is not None and not repeated:
                self.store.schedule(message, now)
                if message.due_at <= now:
                    self.store.ring({message.function})
        self._changed(record.id)
        self.store.remove(_token(settlement.delivery))

    async def acknowledge(self, delivery: Delivery) -> None:
        """Take the delivery off the queue."""
        self._ready()
        self.store.remove(_token(delivery))

    async def hand_back(self, delivery: Delivery) -> None:
        """Let it be delivered again at once."""
        self._ready()
        message = _token(delivery)
        if message.number == delivery.number:  # else it is somebody else's by now
            message.free_at = 0.0
            message.leased = False
            self.store.ring({message.function})

    async def who_runs(self, invocation_id: str) -> Run | None:
        """Ask every other connection's answer."""
        self._ready()
        invocation_token(invocation_id)
        for listener in self.store.listeners:
            if listener is self.listener or listener.find is None:
                continue
            if (run := listener.find(invocation_id)) is not None:
                return run
        return None

    async def answer_who_runs(self, find: Callable[[str], Run | None]) -> None:
        """Answer `who_runs` with `find`."""
        self._ready()
        self.listener.find = find

    async def on_cancelled(self, stop: Callable[[str], None]) -> None:
        """Call `stop` for each that is cancelled."""
        self._ready()
        self.listener.stop = stop

    # Records

    async def read(self, function: str, invocation_id: str) -> Record | None:
        """The record, if there is one."""
        self._ready()
        function_token(function)
        return self.store.record(invocation_token(invocation_id), self._clock.now())

    async def write(self, record: Record) -> Record:
        """Store the record over the revision it carries."""
        self._ready()
        function_token(record.function)
        invocation_token(record.id)
        stored = self.store.compare_and_set(record, self._options, self._clock.now())
        self._changed(record.id)
        return stored

    async def status(self, invocation_id: str) -> Status | None:
        """What is known of an invocation."""
        self._ready()
        record, message = self._known(invocation_id)
        if record is None:
            return None
        run = await self.who_runs(invocation_id) if message is not None else None
        return Status(record=record, run=run)

    def _known(self, invocation_id: str) -> tuple[Record | None, Message | None]:
        """The record as it is now, stored or not, and the attempt on a queue that it tells of."""
        now = self._clock.now()
        self.store.fire(now)
        record = self.store.record(invocation_token(invocation_id), now)
        if record is not None and record.state in FINAL:
            return record, None
        message = self.store.waiting_attempt(invocation_id)
        if message is None and (later := self._delayed(invocation_id)) is not None:
            return delayed(later), None
        if message is not None:
            invocation = decode_invocation(message.envelope)
            record = due(record, invocation) if record is not None else waiting(invocation)
        return record, message

    def _delayed(self, invocation_id: str) -> Invocation | None:
        message = self.store.later.get(invocation_id)
        if message is None or not self.store.is_delayed(message):
            return None
        return decode_invocation(message.envelope)

    @asynccontextmanager
    async def changes(self, invocation_id: str) -> AsyncIterator[Callable[[float], Awaitable[None]]]:
        """Wait for changes of an invocation's record."""
        self._ready()
        event = asyncio.Event()
        watched = self.listener.records.setdefault(invocation_token(invocation_id), set())
        watched.add(event)
        try:
            yield lambda timeout_s: _wait(event, timeout_s)
        finally:
            watched.discard(event)
            if not watched:
                self.listener.records.pop(invocation_id, None)

    def _changed(self, invocation_id: str) -> None:
        for listener in self.store.listeners:
            listener.changed(invocation_id)

    # Directory

    async def announce(self, functions: Collection[Manifest]) -> None:
        """Make functions known."""
        self._ready()
        for manifest in functions:
            name = function_token(manifest.name)
            self.store.manifests[name] = Manifest.from_json(manifest.to_json())
        self._functions_changed()

    async def withdraw(self, names: Collection[str]) -> None:
        """Make functions unknown."""
        self._ready()
        for name in names:
            self.store.manifests.pop(function_token(name), None)
        self._functions_changed()

    def _functions_changed(self) -> None:
        for listener in self.store.listeners:
            listener.functions.set()

    async def functions(self) -> Mapping[str, Manifest]:
        """All announced functions by name."""
        self._ready()
        return dict(self.store.manifests)

    async def function_changes(self, timeout_s: float) -> None:
        """Return when functions may have changed since the last return."""
        self._ready()
        await _wait(self.listener.functions, timeout_s)

    async def beat(self, beat: Beat) -> None:
        """Tell every gateway that a runner lives."""
        self._ready()
        for listener in self.store.listeners:
            listener.beat(beat)

    async def beats(self) -> AsyncIterator[Beat]:
        """Every runner's beats as they come."""
        self._ready()
        with _heard(self.listener.beats, waiting_max=BEATS_WAITING_MAX) as queue:
            for listener in list(self.store.listeners):
                if listener.roll_call is not None:
                    await listener.roll_call()
            while True:
                yield await queue.get()

    async def on_roll_call(self, answer: Callable[[], Awaitable[None]]) -> None:
        """Call `answer` whenever a gateway asks who is there."""
        self._ready()
        self.listener.roll_call = answer


def _token(delivery: Delivery) -> Message:
    if not isinstance(delivery.token, Message):
        message = "The delivery is another broker's."
        raise TypeError(message)
    return delivery.token


@contextmanager
def _heard(queues: set[asyncio.Queue[T]], *, waiting_max: int) -> Iterator[asyncio.Queue[T]]:
    queue: asyncio.Queue[T] = asyncio.Queue(waiting_max)
    queues.add(queue)
    try:
        yield queue
    finally:
        queues.discard(queue)


async def _wait(event: asyncio.Event, timeout_s: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await event.wait()
    event.clear()


_stores: dict[str, Store] = {}


def store_of(options: BrokerOptions) -> Store:
    """The store that connections with these options share; tests look into it."""
    return _stores.setdefault(f"{options.url} {options.namespace}", Store())


@asynccontextmanager
async def connect(options: BrokerOptions) -> AsyncIterator[Broker]:
    """A connection to the store that the URL names, `memory://name`."""
    store = store_of(options)
    broker = MemoryBroker(store, options)
    store.listeners.add(broker.listener)
    try:
        yield broker
    finally:
        broker.close()
