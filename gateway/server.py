"""The HTTP servers: Hypercorn, or Granian if it is installed and asked for; both in this event loop.

A server gets a socket that is bound already, so that a port in use is found out early and said in
the same words. It prints nothing; what it has to report goes through the standard library's logging.
"""

import asyncio
import errno
import logging
import socket
import sys
from collections.abc import Awaitable
from typing import Any, cast

from hypercorn.asyncio import serve as serve_hypercorn
from hypercorn.config import Config

from gateway.asgi import App
from gateway.hypercorn_server import mend_hypercorn
from gateway.shedding import Shedding
from quarterhour.errors import SettingsError
from quarterhour.processes import raise_descriptors
from quarterhour.settings import GatewaySettings

__all__ = ["bind", "load_server", "serve"]

BACKLOG = 2048
CONNECTIONS_MAX = 16_384
DESCRIPTORS_KEPT = 128  # for everything that is no client's
KEEP_ALIVE_S = 75.0  # longer than the 60 s of common proxies, so that they close first
HEADER_READ_S = 30.0
HANDSHAKE_S = 10.0
GRACE_S = 2.0
STALLED_S = 60.0  # that nothing of what was sent has been read for so long ends a connection

# Room beyond our own limit, so that it is our layer that answers 431, with our words.
HEADER_ROOM_BYTES = 64 * 1024

log = logging.getLogger(__name__)


def bind(host: str, port: int) -> socket.socket:
    """A socket bound to the address. Raises `SettingsError` with a sentence if that cannot be."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        message = f"--host is {host!r}, which is no address of this machine; try 127.0.0.1 or 0.0.0.0."
        raise SettingsError(message) from None
    family, kind, protocol, _, address = found[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if sys.platform == "linux":  # elsewhere only Hypercorn's connections have such an end
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(STALLED_S * 1000))
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise SettingsError(_cannot_bind(error, host, port)) from None
    listener.setblocking(False)  # noqa: FBT003 - it takes no keyword
    return listener


def _cannot_bind(error: OSError, host: str, port: int) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return f"Port {port} on {host} is in use: stop what listens there, or choose another with --port."
        case errno.EACCES:
            return f"Port {port} on {host} needs more rights than this process has: choose one above 1023."
        case errno.EADDRNOTAVAIL:
            return f"--host is {host!r}, which is no address of this machine; try 127.0.0.1 or 0.0.0.0."
        case _:
            return f"Cannot listen on {host}:{port}: {error.strerror}."


def connections_max() -> int:
    """How many connections to hold: a process has only so many descriptors, as many as it may ask for."""
    allowed = raise_descriptors(CONNECTIONS_MAX + DESCRIPTORS_KEPT)
    return max(1, min(CONNECTIONS_MAX, allowed - DESCRIPTORS_KEPT))


def load_server(settings: GatewaySettings) -> None:
    """Import the server that is asked for. Raises `SettingsError` if it is not installed."""
    if settings.server == "granian":
        try:
            import granian.server.embed  # noqa: F401, PLC0415 - an optional extra
        except ImportError:
            message = (
                "--server is 'granian', which is not installed: "
                "install quarterhour[granian], or leave the option away for hypercorn."
            )
            raise SettingsError(message) from None


async def serve(
    app: App,
    listener: socket.socket,
    settings: GatewaySettings,
    stop: asyncio.Event,
    *,
    shedding: Shedding,
    finish_s: float,
) -> None:
    """Serve `app` until `stop` is set; requests under way then have `finish_s` to finish.

    From here on `listener` is the server's, which closes it. Granian reads requests quickly enough to do so
    before they are refused.
    """
    try:
        listener.listen(BACKLOG)
    except OSError as error:
        host, port = listener.getsockname()[:2]
        listener.close()
        raise SettingsError(_cannot_bind(error, host, port)) from None
    if settings.server == "granian":
        serving = _granian(app, listener, settings, stop)
    else:
        mend_hypercorn(connections_max(), shedding)
        serving = _hypercorn(app, listener, settings, stop, finish_s)
    await _until_stopped(serving, stop, finish_s)


async def _until_stopped(serving: Awaitable[None], stop: asyncio.Event, finish_s: float) -> None:
    # The servers' own bounds differ by version; this one holds for all of them.
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(None) as timer, asyncio.TaskGroup() as tasks:
            bound = tasks.create_task(_reschedule(timer, stop, lambda: loop.time() + finish_s + GRACE_S))
            await serving
            bound.cancel()
    except TimeoutError:
        log.warning("Requests were still under way %g s after the stop; they were cut off.", finish_s)


async def _reschedule(timer: asyncio.Timeout, stop: asyncio.Event, when: Any) -> None:
    await stop.wait()
    timer.reschedule(when())


async def _hypercorn(
    app: App, listener: socket.socket, settings: GatewaySettings, stop: asyncio.Event, finish_s: float
) -> None:
    config = Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.backlog = BACKLOG
    config.accesslog = None
    config.errorlog = logging.getLogger("hypercorn.error")
    config.loglevel = "WARNING"
    config.include_server_header = False
    config.keep_alive_timeout = KEEP_ALIVE_S
    config.keep_alive_max_requests = 1_000_000
    config.graceful_timeout = finish_s
    config.h11_max_incomplete_size = 2 * settings.header_bytes_max + HEADER_ROOM_BYTES
    config.ssl_handshake_timeout = HANDSHAKE_S
    if settings.tls_cert is not None and settings.tls_key is not None:
        # From TLS 1.2 on, which is Hypercorn's own; HTTP/1.1 alone, as Granian has it and the tests hold it.
        config.certfile, config.keyfile = str(settings.tls_cert), str(settings.tls_key)
        config.alpn_protocols = ["http/1.1"]
    await serve_hypercorn(cast("Any", app), config, shutdown_trigger=stop.wait, mode="asgi")


async def _granian(app: App, listener: socket.socket, settings: GatewaySettings, stop: asyncio.Event) -> None:
    from gateway.granian_server import granian_server  # noqa: PLC0415 - an optional extra

    server = granian_server(
        app,
        listener,
        backlog=BACKLOG,
        connections_max=connections_max(),
        header_read_s=HEADER_READ_S,
        header_bytes_max=2 * settings.header_bytes_max + HEADER_ROOM_BYTES,
        certificate=settings.tls_cert,
        key=settings.tls_key,
    )
    async with asyncio.TaskGroup() as tasks:
        stopping = tasks.create_task(_stop_granian(server, stop))
        await server.serve()
        stopping.cancel()


async def _stop_granian(server: Any, stop: asyncio.Event) -> None:
    await stop.wait()
    server.stop()
