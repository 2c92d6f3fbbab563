"""The broker: a port, and the adapters behind it, found by the scheme of a URL."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import entry_points
from urllib.parse import urlsplit

import structlog

from quarterhour.broker.port import Broker, BrokerOptions, Connect
from quarterhour.errors import BrokerUnavailable, SettingsError

__all__ = ["PATIENCE_S", "Broker", "BrokerOptions", "connect_for", "connect_patiently"]

GROUP = "quarterhour.brokers"
PATIENCE_S = 60.0  # with a broker that comes up later, or is slow at first
AGAIN_S = 1.0

log = structlog.get_logger()


def connect_for(url: str) -> Connect:
    """The `connect` of the adapter that an installed package provides for the scheme of `url`.

    `url` may name several servers of a cluster, separated by commas; the first one's scheme counts.
    Raises `SettingsError` for a scheme that nobody provides.
    """
    scheme = urlsplit(url.split(",", maxsplit=1)[0].strip()).scheme
    found = entry_points(group=GROUP)
    for entry in found:
        if entry.name == scheme:
            connect: Connect = entry.load()
            return connect
    known = ", ".join(sorted(f"{name}://" for name in found.names))
    message = f"No installed broker understands {scheme}:// in --broker; known are {known}."
    raise SettingsError(message)


@asynccontextmanager
async def connect_patiently(options: BrokerOptions) -> AsyncIterator[Broker]:
    """A connection to the broker of `options`, which may come up later than this process.

    Raises `BrokerUnavailable` after `PATIENCE_S`, `BrokerUnsuitable` and `SettingsError` at once.
    """
    connect = connect_for(options.url)
    give_up_at = options.clock.boot() + PATIENCE_S
    async with AsyncExitStack() as stack:
        while True:
            try:
                broker = await stack.enter_async_context(connect(options))
                break
            except BrokerUnavailable as error:
                if options.clock.boot() > give_up_at:
                    raise
                log.warning("waiting_for_broker", why=str(error))
                await asyncio.sleep(AGAIN_S)
        yield broker
