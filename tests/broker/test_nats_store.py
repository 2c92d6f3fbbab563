"""How full the store is: what NATS has, and what the address says it takes."""

from pathlib import Path

from quarterhour.broker import BrokerOptions, connect_for
from quarterhour.broker.port import StoreUse
from tests.broker.worlds import invocation
from tests.nats_cluster import NatsCluster, ask, connected
from tests.nats_server import NatsServer
from tests.waiting import eventually

BODY = bytes(100_000)
ROOM_BYTES = 20_000  # for envelopes, and what the server notes


async def test_what_is_stored_counts_and_what_is_removed_does_not(tmp_path: Path) -> None:
    with NatsServer(tmp_path) as server:
        url = f"{server.url}?max_file_store=1GB"
        async with connect_for(url)(BrokerOptions(url=url, name="gateway")) as broker:
            empty = await broker.store_use()
            assert empty.limit_bytes == 1024**3
            sent = invocation(body=BODY)
            await broker.enqueue(sent)
            used = (await broker.store_use()).used_bytes - empty.used_bytes
            assert len(BODY) < used < len(BODY) + ROOM_BYTES
            await broker.cancel(sent.id)
            left = (await broker.store_use()).used_bytes - empty.used_bytes
            assert left < ROOM_BYTES


async def test_with_replicas_it_is_what_each_server_has(tmp_path: Path) -> None:
    async with NatsCluster(tmp_path) as cluster:
        url = f"{cluster.servers[0].url}?replicas=3"
        async with (
            connect_for(url)(BrokerOptions(url=url, name="gateway")) as broker,
            connected(url) as client,
        ):
            empty = await broker.store_use()
            assert empty.limit_bytes is None
            await broker.enqueue(invocation(body=BODY))

            async def all_have_it() -> bool:  # the others tell this server now and then what they have
                stored: int = (await ask(client, "INFO")).get("storage", 0)
                return stored >= 3 * len(BODY)

            await eventually(all_have_it, what="this server knew that each of the three has it")
            used_bytes = (await broker.store_use()).used_bytes - empty.used_bytes
            assert len(BODY) - ROOM_BYTES < used_bytes < len(BODY) + ROOM_BYTES


async def test_nobody_counts_in_memory() -> None:
    async with connect_for("memory://store")(BrokerOptions(url="memory://store", name="gateway")) as broker:
        assert await broker.store_use() == StoreUse(used_bytes=0, limit_bytes=None)
