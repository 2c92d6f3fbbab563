"""Wiring: one gateway process, from its settings to its end."""

import asyncio
import signal
import socket
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, closing
from typing import Any

import structlog

from gateway.application import Gateway
from gateway.server import bind, load_server, serve
from quarterhour.broker import Broker, BrokerOptions, connect_patiently
from quarterhour.clock import SystemClock
from quarterhour.errors import BrokerUnavailable
from quarterhour.processes import parent_gone
from quarterhour.settings import GatewaySettings

__all__ = ["run"]

FINISH_MARGIN_S = 10.0  # on top of the longest synchronous run: for what is under way at the end

log = structlog.get_logger()


async def run(settings: GatewaySettings) -> None:
    """Run a gateway until SIGTERM, SIGINT or the end of its parent.

    Raises `SettingsError`, and `BrokerError` when the broker cannot be used or is lost for good.
    """
    load_server(settings)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    with closing(bind(settings.host, settings.port)) as listener:
        async with _background(_stop_with_parent(stop)), AsyncExitStack() as stack:
            broker = await _connect(settings, stack, stop)
            if broker is not None:
                await _serve(settings, broker, listener, stop)
    log.info("gateway_ended")


async def _connect(settings: GatewaySettings, stack: AsyncExitStack, stop: asyncio.Event) -> Broker | None:
    """The broker, for as long as `stack` is entered; None if the gateway is to end before it is there."""
    options = BrokerOptions(
        url=settings.broker,
        name="quarterhour gateway",
        namespace=settings.namespace,
        lease_s=settings.lease_s,
        clock=SystemClock(),
    )
    try:
        async with asyncio.timeout(None) as timer, _background(_expire(timer, stop)):
            return await stack.enter_async_context(connect_patiently(options))
    except TimeoutError:
        return None


async def _serve(
    settings: GatewaySettings, broker: Broker, listener: socket.socket, stop: asyncio.Event
) -> None:
    for warning in broker.warnings:
        log.warning("broker", text=warning)
    host, port = listener.getsockname()[:2]
    gateway = Gateway(settings, broker, SystemClock(), stop)
    async with _background(*gateway.tasks(), _end_when_lost(broker)):
        log.info("gateway_started", host=host, port=port, server=settings.server)
        finish_s = settings.synchronous_limit_s + FINISH_MARGIN_S
        await serve(gateway.app, listener, settings, stop, finish_s=finish_s)


@asynccontextmanager
async def _background(*coroutines: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run the coroutines while this is entered; an error in one of them ends the whole."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(coroutine) for coroutine in coroutines]
        yield
        for task in tasks:
            task.cancel()


async def _expire(timer: asyncio.Timeout, stop: asyncio.Event) -> None:
    await stop.wait()
    timer.reschedule(asyncio.get_running_loop().time())


async def _stop_with_parent(stop: asyncio.Event) -> None:
    await parent_gone()
    stop.set()


async def _end_when_lost(broker: Broker) -> None:
    await broker.lost()
    message = "The connection to the broker is closed for good; the gateway ends, to be started again."
    raise BrokerUnavailable(message)
