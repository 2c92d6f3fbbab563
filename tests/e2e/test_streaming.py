"""Responses that come bit by bit, over HTTP, from functions of each kind that can send one."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from tests.e2e.wire import PREFIX, exchange, request
from tests.system import Process, System
from tests.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

LIMIT_BYTES = 20 * 1024 * 1024
MEMORY_GROWS_BY_MAX_KIB = 4096

# Each of these sends "one", and "two" once the client has told that it has seen "one".
SEEN = """
import asyncio, pathlib, time
SEEN = pathlib.Path(__file__).parent.parent / "seen"

def wait():
    while not SEEN.exists():
        time.sleep(0.005)

async def wait_async():
    while not SEEN.exists():
        await asyncio.sleep(0.005)
"""

# These send "some" before they break off. The one that exits waits until the client has seen it: what is
# still on its way is lost with a worker.
BREAKS = (
    SEEN
    + """
def body(event):
    yield "some"
    if event["queryStringParameters"]["how"] == "raise":
        raise ValueError("enough")
    if event["queryStringParameters"]["how"] == "exit":
        import os
        wait()
        os._exit(3)
    if event["queryStringParameters"]["how"] == "limit":
        import time
        time.sleep(60)
    yield 1

def handler(event, context):
    return {"statusCode": 200, "body": body(event)}
"""
)

BREAKS_IN_JAVASCRIPT = """
import { existsSync } from 'node:fs';

const seen = new URL('../seen', import.meta.url);

async function* body(how) {
  yield 'some';
  await new Promise((resolve) => setTimeout(resolve, 20));
  while (how === 'exit' && !existsSync(seen)) await new Promise((resolve) => setTimeout(resolve, 5));
  if (how === 'exit') process.exit(3);
  if (how === 'limit') await new Promise((resolve) => setTimeout(resolve, 60_000));
  if (how === 'no bytes') yield 1;
  throw new TypeError('enough');
}

export default async (request) =>
  new Response(ReadableStream.from(body(new URL(request.url).searchParams.get('how'))).pipeThrough(
    new TransformStream({
      transform: (text, out) => out.enqueue(text === 1 ? text : new TextEncoder().encode(text)),
    })));
"""

FUNCTIONS = {
    "generator": SEEN
    + """
def body():
    yield "one"
    wait()
    yield b"two"

def handler(event, context):
    return {"statusCode": 201, "headers": {"content-type": "text/x-bits"}, "body": body()}
""",
    "async-generator": SEEN
    + """
async def body():
    yield "one"
    await wait_async()
    yield b"two"

async def handler(event, context):
    return {"statusCode": 201, "headers": {"content-type": "text/x-bits"}, "body": body()}
""",
    "asgi": SEEN
    + """
async def app(scope, receive, send):
    if scope["type"] == "http":
        headers = [(b"content-type", b"text/x-bits")]
        await send({"type": "http.response.start", "status": 201, "headers": headers})
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        await wait_async()
        await send({"type": "http.response.body", "body": b"two"})
""",
    "wsgi": SEEN
    + """
def app(environ, start_response):
    start_response("201 Created", [("Content-Type", "text/x-bits")])
    yield b"one"
    wait()
    yield b"two"
""",
    "breaks": BREAKS,
    "limited": BREAKS + "\nconfig = {'timeout': 0.7}\n",
    "bad-head": """
def handler(event, context):
    return {"statusCode": 200, "headers": {"x": "a\\nb"}, "body": iter(["x"])}
""",
    # Notes how many chunks of 64 KiB it could send.
    "sends": """
import pathlib
SENT = pathlib.Path(__file__).parent.parent / "sent"

def body(count):
    for number in range(count):
        yield bytes(65536)
        SENT.write_text(str(number + 1))

def handler(event, context):
    return {"statusCode": 200, "body": body(int(event["queryStringParameters"]["chunks"]))}
""",
    "background-background": """
def handler(event, context):
    return {"statusCode": 200, "body": iter(["x"])}
""",
}


SEEN_IN_JAVASCRIPT = """
import { existsSync, writeFileSync } from 'node:fs';
import { Readable } from 'node:stream';
import { setTimeout as pause } from 'node:timers/promises';

const place = (name) => new URL(`../${name}`, import.meta.url);

async function* body() {
  yield 'one';
  while (!existsSync(place('seen'))) await pause(5);
  yield 'two';
}
"""

JAVASCRIPT = {
    "modern.mjs": SEEN_IN_JAVASCRIPT
    + """
const headers = { 'content-type': 'text/x-bits' };
export default async () => new Response(ReadableStream.from(body()).pipeThrough(new TextEncoderStream()),
  { status: 201, headers });
""",
    "classic.mjs": SEEN_IN_JAVASCRIPT
    + """
export const handler = async () =>
  ({ statusCode: 201, headers: { 'content-type': 'text/x-bits' }, body: Readable.from(body()) });
""",
    "breaks-js.mjs": BREAKS_IN_JAVASCRIPT,
    # Node starts anew for each try, and the first bytes are to come before the limit.
    "limited-js.mjs": BREAKS_IN_JAVASCRIPT + "export const config = { timeout: 4 };\n",
    "sends-js.mjs": """
import { writeFileSync } from 'node:fs';

export default async (request) => {
  const chunks = Number(new URL(request.url).searchParams.get('chunks'));
  let number = 0;
  return new Response(new ReadableStream({
    pull(controller) {
      if (number === chunks) return controller.close();
      controller.enqueue(new Uint8Array(65536));
      number += 1;
      writeFileSync(new URL('../sent', import.meta.url), String(number));
    },
  }));
};
""",
}


@dataclass
class World:
    """A system whose gateways are of each server."""

    system: System
    gateways: dict[str, Process]
    runner: Process

    def url(self, server: str, name: str) -> str:
        return f"http://127.0.0.1:{self.gateways[server].port}{PREFIX}/{name}"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with System(tmp_path_factory.mktemp("system"), FUNCTIONS) as system:
        for name, source in JAVASCRIPT.items():
            (system.functions / name).write_text(source)
        gateways = {
            "granian": await system.start_gateway("--server", "granian"),
            "hypercorn": await system.start_gateway(),
        }
        runner = await system.start_runner("--slots", "4")
        yield World(system, gateways, runner)


@pytest_asyncio.fixture(loop_scope="module")
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=30) as client:
        yield client


SERVERS = ["hypercorn", "granian"]
both_servers = pytest.mark.parametrize("server", SERVERS)
functions_that_send = pytest.mark.parametrize("name", ["sends", "sends-js"])


def forget(path: Path) -> Path:
    path.unlink(missing_ok=True)
    return path


@both_servers
@pytest.mark.parametrize("name", ["generator", "async-generator", "asgi", "wsgi", "modern", "classic"])
async def test_the_first_bytes_come_before_the_function_ends(
    world: World, http: httpx.AsyncClient, server: str, name: str
) -> None:
    seen = forget(world.system.folder / "seen")
    async with http.stream("POST", world.url(server, name)) as answer:
        assert (answer.status_code, answer.headers["content-type"]) == (201, "text/x-bits")
        assert "content-length" not in answer.headers
        assert len(answer.headers["x-nf-request-id"]) == 36
        bits = answer.aiter_raw()
        assert await anext(bits) == b"one"
        seen.touch()
        assert b"".join([bit async for bit in bits]) == b"two"


@both_servers
@pytest.mark.parametrize("name", ["breaks", "breaks-js"])
@pytest.mark.parametrize("how", ["raise", "exit", "no bytes"])
async def test_one_that_breaks_off_does_not_end_cleanly(
    world: World, http: httpx.AsyncClient, server: str, name: str, how: str
) -> None:
    seen = forget(world.system.folder / "seen")
    async with http.stream("GET", world.url(server, name), params={"how": how}) as answer:
        await assert_breaks_off(answer, on_some=seen.touch)


@both_servers
@pytest.mark.parametrize("name", ["limited", "limited-js"])
async def test_one_that_reaches_its_limit_does_not_end_cleanly(
    world: World, http: httpx.AsyncClient, server: str, name: str
) -> None:
    for _ in range(3):
        async with http.stream("GET", world.url(server, name), params={"how": "limit"}) as answer:
            if answer.status_code == 504:
                continue  # the machine stood still until the limit, before any of it came
            await assert_breaks_off(answer, on_some=lambda: None)
            return
    pytest.fail("it was at its limit before its first bytes, three times out of three")


async def assert_breaks_off(answer: httpx.Response, *, on_some: Callable[[], None]) -> None:
    assert answer.status_code == 200
    bits = answer.aiter_raw()
    assert await anext(bits) == b"some"
    on_some()
    with pytest.raises(httpx.RemoteProtocolError):
        await anext(bits)


@both_servers
async def test_there_is_a_limit_to_its_size(world: World, http: httpx.AsyncClient, server: str) -> None:
    chunks = LIMIT_BYTES // 65536
    url = world.url(server, "sends")
    answer = await http.post(url, params={"chunks": chunks})
    assert (answer.status_code, len(answer.content)) == (200, LIMIT_BYTES)
    with pytest.raises(httpx.RemoteProtocolError):
        await http.post(url, params={"chunks": chunks + 1})


async def test_a_head_that_cannot_be_sent_is_a_failure(world: World, http: httpx.AsyncClient) -> None:
    answer = await http.get(world.url("hypercorn", "bad-head"))
    assert (answer.status_code, answer.json()["errorType"]) == (500, "InvalidResult")


@both_servers
async def test_head_runs_it_and_gets_no_body(world: World, server: str) -> None:
    sent = forget(world.system.folder / "sent")
    path = f"{PREFIX}/sends?chunks=20"
    answer = await exchange(world.gateways[server].port, request(path, "HEAD"))
    assert (answer.status, answer.body, answer.rest) == (200, b"", b"")
    await eventually(lambda: sent.exists() and sent.read_text() == "20", what="all of it was sent")


def memory_kib(process: Process) -> int:
    """What it holds now."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1])


@both_servers
@functions_that_send
async def test_a_slow_client_costs_the_gateway_no_memory(
    world: World, http: httpx.AsyncClient, server: str, name: str
) -> None:
    url, gateway = world.url(server, name), world.gateways[server]
    await http.get(url, params={"chunks": 320})  # so that what it needs in any case is there
    before = most = memory_kib(gateway)
    got = 0
    async with http.stream("GET", url, params={"chunks": 320}) as answer:
        async for bits in answer.aiter_raw(65536):
            got += len(bits)
            most = max(most, memory_kib(gateway))
            await asyncio.sleep(0.003)  # 20 MiB/s at most
    assert got == LIMIT_BYTES
    assert most - before <= MEMORY_GROWS_BY_MAX_KIB


@both_servers
@functions_that_send
async def test_a_slow_client_holds_the_function_back_and_one_that_goes_away_ends_it(
    world: World, server: str, name: str
) -> None:
    sent = forget(world.system.folder / "sent")
    cancelled = await world.system.metric("quarterhour_outcomes_total", function=name, result="cancelled")
    reader, writer = await asyncio.open_connection("127.0.0.1", world.gateways[server].port, limit=1024)
    writer.get_extra_info("socket").setsockopt(1, 8, 4096)  # SO_RCVBUF
    writer.write(request(f"{PREFIX}/{name}?chunks=320"))
    await reader.readuntil(b"\r\n\r\n")

    def progress() -> int:
        return int(sent.read_text() or 0) if sent.exists() else 0

    await eventually(progress, what="the function has begun to send")
    writer.transport.abort()

    async def was_cancelled() -> bool:
        now = await world.system.metric("quarterhour_outcomes_total", function=name, result="cancelled")
        return now == cancelled + 1

    await eventually(was_cancelled, what="the function was ended")


async def test_nobody_waits_for_a_background_functions_bits(world: World) -> None:
    identity = await world.system.enqueue("background-background")
    status = await world.system.in_state(identity, "dead", "succeeded")
    assert (status["state"], status["error"]["type"]) == ("dead", "InvalidResult")
