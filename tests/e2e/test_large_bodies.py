"""Bodies of up to 64 MiB through real gateways and runners, over a NATS that takes messages of 1 MiB only."""

import asyncio
import hashlib
import json
import os
import random
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from quarterhour.body import INLINE_BYTES_MAX, BodyKind, Claim
from quarterhour.broker import BrokerOptions
from quarterhour.broker.nats.broker import connect
from tests.broker.nats_inside import look_inside
from tests.system import Process, System
from tests.waiting import eventually, whole_lines

pytestmark = pytest.mark.asyncio(loop_scope="module")

LONG_WANTED = os.environ.get("QUARTERHOUR_TEST_LONG") == "true"
MIB = 1024 * 1024
LARGEST = 64 * MIB
GROWTH_MIB_MAX = 16
LOST_LEASE_S = 8.0  # of a runner that is lost; more than a machine stands still for
LIMITS = ("--request-limit", str(LARGEST), "--response-limit", str(LARGEST))

ECHO = """
async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            break
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"image/png")]})
    await send({"type": "http.response.body", "body": b"".join(parts)})
"""
ECHO_NODE = """
export default async (request) => new Response(await request.arrayBuffer());
"""
GIVE = """
def handler(event, context):
    size = int(event["queryStringParameters"]["size"])
    return {"statusCode": int(event["queryStringParameters"].get("status", 200)), "body": "x" * size}
"""
TAKE = """
import base64, hashlib, json, os, pathlib, time
config = {"retries": 1, "retry_delay": 0}
def handler(event, context):
    how = event["queryStringParameters"].get("how")
    body = base64.b64decode(event["body"])
    with open("taken", "a") as file:
        digest = hashlib.sha256(body).hexdigest()
        file.write(json.dumps([context.aws_request_id, context.attempt, digest]) + "\\n")
    if how == "fail" or how == "fail once" and context.attempt == 1:
        raise ValueError(how)
    while how == "hold" and not pathlib.Path("go").exists():
        time.sleep(0.05)
    return {"size": len(body)}
"""
FUNCTIONS = {"echo": ECHO, "give": GIVE, "take-background": TAKE}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    folder = tmp_path_factory.mktemp("large")
    async with System(folder, FUNCTIONS, max_payload=MIB) as system:
        (system.functions / "echo-node.mjs").write_text(ECHO_NODE)
        await system.start_gateway(*LIMITS)
        await system.start_runner("--response-limit", str(LARGEST), "--slots", "4")
        yield system


def body_of(size: int) -> bytes:
    return random.Random(size).randbytes(size)


async def in_chunks(body: bytes, size: int = 100_000) -> AsyncIterator[bytes]:
    for start in range(0, len(body), size):
        yield body[start : start + size]


async def stored(system: System) -> int:
    """How many pieces of bodies lie in NATS."""
    async with look_inside(system.nats.url, "quarterhour") as inside:
        messages: int = (await inside.api("STREAM.INFO.quarterhour-bodies"))["state"]["messages"]
        return messages


async def nothing_stored(system: System) -> None:
    async def empty() -> bool:
        return await stored(system) == 0

    await eventually(empty, what="no piece of a body was left")


def taken(system: System, id: str) -> list[list[Any]]:
    """The attempts that have read their body: number and digest."""
    lines = [json.loads(line) for line in whole_lines(system.folder / "taken")]
    return [rest for of, *rest in lines if of == id]


class Memory:
    """How far the resident memory of processes grows from here on."""

    def __init__(self, *processes: Process) -> None:
        self._base = {}
        for process in processes:
            Path(f"/proc/{process.pid}/clear_refs").write_text("5")  # the peak begins anew
            self._base[process.pid] = self._peak_mib(process.pid)

    def _peak_mib(self, pid: int) -> float:
        status = Path(f"/proc/{pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) / 1024

    @property
    def growth_mib(self) -> list[float]:
        return [self._peak_mib(pid) - base for pid, base in self._base.items()]


@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from /proc")
async def test_the_largest_up_and_down_in_bounded_memory(system: System) -> None:
    body = body_of(LARGEST)
    assert (await system.post("echo", content=b"warm")).content == b"warm"
    memory = Memory(*system.processes[:2])
    answer = await system.post("echo", content=in_chunks(body))
    assert (answer.status_code, answer.headers["content-length"]) == (200, str(LARGEST))
    assert hashlib.sha256(answer.content).digest() == hashlib.sha256(body).digest()
    assert max(memory.growth_mib) < GROWTH_MIB_MAX, memory.growth_mib
    await nothing_stored(system)


@pytest.mark.parametrize("size", [INLINE_BYTES_MAX - 1, INLINE_BYTES_MAX, INLINE_BYTES_MAX + 1, 3 * MIB + 1])
@pytest.mark.parametrize("name", ["echo", "echo-node"])
async def test_exact_bytes_around_the_bound(system: System, name: str, size: int) -> None:
    body = body_of(size)
    for content in (body, in_chunks(body)):
        answer = await system.post(name, content=content)
        assert answer.content == body
        assert answer.headers["content-length"] == str(size)
    await nothing_stored(system)


async def test_more_than_is_allowed(system: System) -> None:
    with socket.create_connection(("127.0.0.1", system.gateway.port if system.gateway else 0)) as client:
        path = "/.netlify/functions/echo"
        client.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {LARGEST + 1}\r\n\r\n".encode())
        client.settimeout(30)
        assert client.recv(12, socket.MSG_WAITALL) == b"HTTP/1.1 413"  # before any of it has come
    answer = await system.post("give", params={"size": LARGEST + 1})
    assert (answer.status_code, answer.json()["errorType"]) == (500, "ResponseTooLarge")
    # What has no body in HTTP has none, however large it is.
    answer = await system.post("give", params={"size": MIB, "status": 204})
    assert (answer.status_code, answer.content) == (204, b"")
    await nothing_stored(system)


async def test_a_slow_client_holds_no_worker(system: System) -> None:
    port = system.gateway.port if system.gateway else 0
    with ExitStack() as sockets:
        slow = [sockets.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(6)]
        for client in slow:  # there are four slots: who held one would have it refused to the fifth
            await asyncio.to_thread(_begin, client)
        assert len((await system.post("give", params={"size": MIB})).content) == MIB
        assert await asyncio.to_thread(_read_all, slow[0]) == 8 * MIB
    await nothing_stored(system)


def _begin(client: socket.socket) -> None:
    """Ask for 8 MiB, and read only that they come."""
    client.settimeout(30)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    client.sendall(b"GET /.netlify/functions/give?size=8388608 HTTP/1.1\r\nHost: x\r\n\r\n")
    assert client.recv(12, socket.MSG_WAITALL) == b"HTTP/1.1 200"


def _read_all(client: socket.socket) -> int:
    """The length of the body of an answer, read slowly."""
    client.settimeout(30)
    data = b""
    while b"\r\n\r\n" not in data:
        data += client.recv(100)
    size = len(data.partition(b"\r\n\r\n")[2])
    while size < 8 * MIB:
        size += len(client.recv(262144))
        time.sleep(0.005)
    return size


async def test_a_retry_has_the_body_and_success_removes_it(system: System) -> None:
    body = body_of(2 * MIB)
    id = await system.enqueue("take-background", params={"how": "fail once"}, content=in_chunks(body))
    status = await system.in_state(id, "succeeded", "dead")
    assert (status["state"], status["result"]) == ("succeeded", {"size": len(body)})
    digest = hashlib.sha256(body).hexdigest()
    assert taken(system, id) == [[1, digest], [2, digest]]
    await nothing_stored(system)


async def test_the_next_runner_reads_the_body_again(tmp_path: Path) -> None:
    body = body_of(MIB)
    async with System(tmp_path, FUNCTIONS, lease_s=LOST_LEASE_S, max_payload=MIB) as system:
        await system.start_gateway(*LIMITS)
        victim = await system.start_runner()
        id = await system.enqueue("take-background", params={"how": "hold"}, content=body)
        await eventually(lambda: taken(system, id), what="it runs")
        system.remember(victim)
        await system.start_runner()
        await victim.kill()
        await eventually(lambda: len(taken(system, id)) == 2, what="it runs again")
        (system.folder / "go").touch()
        await system.in_state(id, "succeeded")
        assert taken(system, id) == [[1, hashlib.sha256(body).hexdigest()]] * 2
        await nothing_stored(system)


async def test_a_dead_letter_keeps_its_body_and_an_orphan_is_swept(system: System) -> None:
    id = await system.enqueue("take-background", params={"how": "fail"}, content=body_of(MIB))
    await system.in_state(id, "dead")
    kept = await stored(system)
    assert kept > 0
    serving = system.gateway
    doomed = await system.start_gateway(*LIMITS)
    system.gateway = serving
    _, writer = await asyncio.open_connection("127.0.0.1", doomed.port)
    path = "/.netlify/functions/take-background"
    writer.write(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {8 * MIB}\r\n\r\n".encode())
    writer.write(bytes(2 * MIB))

    async def some() -> bool:
        return await stored(system) > kept

    await eventually(some, what="some of it is stored")
    await doomed.kill()
    writer.transport.abort()
    with suppress(OSError):
        await writer.wait_closed()
    async with connect(BrokerOptions(url=system.nats.url, name="test")) as broker:
        assert await broker.sweep_bodies(before=time.time() - 60, count_max=10) == 0  # it may be under way
        assert await broker.sweep_bodies(before=time.time() + 60, count_max=10) == 1
        assert await stored(system) == kept
        await broker.remove_body(Claim(kind=BodyKind.WORK, id=id, size_bytes=0, pieces=0))
    await nothing_stored(system)


@pytest.mark.skipif(not LONG_WANTED, reason="half a minute: QUARTERHOUR_TEST_LONG=true")
async def test_many_large_ones_at_once(system: System) -> None:
    body = body_of(32 * MIB)
    memory = Memory(*system.processes[:2])
    async with httpx.AsyncClient(timeout=120) as client:

        async def post() -> bool:
            url = f"{system.url}/.netlify/functions/echo"
            return (await client.post(url, content=in_chunks(body))).content == body

        assert all(await asyncio.gather(*(post() for _ in range(4))))
    assert max(memory.growth_mib) < 4 * GROWTH_MIB_MAX, memory.growth_mib
