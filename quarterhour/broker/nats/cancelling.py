"""Cancelling: it is stored, then what is to come is removed, then runners are told.

Only the first step decides anything. Whoever dies after it leaves nothing that could run: what the broker
still hands out has a record that says how it ended, and the one attempt that is begun without a look at its
record, the first of an invocation that was due at once, is emptied in the very step that stores it.
"""

import asyncio
from collections.abc import Callable

from quarterhour.broker.nats.append import Append
from quarterhour.broker.nats.layout import Layout
from quarterhour.broker.nats.link import Link, Msg
from quarterhour.broker.nats.records import Known, Records
from quarterhour.broker.nats.stream import Stream
from quarterhour.broker.port import ANSWER_S
from quarterhour.clock import Clock
from quarterhour.errors import BrokerUnavailable, Conflict
from quarterhour.lifecycle import FINAL, State
from quarterhour.record import Record, cancelled

__all__ = ["Cancelling"]

TRIES_MAX = 5  # each that fails has seen the invocation move on; it does not do so often


class Cancelling:
    """Cancels, and hears of it."""

    def __init__(
        self, link: Link, layout: Layout, *, stream: Stream, append: Append, records: Records, clock: Clock
    ) -> None:
        """It is stored by `append`."""
        self._link = link
        self._layout = layout
        self._stream = stream
        self._append = append
        self._records = records
        self._clock = clock

    async def cancel(self, invocation_id: str) -> Record | None:
        """Cancel an invocation; gives its record."""
        try:
            async with asyncio.timeout(ANSWER_S):
                record = await self._stored(invocation_id)
                if record is not None and record.state is State.CANCELLED:
                    await self._remove(record)
                    await self._tell(invocation_id)
                return record
        except TimeoutError:
            message = f"The broker did not cancel the invocation within {ANSWER_S:g} s."
            raise BrokerUnavailable(message) from None

    async def on_cancelled(self, stop: Callable[[str], None]) -> None:
        """Call `stop` for each that is cancelled."""

        async def hear(message: Msg) -> None:
            stop(message.data.decode(errors="replace"))

        await self._link.subscribe(self._layout.told_cancelled, hear)

    async def _stored(self, invocation_id: str) -> Record | None:
        """The record once it is final, by us or anybody else."""
        for _ in range(TRIES_MAX):
            known = await self._records.known(invocation_id)
            if known is None:
                return None
            if known.record.state in FINAL:
                return known.record
            try:
                await self._store(known)
            except Conflict:
                continue  # it has moved on in this very moment
        message = "The invocation moved on all the time."
        raise BrokerUnavailable(message)

    async def _store(self, known: Known) -> None:
        record = cancelled(known.record, now=self._clock.now())
        await self._append.store(*self._layout.cancelled(record, known.work[0] if known.work else None))

    async def _remove(self, record: Record) -> None:
        """Remove what is to come: first what could still put an attempt on its queue, then what lies there.

        Each by its exact subject: a purge with a wildcard would leave the count of what is delayed too high.
        """
        await self._stream.purge(self._layout.delay(record.function, record.id))
        await self._stream.purge(self._layout.retry(record.id))
        for stored in await self._stream.last_of_each([self._layout.work_of(record.function, record.id)]):
            await self._stream.purge(stored.subject)

    async def _tell(self, invocation_id: str) -> None:
        await self._link.publish(self._layout.told_cancelled, invocation_id.encode())
        await self._link.barrier()  # the servers have it now, and not only this process
