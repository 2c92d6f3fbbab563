"""Opening a connection to NATS: each server has one try at first, and as many as it takes later."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

import nats.errors
import structlog
from nats.aio.client import Client

from quarterhour.broker.nats.address import Address
from quarterhour.broker.nats.link import Link
from quarterhour.clock import Clock
from quarterhour.errors import BrokerUnavailable

__all__ = ["open_link", "running"]

log = structlog.get_logger()

CONNECT_S = 3.0
RECONNECT_EVERY_S = 0.2
PING_EVERY_S = 10
PINGS_UNANSWERED_MAX = 2
CLOSE_S = 2.0


@asynccontextmanager
async def open_link(address: Address, *, name: str, lease_s: float, clock: Clock) -> AsyncIterator[Link]:
    """A connection to one of the servers; once it has been there, it is tried again for ever.

    Raises `BrokerUnavailable`, soon, if none of them can be reached or lets us in at first.
    """
    client = Client()
    link = Link(client, address, lease_s=lease_s, clock=clock)
    try:
        await _connect(client, link, address, name)
        async with running(link, link.watch()):
            await link.hear_replies()
            yield link
    finally:
        link.close()
        with suppress(TimeoutError, nats.errors.Error, OSError):
            async with asyncio.timeout(CLOSE_S):
                await client.close()


@asynccontextmanager
async def running(link: Link, *jobs: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run `jobs`, which never end by themselves, while entered; one that fails is the connection's end.

    A task group would do, but it wraps what the caller raises into an exception group.
    """

    def ended(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("broker_adapter_failed", broker=link.place, exc_info=error)
            link.close()

    tasks = [asyncio.create_task(job) for job in jobs]
    for task in tasks:
        task.add_done_callback(ended)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _connect(client: Client, link: Link, address: Address, name: str) -> None:
    failures: list[Exception] = []
    all_failed = asyncio.Event()

    async def on_error(error: Exception) -> None:
        if link.connected:
            log.warning("broker_error", broker=address.place, why=repr(error))
        elif not all_failed.is_set():
            failures.append(error)
            if len(failures) >= len(address.servers):
                all_failed.set()

    connecting = asyncio.create_task(
        client.connect(
            servers=list(address.servers),
            name=name,
            error_cb=on_error,
            disconnected_cb=link.on_away,
            reconnected_cb=link.on_back,
            closed_cb=link.on_closed,
            reconnect_time_wait=RECONNECT_EVERY_S,  # type: ignore[arg-type] # fractions work
            max_reconnect_attempts=-1,
            ping_interval=PING_EVERY_S,
            max_outstanding_pings=PINGS_UNANSWERED_MAX,
            skip_subject_validation=True,  # `Layout` has checked every name
        )
    )
    # nats-py would go round for ever; here each server has one try.
    giving_up = asyncio.create_task(all_failed.wait())
    try:
        await asyncio.wait({connecting, giving_up}, timeout=CONNECT_S, return_when=asyncio.FIRST_COMPLETED)
    finally:
        tried = connecting.done()
        for task in (connecting, giving_up):
            task.cancel()
        await asyncio.gather(connecting, giving_up, return_exceptions=True)
    error = connecting.exception() if tried else (failures or [TimeoutError()])[-1]
    if error is not None:
        all_failed.set()
        raise BrokerUnavailable(_why(error, address)) from None


def _why(error: BaseException, address: Address) -> str:
    if "authorization" in str(error).lower():
        return f"The broker at {address.place} does not accept this user and password; see --broker."
    reason = getattr(error, "strerror", None) or str(error) or "no answer"
    return f"The broker at {address.place} cannot be reached ({reason}). Does it run, and is --broker right?"
