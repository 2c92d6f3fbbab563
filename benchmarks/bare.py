"""The yardstick: the gateway's server, configured by the gateway's own code, with nothing behind it.

python -m benchmarks.bare SERVER PORT
"""

import asyncio
import os
import signal
import sys

import uvloop

from gateway.asgi import Receive, Scope, Send
from gateway.directory import Functions
from gateway.metrics import Metrics
from gateway.pressure import Pressure
from gateway.server import bind, load_server, serve
from gateway.shedding import Shedding
from quarterhour.processes import LIFELINE
from quarterhour.settings import GatewaySettings, load

BODY = b"ok"
HEADERS = [(b"content-length", b"2")]


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer everything with two letters."""
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
        return
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": BODY})


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def _run(settings: GatewaySettings) -> None:
    load_server(settings)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_reader(int(os.environ[LIFELINE]), stop.set)  # it ends with whoever started it
    nothing = Shedding(
        Pressure(settings.requests_max, settings.lateness_s), Functions(), Metrics(), stop
    )  # is measured or refused
    await serve(app, bind(settings.host, settings.port), settings, stop, shedding=nothing, finish_s=1.0)


def main() -> None:
    server, port = sys.argv[1:3]
    flags = {"broker": "nats://127.0.0.1:1", "host": "127.0.0.1", "port": port, "server": server}
    uvloop.run(_run(load(GatewaySettings, flags)))


if __name__ == "__main__":
    main()
