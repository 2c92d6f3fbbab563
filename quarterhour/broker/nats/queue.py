"""The queue as gateways use it: accepting work, and looking after what is there."""

import asyncio
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

import orjson

from quarterhour.broker.names import function_token
from quarterhour.broker.nats.append import Append
from quarterhour.broker.nats.bells import Bells
from quarterhour.broker.nats.layout import Layout, Message
from quarterhour.broker.nats.stream import Backlog, Overview, Stream
from quarterhour.broker.port import ANSWER_S, Depth, Key, StoreUse
from quarterhour.clock import Clock
from quarterhour.errors import BrokerUnavailable, Conflict, KeyReused
from quarterhour.invocation import Invocation

__all__ = ["Queue"]

TRIM_EVERY_S = 3.0
TRIM_AT_ONCE_MAX = 10_000  # sequences: tens of milliseconds
KEY_TRIES_MAX = 3  # a key that has just been found taken may be at its end in the next moment


class Queue:
    """Accepts, rings, measures and trims."""

    def __init__(
        self,
        layout: Layout,
        stream: Stream,
        append: Append,
        bells: Bells,
        clock: Clock,
        *,
        store_bytes_max: int | None,
    ) -> None:
        """A queue that stores by `append` and rings `bells`. `store_bytes_max`: what a server stores."""
        self._layout = layout
        self._stream = stream
        self._append = append
        self._bells = bells
        self._clock = clock
        self._store_bytes_max = store_bytes_max
        self._oldest: dict[str, tuple[int, float]] = {}  # by function: the last delivered, who waits since
        self._trimmed: dict[str, int] = {}  # by function: up to which sequence
        self._trimmed_at = clock.boot()
        self._counted: set[str] = set()  # functions whose delayed invocations the server counts

    async def enqueue(self, invocation: Invocation, key: Key | None = None) -> str:
        """Store an invocation, once for each id and each key, and ring for it if it is due."""
        now = self._clock.now()
        message = self._layout.accepted(invocation, now)
        is_due = invocation.due_at <= now
        if is_due and key is None:
            await self._append.store(message)
            stored = invocation.id
        else:
            try:
                async with asyncio.timeout(ANSWER_S):
                    if not is_due:
                        await self._count_delayed(invocation.function)
                    stored = await self._store_once(invocation, message, key)
            except TimeoutError:
                text = f"The broker did not store the invocation within {ANSWER_S:g} s."
                raise BrokerUnavailable(text) from None
        if is_due and stored == invocation.id:
            self._bells.ring_soon(invocation.function)
        return stored

    async def _store_once(self, invocation: Invocation, message: Message, key: Key | None) -> str:
        """Store the message with its key, unless the key is known; gives the id that is stored with it."""
        if key is None:
            await self._append.store(message)
            return invocation.id
        for _ in range(KEY_TRIES_MAX):
            # A look first, since a repeat that is tried would spoil the batch of its neighbours.
            known = await self._stream.last(self._layout.key(invocation.function, key.text))
            if known is not None:
                return _first_id(known.data, key)
            try:
                await self._append.store(self._layout.keyed(invocation, key), message)
            except Conflict:
                continue  # another one with this key, at the same moment
            return invocation.id
        text = "Others were storing the same idempotency key all the time."
        raise BrokerUnavailable(text)

    async def knows(self, function: str, key_text: str) -> bool:
        """Whether an invocation is stored with this key."""
        return await self._stream.last(self._layout.key(function, key_text)) is not None

    async def _count_delayed(self, function: str) -> None:
        """Nothing is delayed uncounted: what cannot be seen has no bound."""
        if function not in self._counted:
            await self._stream.count_delayed(function)
            self._counted.add(function)

    async def tend(self, functions: Collection[str]) -> Mapping[str, Depth]:
        """Ring for work that waits, remove what is settled, and say how deep the queues are."""
        names = [function_token(name) for name in functions]
        overview = await self._stream.overview()
        backlogs, delayed = overview.backlogs, overview.delayed
        self._counted &= delayed.keys()
        known = [backlogs[name] for name in names if name in backlogs]
        unknown = [name for name in names if name not in backlogs]
        counts = await asyncio.gather(*(self._stream.count(self._layout.all_work(name)) for name in unknown))
        depths = dict(zip((one.function for one in known), await self._depths(known), strict=True))
        # Nobody has pulled these yet, so what is there waits.
        depths |= {
            name: await self._depth_without_queue(name, count)
            for name, count in zip(unknown, counts, strict=True)
        }
        busy = {one.function for one in backlogs.values() if one.pending or one.unacknowledged}
        await self._bells.ring(busy | {name for name, depth in depths.items() if depth.waiting})
        await self._trim(overview, names)
        return {name: replace(depth, delayed=delayed.get(name, 0)) for name, depth in depths.items()}

    async def store_use(self) -> StoreUse:
        """What a server has stored, bodies and all."""
        return StoreUse(used_bytes=await self._stream.stored_bytes(), limit_bytes=self._store_bytes_max)

    async def _depths(self, backlogs: Iterable[Backlog]) -> list[Depth]:
        return await asyncio.gather(*(self._depth(backlog) for backlog in backlogs))

    async def _depth(self, backlog: Backlog) -> Depth:
        oldest = await self._oldest_due_at(backlog) if backlog.pending else None
        return Depth(waiting=backlog.pending, leased=backlog.unacknowledged, oldest_due_at=oldest)

    async def _depth_without_queue(self, function: str, count: int) -> Depth:
        if not count:
            return Depth()
        first = await self._stream.next(self._layout.all_work(function), 1)
        return Depth(waiting=count, oldest_due_at=first.stored_at if first is not None else None)

    async def _oldest_due_at(self, backlog: Backlog) -> float | None:
        """Work is put on its queue when it is due, so the time of its message is the one asked for."""
        delivered, oldest = self._oldest.get(backlog.function, (-1, 0.0))
        if delivered == backlog.delivered:
            return oldest
        first = await self._stream.next(self._layout.all_work(backlog.function), backlog.delivered + 1)
        if first is None:
            return None
        self._oldest[backlog.function] = (backlog.delivered, first.stored_at)
        return first.stored_at

    async def _trim(self, overview: Overview, functions: Collection[str]) -> None:
        now = self._clock.boot()
        if now - self._trimmed_at < TRIM_EVERY_S:
            return
        self._trimmed_at = now
        for backlog in overview.backlogs.values():
            await self._trim_one(backlog)
        for name, count in overview.delayed.items():
            if not count and name not in functions:  # it was withdrawn
                self._counted.discard(name)
                await self._stream.stop_counting(name)

    async def _trim_one(self, backlog: Backlog) -> None:
        """Remove what is settled in steps, since accepting waits while the server removes."""
        done = self._trimmed.get(backlog.function)
        if backlog.settled == (done or 0):
            return
        steps = range(done + TRIM_AT_ONCE_MAX, backlog.settled, TRIM_AT_ONCE_MAX) if done is not None else ()
        everything = self._layout.all_work(backlog.function)
        for sequence in (*steps, backlog.settled):
            await self._stream.purge(everything, below=sequence + 1)
        self._trimmed[backlog.function] = backlog.settled


def _first_id(stored: bytes, key: Key) -> str:
    """The id of the invocation that came with the key first. Raises `KeyReused`."""
    first: dict[str, str] = orjson.loads(stored)
    if first["fingerprint"] != key.fingerprint:
        message = f"The idempotency key belongs to another request, that of invocation {first['id']}."
        raise KeyReused(message)
    return first["id"]
