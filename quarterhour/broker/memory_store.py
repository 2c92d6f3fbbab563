"""What the connections of a memory broker share: queues, what is due later, records, and who listens.

Synchronous and without a clock of its own: every moment is an argument.
"""

import asyncio
import heapq
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field, replace

from quarterhour.body import BodyKind
from quarterhour.broker.names import function_token, invocation_token
from quarterhour.broker.port import KEY_KEPT_S, Answer, Beat, BrokerOptions, Cursor, Depth, Key, Run
from quarterhour.errors import Conflict, KeyReused, TooLarge
from quarterhour.function import Manifest
from quarterhour.invocation import Invocation, encode_invocation
from quarterhour.lifecycle import FINAL, State
from quarterhour.outcome import Error, Failed
from quarterhour.record import Record, decode_record, encode_record
from quarterhour.reply import Reply, encode_reply

__all__ = [
    "MESSAGE_BYTES_MAX",
    "DeadLetter",
    "Listener",
    "Message",
    "Store",
    "envelope_of",
    "message_of",
    "reply_bytes",
]

MESSAGE_BYTES_MAX = 8 * 1024 * 1024
REPEATS_REMEMBERED_S = 120.0


@dataclass(slots=True, kw_only=True)
class Message:
    """One attempt on the queue. It can be taken from `free_at` (boot s) on; until then it may be leased."""

    function: str
    id: str
    attempt: int
    due_at: float
    envelope: bytes
    number: int = 0
    free_at: float = 0.0
    leased: bool = False

    def is_leased(self, boot: float) -> bool:
        """Whether a runner holds it now."""
        return self.leased and boot < self.free_at


def envelope_of(invocation: Invocation) -> bytes:
    """The invocation as it is stored. Raises `TooLarge`."""
    envelope = encode_invocation(invocation)
    if len(envelope) > MESSAGE_BYTES_MAX:
        message = f"The invocation takes {len(envelope)} bytes; the broker takes {MESSAGE_BYTES_MAX}."
        raise TooLarge(message)
    return envelope


def message_of(invocation: Invocation) -> Message:
    """The invocation's attempt as it lies on a queue. Raises `TooLarge`."""
    return Message(
        function=function_token(invocation.function),
        id=invocation_token(invocation.id),
        attempt=invocation.attempt,
        due_at=invocation.due_at,
        envelope=envelope_of(invocation),
    )


def reply_bytes(reply: Reply) -> bytes:
    """The reply as it travels; one that is too large becomes a failure."""
    data = encode_reply(reply)
    if len(data) <= MESSAGE_BYTES_MAX:
        return data
    message = f"The response takes {len(data)} bytes; the broker takes {MESSAGE_BYTES_MAX}."
    return encode_reply(Failed(error=Error(type="ResponseTooLarge", message=message)))


@dataclass(slots=True, kw_only=True)
class Stored:
    """A record as it is stored: bytes, revision, and when (Unix s) it is forgotten."""

    data: bytes
    revision: int
    expires_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """What is set aside when an invocation is dead: the evidence, and what it takes to run it again."""

    record: Record
    envelope: bytes
    expires_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownKey:
    """An idempotency key: whose it is, what was asked for, and when (Unix s) it is forgotten."""

    id: str
    fingerprint: str
    expires_at: float


class Store:
    """What connections share. `away = True` makes every connection fail like a broker that is gone."""

    def __init__(self) -> None:
        """An empty store."""
        self.away = False
        self.queues: dict[str, dict[tuple[str, int], Message]] = {}
        self.later: dict[str, Message] = {}
        self.placed: dict[str, set[str]] = {}
        self.cursors: dict[str, Cursor] = {}
        self.records: dict[str, Stored] = {}
        self.bodies: dict[tuple[BodyKind, str], list[bytes]] = {}
        self.dead_letters: dict[str, DeadLetter] = {}
        self.concurrency: dict[str, int | None] = {}
        self.manifests: dict[str, Manifest] = {}
        self.servers: dict[str, Callable[[Invocation, bytes, Answer], None]] = {}
        self.listeners: set[Listener] = set()
        self._schedule: list[tuple[float, str, int]] = []
        self._accepted: dict[str, float] = {}
        self._keys: dict[tuple[str, str], KnownKey] = {}
        self._revision = 0

    def accept(self, message: Message, now: float) -> bool:
        """Put a first attempt on the queue, once for each id; whether it was new."""
        for known, at in list(self._accepted.items()):  # the oldest first
            if at > now - REPEATS_REMEMBERED_S:
                break
            del self._accepted[known]
        if message.id in self._accepted:
            return False
        self._accepted[message.id] = now
        self.schedule(message, now)
        return True

    def known(self, function: str, key_text: str, now: float) -> KnownKey | None:
        """What is known of this key, if an invocation came with it."""
        for name, known in list(self._keys.items()):  # the oldest first
            if known.expires_at > now:
                break
            del self._keys[name]
        return self._keys.get((function, key_text))

    def first_with(self, key: Key, function: str, now: float) -> str | None:
        """The id of the invocation that came with this key first, if one did. Raises `KeyReused`."""
        first = self.known(function, key.text, now)
        if first is not None and first.fingerprint != key.fingerprint:
            message = f"The idempotency key belongs to another request, that of invocation {first.id}."
            raise KeyReused(message)
        return None if first is None else first.id

    def remember(self, key: Key, message: Message, now: float) -> None:
        """The key of an attempt that is accepted now."""
        self._keys[message.function, key.text] = KnownKey(
            id=message.id, fingerprint=key.fingerprint, expires_at=now + KEY_KEPT_S
        )

    def put(self, message: Message) -> None:
        """Put an attempt on its function's queue."""
        self.queues.setdefault(message.function, {})[message.id, message.attempt] = message

    def schedule(self, message: Message, now: float) -> None:
        """Put an attempt on its queue when it is due."""
        if message.due_at <= now:
            self.put(message)
            return
        self.later[message.id] = message
        heapq.heappush(self._schedule, (message.due_at, message.id, message.attempt))

    def fire(self, now: float) -> None:
        """Move the attempts that are due to their queues."""
        while self._schedule and self._schedule[0][0] <= now:
            _, invocation_id, attempt = heapq.heappop(self._schedule)
            message = self.later.get(invocation_id)
            if message is not None and message.attempt == attempt:
                del self.later[invocation_id]
                self.put(message)

    def place(self, cursor: Cursor, firings: Sequence[Message], now: float) -> Cursor:
        """Store a cursor over the revision that it carries, and schedule the firings."""
        self._check(cursor)
        self._revision += 1
        stored = self.cursors[cursor.function] = replace(cursor, revision=self._revision)
        still_to_come = self.placed.get(cursor.function, set()) & self.later.keys()
        self.placed[cursor.function] = still_to_come | {firing.id for firing in firings}
        for firing in firings:
            self.schedule(firing, now)
        return stored

    def unplace(self, cursor: Cursor) -> None:
        """Remove a cursor and the firings that are still to come."""
        self._check(cursor)
        del self.cursors[cursor.function]
        for invocation_id in self.placed.pop(cursor.function, ()):
            self.later.pop(invocation_id, None)

    def _check(self, cursor: Cursor) -> None:
        stored = self.cursors.get(cursor.function)
        revision = stored.revision if stored is not None else 0
        if cursor.revision != revision:
            message = f"The cursor of {cursor.function} has revision {revision}, not {cursor.revision}."
            raise Conflict(message)

    def take(self, function: str, boot: float, lease_s: float) -> Message | None:
        """Lease the first attempt of `function` that is free; None if there is none."""
        queue = self.queues.get(function, {})
        limit = self.concurrency.get(function)
        if limit is not None and sum(message.is_leased(boot) for message in queue.values()) >= limit:
            return None
        for message in queue.values():
            if message.free_at <= boot:
                message.number += 1
                message.free_at = boot + lease_s
                message.leased = True
                return message
        return None

    def remove(self, message: Message) -> None:
        """Take an attempt off its queue for good."""
        self.queues.get(message.function, {}).pop((message.id, message.attempt), None)

    def remove_all(self, invocation_id: str) -> None:
        """Remove every attempt of an invocation, be it on its queue or to come."""
        self.later.pop(invocation_id, None)
        while (message := self.waiting_attempt(invocation_id)) is not None:
            self.remove(message)

    def waiting_attempt(self, invocation_id: str) -> Message | None:
        """The latest attempt of an invocation that is on a queue, leased or not."""
        found = [
            message
            for queue in self.queues.values()
            for message in queue.values()
            if message.id == invocation_id
        ]
        return max(found, key=lambda message: message.attempt, default=None)

    def needs_body(self, invocation_id: str, now: float) -> bool:
        """Whether an attempt waits, now or for later, or a dead letter may be put back."""
        letter = self.dead_letters.get(invocation_id)
        dead = letter is not None and letter.expires_at > now
        return dead or invocation_id in self.later or self.waiting_attempt(invocation_id) is not None

    def record(self, invocation_id: str, now: float) -> Record | None:
        """What is stored about an invocation."""
        stored = self.records.get(invocation_id)
        if stored is None or (stored.expires_at is not None and stored.expires_at <= now):
            return None
        return decode_record(stored.data, revision=stored.revision)

    def compare_and_set(self, record: Record, options: BrokerOptions, now: float) -> Record:
        """Store `record` over the revision it carries. The very same record again is no conflict."""
        data = encode_record(record)
        current = self.record(record.id, now)
        if current is not None and encode_record(current) == data:
            return current
        revision = current.revision if current is not None else 0
        if record.revision != revision:
            message = f"The record of {record.id} has revision {revision}, not {record.revision}."
            raise Conflict(message)
        self._revision += 1
        expires_at = now + _kept_s(record, options) if record.state in FINAL else None
        self.records[record.id] = Stored(data=data, revision=self._revision, expires_at=expires_at)
        return replace(record, revision=self._revision)

    def depth(self, function: str, boot: float) -> Depth:
        """How deep a function's queue is."""
        messages = self.queues.get(function, {}).values()
        idle = [message for message in messages if not message.is_leased(boot)]
        return Depth(
            waiting=len(idle),
            leased=len(messages) - len(idle),
            delayed=sum(each.function == function and self.is_delayed(each) for each in self.later.values()),
            oldest_due_at=min((message.due_at for message in idle), default=None),
        )

    def is_delayed(self, message: Message) -> bool:
        """Whether what is due later is a first attempt: neither a retry nor a schedule's firing."""
        return message.attempt == 1 and message.id not in self.placed.get(message.function, ())

    def ring(self, names: Collection[str]) -> None:
        """Tell every runner that these functions may have work."""
        for listener in self.listeners:
            listener.ring(names)


def _kept_s(record: Record, options: BrokerOptions) -> float:
    return options.record_succeeded_s if record.state is State.SUCCEEDED else options.record_failed_s


@dataclass(slots=True, eq=False)
class Listener:
    """What one connection hears: bells, beats, cancels, changes of functions and of records."""

    bells: set[asyncio.Queue[frozenset[str]]] = field(default_factory=set)
    beats: set[asyncio.Queue[Beat]] = field(default_factory=set)
    functions: asyncio.Event = field(default_factory=asyncio.Event)
    records: dict[str, set[asyncio.Event]] = field(default_factory=dict)
    find: Callable[[str], Run | None] | None = None
    stop: Callable[[str], None] | None = None
    roll_call: Callable[[], Awaitable[None]] | None = None

    def ring(self, names: Collection[str]) -> None:
        """These functions may have work."""
        for queue in self.bells:
            # Rings that nobody has read yet are one ring.
            earlier = queue.get_nowait() if queue.full() else frozenset[str]()
            queue.put_nowait(earlier | frozenset(names))

    def beat(self, beat: Beat) -> None:
        """A runner lives; of beats that nobody reads the oldest are dropped."""
        for queue in self.beats:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(beat)

    def changed(self, invocation_id: str) -> None:
        """The record of an invocation was written."""
        for event in self.records.get(invocation_id, ()):
            event.set()
