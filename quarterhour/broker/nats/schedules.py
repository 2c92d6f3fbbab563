"""Firings of schedules: placed ahead as messages that the server itself publishes to their queues."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import orjson

from quarterhour.broker.nats.append import Append
from quarterhour.broker.nats.bells import Bells
from quarterhour.broker.nats.layout import Layout
from quarterhour.broker.nats.stream import Stored, Stream
from quarterhour.broker.port import Cursor
from quarterhour.clock import Clock
from quarterhour.invocation import Invocation

__all__ = ["Schedules"]


class Schedules:
    """Places and removes firings, under a cursor for each function."""

    def __init__(self, layout: Layout, stream: Stream, append: Append, bells: Bells, clock: Clock) -> None:
        """Schedules that are stored by `append`."""
        self._layout = layout
        self._stream = stream
        self._append = append
        self._bells = bells
        self._clock = clock

    async def cursors(self) -> Mapping[str, Cursor]:
        """All cursors by function."""
        found = [self._cursor(stored) async for stored in self._stream.all_of(self._layout.all_cursors())]
        return {cursor.function: cursor for cursor in found}

    def _cursor(self, stored: Stored) -> Cursor:
        function = self._layout.parts(stored.subject)[1]
        try:
            fields = orjson.loads(stored.data)
            schedule, placed_until = str(fields["schedule"]), float(fields["placed_until"])
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
            schedule, placed_until = "", 0.0
        return Cursor(
            function=function, schedule=schedule, placed_until=placed_until, revision=stored.sequence
        )

    async def place(self, cursor: Cursor, firings: Sequence[Invocation]) -> Cursor:
        """Store the cursor and the firings in one step. Raises `Conflict`."""
        now = self._clock.now()
        revision = await self._append.store(*self._layout.placed(cursor, firings, now))
        if any(firing.due_at <= now for firing in firings):
            self._bells.ring_soon(cursor.function)
        return replace(cursor, revision=revision)

    async def unplace(self, cursor: Cursor) -> None:
        """Remove the firings to come, and the cursor. Raises `Conflict`.

        From the first step on the cursor is nobody's, and all that was placed is below its sequence;
        whoever finds it like that may repeat the others, which touch nothing that is placed later.
        """
        sequence = await self._append.store(self._layout.unplaced(cursor))
        await self._stream.purge(self._layout.all_firings(cursor.function), below=sequence)
        await self._stream.purge(self._layout.cursor(cursor.function), below=sequence + 1)
