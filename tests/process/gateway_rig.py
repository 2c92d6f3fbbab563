"""A gateway for tests: a real HTTP server in this loop, a broker in memory, a runner made of a function."""

import asyncio
import itertools
import json
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from gateway.application import Gateway
from gateway.body import BodyLimits
from gateway.keyring import open_keyring
from gateway.server import bind, serve
from quarterhour.broker import BrokerOptions
from quarterhour.broker.memory import MemoryBroker, connect, store_of
from quarterhour.broker.port import Answer, Beat
from quarterhour.clock import SystemClock
from quarterhour.function import Manifest
from quarterhour.invocation import Invocation
from quarterhour.outcome import Response, Succeeded
from quarterhour.reply import Reply
from quarterhour.retry import RetryPolicy
from quarterhour.settings import GatewaySettings, Server
from tests.waiting import eventually

__all__ = [
    "PREFIX",
    "FakeRunner",
    "Rig",
    "Streams",
    "answered",
    "connected",
    "function",
    "json_of",
    "open_rig",
]

PREFIX = "/.netlify/functions"
# No client that a test means to be quick is cut off because the machine has stood still for a while.
PATIENT = BodyLimits(silence_s=20.0, whole_s=60.0, drain_silence_s=5.0, drain_s=20.0)
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]

_numbers = itertools.count()

Handler = Callable[[Invocation], Awaitable[Reply]]


def function(name: str, **values: Any) -> Manifest:
    """A manifest with everything that a test does not care about."""
    return Manifest(
        **{
            "name": name,
            "runtime": "python",
            "background": name.endswith("-background"),
            "timeout_s": 60.0,
            "retry": RetryPolicy(),
            **values,
        }
    )


def answered(status: int = 200, body: bytes = b"", **headers: str) -> Succeeded:
    """A response of a function."""
    return Succeeded(response=Response(status=status, headers=tuple(headers.items()), body=body))


async def echo(invocation: Invocation) -> Reply:
    """What the runner got, as JSON."""
    request = invocation.request
    shown = {
        "id": invocation.id,
        "function": invocation.function,
        "mode": invocation.mode,
        "method": request.method,
        "path": request.path,
        "query": request.query,
        "headers": request.headers,
        "client": request.client,
        "scheme": request.scheme,
        "params": request.params,
        "body": None if invocation.body is None else invocation.body.decode("latin-1"),
        "trace": invocation.trace,
    }
    return answered(200, json.dumps(shown).encode(), **{"content-type": "application/json"})


@dataclass
class FakeRunner:
    """Serves calls with a handler of the test, and beats."""

    name: str
    broker: MemoryBroker
    functions: tuple[str, ...]
    handler: Handler = echo
    taken: list[Invocation] = field(default_factory=list)
    beating: bool = True
    draining: bool = False

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:

            def take(invocation: Invocation, envelope: bytes, answer: Answer) -> None:
                self.taken.append(invocation)
                tasks.create_task(self._handle(invocation, answer))

            await self.broker.serve(self.name, take)
            await self.broker.on_roll_call(self.beat)
            while True:
                await self.beat()
                await asyncio.sleep(0.2)

    async def _handle(self, invocation: Invocation, answer: Answer) -> None:
        await answer(await self.handler(invocation))

    async def beat(self) -> None:
        if self.beating and not self.broker.store.away:
            await self.broker.beat(
                Beat(
                    runner=self.name,
                    functions=self.functions,
                    slots=4,
                    draining=self.draining,
                    metrics="127.0.0.1:9465",
                )
            )


@dataclass
class Rig:
    """A running gateway, and the ways to get at it."""

    gateway: Gateway
    broker: MemoryBroker
    client: httpx.AsyncClient
    port: int
    stop: asyncio.Event
    options: BrokerOptions
    stack: AsyncExitStack
    tasks: asyncio.TaskGroup

    async def runner(self, name: str, *functions: str, handler: Handler = echo) -> FakeRunner:
        """A further runner, known to the gateway when this returns."""
        broker = await self.stack.enter_async_context(connect(self.options))
        assert isinstance(broker, MemoryBroker)
        runner = FakeRunner(name=name, broker=broker, functions=functions, handler=handler)
        self.tasks.create_task(runner.run())
        await eventually(lambda: self.gateway.runners.lives(name), what="the gateway heard the runner")
        return runner

    async def announce(self, *manifests: Manifest) -> None:
        """Functions, known to the gateway when this returns."""
        await self.broker.announce(manifests)
        names = {manifest.name for manifest in manifests}
        await eventually(lambda: names <= set(self.gateway.functions.by_name), what="functions are known")

    async def raw(self, data: bytes, *, finish: bool = False, deadline_s: float = 30.0) -> bytes:
        """Everything that the server sends for these bytes, up to the end of the connection or the answer."""
        async with connected(self) as (reader, writer):
            writer.write(data)
            await writer.drain()
            if finish:
                writer.write_eof()
            async with asyncio.timeout(deadline_s):
                return await read_answer(reader)


@asynccontextmanager
async def connected(rig: Rig) -> AsyncIterator[Streams]:
    """A connection that a test which fails leaves no more open than any other: that fails others, too."""
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def read_answer(reader: asyncio.StreamReader) -> bytes:
    """One answer from the wire, with the body that its head announces."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = 0
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            length = int(line.partition(b":")[2])
    return head + await reader.readexactly(length)


def json_of(answer: bytes) -> Any:
    """The JSON body of an answer from the wire."""
    return json.loads(answer.partition(b"\r\n\r\n")[2])


class _Complaints(logging.Handler):
    """What servers and the event loop complain about: there must be nothing."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.name}: {record.getMessage()}")


@contextmanager
def _no_complaints(but: tuple[str, ...]) -> Iterator[None]:
    complaints = _Complaints()
    names = ("hypercorn.error", "_granian", "asyncio", "quart.app", "gateway")
    for name in names:
        logging.getLogger(name).addHandler(complaints)
    try:
        yield
    finally:
        for name in names:
            logging.getLogger(name).removeHandler(complaints)
    assert [line for line in complaints.lines if not any(one in line for one in but)] == []


@asynccontextmanager
async def open_rig(
    server: Server = "hypercorn",
    *,
    finish_s: float = 5.0,
    complaints: tuple[str, ...] = (),
    body: BodyLimits = PATIENT,
    verify: ssl.SSLContext | bool = False,
    **settings: Any,
) -> AsyncIterator[Rig]:
    """A gateway that serves `hello` by a runner that echoes, and knows `hello-background`.

    `complaints`: parts of what its server may complain about; about everything else the test fails.
    `verify`: with what its client checks a certificate.
    """
    url = f"memory://gateway-{next(_numbers)}"
    options = BrokerOptions(url=url, name="test")
    # It shares its event loop with the test, which makes it late at times.
    chosen = GatewaySettings(broker=url, server=server, port=0, lateness_s=60.0, **settings)
    scheme = "http" if chosen.tls_cert is None else "https"
    stop = asyncio.Event()
    async with AsyncExitStack() as stack:
        stack.enter_context(_no_complaints(complaints))
        listener = stack.enter_context(closing(bind("127.0.0.1", 0)))
        port = listener.getsockname()[1]
        broker = await stack.enter_async_context(connect(options))
        assert isinstance(broker, MemoryBroker)
        gateway = Gateway(chosen, broker, SystemClock(), stop, open_keyring(chosen), body=body)
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        background = [tasks.create_task(task) for task in gateway.tasks()]
        serving = tasks.create_task(
            serve(gateway.app, listener, chosen, stop, shedding=gateway.shedding, finish_s=finish_s)
        )
        client = await stack.enter_async_context(
            httpx.AsyncClient(base_url=f"{scheme}://127.0.0.1:{port}", timeout=30.0, verify=verify)
        )
        rig = Rig(gateway, broker, client, port, stop, options, stack, tasks)
        runners = await stack.enter_async_context(asyncio.TaskGroup())
        rig.tasks = runners
        await rig.announce(function("hello"), function("hello-background"))
        await rig.runner("runner-1", "hello")
        try:
            yield rig
        finally:
            store_of(options).away = False
            stop.set()
            await client.aclose()
            async with asyncio.timeout(30):
                await serving
            for task in background:
                task.cancel()
            for task in list(runners._tasks):
                task.cancel()
