"""Connecting to NATS: servers that will not do, servers that are not there, addresses that are none."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from quarterhour.body import INLINE_BYTES_MAX
from quarterhour.broker import BrokerOptions
from quarterhour.broker.nats import connection
from quarterhour.broker.nats.access import open_access
from quarterhour.broker.nats.address import parse_address
from quarterhour.broker.nats.broker import connect
from quarterhour.broker.nats.connection import open_link
from quarterhour.broker.port import ANSWER_S
from quarterhour.clock import SystemClock
from quarterhour.errors import BrokerUnavailable, BrokerUnsuitable, SettingsError
from tests.broker.nats_inside import look_inside
from tests.broker.worlds import World, invocation, manifest, pulled, taken
from tests.nats_server import NatsServer, free_port
from tests.tcp_server import tcp_server
from tests.waiting import eventually

CONNECT_S = connection.CONNECT_S  # while tests run it is longer


async def refused(url: str, **options: str) -> str:
    """What is said when `url` will not do."""
    with pytest.raises((BrokerUnavailable, BrokerUnsuitable)) as caught:
        async with connect(BrokerOptions(url=url, name="x", **options)):  # type: ignore[arg-type]
            pass
    return f"{type(caught.value).__name__}: {caught.value}"


async def test_a_server_without_jetstream(tmp_path: Path) -> None:
    with NatsServer(tmp_path, jetstream=False) as server:
        said = await refused(server.url)
    assert said.startswith("BrokerUnsuitable")
    assert "jetstream {}" in said


@asynccontextmanager
async def as_if_a_server(**said: object) -> AsyncIterator[tuple[int, list[asyncio.StreamWriter]]]:
    """As much of a NATS server as it takes to be connected: its port, and who has come so far."""
    came: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.append(writer)
        info = {"server_id": "x", "version": "2.12.0", "max_payload": 1048576, "headers": True, **said}
        writer.write(b"INFO " + json.dumps(info).encode() + b"\r\n")
        while line := await reader.readline():
            if line.startswith(b"PING"):
                writer.write(b"PONG\r\n")
            if line.startswith(b"PUB"):  # the adapter's message to itself
                subject = line.split()[1].decode()
                await reader.readline()
                writer.write(f"MSG {subject} 1 0\r\n\r\n".encode())

    async with tcp_server(serve) as port:
        yield port, came


async def test_a_server_that_is_too_old() -> None:
    async with as_if_a_server(version="2.11.9") as (port, _):
        said = await refused(f"nats://127.0.0.1:{port}")
    assert said.startswith("BrokerUnsuitable")
    assert "is 2.11" in said
    assert "2.12" in said


async def test_nobody_is_there() -> None:
    started = time.monotonic()
    port = free_port()
    said = await refused(f"nats://somebody:secret-word@127.0.0.1:{port}")
    assert time.monotonic() - started < connection.CONNECT_S / 2
    assert said.startswith("BrokerUnavailable")
    assert f"127.0.0.1:{port}" in said
    assert "--broker" in said
    assert "secret-word" not in said


def test_there_is_less_time_to_connect_than_for_an_answer() -> None:
    assert CONNECT_S < ANSWER_S


async def test_somebody_is_there_who_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "CONNECT_S", 0.5)

    async def serve(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async with tcp_server(serve) as port:
        started = time.monotonic()
        said = await refused(f"nats://127.0.0.1:{port}")
        assert said.startswith("BrokerUnavailable")
        assert time.monotonic() - started < 4.5


async def test_the_password_is_wrong(tmp_path: Path) -> None:
    with NatsServer(tmp_path, user="somebody", password="right-word") as server:
        url = server.url.replace("right-word", "secret-word")
        started = time.monotonic()
        said = await refused(url)
        assert time.monotonic() - started < connection.CONNECT_S / 2
        async with connect(BrokerOptions(url=server.url, name="x")) as broker:
            assert broker.connected
    assert said.startswith("BrokerUnavailable")
    assert "password" in said
    assert "secret-word" not in said


async def test_only_servers_of_the_url_are_tried() -> None:
    async with (
        as_if_a_server() as (other, came_to_other),
        as_if_a_server(connect_urls=[f"127.0.0.1:{other}"]) as (port, came),
    ):
        address = parse_address(f"nats://u:p@127.0.0.1:{port}")
        access = open_access(address)
        async with open_link(address, access, name="x", inbox="_INBOX.x", lease_s=30, clock=SystemClock()):

            def came_again() -> bool:
                for writer in (*came, *came_to_other):
                    writer.close()
                return len(came) + len(came_to_other) > 3

            await eventually(came_again, what="it was tried again a few times")
    assert not came_to_other


async def test_one_of_several_servers_is_enough(nats: NatsServer) -> None:
    world = World(url="", stack=AsyncExitStack())
    url = f"nats://127.0.0.1:{free_port()},{nats.url}"
    async with connect(BrokerOptions(url=url, name="x", namespace=world.namespace)) as broker:
        assert broker.connected


async def test_many_processes_start_at_the_same_time(nats_world: World) -> None:
    brokers = await asyncio.gather(*(nats_world.connect(str(number)) for number in range(12)))
    await asyncio.gather(*(broker.prepare([manifest()]) for broker in brokers))
    await brokers[0].enqueue(invocation())
    assert len(await taken(brokers[-1])) == 1


async def test_a_stream_of_an_earlier_version_is_brought_up_to_date(nats_world: World) -> None:
    namespace = nats_world.namespace
    async with look_inside(nats_world.url, namespace) as inside:
        earlier = {"name": namespace, "subjects": [f"{namespace}.q.>"], "max_msgs_per_subject": 1}
        await inside.api(f"STREAM.CREATE.{namespace}", earlier | {"description": "mine"})
        await inside.put("q.kept.x.1", b"")
        await nats_world.connect()
        info = await inside.api(f"STREAM.INFO.{namespace}")
    assert info["config"]["allow_atomic"]
    assert info["config"]["allow_msg_schedules"]
    assert info["config"]["max_consumers"] == 5000
    assert info["config"]["description"] == "mine"
    assert info["state"]["messages"] == 1


async def test_a_stream_that_cannot_be_ours_is_left_alone(nats_world: World) -> None:
    namespace = nats_world.namespace
    async with look_inside(nats_world.url, namespace) as inside:
        await inside.api(
            f"STREAM.CREATE.{namespace}",
            {
                "name": namespace,
                "subjects": [f"{namespace}.q.>"],
                "retention": "workqueue",
                "storage": "memory",
            },
        )
        said = await refused(nats_world.url, namespace=namespace)
        info = await inside.api(f"STREAM.INFO.{namespace}")
    assert said.startswith("BrokerUnsuitable")
    assert info["config"]["retention"] == "workqueue"


async def test_namespaces_do_not_see_each_other(nats: NatsServer) -> None:
    async with AsyncExitStack() as stack:
        one, other = World(url=nats.url, stack=stack), World(url=nats.url, stack=stack)
        mine, theirs = await one.connect(), await other.connect()
        await mine.announce([manifest()])
        await theirs.prepare([manifest()])
        await mine.enqueue(invocation())
        assert await theirs.functions() == {}
        assert await pulled(theirs) == []


@pytest.mark.parametrize("namespace", ["", "a.b", "*", ">", "a b", "x" * 65, "a\n"])
async def test_a_namespace_that_is_none(namespace: str) -> None:
    with pytest.raises(SettingsError, match="namespace"):
        async with connect(BrokerOptions(url="nats://127.0.0.1:1", name="x", namespace=namespace)):
            pass


async def test_what_is_warned_about(tmp_path: Path) -> None:
    with NatsServer(tmp_path, max_payload=512 * 1024) as server:
        async with connect(BrokerOptions(url=server.url, name="x")) as broker:
            sync, payload = broker.warnings
            assert broker.body_bytes_max == (512 * 1024 - 1024) // 2
        async with connect(BrokerOptions(url=f"{server.url}?sync_interval=always", name="x")) as broker:
            assert broker.warnings == (payload,)
    assert "sync_interval: always" in sync
    assert "max_payload" in payload


async def test_a_server_with_its_own_defaults_is_good_enough(tmp_path: Path) -> None:
    with NatsServer(tmp_path, max_payload=1024 * 1024) as server:
        async with connect(BrokerOptions(url=f"{server.url}?sync_interval=always", name="x")) as broker:
            assert broker.warnings == ()
            assert broker.body_bytes_max >= INLINE_BYTES_MAX


def test_addresses() -> None:
    address = parse_address("nats://u:p@one:4222, tls://two:4223?replicas=3&sync_interval=always")
    assert address.servers == ("nats://u:p@one:4222", "tls://two:4223")
    assert address.place == "one:4222, two:4223"
    assert (address.replicas, address.always_synced) == (3, True)
    assert parse_address("nats://one,").servers == ("nats://one",)
    assert parse_address("nats://one").replicas is None


@pytest.mark.parametrize(
    ("size", "size_bytes"),
    [("1", 1), ("10GB", 10 * 1024**3), ("10G", 10 * 1000**3), ("7kb", 7 * 1024), ("3Mb", 3 * 1024**2)],
)
def test_a_size_is_what_the_server_takes_it_for(size: str, size_bytes: int) -> None:
    assert parse_address(f"nats://one?max_file_store={size}").store_bytes_max == size_bytes


@pytest.mark.parametrize(
    "url",
    [
        "",
        "nats://",
        "http://one",
        "nats://u:secret-word@one:port",
        "nats://one?replicas=2",
        "nats://one?replica=3",
        "nats://one?sync_interval=2m",
        "nats://one?max_file_store=",
        "nats://one?max_file_store=0",
        "nats://one?max_file_store=10 GB",
        "nats://one?max_file_store=1PB",
        "nats://one?max_file_store=-1",
        ",",
    ],
)
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_address(url)
    assert "secret-word" not in str(caught.value)
