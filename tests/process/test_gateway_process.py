"""The gateway's beginning and end: as a process of its own, and its last requests."""

import asyncio
import os
import re
import signal
import socket
import sys
import urllib.error
import urllib.request
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from quarterhour.invocation import Invocation
from quarterhour.reply import Reply
from quarterhour.settings import Server
from tests.nats_server import free_port
from tests.process.gateway_rig import PREFIX, answered, function, open_rig
from tests.waiting import eventually

ROOT = Path(__file__).parents[2]


@pytest.fixture(params=["hypercorn", "granian"])
def server(request: pytest.FixtureRequest) -> Server:
    name: Server = request.param
    return name


@asynccontextmanager
async def started(*arguments: str, environment: Mapping[str, str] | None = None) -> AsyncIterator[Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway", "--broker", "memory://process", "--grace", "0", *arguments),
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        stdout=PIPE,
        stderr=PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=10) as answer:
            ready: bool = answer.status == 200
            return ready
    except (urllib.error.URLError, OSError):
        return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_with_status_0_and_nothing_on_standard_output(
    server: Server, number: signal.Signals
) -> None:
    port = free_port()
    async with started("--port", str(port), "--server", server, "--log-format", "json") as process:
        await eventually(lambda: asyncio.to_thread(answers, port), what="the gateway is ready")
        process.send_signal(number)
        out, err = await asyncio.wait_for(process.communicate(), 30)
    assert (process.returncode, out) == (0, b""), err
    events = re.findall(r'"event":"(\w+)"', err.decode())
    assert events[0] == "broker"  # the warning of the broker in memory
    assert "gateway_started" in events
    assert events[-1] == "gateway_ended"
    assert "Traceback" not in err.decode()


async def test_a_stopped_gateway_still_serves_for_a_moment_and_keeps_no_connection(server: Server) -> None:
    port = free_port()
    for grace in ("1.5", "6", "12"):  # in which a machine that stalls may come to nothing, but not every time
        async with started("--port", str(port), "--server", server, "--grace", grace) as process:
            await eventually(lambda: asyncio.to_thread(answers, port), what="the gateway is ready")
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
                assert "connection" not in (await client.get("/healthz")).headers
                process.terminate()
                answer = await _answer_of_who_leaves(client)
            assert await asyncio.wait_for(process.wait(), 30) == 0
        if answer is not None:
            assert (answer.status_code, answer.headers["connection"]) == (200, "close")
            return
    pytest.fail("It served nobody after it was stopped.")


async def _answer_of_who_leaves(client: httpx.AsyncClient) -> httpx.Response | None:
    """What it answers after it has said that it leaves; None if it was gone before."""
    try:
        await eventually(lambda: _not_ready(client), what="it says that it leaves")
        return await client.get("/healthz")
    except httpx.TransportError:
        return None


async def _not_ready(client: httpx.AsyncClient) -> bool:
    return (await client.get("/readyz")).status_code == 503


async def refused(*arguments: str, environment: Mapping[str, str] | None = None) -> str:
    """What a gateway says that ends at once with status 1."""
    async with started(*arguments, environment=environment) as process:
        out, err = await asyncio.wait_for(process.communicate(), 30)
    assert (process.returncode, out) == (1, b"")
    text = err.decode()
    assert "Traceback" not in text
    assert len(text.splitlines()) == 1, text
    return text


async def test_a_port_in_use_is_one_sentence(server: Server) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        text = await refused("--port", port, "--server", server)
    assert f"Port {port} on 127.0.0.1 is in use" in text


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
async def test_a_host_that_is_not_ours_is_one_sentence(host: str) -> None:
    assert host in await refused("--host", host, "--port", "0")


async def test_without_keys_it_lets_no_other_machine_in() -> None:
    text = await refused("--host", "0.0.0.0", "--port", "0")
    assert "--host 0.0.0.0 lets other machines in, and there are no API keys" in text


async def test_a_bad_setting_is_one_sentence() -> None:
    assert "--port" in await refused("--port", "http")


async def test_an_unknown_broker_is_one_sentence() -> None:
    assert "carrier-pigeon://" in await refused("--port", "0", "--broker", "carrier-pigeon://x")


async def test_a_broker_that_is_not_there_does_not_keep_it_from_ending(server: Server) -> None:
    broker = f"nats://127.0.0.1:{free_port()}"
    async with started("--port", "0", "--broker", broker, "--server", server) as process:
        assert process.stderr is not None
        line = await asyncio.wait_for(process.stderr.readline(), 30)
        assert b"waiting_for_broker" in line
        process.terminate()
        out, _ = await asyncio.wait_for(process.communicate(), 30)
    assert (process.returncode, out) == (0, b"")


async def test_it_ends_with_its_parent() -> None:
    reading, writing = os.pipe()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway", "--broker", "memory://orphan", "--port", "0"),
        cwd=ROOT,
        env={**os.environ, "QUARTERHOUR_LIFELINE": str(reading)},
        pass_fds=(reading,),
        stdout=PIPE,
        stderr=PIPE,
    )
    os.close(reading)
    assert process.stderr is not None
    await asyncio.wait_for(process.stderr.readline(), 30)
    os.close(writing)
    await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 1


async def test_what_is_under_way_finishes_after_the_stop(server: Server) -> None:
    async with open_rig(server) as rig:
        await rig.announce(function("one"))
        go_on = asyncio.Event()

        async def hold(_: Invocation) -> Reply:
            await go_on.wait()
            return answered(200, b"late")

        runner = await rig.runner("holding", "one", handler=hold)
        async with asyncio.TaskGroup() as tasks:
            call = tasks.create_task(rig.client.get(f"{PREFIX}/one"))
            await eventually(lambda: runner.taken)
            rig.stop.set()
            await eventually(lambda: refuses_connections(rig.port), what="no new connections are taken")
            go_on.set()
        assert (call.result().status_code, call.result().content) == (200, b"late")


async def refuses_connections(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        return True
    writer.close()
    return False


async def test_what_never_finishes_is_cut_off() -> None:
    # With Granian it is the end of the process that does it.
    async with open_rig("hypercorn", finish_s=0.3, complaints=("Exception in callback",)) as rig:
        await rig.announce(function("one"))

        async def never(_: Invocation) -> Reply:
            await asyncio.Event().wait()
            return answered()

        runner = await rig.runner("never", "one", handler=never)
        async with asyncio.TaskGroup() as tasks:
            call = tasks.create_task(cut_off(rig.client))
            await eventually(lambda: runner.taken)
            rig.stop.set()
            assert await asyncio.wait_for(call, 20)


async def cut_off(client: httpx.AsyncClient) -> bool:
    try:
        answer = await client.get(f"{PREFIX}/one")
    except httpx.RemoteProtocolError:
        return True
    return answer.status_code >= 500
