"""A cluster of real nats-servers for tests, on loopback: streams with three replicas, leaders that change.

async with NatsCluster(tmp_path) as cluster:
    ... cluster.url ...                         # with ?replicas=3
    cluster.servers[0].kill()                   # the other two go on
    await cluster.step_down("quarterhour")      # another leader
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import nats
import nats.errors
from nats.aio.client import Client

from tests.nats_server import NatsServer, free_port
from tests.waiting import eventually

__all__ = ["NatsCluster", "ask", "connected"]

READY_S = 60.0
ANSWER_S = 2.0


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Client]:
    """A client of nats-py that is silent about servers that go, and finds the next."""

    async def ignore(error: Exception) -> None:
        """A test that wants to know looks at the state."""

    client = await nats.connect(
        url.partition("?")[0].split(","),
        error_cb=ignore,
        max_reconnect_attempts=-1,
        reconnect_time_wait=1,
        allow_reconnect=True,
    )
    try:
        yield client
    finally:
        await client.close()


async def ask(client: Client, name: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """JetStream's answer; empty if there is none now, or none but an error."""
    try:
        reply = await client.request(f"$JS.API.{name}", json.dumps(body or {}).encode(), timeout=ANSWER_S)
    except (nats.errors.Error, TimeoutError):
        return {}
    answer: dict[str, Any] = json.loads(reply.data)
    return {} if "error" in answer else answer


class NatsCluster:
    """Three servers (or more) that know each other. Each keeps its ports and data over kill and start."""

    def __init__(self, folder: Path, *, size: int = 3, text: str = "") -> None:
        """Nothing is started yet; each server has its own folder in `folder`, and `text` in its settings."""
        routes = [free_port() for _ in range(size)]
        self.servers = [
            NatsServer(
                folder / f"nats-{number}",
                sync_interval="always",
                text=text,
                more={
                    "server_name": f"test-{number}",
                    "cluster": {
                        "name": "test",
                        "listen": f"127.0.0.1:{port}",
                        "routes": [f"nats://127.0.0.1:{other}" for other in routes if other != port],
                        "no_advertise": True,  # a test may have put something between clients and servers
                    },
                },
            )
            for number, port in enumerate(routes)
        ]

    @property
    def url(self) -> str:
        """All servers; what is stored has three replicas."""
        return ",".join(server.url for server in self.servers) + "?replicas=3"

    async def ready(self) -> None:
        """Return when the servers have elected one who takes orders, and who knows of all the others."""
        stream = {"name": "ready", "subjects": ["ready"], "num_replicas": len(self.servers)}
        async with connected(self.url) as client:

            async def removed() -> bool:
                await ask(client, "STREAM.DELETE.ready")
                names = await ask(client, "STREAM.NAMES")
                return bool(names) and "ready" not in (names["streams"] or ())

            await eventually(
                lambda: ask(client, "STREAM.CREATE.ready", stream),
                deadline_s=READY_S,
                what="the cluster was ready",
            )
            await eventually(removed, deadline_s=READY_S, what="the cluster was as new")

    async def leader(self, stream: str) -> NatsServer | None:
        """Who leads a stream now; None while nobody does."""
        async with connected(self.url) as client:
            info = await ask(client, f"STREAM.INFO.{stream}")
        name = (info.get("cluster") or {}).get("leader", "")
        return self.servers[int(name.removeprefix("test-"))] if name else None

    async def step_down(self, stream: str, consumer: str = "") -> bool:
        """Have the leader of a stream, or of a consumer, give way to another; whether it was asked."""
        what = (
            f"CONSUMER.LEADER.STEPDOWN.{stream}.{consumer}"
            if consumer
            else f"STREAM.LEADER.STEPDOWN.{stream}"
        )
        async with connected(self.url) as client:
            return bool(await ask(client, what))

    async def __aenter__(self) -> Self:
        try:
            await asyncio.gather(*(asyncio.to_thread(server.start) for server in self.servers))
            await self.ready()
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for server in self.servers:
            server.kill()
