"""Granian in this event loop, on a socket of ours; imported only when it is asked for."""

import socket
from pathlib import Path
from typing import Any

from granian._granian import SocketHolder
from granian.constants import HTTPModes, Interfaces, SSLProtocols
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server.embed import Server

from gateway.asgi import App

__all__ = ["granian_server"]

# Granian sets its own handlers on standard output; this leaves logging as it is, down to errors.
_QUIET: dict[str, Any] = {
    "incremental": True,
    "formatters": {},
    "handlers": {},
    "loggers": {"_granian": {"propagate": True}, "granian.access": {"propagate": False}},
}


class _Server(Server):
    """Granian on a bound socket.

    By itself it binds with SO_REUSEPORT, so that two gateways would share a port without knowing.
    """

    def __init__(self, descriptor: int, **options: Any) -> None:
        super().__init__(**options)
        self._descriptor = descriptor

    def _init_shared_socket(self) -> None:
        holder: Any = SocketHolder  # its stub does not tell how it is made: descriptor, is it a path, backlog
        self._shd = holder(self._descriptor, False, self.backlog)  # noqa: FBT003


def granian_server(
    app: App,
    listener: socket.socket,
    *,
    backlog: int,
    connections_max: int,
    header_read_s: float,
    header_bytes_max: int,
    certificate: Path | None,
    key: Path | None,
) -> Server:
    """A server for `app`: `await serve()` runs it, `stop()` ends it once its requests are done."""
    host, port = listener.getsockname()[:2]
    return _Server(
        listener.detach(),  # it closes the descriptor itself
        target=app,
        address=host,
        port=port,
        interface=Interfaces.ASGI,
        http=HTTPModes.http1,
        websockets=False,
        backlog=backlog,
        backpressure=connections_max,
        http1_settings=HTTP1Settings(
            header_read_timeout=int(header_read_s * 1000), max_buffer_size=header_bytes_max
        ),
        ssl_cert=certificate,
        ssl_key=key,
        ssl_protocol_min=SSLProtocols.tls12,
        log_level=LogLevels.error,
        log_dictconfig=_QUIET,
        log_access=False,
    )
