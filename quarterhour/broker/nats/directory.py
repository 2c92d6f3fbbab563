"""Which functions there are and which runners live.

Functions lie in a bucket and are read whole; a plain message says that it has changed. (The
bucket's own watch is blind for many seconds after a restart of the server.) Beats are plain messages.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import suppress

import orjson
import structlog

from quarterhour.broker.nats.layout import Layout
from quarterhour.broker.nats.link import Link, Msg
from quarterhour.broker.nats.stream import Stream
from quarterhour.broker.port import Beat
from quarterhour.function import Manifest

__all__ = ["Directory"]

BEATS_WAITING_MAX = 1000

log = structlog.get_logger()


class Directory:
    """Announces and beats; lists and hears."""

    def __init__(self, link: Link, layout: Layout, stream: Stream) -> None:
        """`listen` has to come first."""
        self._link = link
        self._layout = layout
        self._stream = stream
        self._changed = asyncio.Event()

    async def listen(self) -> None:
        """Begin to hear of changes."""

        async def hear(_: Msg) -> None:
            self._changed.set()

        await self._link.subscribe(self._layout.functions_changed, hear)

    async def announce(self, functions: Collection[Manifest]) -> None:
        """Make functions known."""
        answers = await asyncio.gather(
            *(
                self._link.request(self._layout.function_key(manifest.name), orjson.dumps(manifest.to_json()))
                for manifest in functions
            )
        )
        for answer in answers:
            self._link.read_answer(answer)
        await self._link.publish(self._layout.functions_changed)

    async def withdraw(self, names: Collection[str]) -> None:
        """Make functions unknown."""
        for name in names:
            await self._stream.purge(self._layout.function_key(name), name=self._layout.bucket)
        await self._link.publish(self._layout.functions_changed)

    async def functions(self) -> Mapping[str, Manifest]:
        """All announced functions by name."""
        found: dict[str, Manifest] = {}
        async for stored in self._stream.all_of_bucket():
            if not stored.data:  # the marker that other NATS clients leave when they delete
                continue
            try:
                manifest = Manifest.from_json(orjson.loads(stored.data))
            except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
                log.warning("manifest_unreadable", subject=stored.subject, why=repr(error))
                continue
            found[manifest.name] = manifest
        return found

    async def function_changes(self, timeout_s: float) -> None:
        """Return when functions may have changed since the last return."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()
        self._changed.clear()

    async def beat(self, beat: Beat) -> None:
        """Send a sign of life."""
        fields = {
            "runner": beat.runner,
            "functions": beat.functions,
            "slots": beat.slots,
            "draining": beat.draining,
            "metrics": beat.metrics,
        }
        await self._link.publish(self._layout.beat, orjson.dumps(fields))

    async def beats(self) -> AsyncIterator[Beat]:
        """Every runner's beats as they come."""
        heard: asyncio.Queue[Beat] = asyncio.Queue(BEATS_WAITING_MAX)

        async def hear(message: Msg) -> None:
            beat = _beat(message.data)
            if beat is not None:
                if heard.full():
                    heard.get_nowait()  # the newest count
                heard.put_nowait(beat)

        subscription = await self._link.subscribe(self._layout.beat, hear)
        try:
            await self._link.publish(self._layout.roll_call)
            while True:
                yield await heard.get()
        finally:
            await self._link.unsubscribe(subscription)

    async def on_roll_call(self, answer: Callable[[], Awaitable[None]]) -> None:
        """Call `answer` whenever a gateway asks who is there."""

        async def hear(_: Msg) -> None:
            await answer()

        await self._link.subscribe(self._layout.roll_call, hear)


def _beat(data: bytes) -> Beat | None:
    try:
        fields = orjson.loads(data)
        return Beat(
            runner=fields["runner"],
            functions=tuple(fields["functions"]),
            slots=fields["slots"],
            draining=fields["draining"],
            metrics=fields["metrics"],
        )
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        log.warning("beat_unreadable", why=repr(error))
        return None
