"""Bells: how runners learn that there is work, without an open pull for every function.

A bell is a plain message with a list of names. It may get lost; gateways look at the queues once a
second and ring again, and a runner that hears nothing at all looks for itself.
"""

import asyncio
from collections.abc import AsyncIterator, Collection

import orjson
import structlog

from quarterhour.broker.nats.layout import Layout
from quarterhour.broker.nats.link import Link, Msg
from quarterhour.broker.nats.stream import Stream
from quarterhour.errors import BrokerUnavailable

__all__ = ["Bells"]

RINGS_APART_S = 0.05
SILENCE_S = 5.0
TRY_AGAIN_S = 1.0

log = structlog.get_logger()


class Bells:
    """Rings them, and hears them."""

    def __init__(self, link: Link, layout: Layout, stream: Stream) -> None:
        """`run` has to run meanwhile, for the ringing."""
        self._link = link
        self._layout = layout
        self._stream = stream
        self._names: set[str] = set()
        self._news = asyncio.Event()

    def ring_soon(self, name: str) -> None:
        """Ring for a function: now, or together with others if it rang a moment ago."""
        self._names.add(name)
        self._news.set()

    async def ring(self, names: Collection[str]) -> None:
        """Ring for all of these at once; for none, as a sign of life."""
        await self._link.publish(self._layout.bell, orjson.dumps(list(names)))

    async def run(self) -> None:
        """Ring for what `ring_soon` gathers, for ever."""
        while True:
            await self._news.wait()
            self._news.clear()
            names, self._names = self._names, set()
            try:
                await self.ring(names)
            except BrokerUnavailable:
                continue  # runners look for themselves when they are connected again
            await asyncio.sleep(RINGS_APART_S)

    async def heard(self) -> AsyncIterator[frozenset[str]]:
        """The names of functions that may have work, as they come; first those that have some now."""
        names: set[str] = set()
        rung = asyncio.Event()

        async def hear(message: Msg) -> None:
            names.update(_names(message.data))
            rung.set()

        subscription = await self._link.subscribe(self._layout.bell, hear)
        silence_s = 0.0
        try:
            while True:
                try:
                    async with asyncio.timeout(silence_s):
                        await rung.wait()
                    silence_s = SILENCE_S
                except TimeoutError:
                    silence_s = await self._look(names)
                rung.clear()
                if names:
                    yield frozenset(names)
                    names.clear()
        finally:
            await self._link.unsubscribe(subscription)

    async def _look(self, names: set[str]) -> float:
        """Add the functions that have work; gives how long (s) to listen before the next look."""
        try:
            backlogs = (await self._stream.overview()).backlogs
        except BrokerUnavailable:
            return TRY_AGAIN_S
        names.update(one.function for one in backlogs.values() if one.pending or one.unacknowledged)
        return SILENCE_S


def _names(data: bytes) -> list[str]:
    try:
        names = orjson.loads(data)
    except orjson.JSONDecodeError:
        return []
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
