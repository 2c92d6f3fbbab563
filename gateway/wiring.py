"""Wiring: one gateway process, from its settings to its end."""

import asyncio
import socket
from contextlib import AsyncExitStack, closing

import structlog

from gateway.application import Gateway
from gateway.keyring import open_keyring
from gateway.server import bind, load_server, serve
from quarterhour.broker import Broker, BrokerOptions, connect_patiently
from quarterhour.clock import SystemClock
from quarterhour.errors import BrokerUnavailable
from quarterhour.processes import (
    background,
    end_with_parent,
    settle_memory,
    stop_on_signals,
    unless_stopped,
)
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
    keyring = open_keyring(settings)
    stop, close = stop_on_signals(), asyncio.Event()
    with closing(bind(settings.host, settings.port)) as listener:
        async with background(_end_with_parent(stop, close)), AsyncExitStack() as stack:
            broker = await _connect(settings, stack, stop)
            if broker is not None:
                gateway = Gateway(settings, broker, SystemClock(), stop, keyring)
                leaving = _close_later(close, stop, settings.grace_s)
                async with background(*gateway.tasks(), _end_when_lost(broker, stop), leaving):
                    await _serve(settings, gateway, broker.warnings, listener, close)
    log.info("gateway_ended")


async def _connect(settings: GatewaySettings, stack: AsyncExitStack, stop: asyncio.Event) -> Broker | None:
    """The broker, for as long as `stack` is entered; None if the gateway is to end before it is there."""
    options = BrokerOptions(
        url=settings.broker,
        name="gateway",
        namespace=settings.namespace,
        lease_s=settings.lease_s,
        clock=SystemClock(),
    )
    return await unless_stopped(stop, stack.enter_async_context(connect_patiently(options)))


async def _serve(
    settings: GatewaySettings,
    gateway: Gateway,
    warnings: tuple[str, ...],
    listener: socket.socket,
    close: asyncio.Event,
) -> None:
    for warning in warnings:
        log.warning("broker", text=warning)
    host, port = listener.getsockname()[:2]
    settle_memory()
    scheme = "http" if settings.tls_cert is None else "https"
    log.info("gateway_started", scheme=scheme, host=host, port=port, server=settings.server)
    finish_s = settings.synchronous_limit_s + FINISH_MARGIN_S
    await serve(gateway.app, listener, settings, close, shedding=gateway.shedding, finish_s=finish_s)


async def _end_with_parent(stop: asyncio.Event, close: asyncio.Event) -> None:
    """Nobody who has no parent any more waits for proxies."""
    try:
        await end_with_parent(stop)
    finally:
        close.set()


async def _close_later(close: asyncio.Event, stop: asyncio.Event, grace_s: float) -> None:
    """Set `close` some time after `stop`: proxies learn from /readyz that they are to leave, and leave."""
    try:
        await stop.wait()
        log.info("gateway_leaving", seconds=grace_s)
        await asyncio.sleep(grace_s)
    finally:  # whatever ends the gateway
        close.set()


async def _end_when_lost(broker: Broker, stop: asyncio.Event) -> None:
    await broker.lost()
    stop.set()  # a server may lose the cancellation that follows: `asyncio.wait_for` of Python 3.11 does
    message = "The connection to the broker is closed for good; the gateway ends, to be started again."
    raise BrokerUnavailable(message)
