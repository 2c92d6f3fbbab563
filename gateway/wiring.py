"""Wiring: one gateway process, from its settings to its end."""

import asyncio
import socket
from contextlib import AsyncExitStack, closing

import structlog

from gateway.application import Gateway
from gateway.server import bind, load_server, serve
from quarterhour.broker import Broker, BrokerOptions, connect_patiently
from quarterhour.clock import SystemClock
from quarterhour.errors import BrokerUnavailable
from quarterhour.processes import background, end_with_parent, settle_memory, stop_on_signals
from quarterhour.settings import GatewaySettings

__all__ = ["run"]

FINISH_MARGIN_S = 10.0  # on top of the longest synchronous run: for what is under way at the end

log = structlog.get_logger()


async def run(settings: GatewaySettings) -> None:
    """Run a gateway until SIGTERM or SIGINT.

    Raises `QuarterhourError`: a setting is wrong, the broker cannot be used or is lost for good, or its
    parent is gone.
    """
    load_server(settings)
    stop = stop_on_signals()
    with closing(bind(settings.host, settings.port)) as listener:
        async with background(end_with_parent(stop)), AsyncExitStack() as stack:
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
        async with asyncio.timeout(None) as timer, background(_expire(timer, stop)):
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
    async with background(*gateway.tasks(), _end_when_lost(broker, stop)):
        settle_memory()
        log.info("gateway_started", host=host, port=port, server=settings.server)
        finish_s = settings.synchronous_limit_s + FINISH_MARGIN_S
        await serve(gateway.app, listener, settings, stop, finish_s=finish_s)


async def _expire(timer: asyncio.Timeout, stop: asyncio.Event) -> None:
    await stop.wait()
    timer.reschedule(asyncio.get_running_loop().time())


async def _end_when_lost(broker: Broker, stop: asyncio.Event) -> None:
    await broker.lost()
    stop.set()  # a server may lose the cancellation that follows: `asyncio.wait_for` of Python 3.11 does
    message = "The connection to the broker is closed for good; the gateway ends, to be started again."
    raise BrokerUnavailable(message)
