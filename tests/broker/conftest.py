"""One suite for every adapter: each test that asks for `world` runs once in each."""

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from uuid import uuid4

import pytest

import quarterhour.broker.nats.connection
from quarterhour.broker import Broker
from tests.broker.nats_inside import pulling_patiently
from tests.broker.worlds import World
from tests.nats_server import NatsServer

WORLDS = ["memory", "nats", *(["other"] if "QUARTERHOUR_TEST_BROKER" in os.environ else [])]


@pytest.fixture(autouse=True)
def time_to_connect(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who finds a server that stands still for a while waits for it, where the limit is not the question."""
    monkeypatch.setattr(quarterhour.broker.nats.connection, "CONNECT_S", 30.0)


@pytest.fixture
def patient_pulls() -> Iterator[None]:
    """For tests that look at how often something was delivered."""
    with pulling_patiently():
        yield


@pytest.fixture(scope="session")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """A server that all tests share; each has a namespace of its own."""
    with NatsServer(tmp_path_factory.mktemp("nats")) as server:
        yield server


@pytest.fixture(params=WORLDS)
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    """A broker without anything in it."""
    match request.param:
        case "memory":
            url = f"memory://{uuid4().hex}"
        case "nats":
            url = request.getfixturevalue("nats").url
        case _:
            url = os.environ["QUARTERHOUR_TEST_BROKER"]
    async with AsyncExitStack() as stack:
        yield World(url=url, stack=stack)


@pytest.fixture
async def broker(world: World) -> Broker:
    """One connection to it."""
    return await world.connect()


@pytest.fixture
async def nats_world(nats: NatsServer) -> AsyncIterator[World]:
    """A namespace in NATS, for what is true of NATS alone."""
    async with AsyncExitStack() as stack:
        yield World(url=nats.url, stack=stack)
