"""Records: compare-and-set, and what is known of an invocation at this moment."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace

from quarterhour.broker.nats.append import Append
from quarterhour.broker.nats.layout import Layout, Place
from quarterhour.broker.nats.link import Link, Msg
from quarterhour.broker.nats.stream import Stored, Stream
from quarterhour.broker.nats.who import Who
from quarterhour.broker.port import Run, Status
from quarterhour.errors import Conflict, EnvelopeError
from quarterhour.invocation import Invocation, decode_invocation
from quarterhour.lifecycle import FINAL, State
from quarterhour.record import Record, decode_record, delayed, due, encode_record, waiting

__all__ = ["Known", "Records"]

# The hint comes when a record is sent, which is before it is stored: look soon, and again.
LOOK_AFTER_HINT_S = (0.002, 0.01, 0.05, 0.25, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """The record of an invocation as it is now, stored or not, and the attempt that waits or runs."""

    record: Record
    work: tuple[Place, Stored] | None = None


class Records:
    """Reads and writes records."""

    def __init__(self, link: Link, layout: Layout, stream: Stream, append: Append, who: Who) -> None:
        """Records that are stored by `append`."""
        self._link = link
        self._layout = layout
        self._stream = stream
        self._append = append
        self._who = who

    async def read(self, function: str, invocation_id: str) -> Record | None:
        """The record, None if there is none."""
        stored = await self._stream.last(self._layout.record(function, invocation_id))
        return decode_record(stored.data, revision=stored.sequence) if stored is not None else None

    async def write(self, record: Record) -> Record:
        """Store the record over the revision that it carries. Raises `Conflict`."""
        try:
            revision = await self._append.store(self._layout.stored(record))
        except Conflict:
            stored = await self.same_as(record)
            if stored is None:
                raise
            revision = stored.sequence
        return replace(record, revision=revision)

    async def same_as(self, record: Record) -> Stored | None:
        """What is stored, if it is just this record: an earlier try got through, unheard."""
        stored = await self._stream.last(self._layout.record(record.function, record.id))
        return stored if stored is not None and stored.data == encode_record(record) else None

    async def status(self, invocation_id: str) -> Status | None:
        """What is known of an invocation, None if nothing is."""
        known = await self.known(invocation_id)
        if known is None:
            return None
        return Status(record=known.record, run=await self._run_of(*known.work) if known.work else None)

    async def known(self, invocation_id: str) -> Known | None:
        """The same, without asking who runs it."""
        found = await self._stream.last_of_each(self._layout.everything_about(invocation_id))
        record = self._record_among(found)
        if record is not None and record.state in FINAL:
            return Known(record=record)
        work = self._latest_work(found)
        if work is None:
            return Known(record=record) if record is not None else None
        place, stored = work
        invocation = self._invocation(place, stored)
        if self._layout.parts(stored.subject)[0] == "s":
            return Known(record=delayed(invocation))
        record = due(record, invocation) if record is not None else waiting(invocation)
        if record.attempt != place.attempt or record.state is State.RETRYING:
            return Known(record=record)  # what lies there is settled, and will be removed
        return Known(record=record, work=work)

    def _record_among(self, found: Sequence[Stored]) -> Record | None:
        for stored in found:
            if self._layout.parts(stored.subject)[0] == "r":
                return decode_record(stored.data, revision=stored.sequence)
        return None

    def _latest_work(self, found: Sequence[Stored]) -> tuple[Place, Stored] | None:
        work = [
            (place, stored) for stored in found if (place := self._layout.place(stored.subject)) is not None
        ]
        # A first attempt may be found twice: a delay that is fired is on its queue before it is removed.
        return max(
            work, key=lambda one: (one[0].attempt, self._layout.parts(one[1].subject)[0] == "q"), default=None
        )

    def _invocation(self, place: Place, stored: Stored) -> Invocation:
        try:
            return decode_invocation(stored.data)
        except EnvelopeError:
            return self._layout.unread(place, stored_at=stored.stored_at)

    async def _run_of(self, place: Place, stored: Stored) -> Run | None:
        """The run of an attempt. For what was never delivered nobody need be asked."""
        backlog = await self._stream.backlog(place.function)
        if backlog is None or backlog.delivered < stored.sequence:
            return None
        return await self._who.runs(place.id)

    @asynccontextmanager
    async def changes(self, invocation_id: str) -> AsyncIterator[Callable[[float], Awaitable[None]]]:
        """Wait for changes of an invocation's record."""
        hinted = asyncio.Event()
        looks: list[float] = []

        async def hear(_: Msg) -> None:
            looks[:] = LOOK_AFTER_HINT_S
            hinted.set()

        async def changed(timeout_s: float) -> None:
            if looks:
                await asyncio.sleep(min(looks.pop(0), timeout_s))
                return
            hinted.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await hinted.wait()
                    await asyncio.sleep(looks.pop(0))

        subscription = await self._link.subscribe(self._layout.record_of_any(invocation_id), hear)
        try:
            yield changed
        finally:
            await self._link.unsubscribe(subscription)
